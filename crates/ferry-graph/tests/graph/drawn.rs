//! A small world drawn by hand, and what the seven named sets hold of it.
//!
//! The members are written out below by the words of the sets, not computed. The drawing is in
//! `docs/sets.svg`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ferry_graph::query::{self, Outside};
use ferry_graph::{Explorer, FactsError, Kind, NodeId, NodeSet};

use crate::answers::{node, nodes, written};
use crate::source::explorer;
use crate::world::{Drv, Evaluation, Names, Record, World, path};

/// Derivations: output, whether it is fixed, outputs that are read, sources that are read.
const DERIVATIONS: &[(&str, bool, &[&str], &[&str])] = &[
    // A download that Nix does itself, and the shell that is built from it.
    ("sh-src", true, &[], &[]),
    ("sh", false, &["sh-src"], &["seed"]),
    // Used for one download and for nothing else.
    ("curl-src", true, &[], &[]),
    ("curl", false, &["sh", "curl-src"], &[]),
    ("tarball", true, &["curl"], &[]),
    // A download by something that is used elsewhere too.
    ("patch", true, &["sh"], &[]),
    // It has the outputs `dev` and `doc` as well.
    ("lib", false, &["sh"], &["lib.c"]),
    // Makes a derivation, from which `gen` is built.
    ("awk", false, &["sh"], &[]),
    ("app", false, &["sh", "tarball", "patch"], &["build.sh"]),
    // Built while `app.drv` was evaluated.
    ("python-src", true, &[], &[]),
    ("python", false, &["sh", "python-src"], &[]),
    ("config", false, &["sh", "python"], &[]),
    ("gen", false, &["sh"], &[]),
];

/// What an object refers to.
const REFERENCES: &[(&str, &[&str])] = &[
    ("lib-dev", &["lib"]),
    // Not what it reads: it comes by way of `lib-dev`.
    ("app", &["lib"]),
    ("gen", &["gen"]),
];

const SOURCES: &[&str] = &["seed", "lib.c", "build.sh", "nixpkgs"];

/// The members of each set of `app`, and how the drawing marks them.
const SETS: [(&str, &str, &[&str]); 7] = [
    ("recipe", "rec", RECIPE),
    ("runtime", "run", &["app", "lib"]),
    // What `app` and `lib` read; `lib` itself because `lib-dev` refers to it.
    ("rebuild", "reb", &["+recipe", "sh", "tarball", "patch", "lib-dev", "gen", "lib"]),
    // No `curl-src`: it is read for a download that is there.
    (
        "sources",
        "src",
        &[
            "+recipe",
            "sh-src",
            "tarball",
            "patch",
            "python-src",
            "nixpkgs",
            "config.drv",
            "python.drv",
            "python-src.drv",
        ],
    ),
    ("sources+fragments", "frag", &["+sources", "config"]),
    // No `lib-doc`, which nothing reads, and no `awk`: building `gen` takes its derivation, not
    // what made that.
    (
        "build",
        "bld",
        &[
            "+recipe", "app", "lib", "lib-dev", "sh", "sh-src", "tarball", "curl", "curl-src",
            "patch", "gen", "gen.drv",
        ],
    ),
    (
        "total",
        "tot",
        &[
            "+build",
            "nixpkgs",
            "config",
            "config.drv",
            "python",
            "python.drv",
            "python-src",
            "python-src.drv",
            "awk",
        ],
    ),
];

/// No `gen.drv`: it is made.
const RECIPE: &[&str] = &[
    "app.drv",
    "sh.drv",
    "sh-src.drv",
    "tarball.drv",
    "curl.drv",
    "curl-src.drv",
    "patch.drv",
    "lib.drv",
    "maker.drv",
    "awk.drv",
    "seed",
    "lib.c",
    "build.sh",
];

fn members(set: &str) -> Names {
    let (.., listed) = SETS.iter().find(|(name, ..)| *name == set).expect("a named set");
    let mut members = Names::new();
    for name in *listed {
        match name.strip_prefix('+') {
            Some(other) => members.extend(self::members(other)),
            None => drop(members.insert(path(name))),
        }
    }
    members
}

