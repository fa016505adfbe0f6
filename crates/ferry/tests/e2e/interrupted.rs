//! Work that was cut off at any moment: what is valid is whole, and the next attempt finishes.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use ferry_test_world::{BigGraph, Machine, NixVersion, World, big_graph, trees};

use crate::bad_input::{assert_fails, names, store_names};
use crate::kills::Moments;
use crate::support::{
    Object, all_valid, assert_store_is_whole, carry, ferry, machine, pack_runtime, shell,
};

const BUNDLE: &str = "/tmp/bundle.ferry";
const KILLS: u64 = 20;

/// A bundle with thousands of small paths and some large ones, and what is in it.
fn bundle(world: &World, version: NixVersion) -> (Machine, Vec<Object>) {
    let sender = machine(world, version);
    let derivation = big_graph(&sender, 2000);
    let mut pack = vec!["pack".to_owned(), derivation];
    for size in [1_000_000, 3_000_000, 8_000_000] {
        pack.extend(["--also".to_owned(), trees::add_large_file(&sender, size)]);
    }
    pack.extend(["--also".to_owned(), trees::add_many_files(&sender, 500, 2000)]);
    ferry(&sender, pack).args(["-o", BUNDLE]).ok();
    let whole = all_valid(&sender);
    (sender, whole)
}

/// Empties a machine's store. Nothing may run there.
fn wipe(machine: &Machine) {
    shell(machine, "rm -rf /nix/store /nix/var").ok();
}

/// What is valid is part of the whole, and whole.
fn assert_sound(machine: &Machine, whole: &BTreeSet<Object>, after: &str) -> usize {
    if !machine.path("/nix/var/nix/db/schema").exists() {
        return 0;
    }
    assert_store_is_whole(machine);
    let valid = all_valid(machine);
    for object in &valid {
        assert!(whole.contains(object), "{after}: {object:?} is not as it was packed");
    }
    valid.len()
}

/// The store holds the whole, and nothing that somebody has left behind.
fn assert_complete(machine: &Machine, whole: &[Object]) {
    assert_eq!(all_valid(machine), whole);
    assert_store_is_whole(machine);
    let wanted: BTreeSet<String> =
        whole.iter().map(|object| object.path["/nix/store/".len()..].to_owned()).collect();
    let there: BTreeSet<String> = store_names(machine).into_iter().collect();
    assert_eq!(there, wanted, "the store directory");
}

/// Kills loads at twenty moments, spread over the time that a whole one takes; every fourth
/// begins with nothing, the others with what the one before has left. `tend` keeps whatever has
/// to run beside.
fn kill_loads<T>(to: &str, version: NixVersion, tend: impl Fn(&Machine) -> T) {
    let Some(world) = World::open() else { return };
    let (sender, whole) = bundle(&world, version);
    let all: BTreeSet<Object> = whole.iter().cloned().collect();
    let receiver = machine(&world, version);
    carry(&sender, &receiver, BUNDLE);
    let load = || ferry(&receiver, ["load", BUNDLE, "--to", to]);

    let tended = tend(&receiver);
    let took = load().measure().wall;
    drop(tended);
    assert_complete(&receiver, &whole);

    let (mut kills, mut begun) = (0, 0);
    let mut moments = Moments::within(took);
    for attempt in 0..5 * KILLS {
        if attempt % 4 == 0 {
            wipe(&receiver);
        }
        let tended = tend(&receiver);
        let killed = moments.kill(load());
        drop(tended);
        let valid = assert_sound(&receiver, &all, &format!("attempt {attempt} at {killed:?}"));
        begun += u64::from(killed.is_some() && (1..whole.len()).contains(&valid));
        kills += u64::from(killed.is_some());
        if kills == KILLS {
            break;
        }
    }
    assert_eq!(kills, KILLS, "loads that were killed before they ended");
    if to == "daemon" {
        // It registers path by path; what loads directly, in large batches.
        assert!(begun >= KILLS / 4, "only {begun} kills left part of the whole behind");
    }
    let _tended = tend(&receiver);
    load().ok();
    assert_complete(&receiver, &whole);
}

#[test]
fn a_direct_load_killed_at_any_moment_leaves_only_whole_paths_and_blocks_nothing() {
    kill_loads("local", NixVersion::V2_26, |_| ());
}

#[test]
fn a_load_through_the_daemon_killed_at_any_moment_leaves_only_whole_paths_and_blocks_nothing() {
    kill_loads("daemon", NixVersion::V2_34, Machine::daemon);
}

