//! Outputs of content-addressed derivations: what ferry carries of them, Nix takes for built, and
//! the other way round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};
use serde_json::Value;

use crate::support::{ferry, generate_key, machine, shell};

/// A machine whose Nix knows of content-addressed derivations, and where to find them.
fn machine_with(world: &World, version: NixVersion, settings: &[&str]) -> Machine {
    let machine = machine(world, version);
    machine.configure("extra-experimental-features = nix-command ca-derivations");
    settings.iter().for_each(|line| machine.configure(line));
    machine
}

/// Builds the derivation in the middle of `floating.nix`, or substitutes it.
fn build(machine: &Machine) -> MachineCommand {
    let file = machine.expression("floating.nix");
    // Without a network Nix does not look at caches on disks either, unless told to.
    let substitute = ["--option", "substitute", "true"];
    machine.command("nix").args(["build", "--no-link", "-f", &file, "middle"]).args(substitute)
}

/// What a cache says became of outputs: the files, by name.
fn realisations(machine: &Machine, cache: &str) -> BTreeMap<String, String> {
    let directory = machine.path(format!("{cache}/realisations"));
    let read = |file: &Path| fs::read_to_string(file).unwrap();
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), read(&file)))
        .collect()
}

/// A machine on which it is built, with the output, and a cache that Nix copied it to.
fn sender(world: &World, version: NixVersion) -> (Machine, String) {
    let sender = machine_with(world, version, &["substituters ="]);
    build(&sender).ok();
    let file = sender.expression("floating.nix");
    let output = sender.command("nix-build").args(["--no-out-link", &file, "-A", "middle"]).ok();
    let copy = ["copy", "--to", "file:///data/nix", "-f", &file, "middle"];
    sender.command("nix").args(copy).ok();
    (sender, output)
}

/// A cache on another machine, which substitutes from it what it is asked to build, and can build
/// nothing.
fn receiver(world: &World, sender: &Machine, cache: &str, settings: &[&str]) -> Machine {
    let receiver = machine_with(world, sender.version(), settings);
    receiver.configure("max-jobs = 0");
    receiver.configure("builders =");
    receiver.copy_in(sender.path(cache), cache);
    receiver
}

/// Has the cache that Nix copied to say what somebody would who built it too, and of whose build
/// something else came.
fn tell_otherwise(sender: &Machine) {
    let leaf = fs::read_dir(sender.path("/nix/store")).unwrap();
    let leaf = leaf.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let leaf = leaf.into_iter().find(|name| name.ends_with("-floating-leaf")).unwrap();
    let script = "cd /data/nix/realisations; for file in *; do
        sed -i 's/\"outPath\":\"[a-z0-9]*-floating-middle\"/\"outPath\":\"'$1'\"/' \"$file\"; done";
    shell(sender, &script.replace("$1", &leaf)).ok();
}

const EACH: [NixVersion; 3] = NixVersion::ALL;

#[test]
fn from_cache_to_cache_realisations_come_along_byte_for_byte() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        let by_nix = realisations(&sender, "/data/nix");
        assert!(!by_nix.is_empty());
        let copy = ["copy", &output, "--from", "file:///data/nix", "--to", "file:///data/ferry"];
        let told = ferry(&sender, copy).succeed().stderr;
        let count = format!("realisations known there now: {}", by_nix.len());
        assert!(told.contains(&count), "{version}: {told}");
        assert_eq!(realisations(&sender, "/data/ferry"), by_nix, "{version}");
        // From the store that built it, too; that one has more of them.
        ferry(&sender, ["copy", &output, "--to", "file:///data/own"]).ok();
        let own = realisations(&sender, "/data/own");
        for (name, text) in &by_nix {
            assert_eq!(own.get(name), Some(text), "{version}: {name}");
        }
    }
}

#[test]
fn nix_substitutes_what_ferry_wrote_and_takes_it_for_built() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        let key = generate_key(&sender, "harbour-1");
        let to = "file:///data/cache?compression=zstd";
        ferry(&sender, ["copy", &output, "--to", to, "--sign-key", &key.secret]).ok();
        let trusted = format!("trusted-public-keys = {}", key.public);
        let settings = ["require-sigs = true", &trusted, "substituters = file:///data/cache"];
        let receiver = receiver(&world, &sender, "/data/cache", &settings);
        build(&receiver).ok();
        assert!(receiver.path(&output).exists(), "{version}");
        // Nobody has signed what Nix copied; ferry does not take that over, and Nix builds.
        let unsigned = self::receiver(&world, &sender, "/data/nix", &["substituters ="]);
        let copy = ["copy", &output, "--from", "file:///data/nix"];
        let told = ferry(&unsigned, copy).succeed().stderr;
        assert!(told.contains("no trusted key has signed these realisations"), "{told}");
        assert!(unsigned.path(&output).exists());
        build(&unsigned).fails();
        // What signatures there are is of no importance to who does not ask for them.
        ferry(&unsigned, copy).arg("--no-check-sigs").ok();
        build(&unsigned).ok();
    }
}

