//! A copy into a cache that ends early leaves what is whole, and the next one goes on.

use std::fs;

use ferry_formats::narinfo;
use ferry_store::Store;

use crate::support::{
    Hooked, Objects, address, all, chain, copy_all, count_whole, failing, new_store, open, path,
};

#[test]
fn what_was_copied_before_a_failure_stays_and_the_next_copy_goes_on() {
    let objects = chain();
    let store = objects.store();
    for after in [0, 1, 4, 5, 17, 29] {
        let directory = tempfile::tempdir().unwrap();
        let place = address(directory.path(), "compression=zstd");
        let error = copy_all(&failing(&store, after), &open(&place)).unwrap_err();
        assert!(error.to_string().contains("it went away"), "{error}");
        assert_eq!(count_whole(directory.path()), after);
        let report = copy_all(&store, &open(&place)).unwrap();
        assert_eq!((report.present, report.added), (after, 30 - after));
        assert_eq!(count_whole(directory.path()), 30);
        let root = tempfile::tempdir().unwrap();
        copy_all(&open(&place), &new_store(root.path())).unwrap();
        assert_eq!(all(&new_store(root.path())), all(&store));
    }
}

#[test]
fn a_file_that_cannot_get_its_place_ends_a_copy_that_goes_on_for_long() {
    let mut objects = Objects::new();
    for number in 0..6000_u32 {
        objects.add(&format!("p{number}"), &number.to_le_bytes(), &[]);
    }
    let store = objects.store();
    let directory = tempfile::tempdir().unwrap();
    let obstacle = directory.path().join(narinfo::file_name(&path("p4000"))).join("in the way");
    // Nobody saw it when the copy began, and there is much more to come when it is found.
    let before = |read| {
        if read == 100 {
            fs::create_dir_all(&obstacle).unwrap();
        }
        Ok(())
    };
    let source = Hooked { store: &store, before: Box::new(before) };
    let place = address(directory.path(), "compression=none");
    let error = copy_all(&source, &open(&place)).unwrap_err().to_string();
    assert!(error.contains(&narinfo::file_name(&path("p4000"))), "{error}");
    fs::remove_dir_all(obstacle.parent().unwrap()).unwrap();
    assert!(count_whole(directory.path()) < 6000);
    let report = copy_all(&store, &open(&place)).unwrap();
    assert_eq!(report.added + report.present, 6000);
    assert_eq!(count_whole(directory.path()), 6000);
}

#[test]
fn what_a_dead_writer_has_left_behind_is_removed_and_a_living_ones_is_not() {
    let objects = chain();
    let directory = tempfile::tempdir().unwrap();
    let dead = directory.path().join(".ferry-dead");
    let alive = directory.path().join(".ferry-alive");
    for left in [&dead, &alive] {
        fs::create_dir(left).unwrap();
        fs::write(left.join("0"), "half a NAR").unwrap();
    }
    let handle = fs::File::open(&alive).unwrap();
    rustix::fs::flock(&handle, rustix::fs::FlockOperation::LockExclusive).unwrap();
    copy_all(&objects.store(), &open(&address(directory.path(), ""))).unwrap();
    assert!(!dead.exists() && alive.join("0").exists());
    // Neither is taken for a part of the cache.
    let cache = open(&address(directory.path(), ""));
    assert_eq!(cache.all_paths().unwrap().unwrap().len(), 30);
}