#[test]
fn what_a_killed_load_has_left_is_swept_by_the_next_one_that_adds_anything() {
    let Some(world) = World::open() else { return };
    let sender = machine(&world, NixVersion::V2_8);
    let large = trees::add_large_file(&sender, 100_000_000);
    let small = trees::add_large_file(&sender, 1000);
    for (path, file) in [(&large, "/tmp/large.ferry"), (&small, "/tmp/small.ferry")] {
        pack_runtime(&sender, path, file).args(["--level", "fast"]).ok();
    }
    let receiver = machine(&world, NixVersion::V2_8);
    carry(&sender, &receiver, "/tmp/large.ferry");
    carry(&sender, &receiver, "/tmp/small.ferry");
    let mut load = ferry(&receiver, ["load", "/tmp/large.ferry", "--to", "local"]).spawn();
    // Killed as soon as something is being unpacked.
    while load.is_running() && store_names(&receiver).is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    load.kill();
    assert_eq!(store_names(&receiver).len(), 1, "what it was unpacking");
    assert!(!receiver.path(&large).exists());

    ferry(&receiver, ["load", "/tmp/small.ferry", "--to", "local"]).ok();
    assert_eq!(store_names(&receiver), [&small["/nix/store/".len()..]]);
    assert_store_is_whole(&receiver);
}

#[test]
fn a_pack_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let old = big_graph(&machine, 300);
    let new = BigGraph { seed: "1".to_owned(), ..BigGraph::new(1500) }.command(&machine).ok();
    let large = trees::add_large_file(&machine, 20_000_000);
    let file = "/data/out/x.ferry";
    machine.write("/data/out/old.ferry", "");
    ferry(&machine, ["pack", &old, "-o", "/data/out/old.ferry"]).ok();
    let old = machine.read("/data/out/old.ferry");
    let pack = || ferry(&machine, ["pack", &new, "--also", &large, "-o", file]);
    let took = pack().measure().wall;
    let new = machine.read(file);

    let (mut kills, mut replaced) = (0, 0);
    let mut moments = Moments::within(took);
    for _ in 0..5 * KILLS {
        machine.write(file, &old);
        let killed = moments.kill(pack());
        kills += u64::from(killed.is_some());
        let left = machine.read(file);
        assert!(left == old || left == new, "{killed:?}: neither the old bundle nor the new one");
        replaced += u64::from(left == new);
        if kills == KILLS {
            break;
        }
    }
    assert_eq!(kills, KILLS, "packs that were killed before they ended");
    assert!(replaced < KILLS, "no kill came before the end");
    // Nothing of them is in the way, and the store is free.
    pack().ok();
    assert!(machine.read(file) == new);
    let temporary = |name: &String| name.starts_with(".ferry-");
    assert!(names(&machine.path("/data/out")).iter().filter(|name| temporary(name)).count() <= 200);
    machine.command("nix-store").arg("--gc").ok();
    assert_eq!(all_valid(&machine), [], "a temporary root holds on");
}

#[test]
fn a_daemon_that_dies_meanwhile_is_an_error_and_the_next_load_goes_on() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (sender, whole) = bundle(&world, version);
        let receiver = machine(&world, version);
        carry(&sender, &receiver, BUNDLE);
        let all: BTreeSet<Object> = whole.iter().cloned().collect();

        let daemon = receiver.daemon();
        let mut load = ferry(&receiver, ["load", BUNDLE, "--to", "daemon"]).spawn();
        while load.is_running() && store_names(&receiver).len() < 500 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(load.is_running(), "it was too fast");
        // With all that it has started.
        drop(daemon);
        let failed = load.wait();
        let told = &failed.stderr;
        assert_eq!(failed.code(), 1, "{told}");
        assert!(told.contains("the Nix daemon at /nix/var/nix/daemon-socket/socket"), "{told}");
        assert!(told.contains("it closed the connection"), "{told}");
        let valid = assert_sound(&receiver, &all, "the death of the daemon");
        assert!((1..whole.len()).contains(&valid), "{valid} paths");

        let _daemon = receiver.daemon();
        ferry(&receiver, ["load", BUNDLE, "--to", "daemon"]).ok();
        assert_complete(&receiver, &whole);
    }
}

#[test]
fn a_daemon_that_is_cut_off_in_the_middle_of_a_path_is_an_error() {
    let Some(world) = World::open() else { return };
    let sender = machine(&world, NixVersion::V2_26);
    let path = trees::add_many_files(&sender, 300, 5000);
    pack_runtime(&sender, &path, BUNDLE).ok();
    for version in NixVersion::ALL {
        let receiver = machine(&world, version);
        carry(&sender, &receiver, BUNDLE);
        // So many bytes of what is said to it arrive.
        let script = "#!/bin/sh\nstdbuf -o0 head -c \"$1\" | nix-daemon --stdio\n";
        receiver.write("/opt/bin/cut-off", script);
        shell(&receiver, "chmod +x /opt/bin/cut-off").ok();
        for bytes in [0, 8, 20, 100, 400, 1000, 100_000, 1_000_000, 1_500_000] {
            let to = format!("exec:cut-off {bytes}");
            let load = ["60", "ferry", "load", BUNDLE, "--to", &to, "--no-root"];
            assert_fails(receiver.command("timeout").args(load), 1, &["the Nix daemon behind"]);
            assert_eq!(all_valid(&receiver), [], "{bytes}");
        }
        ferry(&receiver, ["load", BUNDLE, "--to", "exec:nix-daemon --stdio"]).ok();
        assert_complete(&receiver, &all_valid(&sender));
    }
}