#[test]
fn in_a_store_that_ferry_wrote_nix_finds_the_output_built() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        let key = generate_key(&sender, "harbour-1");
        ferry(&sender, ["copy", &output, "--to", "file:///data/cache", "--sign-key", &key.secret])
            .ok();
        let trusted = format!("trusted-public-keys = {}", key.public);
        let receiver = receiver(&world, &sender, "/data/cache", &["substituters =", &trusted]);
        let told = ferry(&receiver, ["copy", &output, "--from", "file:///data/cache"]).succeed();
        assert!(told.stderr.contains("realisations known there now:"), "{}", told.stderr);
        assert!(!told.stderr.contains("warning"), "{}", told.stderr);
        build(&receiver).ok();
        // Again: nothing to do, nothing lost. And on from there to a cache like the first.
        ferry(&receiver, ["copy", &output, "--from", "file:///data/cache"]).ok();
        ferry(&receiver, ["copy", &output, "--to", "file:///data/again"]).ok();
        let first = realisations(&receiver, "/data/cache");
        assert_eq!(realisations(&receiver, "/data/again"), first, "{version}");
        receiver.command("nix-store").args(["--verify", "--check-contents"]).ok();
        // What is collected takes what is said about it with it.
        receiver.command("nix-store").arg("--gc").ok();
        build(&receiver).fails();
    }
}

#[test]
fn out_of_a_bundle_nix_finds_the_output_built() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        let key = generate_key(&sender, "harbour-1");
        // From the store that built it; and from a cache, by way of an empty store.
        let pack = ["pack", &output, "--set", "runtime", "-o", "/data/built.ferry"];
        ferry(&sender, pack).ok();
        let copy = ["copy", &output, "--from", "file:///data/nix", "--sign-key", &key.secret];
        ferry(&sender, copy).args(["--to", "/data/signed.ferry"]).ok();
        let settings = ["substituters =", &format!("trusted-public-keys = {}", key.public)];
        let unsigned = self::receiver(&world, &sender, "/data/built.ferry", &settings);
        let load = ["load", "/data/built.ferry"];
        let told = ferry(&unsigned, load).succeed().stderr;
        assert!(told.contains("no trusted key has signed these realisations"), "{told}");
        build(&unsigned).fails();
        ferry(&unsigned, load).arg("--no-check-sigs").ok();
        build(&unsigned).ok();
        let receiver = self::receiver(&world, &sender, "/data/signed.ferry", &settings);
        ferry(&receiver, ["load", "/data/signed.ferry"]).ok();
        build(&receiver).ok();
        // And on from there: a conversion has them, too.
        let convert = ["convert", "--from", "bundle", "/data/signed.ferry", "--to", "cache"];
        ferry(&receiver, convert).args(["-o", "/data/cache"]).ok();
        assert!(!realisations(&receiver, "/data/cache").is_empty(), "{version}");
    }
}

#[test]
fn an_output_that_has_another_path_there_keeps_it() {
    let Some(world) = World::open() else { return };
    let (sender, output) = sender(&world, NixVersion::V2_26);
    ferry(&sender, ["copy", &output, "--to", "file:///data/cache"]).ok();
    let before = realisations(&sender, "/data/cache");
    tell_otherwise(&sender);
    let copy = ["copy", &output, "--from", "file:///data/nix", "--to", "file:///data/cache"];
    let told = ferry(&sender, copy).succeed().stderr;
    assert!(told.contains("these outputs have other paths, which stay"), "{told}");
    assert_eq!(realisations(&sender, "/data/cache"), before);
}

