//! A small world to ask about.
//!
//! `hello` is built by `gcc` from `tar`, a download; evaluating it builds `gen`.

use std::collections::BTreeMap;

use ferry_formats::{StoreDir, StorePath};

use crate::query::Outside;
use crate::{
    DerivationFacts, Explorer, Facts, FactsError, Ledger, NodeId, NodeSet, ObjectFacts, Question,
};

/// Name, references, deriver.
const OBJECTS: &[(&str, &[&str], Option<&str>)] = &[
    ("boot", &[], None),
    ("builder.sh", &[], None),
    ("nixpkgs", &[], None),
    ("glibc", &[], Some("glibc.drv")),
    ("gcc", &["glibc"], Some("gcc.drv")),
    ("curl", &["glibc"], Some("curl.drv")),
    ("tar", &[], Some("tar.drv")),
    ("gen", &[], Some("gen.drv")),
    ("hello", &["glibc"], Some("hello.drv")),
    ("hello-doc", &[], Some("hello.drv")),
];

/// Name; outputs, where `?` stands for a path that is not known; derivations whose `out` is read;
/// sources.
type Derivation = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
    &'static [&'static str],
);

const DERIVATIONS: &[Derivation] = &[
    ("glibc.drv", &[("out", "glibc")], &[], &["boot"]),
    ("gcc.drv", &[("out", "gcc")], &["glibc.drv"], &["boot"]),
    ("curl.drv", &[("out", "curl")], &["gcc.drv", "glibc.drv"], &[]),
    ("tar.drv", &[("out", "tar")], &["curl.drv"], &[]),
    ("gen.drv", &[("out", "gen")], &["gcc.drv"], &["builder.sh"]),
    (
        "hello.drv",
        &[("out", "hello"), ("doc", "hello-doc")],
        &["gcc.drv", "tar.drv"],
        &["builder.sh"],
    ),
    ("late.drv", &[("out", "?"), ("dev", "?")], &[], &[]),
    ("ring-a.drv", &[("out", "ring-a")], &["ring-b.drv"], &[]),
    ("ring-b.drv", &[("out", "ring-b")], &["ring-a.drv"], &[]),
];

fn store_path(name: &str) -> StorePath {
    let objects = OBJECTS.iter().map(|(name, ..)| *name);
    let number =
        objects.chain(DERIVATIONS.iter().map(|(name, ..)| *name)).position(|it| it == name);
    let number = number.unwrap_or(99);
    StorePath::from_basename(format!("{number:032}-{name}").as_bytes()).unwrap()
}

/// The world as a source of facts: it tells everything at once.
struct World;

impl Facts for World {
    fn describe(&self) -> String {
        "the world".to_owned()
    }

    fn learn(&mut self, _: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        for (name, references, deriver) in OBJECTS {
            let node = ledger.node(&store_path(name));
            let references: Vec<NodeId> =
                references.iter().map(|name| ledger.node(&store_path(name))).collect();
            let deriver = deriver.map(|name| ledger.node(&store_path(name)));
            let content_addressed = Some(deriver.is_none() || *name == "tar");
            let facts =
                ObjectFacts { references: &references, nar_size: None, deriver, content_addressed };
            ledger.object(node, &facts);
        }
        for (name, outputs, inputs, sources) in DERIVATIONS {
            let node = ledger.node(&store_path(name));
            let path = |path: &str| (path != "?").then(|| store_path(path));
            let facts = DerivationFacts {
                outputs: outputs.iter().map(|(name, it)| ((*name).to_owned(), path(it))).collect(),
                fixed_output: *name == "tar.drv",
                inputs: inputs.iter().map(|name| (store_path(name), "out".to_owned())).collect(),
                sources: sources.iter().map(|name| store_path(name)).collect(),
                ..DerivationFacts::default()
            };
            ledger.derivation(node, &facts);
        }
        let [hello, nixpkgs, r#gen] =
            ["hello.drv", "nixpkgs", "gen"].map(|name| ledger.node(&store_path(name)));
        ledger.evaluation(hello, &[nixpkgs, r#gen], &[r#gen]);
        Ok(())
    }
}

/// A source that cannot look.
struct Broken;

impl Facts for Broken {
    fn describe(&self) -> String {
        "a broken disk".to_owned()
    }

    fn learn(&mut self, _: Question<'_>, _: &mut Ledger<'_>) -> Result<(), FactsError> {
        Err("the disk is broken".into())
    }
}

pub(super) fn explorer() -> Explorer<'static> {
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(World));
    explorer
}

pub(super) fn broken_explorer() -> Explorer<'static> {
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(Broken));
    explorer
}

/// Stores and files by what they hold, and what was asked.
pub(super) struct Surroundings {
    pub(super) places: BTreeMap<&'static str, Vec<&'static str>>,
    pub(super) asked: Vec<String>,
}

impl Surroundings {
    pub(super) fn new() -> Self {
        let places = [("https://cache", vec!["glibc", "gcc"]), ("list", vec!["tar", "nixpkgs"])];
        Self { places: places.into(), asked: Vec::new() }
    }

    fn look(&mut self, place: &str, explorer: &mut Explorer<'_>) -> Result<NodeSet, FactsError> {
        self.asked.push(place.to_owned());
        let names = self.places.get(place).ok_or("there is no such place")?;
        Ok(names.iter().map(|name| explorer.node(&store_path(name))).collect())
    }
}

impl Outside for Surroundings {
    fn installable(
        &mut self,
        text: &str,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        self.asked.push(text.to_owned());
        let known = OBJECTS.iter().map(|(name, ..)| *name);
        let known =
            known.chain(DERIVATIONS.iter().map(|(name, ..)| *name)).any(|name| name == text);
        if !known {
            return Err(format!("there is no `{text}`").into());
        }
        Ok([explorer.node(&store_path(text))].into_iter().collect())
    }

    fn valid(
        &mut self,
        store: &str,
        nodes: &NodeSet,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        let mut there = self.look(store, explorer)?;
        there.intersect_with(nodes);
        Ok(there)
    }

    fn have(&mut self, file: &str, explorer: &mut Explorer<'_>) -> Result<NodeSet, FactsError> {
        self.look(file, explorer)
    }
}

/// The names of these, without store directory and digest, in alphabetical order.
pub(super) fn names(explorer: &Explorer<'_>, nodes: &NodeSet) -> String {
    let prefix = "/nix/store/00000000000000000000000000000000-".len();
    let mut names: Vec<String> = nodes
        .iter()
        .map(|node| explorer.graph().render(node).get(prefix..).unwrap_or_default().to_owned())
        .collect();
    names.sort();
    names.join(" ")
}
