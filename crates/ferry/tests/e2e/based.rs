//! Bundles that say what is new as what is different from what the other side has.

use ferry_test_world::{Machine, NixVersion, World, crossing};
use serde_json::Value;

use crate::support::{
    all_valid, assert_store_is_whole, carry, ferry, machine, next_command, outputs, query, shell,
    sorted,
};

const FIRST: &str = "/tmp/first.ferry";
const SECOND: &str = "/tmp/second.ferry";
/// What the island has, a line each.
const LIST: &str = "/tmp/island.txt";
/// What everything in the graph is built with.
const BOTTOM: &str = "/data/nix/crossing/builder.sh";

/// A machine on which the builder of everything has changed.
struct Changed {
    machine: Machine,
    first: String,
    second: String,
    fod: String,
}

impl Changed {
    fn new(world: &World, version: NixVersion) -> Self {
        let machine = machine(world, version);
        let mut origin = crossing::origin();
        let url = origin.url();
        let run = |program: &str, attribute: &str| {
            crossing::command(&machine, program, attribute, &url).online()
        };
        let fod = run("nix-build", "fod").arg("--no-out-link").ok();
        let first = run("nix-instantiate", "c").ok();
        run("nix-build", "c").arg("--no-out-link").ok();
        let builder = [machine.read(BOTTOM), b"\n# Another.\n".to_vec()].concat();
        machine.write(BOTTOM, builder);
        let second = run("nix-instantiate", "c").ok();
        run("nix-build", "c").arg("--no-out-link").ok();
        origin.stop();
        assert_ne!(first, second);
        ferry(&machine, ["pack", &first, "--also", &fod, "-o", FIRST]).ok();
        Self { machine, first, second, fod }
    }

    /// Packs the second recipe against what a place has.
    fn pack_second(&self, base: &str) -> Vec<u8> {
        let pack = ["pack", &self.second, "--also", &self.fod, "--base", base, "-o", SECOND];
        ferry(&self.machine, pack).ok();
        self.machine.read(SECOND)
    }

    /// A machine that has the first recipe.
    fn island(&self, world: &World, version: NixVersion) -> Machine {
        let island = machine(world, version);
        carry(&self.machine, &island, FIRST);
        ferry(&island, ["load", FIRST, "--to", "local"]).ok();
        island
    }
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("ferry prints JSON")
}

#[test]
fn what_is_different_crosses_and_is_built_there() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Changed::new(&world, from);
        let there = outputs(&sender.machine, &sender.second);
        sender.pack_second(FIRST);
        let requisites = |path: &str| query(&sender.machine, &["--requisites", path]);
        let before = requisites(&sender.first);
        let after = requisites(&sender.second);
        let new: Vec<&str> =
            after.iter().filter(|path| !before.contains(path)).map(String::as_str).collect();
        assert!(new.iter().filter(|path| path.ends_with(".drv")).count() > 3, "{new:?}");
        for to in NixVersion::ALL {
            let pair = format!("{from} to {to}");
            for store in ["local", "daemon"] {
                let island = sender.island(&world, to);
                let _daemon = (store == "daemon").then(|| island.daemon());
                carry(&sender.machine, &island, SECOND);
                let carried = ferry(&island, ["ls", SECOND, "--against", store]).ok();
                assert_eq!(sorted(carried.lines()), sorted(new.iter().copied()), "{pair}");
                ferry(&island, ["verify", SECOND, "--against", store]).ok();
                let loaded = ferry(&island, ["load", SECOND, "--to", store]).succeed();
                assert_store_is_whole(&island);
                let build = next_command(&loaded.stderr);
                shell(&island, &build).ok();
                assert_eq!(outputs(&island, &sender.second), there, "{pair} by {store}");
            }
        }
    }
}

#[test]
fn the_base_is_told_by_a_bundle_a_list_or_a_store() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_26);
    let from = &sender.machine;
    let by_bundle = sender.pack_second(FIRST);
    let list = query(from, &["--requisites", &sender.first]);
    from.write(LIST, format!("{}\n{}\n", list.join("\n"), sender.fod));
    assert!(sender.pack_second(LIST) == by_bundle, "by a list");
    ferry(from, ["load", FIRST, "--to", "/data/island"]).ok();
    assert!(sender.pack_second("/data/island") == by_bundle, "by a store");
    // A bundle made against another can be the base of the next.
    let builder = [from.read(BOTTOM), b"# A third.\n".to_vec()].concat();
    from.write(BOTTOM, builder);
    let third = crossing::command(from, "nix-instantiate", "c", "http://127.0.0.1:9").ok();
    ferry(from, ["pack", &third, "--base", SECOND, "-o", FIRST]).ok();
    ferry(from, ["load", SECOND, "--to", "/data/island"]).ok();
    ferry(from, ["load", FIRST, "--to", "/data/island"]).ok();
    // What is wanted and there needs nothing else.
    sender.pack_second("/data/island");
    ferry(from, ["load", SECOND, "--to", "/data/island"]).ok();
    assert_eq!(ferry(from, ["ls", SECOND, "--against", "/data/island"]).ok(), "");
}

