//! Looking after binary caches: `ferry cache verify`, `sign` and `index`, with real Nix beside.

use std::collections::BTreeMap;
use std::time::Duration;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World, trees};
use serde::Deserialize;

use crate::kills::Moments;
use crate::support::{
    Built, all_valid, closure, ferry, generate_key, machine, on_each_built, shell,
};

/// What `ferry cache verify --json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Verified {
    version: u32,
    cache: String,
    sound: bool,
    paths: u64,
    nar_size: u64,
    file_size: u64,
    signed_by_trusted: u64,
    shard: String,
    sample: Option<Sample>,
    nars_read: u64,
    nar_size_read: u64,
    nars_read_before: u64,
    looked_for_orphans: bool,
    counts: BTreeMap<String, u64>,
    faults: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    part: String,
    seed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    kind: String,
    harmless: bool,
    file: String,
    path: Option<String>,
    message: String,
    size: Option<u64>,
}

/// What `ferry cache sign --json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    version: u32,
    cache: String,
    paths: u64,
    changed: u64,
    added: u64,
    removed: u64,
    failed: Vec<Failed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    file: String,
    reason: String,
}

/// What `ferry cache index --json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Index {
    version: u32,
    cache: String,
    narinfos_read: u64,
    nar_size: u64,
    file_size: u64,
    closure_size: Option<u64>,
    paths: Vec<Entry>,
    failed: Vec<Failed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    path: String,
    nar_size: u64,
    file_size: Option<u64>,
    closure_size: Option<u64>,
}

fn json<T: for<'d> Deserialize<'d>>(output: &[u8]) -> T {
    serde_json::from_slice(output).expect("it is what was promised")
}

const CACHE: &str = "/data/cache";

fn verify(machine: &Machine, args: &[&str]) -> MachineCommand {
    ferry(machine, ["cache", "verify", CACHE]).args(args)
}

/// A cache that the machine's Nix wrote, and how many paths are in it.
fn cache_of_nix(sender: &Built, parameters: &str) -> u64 {
    let to = format!("file://{CACHE}?{parameters}");
    sender.machine.command("nix").args(["copy", "--to", &to, &sender.top]).ok();
    closure(&sender.machine, &sender.top).len() as u64
}

#[test]
fn a_cache_that_every_nix_wrote_is_verified_and_its_damage_is_told() {
    on_each_built(|_, sender| {
        let machine = &sender.machine;
        let key = generate_key(machine, "harbour-1");
        let parameters = format!("write-nar-listing=1&secret-key={}", key.secret);
        let count = cache_of_nix(sender, &parameters);
        let trust = ["--trusted-public-key", key.public.as_str()];
        let all = [&["--read-data", "--json"], &trust[..]].concat();
        let found: Verified = json(&verify(machine, &all).succeed().stdout);
        assert_eq!((found.version, found.cache.as_str(), found.sound), (1, CACHE, true));
        assert_eq!((found.paths, found.nars_read, found.signed_by_trusted), (count, count, count));
        assert!(found.nar_size > found.file_size && found.nar_size_read == found.nar_size);
        assert!(found.looked_for_orphans && found.counts.is_empty() && found.faults.is_empty());
        assert_eq!((found.shard.as_str(), found.nars_read_before), ("0/1", 0));
        assert!(found.sample.is_none());

        let unsigned = verify(machine, &[]).fails();
        assert_eq!(unsigned.code(), 1);
        assert_eq!(unsigned.text().lines().count() as u64, count);
        assert!(unsigned.text().lines().all(|line| line.starts_with("untrusted\t")));
        assert!(unsigned.stderr.contains("--trusted-public-key"), "{}", unsigned.stderr);
        assert_eq!(verify(machine, &["--no-check-sigs"]).ok(), "");

        shell(machine, "cd /data/cache; for nar in nar/*; do echo broken >$nar; break; done").ok();
        shell(machine, "cd /data/cache; echo x >nar/left.nar.xz").ok();
        let broken = verify(machine, &trust).fails();
        assert_eq!(broken.code(), 1);
        let text = broken.text();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        let kinds: Vec<&str> = lines.iter().map(|line| line[0]).collect();
        assert_eq!(kinds, ["wrong-file-size", "orphan-nar"]);
        assert!(lines[0][2].starts_with("/nix/store/") && lines[0][3].contains("it has 7 bytes"));
        assert!(broken.stderr.contains("wrong-file-size (1): remove the narinfo"));
        let found: Verified = json(&verify(machine, &all).fails().stdout);
        assert!(!found.sound && found.counts["wrong-file-size"] == 1);
        let orphan = found.faults.iter().find(|fault| fault.kind == "orphan-nar").unwrap();
        assert!(orphan.harmless && orphan.path.is_none() && !orphan.message.is_empty());
        assert_eq!((orphan.file.as_str(), orphan.size), ("nar/left.nar.xz", Some(2)));
    });
}

