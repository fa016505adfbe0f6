//! A copy into a cache that ends early leaves what is whole, and the next one goes on.

use std::fs;

use ferry_store::Store;

use crate::support::{address, all, chain, copy_all, count_whole, failing, new_store, open};

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
