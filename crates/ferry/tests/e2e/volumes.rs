//! Bundles in volumes, from real Nix to real Nix.

use std::collections::BTreeMap;
use std::fs;

use ferry_test_world::{Machine, NixVersion, World, trees};

use crate::support::{
    Built, all_valid, assert_store_is_whole, carry, closure, ferry, machine, on_each_built,
};

/// Everything in `/data/volumes`.
fn volumes(machine: &Machine) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(machine.path("/data/volumes")).unwrap();
    let read = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    entries.map(|entry| read(entry.unwrap())).collect()
}

fn file(number: usize) -> String {
    format!("/data/volumes/c.{number:03}.ferry")
}

/// Packs the closure of `path`, with noise that no compression makes small, into volumes.
fn packed(machine: &Machine, path: &str) -> (String, usize) {
    let noise = trees::add(machine, "noise", |path| {
        let mut state = 1_u64;
        let bytes = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        fs::write(path, bytes.take(1 << 20).collect::<Vec<_>>())
    });
    fs::create_dir_all(machine.path("/data/volumes")).unwrap();
    let pack = ["pack", path, "--set", "runtime", "--also", &noise, "-o", "/data/volumes/c.ferry"];
    let said = ferry(machine, pack).args(["--volume-size", "300K", "--parity", "2"]).succeed();
    assert!(said.stderr.contains("2 of parity"), "{}", said.stderr);
    let volumes = volumes(machine);
    assert!(volumes.values().all(|bytes| bytes.len() < 300 << 10));
    (noise, volumes.len())
}

#[test]
fn volumes_load_in_any_order_with_one_missing_and_one_damaged() {
    on_each_built(|world, Built { machine: sender, top, .. }| {
        let (noise, count) = packed(sender, top);
        assert_eq!(count, 7);
        let receiver = machine(world, sender.version());
        fs::create_dir_all(receiver.path("/data/volumes")).unwrap();
        (1..=count).for_each(|number| carry(sender, &receiver, &file(number)));
        fs::remove_file(receiver.path(file(2))).unwrap();
        let mut damaged = receiver.read(file(3));
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        receiver.write(file(3), damaged);

        let reversed: Vec<String> =
            (1..=count).rev().filter(|number| *number != 2).map(file).collect();
        let loaded = ferry(&receiver, ["load", "--no-check-sigs", "--to", "local"])
            .args(&reversed)
            .succeed();
        for said in ["c.002.ferry is missing or damaged", "c.003.ferry is missing or damaged"] {
            assert!(loaded.stderr.contains(said), "{}", loaded.stderr);
        }
        let verified = ferry(&receiver, ["verify", "--json", &file(1)]).fails();
        assert_eq!(verified.code(), 1);
        assert!(verified.stderr.contains("2 of its volumes"), "{}", verified.stderr);
        let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
        assert_eq!((&said["valid"], &said["volumesNotWhole"]), (&true.into(), &2.into()));
        let mut wanted = closure(sender, top);
        wanted.extend(closure(sender, &noise));
        wanted.sort();
        assert_eq!(all_valid(&receiver), wanted);
        assert_store_is_whole(&receiver);

        let repaired = ferry(&receiver, ["repair", &file(1)]).succeed();
        assert!(repaired.stderr.contains("wrote volume 2 "), "{}", repaired.stderr);
        assert_eq!(volumes(&receiver), volumes(sender));
        ferry(&receiver, ["verify", "--quiet", &file(1)]).ok();
    });
}

#[test]
fn one_volume_alone_is_checked_and_the_others_are_named() {
    let Some(world) = World::open() else { return };
    let Built { machine: sender, top, .. } = Built::new(&world, NixVersion::V2_26);
    let (_, count) = packed(&sender, &top);
    let receiver = machine(&world, sender.version());
    fs::create_dir_all(receiver.path("/data/volumes")).unwrap();
    carry(&sender, &receiver, &file(5));
    for command in ["verify", "info", "ls", "load"] {
        let failed = ferry(&receiver, [command, &file(5)]).fails();
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains("6 of 7 volumes"), "{}", failed.stderr);
        for missing in (1..=count).filter(|number| *number != 5) {
            let line = format!("volume {missing}: {}", file(missing));
            assert!(failed.stderr.contains(&line), "{command}: {}", failed.stderr);
        }
        assert!(!failed.stderr.contains("volume 5:"), "{command}: {}", failed.stderr);
    }
    let verified = ferry(&receiver, ["verify", &file(5), "--json"]).fails();
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(said["valid"], false);
    assert_eq!(said["volumes"][4]["condition"], "whole");
    assert_eq!(said["volumes"][4]["parity"], false);
    assert_eq!(said["volumes"][5]["parity"], true);
    assert_eq!(said["volumes"][0]["condition"], "missing");

    // All there: any of them stands for all.
    (1..=count).for_each(|number| carry(&sender, &receiver, &file(number)));
    let list = ferry(&receiver, ["ls", &file(3)]).ok();
    for number in 1..=count {
        ferry(&receiver, ["verify", &file(number), "--quiet"]).ok();
        ferry(&receiver, ["info", &file(number)]).ok();
        assert_eq!(ferry(&receiver, ["ls", &file(number)]).ok(), list);
    }
    assert!(list.contains("noise"));
}

#[test]
fn the_same_paths_give_the_same_volumes_and_nothing_else_is_left() {
    let Some(world) = World::open() else { return };
    let Built { machine, top, .. } = Built::new(&world, NixVersion::V2_34);
    packed(&machine, &top);
    let first = volumes(&machine);
    assert!(first.keys().all(|name| name.ends_with(".ferry") && !name.starts_with('.')));
    packed(&machine, &top);
    assert_eq!(volumes(&machine), first);
}
