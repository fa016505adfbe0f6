//! What a small file can make a reader allocate: not much, whatever it claims.
//!
//! Measured in a process of its own with a limit on its address space: an attempt to allocate
//! what was claimed would end it. The process is this test binary again.

use std::fs;
use std::path::Path;
use std::process::Command;

use ferry_formats::StorePath;

use crate::builder::{Draft, Entry, assemble, number, packed_index};
use crate::derivations::World;
use crate::hostile_derivations::rebuilt;
use crate::objects::{Object, any_path, sample};
use crate::packed::packed;
use crate::receiver::verify;
use crate::wire::Wire;

/// Kilobytes of address space that a reader may have, threads and their stacks included.
const LIMIT: u32 = 128 << 10;
const FILE: &str = "FERRY_TEST_BUNDLE";

/// The child: verifies one file, and says what came of it.
#[test]
#[ignore = "is run by the other tests, under a limit"]
fn child() {
    let bundle = fs::read(std::env::var_os(FILE).expect("no bundle given")).unwrap();
    match verify(&bundle) {
        Ok(report) => println!("\naccepted {} paths", report.copied.added),
        Err(error) => println!("\nrefused: {error}"),
    }
}

/// What verifying a bundle under the limit comes to.
fn under_the_limit(bundle: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.ferry");
    fs::write(&file, bundle).unwrap();
    run(&file)
}

fn run(file: &Path) -> String {
    let output = Command::new("/bin/sh")
        .args(["-c", r#"ulimit -v "$1"; shift; exec "$@""#, "sh", &LIMIT.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["memory::child", "--exact", "--ignored", "--nocapture"])
        .env(FILE, file)
        // Otherwise every thread reserves 64 MB that it does not use.
        .env("MALLOC_ARENA_MAX", "1")
        // A backtrace takes memory: out of it, the child would wait for itself, for ever.
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let said =
        text.lines().find(|line| line.starts_with("accepted") || line.starts_with("refused"));
    said.unwrap_or_else(|| panic!("it says nothing: {text}")).to_owned()
}

#[test]
fn the_limit_is_enough_for_an_honest_bundle_and_not_for_a_greedy_reader() {
    assert_eq!(under_the_limit(&Draft::of(&sample()).build()), "accepted 8 paths");
    // A file as large as the limit cannot be read into memory by the child.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large");
    fs::File::create(&file).unwrap().set_len(u64::from(LIMIT) << 10).unwrap();
    assert!(std::panic::catch_unwind(|| run(&file)).is_err());
}

#[test]
fn a_large_nar_passes_through_a_small_memory() {
    let zeros = Wire::new().file(&vec![0; 160 << 20]);
    let bundle = Draft::of(&[Object::output(&any_path("large", "large"), zeros.0, &[])]).build();
    assert_eq!(under_the_limit(&bundle), "accepted 1 paths");
}

#[test]
fn lengths_that_are_claimed_are_not_allocated() {
    let draft = Draft::of(&sample());
    for (number, claimed) in [(0, 64 << 20), (1, 1 << 30), (2, 1 << 20), (3, 4 << 20)] {
        let mut sections = draft.sections();
        sections[number].claims = Some(claimed);
        let said = under_the_limit(&assemble(&draft.beginning(), &sections));
        assert!(said.contains("truncated"), "section {number}: {said}");
    }
}

#[test]
fn a_nar_that_claims_to_be_gigantic_is_not_allocated() {
    for claimed in [1 << 34, 1 << 46, u64::MAX >> 1] {
        let mut draft = Draft::of(&sample()[..1]);
        draft.entries[0].nar_size = claimed;
        let said = under_the_limit(&draft.counted().build());
        assert!(said.starts_with("refused"), "{said}");
    }
}

#[test]
fn a_file_in_a_nar_that_claims_to_be_gigantic_is_not_allocated() {
    let mut nar = Wire::new().words(&["(", "type", "regular", "contents"]).0;
    nar.extend((u64::MAX - 7).to_le_bytes());
    let bundle = Draft::of(&[Object::output(&any_path("large", "large"), nar, &[])]).build();
    let said = under_the_limit(&bundle);
    assert!(said.starts_with("refused"), "{said}");
}

#[test]
fn an_index_bomb_goes_off_in_a_small_memory() {
    let draft = Draft::of(&sample());
    let packed = packed_index(&vec![0; 512 << 20]);
    let frame = &packed[8..];
    for claimed in [512 << 20, (frame.len() as u64) * 64, 1 << 20] {
        let mut sections = draft.sections();
        sections[1].contents = [&claimed.to_le_bytes(), frame].concat();
        let said = under_the_limit(&assemble(&draft.beginning(), &sections));
        assert!(said.contains("index"), "{claimed}: {said}");
    }
}

/// Entries of which each refers to all before it: a byte or two in the file for a store path in
/// memory.
fn web(count: u64) -> Draft {
    let mut paths: Vec<StorePath> =
        (0..count).map(|seed| any_path(&seed.to_string(), &"n".repeat(211))).collect();
    paths.sort();
    let nar = Wire::new().file(b"").0;
    let one = Object::output(&paths[0], nar, &[]);
    let mut draft = Draft::of(&[one]);
    let pattern = draft.entries.remove(0);
    draft.entries = (0..count)
        .map(|place| Entry {
            digest: *paths[place as usize].digest(),
            references: (0..place).collect(),
            ..pattern.clone()
        })
        .collect();
    draft.counted()
}

#[test]
fn references_cannot_make_a_small_file_large_in_memory() {
    let bundle = web(1000).build();
    assert!(bundle.len() < 1 << 20, "a bundle of {} bytes", bundle.len());
    let said = under_the_limit(&bundle);
    assert!(said.starts_with("refused") && said.contains("references"), "{said}");
}

#[test]
fn tokens_cannot_make_a_small_file_large_in_memory() {
    let mut world = World::new("/nix/store");
    let name = "n".repeat(200);
    let builder = world.builder(&name).input_addressed_output("out");
    world.add(builder.environment("text", name.as_str()));
    let bundle = packed(&world.objects);
    assert_eq!(under_the_limit(&bundle), "accepted 1 paths");

    // A value of two million times the name, which is one byte each.
    let changed = rebuilt(&bundle, |[numbers, texts, _]| {
        let end = texts.len() - 2;
        assert_eq!(texts[end..], [5, 0]);
        texts.splice(end..end, std::iter::repeat_n(5, 2 << 20));
        // Its size is the last of the sizes, before the shape, what is different, and 8 values.
        let size = numbers.len() - 13;
        assert_eq!(numbers[size], 2);
        let mut larger = Vec::new();
        number(&mut larger, (2 << 20) + 2);
        numbers.splice(size..=size, larger);
    });
    let said = under_the_limit(&changed);
    assert!(said.starts_with("refused") && said.contains("longer"), "{said}");
}