#[test]
fn through_a_daemon_realisations_come_and_go_and_one_that_takes_none_is_told_of() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        let key = generate_key(&sender, "harbour-1");
        // Out of a daemon: a bundle, and a cache.
        let sending = sender.daemon();
        let pack = ["pack", &output, "--set", "runtime"];
        let signed = [&pack[..], &["--sign-key", &key.secret, "--store", "daemon"]].concat();
        ferry(&sender, signed).args(["-o", "/data/built.ferry"]).ok();
        let to_cache = ["copy", &output, "--from", "daemon", "--to", "file:///data/own"];
        let told = ferry(&sender, to_cache).succeed().stderr;
        assert!(told.contains("realisations known there now"), "{version}: {told}");
        let own = realisations(&sender, "/data/own");
        // By its derivation, too.
        let file = sender.expression("floating.nix");
        let derivation = sender.command("nix-instantiate").args([&file, "-A", "middle"]).ok();
        let name = format!("{derivation}^out");
        let by_name = ["query", &name, "--store", "daemon"];
        assert_eq!(ferry(&sender, by_name).ok(), output, "{version}");
        for (name, text) in realisations(&sender, "/data/nix") {
            assert_eq!(own.get(&name), Some(&text), "{version}: {name}");
        }
        drop(sending);

        // Into one.
        let trusted = format!("trusted-public-keys = {}", key.public);
        let settings = ["require-sigs = true", &trusted, "substituters ="];
        let receiver = self::receiver(&world, &sender, "/data/built.ferry", &settings);
        let receiving = receiver.daemon();
        let load = ["load", "/data/built.ferry", "--to", "daemon", "--no-root"];
        let told = ferry(&receiver, load).succeed().stderr;
        assert!(told.contains("realisations known there now"), "{version}: {told}");
        ferry(&receiver, load).ok();
        build(&receiver).ok();
        drop(receiving);

        // One that nobody signed, or by a key that is not trusted, is not told: no daemon asks.
        let strict = self::receiver(&world, &sender, "/data/built.ferry", &settings[..1]);
        let running = strict.daemon();
        let told = ferry(&strict, load).succeed().stderr;
        assert!(told.contains("no trusted key has signed these realisations"), "{version}: {told}");
        drop(running);
        build(&strict).fails();

        // Without the experimental feature a daemon takes none.
        let plain = machine(&world, version);
        plain.copy_in(sender.path("/data/built.ferry"), "/data/built.ferry");
        let running = plain.daemon();
        let told = ferry(&plain, load).arg("--no-check-sigs").succeed().stderr;
        assert!(told.contains("could not be told") && told.contains("ca-derivations"), "{told}");
        assert!(plain.path(&output).exists(), "{version}");
        // It is asked for none either, and has none.
        let to_cache = ["copy", &output, "--from", "daemon", "--to", "file:///data/own"];
        ferry(&plain, to_cache).ok();
        drop(running);
    }
}

#[test]
fn what_a_daemon_knows_otherwise_stays_and_is_named() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        tell_otherwise(&sender);
        let _daemon = sender.daemon();
        let copy = ["copy", &output, "--from", "file:///data/nix", "--to", "daemon"];
        let told = ferry(&sender, copy).arg("--no-check-sigs").succeed().stderr;
        assert!(told.contains("these outputs have other paths, which stay"), "{version}: {told}");
    }
}

#[test]
fn a_stream_that_has_no_place_for_realisations_says_so() {
    let Some(world) = World::open() else { return };
    let (sender, output) = sender(&world, NixVersion::V2_34);
    ferry(&sender, ["pack", &output, "--set", "runtime", "-o", "/data/built.ferry"]).ok();
    let convert = ["convert", "/data/built.ferry", "-o", "/data/built.export"];
    let told = ferry(&sender, convert).succeed().stderr;
    assert!(told.contains("realisations") && told.contains("have no place there"), "{told}");
}

#[test]
fn what_a_cache_has_of_a_content_addressed_derivation_is_not_missing() {
    let Some(world) = World::open() else { return };
    for version in EACH {
        let (sender, output) = sender(&world, version);
        // Somebody who has evaluated it, and built nothing.
        let receiver = self::receiver(&world, &sender, "/data/nix", &["substituters ="]);
        let file = receiver.expression("floating.nix");
        let derivation = receiver.command("nix-instantiate").args([&file, "-A", "middle"]).ok();
        let ask = || -> Value {
            let missing = ["missing", &derivation, "--in", "/data/nix", "--json"];
            serde_json::from_slice(&ferry(&receiver, missing).run().stdout).unwrap()
        };
        let told = ask();
        assert_eq!(told["built"], Value::Array(Vec::new()), "{version}: {told}");
        assert_eq!(told["missing"], 0, "{version}: {told}");
        let all = ["missing", &derivation, "--in", "/data/nix", "--all"];
        assert!(ferry(&receiver, all).ok().contains(&output), "{version}");
        // Without it, the output is of no use.
        shell(&receiver, "rm -r /data/nix/realisations").ok();
        let told = ask();
        assert_ne!(told["built"], Value::Array(Vec::new()), "{version}: {told}");
        // As Nix from 2.35 on has it.
        let directory = format!("/data/nix/build-trace-v2/{}", &derivation["/nix/store/".len()..]);
        let out_path = &output["/nix/store/".len()..];
        let text = format!(r#"{{"outPath":"{out_path}","signatures":[]}}"#);
        receiver.write(format!("{directory}/out.doi"), text);
        let told = ask();
        assert_eq!((&told["missing"], &told["built"]), (&0.into(), &Value::Array(Vec::new())));
    }
}