#[test]
fn what_takes_up_room_in_vain_is_told_and_is_no_failure() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_34);
    cache_of_nix(&sender, "compression=zstd");
    shell(&sender.machine, "echo x >/data/cache/nar/left.nar.xz; mkdir /data/cache/.ferry-x").ok();
    let told = verify(&sender.machine, &["--no-check-sigs"]).succeed();
    let kinds = told.text();
    let kinds: Vec<&str> = kinds.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(kinds, ["orphan-nar", "stale-staging"]);
    assert!(told.stderr.contains("nothing is wrong with it"), "{}", told.stderr);
}

#[test]
fn a_check_that_is_killed_again_and_again_ends_all_the_same() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    let paths: Vec<String> =
        (1..=40).map(|number| trees::add_large_file(&machine, 200_000 + number)).collect();
    let to = format!("file://{CACHE}?compression=xz");
    machine.command("nix").args(["copy", "--to", &to]).args(&paths).ok();
    let args = ["--read-data", "--no-check-sigs", "--state", "/data/state", "--json"];
    let lines = || match machine.path("/data/state").exists() {
        true => String::from_utf8_lossy(&machine.read("/data/state")).lines().count().max(1) - 1,
        false => 0,
    };
    let (mut killed, mut before) = (0, 0);
    let mut moments = Moments::within(Duration::from_millis(400));
    for _ in 0..10 {
        killed += u32::from(moments.kill(verify(&machine, &args)).is_some());
        let now = lines();
        assert!(now >= before, "what was noted is gone: {before}, then {now}");
        before = now;
    }
    assert!(killed > 0);
    let last: Verified = json(&verify(&machine, &args).succeed().stdout);
    assert_eq!(last.nars_read + last.nars_read_before, 40);
    // A line that has no end counts for nothing.
    assert!(last.nars_read_before + 1 >= before as u64, "{before}");
    let again: Verified = json(&verify(&machine, &args).succeed().stdout);
    assert_eq!((again.nars_read, again.nars_read_before), (0, 40));
}

#[test]
fn a_sample_says_how_it_is_taken_again_and_parts_make_the_whole() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let count = cache_of_nix(&sender, "compression=zstd");
    let sample = |args: &[&str]| -> Verified {
        let args = [&["--no-check-sigs", "--json", "--sample", "50%"], args].concat();
        json(&verify(&sender.machine, &args).succeed().stdout)
    };
    let first = sample(&[]);
    let Sample { part, seed } = first.sample.unwrap();
    assert_eq!(part, "50%");
    let again = sample(&["--seed", &seed]);
    assert_eq!((again.nars_read, again.nar_size_read), (first.nars_read, first.nar_size_read));
    let parts = (0..3).map(|part| -> u64 {
        let shard = format!("{part}/3");
        let args = ["--no-check-sigs", "--json", "--read-data", "--shard", &shard];
        let found: Verified = json(&verify(&sender.machine, &args).succeed().stdout);
        assert_eq!(found.shard, shard);
        assert!(!found.looked_for_orphans);
        found.nars_read
    });
    assert_eq!(parts.sum::<u64>(), count);
}

#[test]
fn nix_takes_what_was_signed_in_the_cache() {
    on_each_built(|world, sender| {
        let version = sender.machine.version();
        let count = cache_of_nix(sender, "compression=xz");
        let key = generate_key(&sender.machine, "harbour-1");
        let receiver = || {
            let receiver = machine(world, version);
            receiver.configure("require-sigs = true");
            receiver.configure(&format!("substituters = file://{CACHE}"));
            receiver.configure(&format!("trusted-public-keys = {}", key.public));
            receiver.copy_in(sender.machine.path(CACHE), CACHE);
            receiver
        };
        receiver().command("nix-store").args(["--realise", &sender.top]).fails();
        let sign = ["cache", "sign", CACHE, "--all", "-k", &key.secret, "--json"];
        let done: Signed = json(&ferry(&sender.machine, sign).succeed().stdout);
        assert_eq!((done.version, done.cache.as_str()), (1, CACHE));
        assert_eq!((done.paths, done.changed, done.added, done.removed), (count, count, count, 0));
        assert!(done.failed.is_empty());
        let again: Signed = json(&ferry(&sender.machine, sign).succeed().stdout);
        assert_eq!((again.paths, again.changed), (count, 0));
        let receiver = receiver();
        receiver.command("nix-store").args(["--realise", &sender.top]).ok();
        assert_eq!(all_valid(&receiver), closure(&sender.machine, &sender.top), "Nix {version}");
        verify(&sender.machine, &["--trusted-public-key", &key.public]).ok();

        // A path at a time, and away again.
        let remove = ["cache", "sign", CACHE, &sender.top, "--remove-key", "harbour-1", "--json"];
        let done: Signed = json(&ferry(&sender.machine, remove).succeed().stdout);
        assert_eq!((done.paths, done.removed), (1, 1));
        let unsigned = verify(&sender.machine, &["--trusted-public-key", &key.public]).fails();
        assert_eq!(unsigned.text().lines().count(), 1);
        assert!(unsigned.text().starts_with("unsigned\t"), "{}", unsigned.text());
        assert!(unsigned.text().contains(&sender.top));
    });
}

