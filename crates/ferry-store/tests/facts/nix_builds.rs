//! References graphs that a real Nix wrote into a real build, read without its database.

use std::collections::BTreeSet;

use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::Store as _;
use ferry_store::facts::ReferencesGraph;
use ferry_store::local::{Layout, LocalStore, UnregisteredStore};
use ferry_store::trust::TrustPolicy;
use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{explorer, parse, run_closure};

/// `top` refers to `middle`, which refers to `bottom` and to itself. Each of the others is a
/// build that keeps what Nix wrote into it.
const EXPRESSION: &str = r#"
let
  make = name: script: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" script ];
  };
  keep = builtins.toFile "keep.sh" ''. "$NIX_ATTRS_SH_FILE"; /bin/cat "$NIX_ATTRS_JSON_FILE" > ''${outputs[out]}'';
  textOf = root: derivation {
    name = "text";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "/bin/cat graph > $out" ];
    exportReferencesGraph = [ "graph" root ];
  };
  structuredOf = graphs: derivation {
    name = "structured";
    system = builtins.currentSystem;
    builder = "/bin/bash";
    args = [ keep ];
    __structuredAttrs = true;
    exportReferencesGraph = graphs;
  };
in rec {
  bottom = make "bottom" "echo text > $out";
  middle = make "middle" "echo ${bottom} $out > $out";
  top = make "top" "echo ${middle} > $out";
  source = builtins.toFile "source" "a source";

  text = textOf top;
  structured = structuredOf { one = [ top source ]; two = [ bottom ]; };
  recipe = structuredOf { one = [ top.drvPath ]; };

  # One of each that has a content address.
  fixed = derivation {
    name = "fixed";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo fixed > $out" ];
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed\n";
  };
  mixed = make "mixed" "echo ${fixed} ${source} ${./directory} > $out";
  mixedText = textOf mixed.drvPath;
  mixedStructured = structuredOf { one = [ mixed.drvPath ]; };
}
"#;

fn on_each(test: impl Fn(&Machine)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = Machine::new(&world, version);
        machine.write("/data/default.nix", EXPRESSION);
        machine.write("/data/directory/file", "a file in a directory");
        test(&machine);
    }
}

fn build(machine: &Machine, attribute: &str) -> String {
    machine.command("nix-build").args(["--no-out-link", "/data", "-A", attribute]).ok()
}

fn query(machine: &Machine, args: &[&str]) -> Vec<String> {
    let said = machine.command("nix-store").arg("--query").args(args).ok();
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The graph in a file of this machine's.
fn graph(machine: &Machine, file: &str) -> ReferencesGraph {
    let graph = ReferencesGraph::read(&machine.path(file), &StoreDir::default());
    graph.unwrap_or_else(|error| panic!("Nix {}: {error}", machine.version()))
}

/// Compares all that a graph says with what the database does.
fn agrees(machine: &Machine, graph: &ReferencesGraph) {
    let render = |path: &StorePath| StoreDir::default().render_path(path);
    for entry in graph.entries() {
        let path = render(&entry.path);
        let references: Vec<String> = entry.references.iter().map(render).collect();
        assert_eq!(references, query(machine, &["--references", &path]), "{path}");
        if let Some(size) = entry.nar_size {
            assert_eq!([size.to_string()].to_vec(), query(machine, &["--size", &path]));
        }
    }
}

#[test]
fn a_build_finds_the_closure_that_the_database_has() {
    on_each(|machine| {
        let top = build(machine, "top");
        let expected: BTreeSet<String> =
            query(machine, &["--requisites", &top]).into_iter().collect();
        assert_eq!(expected.len(), 3);
        for attribute in ["text", "structured"] {
            let graph = graph(machine, &build(machine, attribute));
            agrees(machine, &graph);
            let own = graph.get(&parse(&top)).unwrap();
            assert_eq!(own.nar_size.is_some(), attribute == "structured");
            let found = run_closure(&mut explorer(graph), &[parse(&top)]);
            assert_eq!(found, (expected.clone(), Vec::new()), "Nix {}", machine.version());
        }
    });
}

#[test]
fn structured_attributes_tell_a_source_from_an_output() {
    on_each(|machine| {
        let graph = graph(machine, &build(machine, "structured"));
        let said: Vec<(&str, Option<bool>)> = graph
            .entries()
            .iter()
            .map(|entry| (entry.path.name(), entry.content_addressed))
            .collect();
        for (name, content_addressed) in
            [("source", true), ("top", false), ("middle", false), ("bottom", false)]
        {
            assert!(said.contains(&(name, Some(content_addressed))), "{name} in {said:?}");
        }
        assert_eq!(said.len(), 4);
    });
}

#[test]
fn the_graph_of_a_derivation_has_its_outputs_as_well() {
    on_each(|machine| {
        let graph = graph(machine, &build(machine, "recipe"));
        agrees(machine, &graph);
        let names: BTreeSet<&str> = graph.entries().iter().map(|entry| entry.path.name()).collect();
        let expected = ["bottom", "bottom.drv", "middle", "middle.drv", "top", "top.drv"];
        assert_eq!(names, expected.into());
    });
}

#[test]
fn a_store_without_a_database_says_what_the_database_does_but_for_signatures_and_derivers() {
    on_each(|machine| {
        let layout = Layout {
            real_store_dir: machine.path("/nix/store"),
            state_dir: machine.path("/nix/var/nix"),
            ..Layout::system()
        };
        for attribute in ["mixedText", "mixedStructured"] {
            let graph = graph(machine, &build(machine, attribute));
            let listed = UnregisteredStore::new(layout.clone(), &[graph]);
            let registered = LocalStore::new(layout.clone(), TrustPolicy::accept_all());
            let paths = listed.all_paths().unwrap().unwrap();
            // What is built and its derivation, two sources, a download and its derivation.
            assert_eq!(paths.len(), 6, "{paths:?}");
            let mut content_addressed = 0;
            for path in &paths {
                let expected = registered.path_info(path).unwrap().unwrap();
                content_addressed += usize::from(expected.ca.is_some());
                let expected = PathInfo { deriver: None, signatures: Vec::new(), ..expected };
                // Asked twice: what was found in files the first time is remembered.
                for _ in 0..2 {
                    assert_eq!(listed.path_info(path).unwrap(), Some(expected.clone()));
                }
                assert_eq!(listed.derivers(path).unwrap(), registered.derivers(path).unwrap());
            }
            assert_eq!(content_addressed, 5);
        }
    });
}

#[test]
fn what_a_store_dumps_of_its_database_is_read_with_its_derivers() {
    on_each(|machine| {
        let top = build(machine, "top");
        let dump = machine.command("nix-store").arg("--dump-db").succeed().stdout;
        machine.write("/data/dump", &dump);
        let graph = graph(machine, "/data/dump");
        agrees(machine, &graph);
        // Three outputs and their derivations.
        assert_eq!(graph.entries().len(), 6);
        let deriver = graph.get(&parse(&top)).unwrap().deriver.clone().unwrap();
        assert_eq!(
            query(machine, &["--deriver", &top]),
            [StoreDir::default().render_path(&deriver)]
        );
        let found = run_closure(&mut explorer(graph), &[parse(&top)]);
        let expected = query(machine, &["--requisites", &top]).into_iter().collect();
        assert_eq!(found, (expected, Vec::new()));
    });
}