pub(crate) fn world() -> World {
    let mut world = World::default();
    for name in SOURCES {
        world.object(&path(name), &[]).content_addressed = Some(true);
    }
    for (name, fixed, inputs, sources) in DERIVATIONS {
        let drv = Drv {
            outputs: BTreeMap::from([("out".to_owned(), Some(path(name)))]),
            fixed: *fixed,
            inputs: inputs
                .iter()
                .map(|input| (path(&format!("{input}.drv")), "out".to_owned()))
                .collect(),
            sources: sources.iter().map(|name| path(name)).collect(),
            ..Drv::default()
        };
        world.derivations.insert(path(&format!("{name}.drv")), drv);
    }
    let lib = world.derivations.get_mut(&path("lib.drv")).unwrap();
    for name in ["dev", "doc"] {
        lib.outputs.insert(name.to_owned(), Some(path(&format!("lib-{name}"))));
    }
    let maker = Drv {
        // Content-addressed: what it makes has no path before it is made.
        outputs: BTreeMap::from([("out".to_owned(), None)]),
        inputs: [(path("awk.drv"), "out".to_owned())].into(),
        ..Drv::default()
    };
    world.derivations.insert(path("maker.drv"), maker);
    world.realised.insert((path("maker.drv"), "out".to_owned()), path("gen.drv"));
    let app = world.derivations.get_mut(&path("app.drv")).unwrap();
    app.inputs.insert((path("lib.drv"), "dev".to_owned()));
    app.inputs.insert((path("maker.drv"), "out^out".to_owned()));
    for (file, drv) in world.derivations.clone() {
        let record = Record { references: drv.references(), ..Record::default() };
        world.objects.insert(file.clone(), record);
        for output in drv.outputs.values().flatten() {
            let references = REFERENCES.iter().find(|(name, _)| path(name) == *output);
            let references = references.map(|(_, names)| *names).unwrap_or_default();
            let references = references.iter().map(|name| path(name)).collect();
            let deriver = Some(file.clone());
            let record = Record { references, deriver, ..Record::default() };
            world.objects.insert(output.clone(), record);
        }
    }
    world.objects.get_mut(&path("gen.drv")).unwrap().deriver = Some(path("maker.drv"));
    let evaluation = Evaluation {
        needs: [path("nixpkgs"), path("config")].into(),
        fragments: [path("config")].into(),
    };
    world.evaluations.insert(path("app.drv"), evaluation);
    world
}

/// How the picture is made of the text.
const COMMAND: &str = "dot -Tsvg sets.dot -o sets.svg";

/// Takes a name for the object that has it.
pub(crate) struct ByName;

impl Outside for ByName {
    fn installable(
        &mut self,
        text: &str,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        Ok([node(explorer, &path(text))].into_iter().collect())
    }

    fn valid(&mut self, _: &str, _: &NodeSet, _: &mut Explorer<'_>) -> Result<NodeSet, FactsError> {
        Err("there is no other store".into())
    }

    fn have(&mut self, _: &str, _: &mut Explorer<'_>) -> Result<NodeSet, FactsError> {
        Err("there is no inventory".into())
    }
}

fn evaluated(set: &str, of: &str) -> Names {
    let question = query::Source::new("test", &format!("set({set}, {of})"));
    let program = query::parse(&[question]).unwrap();
    let mut explorer = explorer(&world());
    let found = program.evaluate(&mut explorer, &mut ByName).unwrap();
    assert_eq!(explorer.missing().next(), None, "{set}");
    assert_eq!(explorer.unrecorded().next(), None, "{set}");
    written(&explorer, &found)
}

/// Names without digests: a difference is easier to read.
fn short(paths: &Names) -> Vec<String> {
    let mut names: Vec<String> =
        paths.iter().map(|path| path.split_once('-').unwrap().1.to_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_named_sets_hold_what_was_written_down_by_hand() {
    for (set, ..) in SETS {
        assert_eq!(short(&evaluated(set, "app.drv")), short(&members(set)), "{set} of app.drv");
        assert_eq!(short(&evaluated(set, "app")), short(&members(set)), "{set} of app");
    }
}

#[test]
fn there_is_no_other_named_set() {
    let defined: Vec<String> = query::named_sets().into_iter().map(|set| set.name).collect();
    assert_eq!(defined, SETS.map(|(name, ..)| name));
}

/// What is valid on the other side is so with what it refers to.
#[test]
fn every_named_set_holds_what_its_members_refer_to() {
    let world = world();
    for (set, ..) in SETS {
        let members = members(set);
        let mut explorer = explorer(&world);
        let nodes = nodes(&mut explorer, &members);
        let closure = explorer.closure(&[Kind::Run], &nodes, None, None).unwrap();
        assert_eq!(short(&written(&explorer, &closure)), short(&members), "{set}");
    }
}

fn drawing() -> String {
    let world = world();
    let mut explorer = explorer(&world);
    let all = nodes(&mut explorer, &world.nodes().into_iter().collect());
    let mut marks: HashMap<NodeId, Vec<String>> = HashMap::new();
    for name in world.nodes() {
        let marked = SETS.iter().filter(|(set, ..)| members(set).contains(&name));
        let marked: Vec<&str> = marked.map(|(_, mark, _)| *mark).collect();
        if !marked.is_empty() {
            marks.insert(node(&mut explorer, &name), vec![marked.join(" ")]);
        }
    }
    explorer.dot(&all, &Kind::ALL, &marks).unwrap().to_string()
}

fn document(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn the_drawing_in_the_documentation_is_of_this_world() {
    let drawing = drawing();
    if document("sets.dot") != drawing {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sets.dot");
        std::fs::write(&file, &drawing).unwrap();
        panic!(
            "it is another one now; if it is right, copy {} to docs/ and there run `{COMMAND}`",
            file.display()
        );
    }
}

#[test]
fn the_documentation_says_of_each_set_what_its_definition_says() {
    let text = document("sets.md");
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for set in query::named_sets() {
        let (_, mark, _) = SETS.iter().find(|(name, ..)| *name == set.name).unwrap();
        assert!(text.contains(&format!("## `{}` (marked *{mark}*)", set.name)), "{}", set.name);
        assert!(text.contains(&set.definition), "the definition of {}", set.name);
        for said in [&set.doc, &set.sentence] {
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains(&said), "{}: {said}", set.name);
        }
    }
}
