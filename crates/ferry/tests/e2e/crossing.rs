//! The main job: software leaves one store in one file, and is built or run from another.

use std::process::Stdio;

use ferry_test_world::{Daemon, Machine, NixVersion, World};
use serde_json::Value;

use crate::support::{
    Built, NOBODY, all_valid, assert_store_is_whole, carry, closure, ferry, ferry_without_nix,
    generate_key, invalid, machine, next_command, objects, on_each_built, outputs, query, shell,
};

/// Where bundles are, on either side. Anybody may write there.
const BUNDLE: &str = "/tmp/c.ferry";

/// How the recipe gets into the receiver's store. Returns the command that builds it there.
type Load = fn(&Machine) -> (String, Option<Daemon>);

/// Packs the recipe of the top, and the download, so that nothing has to be fetched.
fn pack_recipe(sender: &Built, store: &str, user: u32) {
    let pack = ["pack", &sender.derivation, "--also", &sender.fod, "-o", BUNDLE];
    ferry(&sender.machine, pack).args(["--store", store]).user(user).ok();
}

/// Carries the recipe to each version, loads it with `load`, and lets Nix build it offline.
fn a_recipe_is_rebuilt_everywhere(sender: &Built, world: &World, load: Load) {
    let there = sender.outputs();
    let to_build: Vec<String> =
        there.iter().map(|object| object.path.clone()).filter(|path| *path != sender.fod).collect();
    assert_eq!(to_build.len(), 5, "{to_build:?}");
    for to in NixVersion::ALL {
        let pair = format!("{} to {to}", sender.machine.version());
        let receiver = machine(world, to);
        carry(&sender.machine, &receiver, BUNDLE);
        let (build, _daemon) = load(&receiver);
        assert_store_is_whole(&receiver);
        // Nobody has signed it, and nobody has to: Nix knows it as content-addressed.
        receiver.command("nix").args(["store", "verify", "--all", "--sigs-needed", "1"]).ok();
        assert_eq!(invalid(&receiver, &to_build), to_build, "{pair}: there before it is built");
        shell(&receiver, &build).ok();
        assert_eq!(invalid(&receiver, &to_build), [""; 0], "{pair}: not built by {build}");
        assert_eq!(outputs(&receiver, &sender.derivation), there, "{pair}");
        assert_store_is_whole(&receiver);
    }
}

/// Loads on the machine itself, and returns what ferry says comes next.
fn load_on(receiver: &Machine, to: &str) -> String {
    next_command(&ferry(receiver, ["load", BUNDLE, "--to", to]).succeed().stderr)
}

#[test]
fn a_recipe_is_rebuilt_on_the_other_side_without_a_network() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Built::new(&world, from);
        pack_recipe(&sender, "local", 0);
        a_recipe_is_rebuilt_everywhere(&sender, &world, |receiver| {
            (load_on(receiver, "local"), None)
        });
    }
}

#[test]
fn a_recipe_crosses_from_daemon_to_daemon() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Built::new(&world, from);
        let daemon = sender.machine.daemon();
        pack_recipe(&sender, "daemon", NOBODY);
        drop(daemon);
        a_recipe_is_rebuilt_everywhere(&sender, &world, |receiver| {
            let daemon = receiver.daemon();
            (load_on(receiver, "daemon"), Some(daemon))
        });
    }
}

#[test]
fn a_store_that_ferry_made_where_no_nix_ever_ran_is_one_that_nix_builds_in() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Built::new(&world, from);
        pack_recipe(&sender, "local", 0);
        a_recipe_is_rebuilt_everywhere(&sender, &world, |receiver| {
            let nix = receiver.path("/nix");
            assert_eq!(nix.read_dir().map(Iterator::count).ok(), Some(0), "Nix was here");
            let root = nix.parent().expect("a machine has a directory of its own");
            let load = ferry_without_nix(&receiver.path("/root"))
                .arg("load")
                .arg(receiver.path(BUNDLE))
                .arg("--to")
                .arg(root)
                .stdin(Stdio::null())
                .output()
                .expect("ferry can be run");
            let told = String::from_utf8_lossy(&load.stderr);
            assert!(load.status.success(), "{told}");
            let derivation =
                String::from_utf8_lossy(&load.stdout).lines().next().map(str::to_owned);
            let derivation = derivation.expect("ferry prints what it has loaded");
            // The command told is for the host, where the store is in that directory.
            let told = next_command(&told);
            assert_eq!(
                told,
                format!("nix-store --store {} --realise {derivation}", root.display())
            );
            (format!("nix-store --realise {derivation}"), None)
        });
    }
}

#[test]
fn without_the_download_a_recipe_is_not_rebuilt_offline() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    ferry(&sender.machine, ["pack", &sender.derivation, "-o", BUNDLE]).ok();
    for to in NixVersion::ALL {
        let receiver = machine(&world, to);
        receiver.configure("download-attempts = 1");
        carry(&sender.machine, &receiver, BUNDLE);
        let build = load_on(&receiver, "local");
        let failed = shell(&receiver, &build).fails();
        assert!(failed.stderr.contains("unable to download"), "{}", failed.stderr);
    }
}

