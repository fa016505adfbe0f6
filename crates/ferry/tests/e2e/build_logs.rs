//! Build logs: copied to caches and stores, and shown by `nix log`.

use std::fs;

use ferry_test_world::{Machine, World};

use crate::support::{Built, ferry, on_each_built, query};

/// What `nix log` shows of a path.
fn log(machine: &Machine, path: &str, store: &str) -> Option<String> {
    let features = ["--extra-experimental-features", "nix-command"];
    let command = machine.command("nix").args(features).args(["log", path]);
    let shown = command.args(["--store", store, "--option", "substituters", ""]).run();
    shown.status.success().then(|| shown.text())
}

#[test]
fn nix_shows_the_logs_that_ferry_copied() {
    on_each_built(|world: &World, sender: &Built| {
        let machine = &sender.machine;
        let derivations = query(machine, &["--requisites", &sender.derivation]);
        let derivations: Vec<&String> =
            derivations.iter().filter(|path| path.ends_with(".drv")).collect();
        let expected: Vec<Option<String>> =
            derivations.iter().map(|path| log(machine, path, "auto")).collect();
        let with_log = expected.iter().flatten().filter(|text| !text.is_empty()).count();
        assert!(with_log > 0, "nothing was printed while building");

        let cache = "file:///data/cache";
        let copy = ["copy", &sender.derivation, "--set", "build", "--to", cache, "--with-logs"];
        let told = ferry(machine, copy).succeed().stderr;
        assert!(told.contains(" build logs (0 there already"), "{told}");
        // Again: they are there.
        let told = ferry(machine, copy).succeed().stderr;
        assert!(told.contains("copied 0 build logs ("), "{told}");

        let receiver = crate::support::machine(world, machine.version());
        receiver.copy_in(machine.path("/data/cache"), "/data/cache");
        let back = ["copy", "--all", "--from", cache, "--with-logs", "--no-check-sigs"];
        ferry(&receiver, back).ok();
        for (path, expected) in derivations.iter().zip(&expected) {
            assert_eq!(log(&receiver, path, cache), *expected, "{path} in the cache");
            assert_eq!(log(&receiver, path, "auto"), *expected, "{path} in the store");
        }
        // By the output, as people ask.
        let place = derivations.iter().position(|path| **path == sender.derivation).unwrap();
        assert_eq!(log(&receiver, &sender.top, "auto"), expected[place]);
    });
}

#[test]
fn where_no_logs_are_kept_that_is_said() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, ferry_test_world::NixVersion::V2_34);
    let copy = ["copy", &sender.top, "--to", "/data/x.ferry", "--with-logs"];
    let failed = ferry(&sender.machine, copy).fails();
    assert_eq!(failed.code(), 2);
    assert!(failed.stderr.contains("a bundle keeps no build logs"), "{}", failed.stderr);
    // Nor does anybody keep any without being told to.
    ferry(&sender.machine, ["copy", &sender.top, "--to", "file:///data/cache"]).ok();
    let kept = fs::read_dir(sender.machine.path("/data/cache/log")).expect("it is there");
    assert_eq!(kept.count(), 0);
}
