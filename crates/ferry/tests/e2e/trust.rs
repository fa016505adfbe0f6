//! Signatures: who may put what into a store.

use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{
    Built, Key, NOBODY, all_valid, carry, closure, ferry, generate_key, machine, pack_runtime,
};

const BUNDLE: &str = "/tmp/c.ferry";

/// A sender with a key.
fn sender(world: &World, version: NixVersion) -> (Built, Key) {
    let sender = Built::new(world, version);
    let key = generate_key(&sender.machine, "harbour-1");
    (sender, key)
}

/// A new machine of the same version, with the bundle and these lines in its nix.conf.
fn receiver(world: &World, sender: &Built, conf: &[&str]) -> Machine {
    let receiver = machine(world, sender.machine.version());
    conf.iter().for_each(|line| receiver.configure(line));
    carry(&sender.machine, &receiver, BUNDLE);
    receiver
}

/// Loading has to be refused for want of a signature, and leave nothing.
fn assert_refused(receiver: &Machine, args: &[&str], signed_by: &str) {
    let failed = ferry(receiver, ["load", BUNDLE, "--to", "local"]).args(args).fails();
    assert_eq!(failed.code(), 1);
    assert_eq!(failed.text(), "");
    let wanted = format!("lacks a signature by a trusted key (it is signed by: {signed_by})");
    assert!(failed.stderr.contains(&wanted), "{}", failed.stderr);
    assert!(failed.stderr.contains("ferry: hint: sign when packing"), "{}", failed.stderr);
    let there = receiver.path("/nix/store").read_dir().map(Iterator::count).unwrap_or_default();
    assert_eq!(there, 0, "something was written");
}

#[test]
fn a_path_without_a_trusted_signature_is_refused_whole() {
    let Some(world) = World::open() else { return };
    let (sender, key) = sender(&world, NixVersion::V2_26);
    let other = generate_key(&sender.machine, "elsewhere-1").public;
    pack_runtime(&sender.machine, &sender.top, BUNDLE).ok();
    let none = receiver(&world, &sender, &[]);
    assert_refused(&none, &[], "nobody");
    assert_refused(&none, &["--trusted-public-key", &key.public], "nobody");

    pack_runtime(&sender.machine, &sender.top, BUNDLE).args(["--sign-key", &key.secret]).ok();
    // By somebody, whom nobody here trusts: as it is by default, and with another key.
    let by_default = receiver(&world, &sender, &[]);
    assert_refused(&by_default, &[], "harbour-1");
    assert_refused(&by_default, &["--trusted-public-key", &other], "harbour-1");
    // A key of the right name that is not the key.
    let forged = generate_key(&sender.machine, "harbour-1").public;
    assert_refused(&by_default, &["--trusted-public-key", &forged], "harbour-1");
    // A setting for this once counts for more than the file.
    let conf = [&*format!("trusted-public-keys = {}", key.public)];
    let configured = receiver(&world, &sender, &conf);
    assert_refused(&configured, &["--option", "trusted-public-keys", &other], "harbour-1");
}

#[test]
fn whatever_nix_would_trust_is_trusted() {
    let Some(world) = World::open() else { return };
    let (sender, key) = sender(&world, NixVersion::V2_8);
    let other = generate_key(&sender.machine, "elsewhere-1");
    let pack = pack_runtime(&sender.machine, &sender.top, BUNDLE);
    pack.args(["--sign-key", &other.secret, "--sign-key", &key.secret]).ok();
    let wanted = closure(&sender.machine, &sender.top);

    let key = key.public;
    let keys = format!("trusted-public-keys = {} {key}", other.public);
    let extra = format!("extra-trusted-public-keys = {key}");
    // In the system's configuration, in the user's, in the environment, on the command line.
    let load = |system: &str, user: &str, environment: &str, args: &[&str]| {
        let receiver = receiver(&world, &sender, &[system]);
        receiver.write("/root/.config/nix/nix.conf", "!include absent.conf\n!include more.conf\n");
        receiver.write("/root/.config/nix/more.conf", user);
        let load = ferry(&receiver, ["load", BUNDLE, "--to", "local"]).args(args);
        load.env("NIX_CONFIG", environment).ok();
        assert_eq!(all_valid(&receiver), wanted, "{system:?} {user:?} {environment:?} {args:?}");
    };
    load(&keys, "", "", &[]);
    load(&extra, "", "", &[]);
    load("require-sigs = false", "", "", &[]);
    load("", &extra, "", &[]);
    load("", "", &extra, &[]);
    load("", "", "", &["--no-check-sigs"]);
    load("", "", "", &["--trusted-public-key", &key]);
    load("", "", "", &["--option", "require-sigs", "false"]);
    load("", "", "", &["--option", "extra-trusted-public-keys", &key]);
}