#[test]
fn without_the_base_it_says_what_is_needed_and_loads_nothing() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_26);
    sender.pack_second(FIRST);
    let island = sender.island(&world, NixVersion::V2_26);
    carry(&sender.machine, &island, SECOND);
    for command in ["info", "ls", "verify"] {
        let failed = ferry(&island, [command, SECOND]).fails();
        assert_eq!(failed.status.code(), Some(1), "{command}: {}", failed.stderr);
        assert!(failed.stderr.contains("--against"), "{command}: {}", failed.stderr);
        assert!(failed.stderr.contains(&sender.first), "{command}: {}", failed.stderr);
    }
    let told =
        json(&ferry(&island, ["info", SECOND, "--against", "local", "--json"]).succeed().stdout);
    let prerequisites = told["prerequisites"].as_array().expect("a list");
    assert!(prerequisites.contains(&Value::from(sender.first.clone())), "{prerequisites:?}");
    for version in NixVersion::ALL {
        let reef = machine(&world, version);
        reef.write("/data/else", "something else\n");
        reef.command("nix-store").args(["--add", "/data/else"]).ok();
        let before = all_valid(&reef);
        carry(&sender.machine, &reef, SECOND);
        for to in ["local", "/data/atoll"] {
            let failed = ferry(&reef, ["load", SECOND, "--to", to]).fails();
            assert_eq!(failed.status.code(), Some(1), "{to}: {}", failed.stderr);
            assert!(failed.stderr.contains(&sender.first), "{to}: {}", failed.stderr);
        }
        assert_eq!(all_valid(&reef), before, "Nix {version}");
        assert!(!reef.path("/data/atoll").exists());
    }
}

#[test]
fn a_bundle_against_derivations_is_salvaged_where_those_are() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_34);
    sender.pack_second(FIRST);
    let island = sender.island(&world, NixVersion::V2_34);
    carry(&sender.machine, &island, SECOND);
    let salvage = ["salvage", SECOND, "-o", "/tmp/saved.ferry"];
    let failed = ferry(&island, salvage).fails();
    assert!(failed.stderr.contains("--against"), "{}", failed.stderr);
    ferry(&island, salvage).args(["--against", "local"]).succeed();
    let ls = |file: &str| ferry(&island, ["ls", file, "--against", "local"]).ok();
    assert_eq!(ls("/tmp/saved.ferry"), ls(SECOND));
    ferry(&island, ["load", "/tmp/saved.ferry", "--to", "local"]).ok();
    assert_store_is_whole(&island);
    let recipe = |machine: &Machine| {
        let mut paths = query(machine, &["--requisites", &sender.second]);
        paths.sort();
        paths
    };
    assert_eq!(recipe(&island), recipe(&sender.machine));
}

#[test]
fn a_bundle_against_derivations_is_asked_and_left_out_where_those_are() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_26);
    sender.pack_second(FIRST);
    let island = sender.island(&world, NixVersion::V2_26);
    carry(&sender.machine, &island, SECOND);
    let closure = format!("closure(run, {})", sender.second);
    let ask = ["query", &closure, "--store", SECOND];
    let failed = ferry(&island, ask).fails();
    assert!(failed.stderr.contains("one more --store"), "{}", failed.stderr);
    let wanted = query(&sender.machine, &["--requisites", &sender.second]);
    for stores in [["--store", "local"], ["--store", "auto"]] {
        let told = ferry(&island, ask).args(stores).ok();
        assert_eq!(sorted(told.lines()), sorted(wanted.iter().map(String::as_str)));
    }
    // Whoever has loaded it has what is in it.
    let from = &sender.machine;
    let pack = ["pack", &sender.second, "--have", SECOND, "-o", "/tmp/rest.ferry"];
    ferry(from, pack).succeed();
    let rest = ferry(from, ["ls", "/tmp/rest.ferry"]).ok();
    let carried = ferry(from, ["ls", SECOND, "--against", "local"]).ok();
    assert!(carried.lines().count() > 3, "{carried}");
    assert!(carried.lines().all(|path| !rest.lines().any(|other| other == path)), "{rest}");
}
