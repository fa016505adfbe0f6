//! What is in a cache, told by an index.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferry_cache::{Indexed, VerifyOptions};
use ferry_formats::narinfo;
use ferry_store::progress::Silent;
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;
use ferry_test_world::{NixVersion, World};

use crate::support::{address, all, built, copy_all, open, path, serve, some_objects};

const INDEX: &str = "ferry-index.jsonl.zst";

fn index(place: &str) -> Indexed {
    open(place).index(false, &Silent).unwrap()
}

fn names(indexed: &Indexed) -> Vec<String> {
    let entries = indexed.index.entries();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.path.name().to_owned()).collect();
    names.sort();
    names
}

/// Sets back when a narinfo was written.
fn grow_old(directory: &Path, name: &str, seconds: u64) {
    let file = File::open(directory.join(narinfo::file_name(&path(name)))).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn an_index_that_is_kept_is_read_in_place_of_the_narinfos_that_are_older() {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=zstd");
    copy_all(&some_objects().store(), &open(&place)).unwrap();
    for (age, name) in ["bottom", "middle", "twin", "large"].into_iter().enumerate() {
        grow_old(directory.path(), name, 1000 + age as u64);
    }
    let first = index(&place);
    assert_eq!(names(&first), ["bottom", "large", "middle", "top", "twin"]);
    assert_eq!((first.read, first.is_kept, first.failed.len()), (5, false, 0));
    open(&place).write_index(&first.index).unwrap();
    let again = index(&place);
    // The newest may have been written again in the same moment.
    assert_eq!(
        (again.read, again.is_kept, again.index.entries()),
        (1, true, first.index.entries())
    );
    assert_eq!(open(&place).index(true, &Silent).unwrap().read, 5);

    // What is gone is gone, and what is new is read.
    fs::remove_file(directory.path().join(narinfo::file_name(&path("top")))).unwrap();
    assert_eq!(names(&index(&place)), ["bottom", "large", "middle", "twin"]);
    copy_all(&some_objects().store(), &open(&place)).unwrap();
    let new = index(&place);
    assert_eq!((names(&new).len(), new.read), (5, 1));

    // A damaged index is none.
    let kept = fs::read(directory.path().join(INDEX)).unwrap();
    for end in [0, kept.len() / 2, kept.len() - 1] {
        fs::write(directory.path().join(INDEX), &kept[..end]).unwrap();
        let damaged = index(&place);
        assert_eq!((names(&damaged).len(), damaged.read), (5, 5));
        let web = serve(directory.path());
        let error = open(&web.url()).index(false, &Silent).unwrap_err().to_string();
        assert!(error.contains(INDEX), "{error}");
    }
}

#[test]
fn a_cache_on_the_web_is_listed_and_verified_by_the_index_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=zstd");
    copy_all(&some_objects().store(), &open(&place)).unwrap();
    let web = serve(directory.path());
    let error = open(&web.url()).index(false, &Silent).unwrap_err().to_string();
    assert!(error.contains("cannot be listed"), "{error}");

    let indexed = index(&place);
    open(&place).write_index(&indexed.index).unwrap();
    let web = serve(directory.path());
    let found = index(&web.url());
    assert_eq!(found.index.entries(), indexed.index.entries());
    assert_eq!(web.requests_for(&format!("/{}", narinfo::file_name(&path("top")))), 0);
    let options = VerifyOptions {
        roots: Vec::new(),
        shard: Shard::WHOLE,
        trust: TrustPolicy::accept_all(),
        data: ferry_cache::ReadData::Everything,
        again_after: None,
    };
    let report = open(&web.url()).verify(&options, None, &Silent).unwrap();
    assert_eq!((report.paths, report.nars_read, report.faults.len()), (5, 5, 0));
    // An index of nothing is one of nothing.
    let empty = tempfile::tempdir().unwrap();
    fs::write(empty.path().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    let place = address(empty.path(), "");
    open(&place).write_index(&index(&place).index).unwrap();
    let web = serve(empty.path());
    let report = open(&web.url()).verify(&options, None, &Silent).unwrap();
    assert_eq!((report.paths, report.faults.len()), (0, 0));
}

#[test]
fn what_is_no_narinfo_is_not_in_the_index_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=zstd");
    copy_all(&some_objects().store(), &open(&place)).unwrap();
    let name = narinfo::file_name(&path("top"));
    fs::write(directory.path().join(&name), "<html>").unwrap();
    let indexed = index(&place);
    assert_eq!(names(&indexed), ["bottom", "large", "middle", "twin"]);
    let failed: Vec<&String> = indexed.failed.iter().map(|(file, _)| file).collect();
    assert_eq!(failed, [&name]);
}

#[test]
fn the_index_of_what_nix_wrote_has_everything_in_it() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top) = built(&world, version);
        machine.command("nix").args(["copy", "--to", "file:///data/cache", &top]).ok();
        let place = address(&machine.path("/data/cache"), "");
        let expected = all(&open(&place));
        let indexed = index(&place);
        let entries = indexed.index.entries();
        assert_eq!(entries.len(), expected.len(), "Nix {version}");
        for (entry, (path, info)) in entries.iter().zip(&expected) {
            assert_eq!((entry.path, entry.nar_size), (path, info.nar_size), "Nix {version}");
        }
    }
}
