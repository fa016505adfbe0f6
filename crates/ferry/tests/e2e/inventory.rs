//! What a store has, told to another machine.

use ferry_formats::{StoreDir, StorePath};
use ferry_store::inventory::Inventory;

use crate::support::{
    Built, all_valid, ferry, ferry_without_nix, machine, on_each, on_each_built, shell,
};

fn read(bytes: &[u8]) -> Inventory {
    Inventory::read("test", bytes, &StoreDir::default()).unwrap()
}

fn path(text: &str) -> StorePath {
    StoreDir::default().parse_path(text.as_bytes()).unwrap()
}

#[test]
fn an_inventory_has_exactly_what_nix_says_is_valid() {
    on_each_built(|world, Built { machine: built, .. }| {
        let valid = all_valid(built);
        assert!(!valid.is_empty());
        let written = ferry(built, ["inventory", "-o", "/data/here.inv", "--json"]).succeed();
        let said: serde_json::Value = serde_json::from_slice(&written.stdout).unwrap();
        assert_eq!(said["paths"], valid.len());
        let bytes = built.read("/data/here.inv");
        assert_eq!(said["inventorySize"], bytes.len());
        let inventory = read(&bytes);
        assert_eq!(inventory.len(), valid.len());
        assert!(valid.iter().all(|object| inventory.has(&path(&object.path))));

        shell(built, "ferry inventory >/data/stream.inv").ok();
        assert_eq!(built.read("/data/stream.inv"), bytes);

        // One that has nothing of it.
        let other = machine(world, built.version());
        other.command("nix-store").arg("--init").ok();
        ferry(&other, ["inventory", "-o", "/data/there.inv"]).ok();
        let inventory = read(&other.read("/data/there.inv"));
        assert!(!valid.iter().any(|object| inventory.has(&path(&object.path))));
    });
}

#[test]
fn a_compact_inventory_is_no_list_and_a_query_says_so() {
    on_each(|_, machine| {
        machine.command("nix-store").arg("--init").ok();
        ferry(&machine, ["inventory", "-o", "/data/here.inv"]).ok();
        let left = ferry(&machine, ["query", "all() - have(/data/here.inv)"]).ok();
        assert_eq!(left, "");
        let asked = ferry(&machine, ["query", "have(/data/here.inv)"]).fails();
        assert_eq!(asked.code(), 2);
        assert!(asked.stderr.contains("in compact form"), "{}", asked.stderr);
        assert!(asked.stderr.contains("ferry query 'all()'"), "{}", asked.stderr);
    });
}

#[test]
fn what_cannot_be_listed_has_no_inventory() {
    let home = tempfile::tempdir().unwrap();
    let mut command = ferry_without_nix(home.path());
    let output = command.args(["inventory", "--store", "file:///nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"));
}
