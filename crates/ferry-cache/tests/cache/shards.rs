//! Several machines write one cache, each a part of it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::thread;

use ferry_cache::BinaryCache;
use ferry_store::progress::Silent;
use ferry_store::shard::Shard;
use ferry_store::{CopyReport, Result, Store, copy};

use crate::support::{
    Objects, address, all, copy_all, count_whole, failing, files, open, some_objects,
};

const PARAMETERS: &str = "compression=zstd&write-nar-listing=1";

/// Writes one part, and tells how much waits for the others.
fn write_part(store: &dyn Store, directory: &Path, shard: &str) -> Result<(CopyReport, usize)> {
    let shard: Shard = shard.parse().unwrap();
    let (mine, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all(store).into_iter().partition(|(path, _)| shard.holds(path));
    let others: HashSet<_> = others.into_keys().collect();
    let cache: BinaryCache = open(&address(directory, PARAMETERS)).awaiting(others);
    let report = copy(store, &cache, mine, &[], &Silent)?;
    Ok((report, cache.waiting()))
}

/// The files of a cache that one writer has written.
fn undivided(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    copy_all(store, &open(&address(directory.path(), PARAMETERS))).unwrap();
    files(directory.path())
}

/// How names begin, so that the objects fall into different parts: the first letter is what the
/// hash part of a path in these tests begins with.
const BEGINNINGS: [&str; 4] = ["0", "A", "a", "z"];
const COUNT: usize = 40;

fn name(number: usize) -> String {
    format!("{}-{number}", BEGINNINGS[number * 7 % BEGINNINGS.len()])
}

/// Objects that refer to the one before, and to others, through all parts.
fn web() -> Objects {
    let mut objects = Objects::new();
    for number in 0..COUNT {
        let refers =
            |other: &usize| other + 1 == number || (number * 7 + other * 3).is_multiple_of(11);
        let names: Vec<String> = (0..number).filter(refers).map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        objects.add(&name(number), format!("contents of {number}").as_bytes(), &names);
    }
    objects
}

#[test]
fn parts_written_in_any_order_make_the_same_cache() {
    for objects in [web(), some_objects()] {
        let store = objects.store();
        let whole = undivided(&store);
        for count in [1, 3, 16] {
            for reversed in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let mut parts: Vec<u32> = (0..count).collect();
                if reversed {
                    parts.reverse();
                }
                let mut left = 0;
                for part in parts {
                    let (report, waiting) =
                        write_part(&store, directory.path(), &format!("{part}/{count}")).unwrap();
                    assert_eq!(report.present, 0);
                    // What is there is closed at every moment.
                    let there = count_whole(directory.path());
                    let seen = files(directory.path());
                    let aside = seen.keys().filter(|name| name.starts_with(".ferry-pending/"));
                    assert_eq!(aside.count(), waiting);
                    left = all(&store).len() - there;
                }
                assert_eq!(left, 0);
                assert!(files(directory.path()) == whole, "{count} parts, {reversed}");
            }
        }
    }
}

#[test]
fn parts_written_at_the_same_time_make_the_same_cache() {
    let objects = web();
    let store = objects.store();
    let whole = undivided(&store);
    for round in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let store = || objects.store();
        thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|part| {
                    scope.spawn(move || write_part(&store(), directory, &format!("{part}/8")))
                })
                .collect();
            for writer in writers {
                writer.join().unwrap().unwrap();
            }
        });
        assert!(files(directory) == whole, "round {round}");
    }
}

#[test]
fn a_part_that_failed_is_written_by_a_second_attempt_or_by_whoever_writes_the_whole() {
    let objects = web();
    let store = objects.store();
    let whole = undivided(&store);
    for after in [0, 1, 3, 6] {
        for again_in_parts in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let directory = directory.path();
            write_part(&failing(&store, after), directory, "0/3").unwrap_err();
            write_part(&store, directory, "1/3").unwrap();
            let (_, waiting) = write_part(&store, directory, "2/3").unwrap();
            assert!(waiting > 0 && count_whole(directory) < COUNT);
            if again_in_parts {
                let (report, waiting) = write_part(&store, directory, "0/3").unwrap();
                assert!(report.present >= after, "{report:?}");
                assert_eq!(waiting, 0);
            } else {
                // What waits is not made again.
                let report = copy_all(&store, &open(&address(directory, PARAMETERS))).unwrap();
                assert_eq!(report.added + report.present, COUNT);
                assert!(report.present >= waiting);
            }
            assert!(files(directory) == whole, "after {after}");
        }
    }
}

#[test]
fn what_no_part_brings_is_missed_as_ever() {
    let objects = some_objects();
    let store = objects.store();
    let directory = tempfile::tempdir().unwrap();
    let (mine, _): (BTreeMap<_, _>, BTreeMap<_, _>) =
        all(&store).into_iter().partition(|(path, _)| path.name() == "top");
    let cache = open(&address(directory.path(), PARAMETERS));
    let error = copy(&store, &cache, mine, &[], &Silent).unwrap_err().to_string();
    assert!(error.contains("are not in binary cache"), "{error}");
}

#[test]
fn what_somebody_left_among_narinfos_that_wait_is_passed_over() {
    let objects = web();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    write_part(&objects.store(), directory, "0/3").unwrap();
    let (name, text) =
        files(directory).into_iter().find(|(name, _)| name.starts_with(".ferry-pending/")).unwrap();
    let name = name.strip_prefix(".ferry-pending/").unwrap();
    // Half-copied by a program that goes by hidden names; kept beside by another; not ours at all.
    let left = [format!(".{name}.Ab12Cd"), format!("0{name}"), "notes.txt".to_owned()];
    for name in &left {
        fs::write(directory.join(".ferry-pending").join(name), &text).unwrap();
    }
    for part in ["1/3", "2/3"] {
        write_part(&objects.store(), directory, part).unwrap();
    }
    assert_eq!(count_whole(directory), COUNT);
    for name in left {
        let file = directory.join(".ferry-pending").join(name);
        assert_eq!(fs::read(file).unwrap(), text);
    }
}