#[test]
fn a_runtime_runs_on_the_other_side_and_nothing_is_built() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Built::new(&world, from);
        let key = generate_key(&sender.machine, "harbour-1");
        let pack = ["pack", &sender.derivation, "--set", "runtime", "--sign-key", &key.secret];
        ferry(&sender.machine, pack).args(["-o", BUNDLE]).ok();
        let wanted = closure(&sender.machine, &sender.top);
        let said = sender.machine.command(format!("{}/bin/hello", sender.top)).ok();
        for to in NixVersion::ALL {
            let pair = format!("{from} to {to}");
            let receiver = machine(&world, to);
            receiver.configure(&format!("trusted-public-keys = {}", key.public));
            receiver.configure("require-sigs = true");
            carry(&sender.machine, &receiver, BUNDLE);
            let run = load_on(&receiver, "local");
            assert_eq!(run, format!("{}/bin/hello", sender.top), "{pair}");
            assert_eq!(receiver.command(&run).ok(), said, "{pair}");

            // No .drv, no download, no output that is for building only.
            assert_eq!(all_valid(&receiver), wanted, "{pair}");
            for absent in [&sender.derivation, &sender.fod, &sender.output("multi-1.0-dev")] {
                assert!(!receiver.path(absent).exists(), "{pair}: {absent}");
            }
            assert_store_is_whole(&receiver);
            assert_signed(&receiver, &key.public, &pair);
        }
    }
}

/// Nix itself finds a good signature by `key` on everything, and none by another key.
fn assert_signed(machine: &Machine, key: &str, pair: &str) {
    let verify = |key: &str| {
        let verify = ["store", "verify", "--all", "--sigs-needed", "1"];
        let verify = machine.command("nix").args(verify);
        verify.args(["--option", "trusted-public-keys", key]).run()
    };
    let trusted = verify(key);
    assert!(trusted.status.success(), "{pair}: {}", trusted.stderr);
    let other = generate_key(machine, "harbour-1");
    let untrusted = verify(&other.public);
    assert!(!untrusted.status.success(), "{pair}: a key of the same name will do");
}

#[test]
fn nix_records_of_loaded_paths_what_it_records_of_its_own() {
    on_each_built(|world, sender| {
        let Built { machine: from, derivation, top, fod } = sender;
        let key = generate_key(from, "harbour-1");
        let pack = |machine: &Machine| {
            let pack = ["pack", derivation, "--also", top, "--also", fod, "-o", BUNDLE];
            ferry(machine, pack).args(["--sign-key", &key.secret]).ok();
            machine.read(BUNDLE)
        };
        let bundle = pack(from);
        let mut paths = query(from, &["--requisites", derivation, top, fod]);
        paths.dedup();
        // Hashes, sizes, derivers and references.
        let records =
            |machine: &Machine| machine.command("nix-store").arg("--dump-db").args(&paths).ok();
        for to in ["local", "daemon"] {
            let receiver = machine(world, from.version());
            receiver.configure(&format!("trusted-public-keys = {}", key.public));
            carry(from, &receiver, BUNDLE);
            let _daemon = receiver.daemon();
            ferry(&receiver, ["load", BUNDLE, "--to", to, "--no-root"]).ok();
            assert_eq!(all_valid(&receiver), objects(from, paths.clone()), "{to}");
            assert_eq!(records(&receiver), records(from), "{to}");
            // With content addresses and signatures: it could travel on as it came.
            carry(from, &receiver, &key.secret);
            assert!(pack(&receiver) == bundle, "{to}: it is not what it was");

            // It knows the derivations that are loaded for the derivers of what is.
            let root = format!("ln -s {top} {fod} /nix/var/nix/gcroots");
            shell(&receiver, &format!("{root}; nix-store --gc")).ok();
            assert_eq!(invalid(&receiver, &paths), [""; 0], "{to}");
            let gc = ["--gc", "--option", "keep-derivations", "false"];
            receiver.command("nix-store").args(gc).ok();
            let left = all_valid(&receiver).into_iter().filter(|left| left.path.ends_with(".drv"));
            assert_eq!(left.count(), 0, "{to}");
        }
    });
}

#[test]
fn nix_derivation_show_and_add_lose_what_a_bundle_carries() {
    let Some(world) = World::open() else { return };
    // Nix 2.8 cannot add derivations at all.
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let sender = Built::new(&world, version);
        let derivation = &sender.derivation;
        let show = ["derivation", "show", "--recursive", derivation];
        let shown = sender.machine.command("nix").args(show).succeed().stdout;
        let shown: Value = serde_json::from_slice(&shown).expect("Nix shows JSON");
        // Below a key of their own, and by base name, from 2.33 on.
        let shown = shown.get("derivations").unwrap_or(&shown);
        let in_order =
            sender.machine.command("nix-store").args(["--query", "--requisites", derivation]);
        let in_order = in_order.ok();
        let derivations: Vec<&str> =
            in_order.lines().filter(|path| path.ends_with(".drv")).collect();
        assert_eq!(derivations.len(), 5);

        let receiver = machine(&world, version);
        let mut added = Vec::new();
        for path in derivations {
            let base = path.trim_start_matches("/nix/store/");
            let one = shown.get(path).or(shown.get(base)).expect("everything is shown");
            let add = receiver.command("nix").args(["derivation", "add"]);
            let outcome = add.stdin(one.to_string()).run();
            if outcome.status.success() {
                added.push(path);
            } else {
                let lost = outcome.stderr.contains("is not valid")
                    || outcome.stderr.contains("does not exist");
                assert!(lost, "Nix {version}: {}", outcome.stderr);
            }
        }
        // Only the download's, which has neither sources nor inputs.
        let download = query(&sender.machine, &["--deriver", &sender.fod]);
        assert_eq!(added, download, "Nix {version}");
        let build = ["build", &format!("{derivation}^*")];
        receiver.command("nix").args(build).fails();

        // On top of what that has left behind.
        pack_recipe(&sender, "local", 0);
        carry(&sender.machine, &receiver, BUNDLE);
        shell(&receiver, &load_on(&receiver, "local")).ok();
        assert_eq!(outputs(&receiver, derivation), sender.outputs(), "Nix {version}");
        assert_store_is_whole(&receiver);
    }
}