#[test]
fn signatures_that_nix_made_travel_with_their_paths() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (sender, key) = sender(&world, version);
        let sign = ["store", "sign", "--recursive", "--key-file", &key.secret, &sender.top];
        sender.machine.command("nix").args(sign).ok();
        pack_runtime(&sender.machine, &sender.top, BUNDLE).ok();
        let conf = format!("trusted-public-keys = {}", key.public);
        let receiver = receiver(&world, &sender, &[&conf]);
        // They are of the paths, and not of the bundle.
        let required = ["load", BUNDLE, "--require-bundle-key", &key.public];
        assert_eq!(ferry(&receiver, required).fails().code(), 1);
        ferry(&receiver, ["load", BUNDLE]).ok();
        assert_eq!(signatures(&receiver, &sender), signatures(&sender.machine, &sender));
    }
}

/// What signs the runtime, as Nix tells it: paths with their signatures.
fn signatures(machine: &Machine, sender: &Built) -> Vec<Vec<String>> {
    let told =
        machine.command("nix").args(["path-info", "--recursive", "--sigs", &sender.top]).ok();
    assert_eq!(told.matches("harbour-1:").count(), 4, "{told}");
    // What was built on the spot counts as `ultimate` too.
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace().filter(|word| *word != "ultimate").map(str::to_owned).collect()
    };
    let mut lines: Vec<Vec<String>> = told.lines().map(words).collect();
    lines.sort();
    lines
}

#[test]
fn a_daemon_decides_by_its_own_settings_and_whom_it_trusts() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (sender, key) = sender(&world, version);
        pack_runtime(&sender.machine, &sender.top, BUNDLE).args(["--sign-key", &key.secret]).ok();
        let wanted = closure(&sender.machine, &sender.top);
        let load = |receiver: &Machine, user: u32, args: &[&str]| {
            ferry(receiver, ["load", BUNDLE, "--to", "daemon"]).args(args).user(user)
        };

        let plain = receiver(&world, &sender, &[]);
        let daemon = plain.daemon();
        // The daemon does not ask the client which keys to trust.
        load(&plain, NOBODY, &["--trusted-public-key", &key.public]).fails();
        let refused = load(&plain, NOBODY, &["--no-check-sigs"]).fails().stderr;
        let reason = match version {
            // It does not say whom it trusts, but what it thinks of the path.
            NixVersion::V2_8 => "lacks a valid signature",
            _ => "does not trust this user, so it checks signatures whatever it is told",
        };
        assert!(refused.contains(reason), "Nix {version}: {refused}");
        assert!(refused.contains("ferry: hint: "), "Nix {version}: {refused}");
        assert_eq!(all_valid(&plain), [], "Nix {version}");
        load(&plain, 0, &["--no-check-sigs"]).ok();
        assert_eq!(all_valid(&plain), wanted, "Nix {version}");
        drop(daemon);

        // A key that it trusts is good for anybody.
        let conf = format!("trusted-public-keys = {}", key.public);
        let trusting = receiver(&world, &sender, &[&conf]);
        let _daemon = trusting.daemon();
        load(&trusting, NOBODY, &[]).ok();
        assert_eq!(all_valid(&trusting), wanted, "Nix {version}");
    }
}

#[test]
fn a_bundle_as_a_whole_can_be_required_to_be_signed() {
    let Some(world) = World::open() else { return };
    let (sender, key) = sender(&world, NixVersion::V2_34);
    let machine = &sender.machine;
    let other = generate_key(machine, "elsewhere-1").public;
    // Content-addressed, so that nothing in it needs a signature.
    ferry(machine, ["pack", &sender.derivation, "-o", "/tmp/unsigned.ferry"]).ok();
    let signed = ["pack", &sender.derivation, "-o", BUNDLE, "--sign-key", &key.secret];
    ferry(machine, signed).ok();
    let to = ["--to", "/data/island"];
    for command in [vec!["verify"], ["load"].into_iter().chain(to).collect()] {
        let run = |bundle: &str, key: &str| {
            ferry(machine, &command).args([bundle, "--require-bundle-key", key]).run()
        };
        for (bundle, key, signed_by) in
            [("/tmp/unsigned.ferry", &key.public, "nobody"), (BUNDLE, &other, "harbour-1")]
        {
            let refused = run(bundle, key);
            assert_eq!(refused.code(), 1, "{command:?}: {}", refused.stderr);
            assert!(refused.stderr.contains(signed_by), "{command:?}: {}", refused.stderr);
            assert!(!machine.path("/data/island").exists(), "{command:?} has written something");
        }
        // A key that is trusted is not thereby one that has to have signed the bundle.
        let trusted = ["--trusted-public-key", &key.public, "--require-bundle-key", &other];
        assert_eq!(ferry(machine, &command).arg(BUNDLE).args(trusted).run().code(), 1);
        let in_file = format!("{}.pub", key.secret);
        for key in [&key.public, &in_file] {
            let accepted = run(BUNDLE, key);
            assert_eq!(accepted.code(), 0, "{command:?}: {}", accepted.stderr);
        }
        let either = ["--require-bundle-key", &other, "--require-bundle-key", &in_file];
        ferry(machine, &command).arg(BUNDLE).args(either).ok();
    }
}
