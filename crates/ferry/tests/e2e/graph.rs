//! The dependency graph says what Nix says.

use std::collections::BTreeSet;

use ferry_test_world::{Machine, NixVersion, World, big_graph};

use crate::derivations::ShownDerivations;
use crate::support::{all_valid, ferry, machine, on_each_built, query, sorted};

/// What a `ferry` command prints, sorted.
fn answer(machine: &Machine, args: &[&str]) -> Vec<String> {
    sorted(ferry(machine, args).ok().lines())
}

fn ask(machine: &Machine, expression: &str) -> Vec<String> {
    answer(machine, &["query", expression])
}

/// What `nix-store --query` answers about `path`, itself left out.
fn others(machine: &Machine, what: &str, path: &str) -> Vec<String> {
    let mut found = query(machine, &[what, path]);
    found.retain(|other| other != path);
    found
}

#[test]
fn run_dependencies_are_references() {
    on_each_built(|_, built| {
        let machine = &built.machine;
        let all = all_valid(machine);
        assert!(all.len() >= 15, "{all:?}");
        for object in &all {
            let path = object.path.as_str();
            let references = others(machine, "--references", path);
            assert_eq!(answer(machine, &["deps", "run", path]), references);
            let closure = query(machine, &["--requisites", path]);
            assert_eq!(answer(machine, &["deps", "run", path, "--closure"]), closure);
            let referrers = others(machine, "--referrers", path);
            assert_eq!(ask(machine, &format!("rdeps(run, all(), {path}, 1) - {path}")), referrers);
            let above = query(machine, &["--referrers-closure", path]);
            assert_eq!(ask(machine, &format!("rdeps(run, all(), {path})")), above);
        }
        let every = all.iter().map(|object| object.path.as_str());
        assert_eq!(ask(machine, "all()"), sorted(every));
        for path in built.outputs() {
            let deriver = query(machine, &["--deriver", &path.path]);
            assert_eq!(ask(machine, &format!("deriver({})", path.path)), deriver);
        }
    });
}

#[test]
fn build_dependencies_are_what_derivations_name() {
    on_each_built(|_, built| {
        let machine = &built.machine;
        let shown = ShownDerivations::below(machine, &built.derivation);
        assert_eq!(shown.0.len(), 5);
        for (derivation, contents) in &shown.0 {
            let wanted = Vec::from_iter(shown.build(derivation));
            assert_eq!(answer(machine, &["deps", "build", derivation]), wanted);
            // Of an output: those of its deriver.
            for output in contents.outputs.values() {
                assert_eq!(answer(machine, &["deps", "build", output]), wanted);
            }
            let outputs: BTreeSet<&String> = contents.outputs.values().collect();
            let asked = ask(machine, &format!("outputs({derivation})"));
            assert_eq!(asked, Vec::from_iter(outputs.into_iter().cloned()));
            let closure = Vec::from_iter(shown.build_closure(derivation));
            assert_eq!(ask(machine, &format!("closure(build, {derivation})")), closure);
        }
    });
}

#[test]
fn a_large_graph_is_what_nix_says_through_every_source() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        let top = big_graph(&machine, 400);
        let requisites = query(&machine, &["--requisites", &top]);
        let shown = ShownDerivations::below(&machine, &top);
        let closure = Vec::from_iter(shown.build_closure(&top));
        ferry(&machine, ["pack", &top, "-o", "/tmp/top.ferry"]).ok();
        let _daemon = machine.daemon();
        for store in ["local", "daemon", "/tmp/top.ferry"] {
            let asked = |args: &[&str]| answer(&machine, &[args, &["--store", store]].concat());
            assert_eq!(asked(&["deps", "run", "--closure", &top]), requisites, "{store}");
            assert_eq!(asked(&["deps", "build", "--closure", &top]), closure, "{store}");
            assert_eq!(asked(&["query", "all()"]), requisites, "{store}");
            for derivation in shown.0.keys().step_by(40) {
                let wanted = Vec::from_iter(shown.build(derivation));
                assert_eq!(asked(&["deps", "build", derivation]), wanted, "{store}");
            }
        }
        // Nothing of it is built, which does not matter where there is a way.
        let bottom = shown.0.keys().find(|path| path.contains("-stage")).expect("a first stage");
        let why = ferry(&machine, ["why", &top, bottom]).succeed();
        assert!(why.text().ends_with(bottom) && why.stderr.is_empty(), "{}", why.stderr);
        // Where there is none, it does: a reference of what is not built could be one.
        let unsure = ferry(&machine, ["why", bottom, &top]).fails();
        assert!(unsure.stderr.contains("is not built"), "{}", unsure.stderr);
        let sure = ferry(&machine, ["why", bottom, &top, "--kind", "build"]).fails();
        assert!(sure.stderr.contains("does not need"), "{}", sure.stderr);
        let partial = format!("closure(run, closure(build, {top}))");
        let partial = ferry(&machine, ["query", "--partial", &partial]).succeed();
        assert_eq!(partial.stderr.lines().count(), 21, "{}", partial.stderr);
        // Fixed-output derivations: those that have a hash for their output.
        let fixed = machine.command("sh").args([
            "-c",
            "grep -lE '^Derive\\(\\[\\(\"out\",\"[^\"]*\",\"(r:)?sha256\"' /nix/store/*.drv",
        ]);
        let fixed = sorted(fixed.ok().lines());
        assert!(fixed.len() > 100, "{}", fixed.len());
        assert_eq!(ask(&machine, &format!("fods(closure(run, {top}))")), fixed);
    }
}
