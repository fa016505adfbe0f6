//! Machines with something built on them, and what Nix says about it.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, Facts, NodeSet};
use ferry_store::local::{Layout, LocalStore};
use ferry_store::trust::TrustPolicy;
use ferry_test_world::{Machine, NixVersion, World, big_graph, crossing};

/// A machine with `crossing.nix` built on it, and a generated graph that was not built.
pub(crate) struct Filled {
    pub(crate) machine: Machine,
    pub(crate) store: LocalStore,
    /// What was built last.
    pub(crate) output: String,
    /// The derivations at the top: of what was built, and of the generated graph.
    pub(crate) derivations: [String; 2],
}

/// Runs a test on such a machine with each Nix version.
pub(crate) fn on_each_filled(test: impl Fn(&Filled)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = Machine::new(&world, version);
        let mut origin = crossing::origin();
        let build = crossing::command(&machine, "nix-build", "c", &origin.url());
        let output = build.arg("--no-out-link").online().ok();
        origin.stop();
        let deriver = machine.command("nix-store").args(["--query", "--deriver", &output]).ok();
        let derivations = [deriver, big_graph(&machine, 400)];
        test(&Filled { store: store(&machine), machine, output, derivations });
    }
}

/// The machine's store, as files.
pub(crate) fn store(machine: &Machine) -> LocalStore {
    let nix = machine.path("/nix");
    LocalStore::new(Layout::chroot(nix.parent().unwrap()), TrustPolicy::accept_all())
}

pub(crate) fn explorer<'a>(facts: impl Facts + 'a) -> Explorer<'a> {
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(facts));
    explorer
}

pub(crate) fn path(text: &str) -> StorePath {
    StoreDir::default().parse_path(text.as_bytes()).unwrap()
}

/// The nodes of store paths that Nix has written.
pub(crate) fn nodes<'a>(
    explorer: &mut Explorer<'_>,
    paths: impl IntoIterator<Item = &'a str>,
) -> NodeSet {
    paths.into_iter().map(|text| explorer.node(&path(text))).collect()
}

/// Nodes as Nix would write them.
pub(crate) fn paths(explorer: &Explorer<'_>, nodes: &NodeSet) -> BTreeSet<String> {
    nodes.iter().map(|node| explorer.graph().render(node)).collect()
}

/// Makes sure that no answer lacked anything.
pub(crate) fn assert_nothing_is_missing(explorer: &Explorer<'_>) {
    let missing: Vec<String> = explorer.missing().map(|fact| fact.tell("the store")).collect();
    assert_eq!(missing, [""; 0]);
}

/// The lines that `nix-store --query` answers.
pub(crate) fn query(machine: &Machine, args: &[&str]) -> BTreeSet<String> {
    let answer = machine.command("nix-store").arg("--query").args(args).ok();
    answer.lines().map(str::to_owned).collect()
}

/// What Nix's database holds about a path.
pub(crate) struct Registered {
    pub(crate) nar_size: u64,
    pub(crate) deriver: Option<String>,
    /// The path itself left out.
    pub(crate) references: BTreeSet<String>,
}

/// All valid paths, by `nix-store --dump-db`.
pub(crate) fn registered(machine: &Machine) -> BTreeMap<String, Registered> {
    let dump = machine.command("nix-store").arg("--dump-db").ok();
    let mut lines = dump.lines();
    let mut found = BTreeMap::new();
    while let Some(path) = lines.next() {
        let mut line = || lines.next().expect("the dump goes on").to_owned();
        let (_hash, nar_size, deriver, count) = (line(), line(), line(), line());
        let count: usize = count.parse().unwrap();
        let references = (0..count).map(|_| line()).filter(|reference| reference != path);
        let registered = Registered {
            nar_size: nar_size.parse().unwrap(),
            references: references.collect(),
            deriver: (!deriver.is_empty()).then_some(deriver),
        };
        found.insert(path.to_owned(), registered);
    }
    found
}
