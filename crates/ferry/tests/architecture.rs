//! Arrows between the crates point down only: what ARCHITECTURE.md says is what the crates do.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The rows of the table of rooms, in order: a crate, and what it uses.
fn written() -> Vec<(String, BTreeSet<String>)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let text = std::fs::read_to_string(file).expect("ARCHITECTURE.md is there");
    let names = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    text.lines()
        .skip_while(|line| !line.starts_with("| crate |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let crate_name = names(cells[0]).remove(0);
            (crate_name, names(cells[cells.len() - 1]).into_iter().collect())
        })
        .collect()
}

/// What cargo says about the crates of this workspace.
fn real() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"].as_array().expect("dependencies");
            let uses = uses.iter().filter(|one| one["kind"].is_null()).map(name);
            (name(package), uses.filter(|used| ours.contains(used)).collect())
        })
        .collect()
}

#[test]
fn the_crates_use_what_the_table_of_rooms_says() {
    let written: Arrows = written().into_iter().collect();
    assert_eq!(written, real());
}

#[test]
fn arrows_point_down_only() {
    let mut above = BTreeSet::new();
    for (crate_name, uses) in written() {
        above.insert(crate_name.clone());
        let up: Vec<&String> = uses.intersection(&above).collect();
        assert!(up.is_empty(), "{crate_name} uses {up:?}, which is not below it");
    }
}
