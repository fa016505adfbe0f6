//! Outputs of content-addressed derivations: what ferry carries of them, Nix takes for built, and
//! the other way round.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};

use crate::support::{ferry, generate_key, machine, shell, sorted};

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
    // Somebody else built it, and something else came of it.
    let script = "cd /data/nix/realisations; for file in *; do
        sed -i 's/\"outPath\":\"[a-z0-9]*-floating-middle\"/\"outPath\":\"'$1'\"/' \"$file\"; done";
    let leaf = fs::read_dir(sender.path("/nix/store")).unwrap();
    let leaf = sorted(
        leaf.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str),
    );
    let leaf = leaf.iter().find(|name| name.ends_with("-floating-leaf")).unwrap();
    shell(&sender, &script.replace("$1", leaf)).ok();
    let copy = ["copy", &output, "--from", "file:///data/nix", "--to", "file:///data/cache"];
    let told = ferry(&sender, copy).succeed().stderr;
    assert!(told.contains("these outputs have other paths, which stay"), "{told}");
    assert_eq!(realisations(&sender, "/data/cache"), before);
}