#[test]
fn what_cannot_be_signed_is_named_and_the_rest_is_signed() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let count = cache_of_nix(&sender, "compression=xz");
    let key = generate_key(&sender.machine, "harbour-1");
    let hash = &sender.top["/nix/store/".len()..][..32];
    sender.machine.write(format!("{CACHE}/{hash}.narinfo"), "<html>");
    let sign = ["cache", "sign", CACHE, "--all", "-k", &key.secret, "--json"];
    let failed = ferry(&sender.machine, sign).fails();
    let done: Signed = json(&failed.stdout);
    assert_eq!((failed.code(), done.changed), (1, count - 1));
    assert_eq!(done.failed[0].file, format!("{hash}.narinfo"));
    assert!(done.failed[0].reason.contains("<html>") && failed.stderr.contains("cannot be signed"));
}

#[test]
fn what_is_in_a_cache_is_listed_by_name_and_size() {
    on_each_built(|_, sender| {
        let machine = &sender.machine;
        let large = trees::add_large_file(machine, 1_000_000);
        let count = cache_of_nix(sender, "compression=zstd");
        let to = format!("file://{CACHE}?compression=zstd");
        machine.command("nix").args(["copy", "--to", &to, &large]).ok();
        let index = |args: &[&str]| -> Index {
            let command = ferry(machine, ["cache", "index", CACHE, "--json"]).args(args);
            json(&command.succeed().stdout)
        };
        let all = index(&["--sort", "nar-size", "-S"]);
        assert_eq!((all.version, all.cache.as_str(), all.failed.len()), (1, CACHE, 0));
        assert_eq!((all.paths.len() as u64, all.narinfos_read), (count + 1, count + 1));
        assert_eq!(all.paths[0].path, large);
        assert!(all.paths.is_sorted_by_key(|entry| std::cmp::Reverse(entry.nar_size)));
        assert_eq!(all.closure_size, Some(all.nar_size));
        assert_eq!(
            all.paths.iter().filter_map(|entry| entry.file_size).sum::<u64>(),
            all.file_size
        );
        let top = all.paths.iter().find(|entry| entry.path == sender.top).unwrap();
        let rest: u64 = closure(machine, &sender.top)
            .iter()
            .filter_map(|object| all.paths.iter().find(|entry| entry.path == object.path))
            .map(|entry| entry.nar_size)
            .sum();
        assert_eq!(top.closure_size, Some(rest));

        let some = index(&["^crossing-[ab]-", "b-1"]);
        let names: Vec<&str> = some.paths.iter().map(|entry| &entry.path[44..]).collect();
        assert_eq!(names, ["crossing-b-1.0"]);
        let table = ferry(machine, ["cache", "index", CACHE, "crossing-b"]).ok();
        assert!(table.lines().any(|line| line.ends_with("all 1 path")), "{table}");

        let write = ferry(machine, ["cache", "index", CACHE, "--write"]).succeed();
        assert!(write.stderr.contains("its index was written"), "{}", write.stderr);
        shell(machine, &format!("touch -d '1 hour ago' {CACHE}/*.narinfo")).ok();
        assert_eq!(index(&[]).narinfos_read, 0);
        assert_eq!(index(&["--anew"]).narinfos_read, count + 1);
        // Nix does not mind.
        machine.command("nix").args(["path-info", "--store", &to, "-r", &sender.top]).ok();
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    machine.write("/data/cache/nix-cache-info", "StoreDir: /nix/store\n");
    for (args, said) in [
        (vec!["verify", CACHE, "--sample", "5"], "it is written `5%`"),
        (vec!["verify", CACHE, "--shard", "2/2"], "names no part"),
        (vec!["verify", CACHE, "--sample", "5%", "--read-data"], "cannot be used with"),
        (vec!["verify", CACHE, "--state", "/data/state"], "--read-data"),
        (vec!["verify", CACHE, "/nix/store/x.drv^out"], ""),
        (vec!["sign", CACHE, "--all"], "--sign-key"),
        (vec!["sign", CACHE, "-k", "x"], "<PATH>"),
        (vec!["index", CACHE, "("], "unclosed group"),
    ] {
        let args = ["cache"].into_iter().chain(args);
        let failed = ferry(&machine, args.clone()).fails();
        let args: Vec<&str> = args.collect();
        assert_eq!(failed.code(), 2, "{args:?}: {}", failed.stderr);
        assert!(failed.stderr.contains(said), "{args:?}: {}", failed.stderr);
    }
    for args in [["verify", "/data"], ["index", "/data"]] {
        let failed = ferry(&machine, ["cache"].into_iter().chain(args)).fails();
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains("it has no `nix-cache-info`"), "{}", failed.stderr);
    }
}
