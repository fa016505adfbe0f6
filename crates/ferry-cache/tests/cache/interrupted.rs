//! A copy into a cache that ends early leaves what is whole, and the next one goes on.

use std::fs;

use ferry_formats::{PathInfo, StoreDir, StorePath, narinfo};
use ferry_store::{Error, NarVisitor, Result, Store};

use crate::support::{Objects, address, all, copy_all, files, new_store, open};

/// A store whose disk fails after so many NARs.
struct Failing<'a> {
    store: &'a dyn Store,
    after: usize,
}

impl Store for Failing<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.store.store_dir()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.store.path_info(path)
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        self.store.all_paths()
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.store.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        let mut left = self.after;
        self.store.read_nars(wanted, &mut |info, nar| {
            left = left
                .checked_sub(1)
                .ok_or_else(|| Error::io("read the disk")(std::io::Error::other("it went away")))?;
            visit(info, nar)
        })
    }
}

/// Objects in a chain, every fifth of them large.
fn chain() -> Objects {
    let mut objects = Objects::new();
    for number in 0..30_usize {
        let below = format!("p{}", number.saturating_sub(1));
        let references: &[&str] = if number == 0 { &[] } else { &[&below] };
        let size = if number % 5 == 4 { 3 << 20 } else { 100 };
        objects.add(&format!("p{number}"), &vec![u8::try_from(number).unwrap(); size], references);
    }
    objects
}

/// Every narinfo has its NAR, and the narinfos of all that it refers to. Returns how many there are.
pub(crate) fn count_whole(directory: &std::path::Path) -> usize {
    let files = files(directory);
    let infos: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".narinfo")).collect();
    for (_, text) in &infos {
        let narinfo = narinfo::parse(&StoreDir::default(), text).unwrap();
        assert_eq!(files[&narinfo.url].len() as u64, narinfo.file_size.unwrap());
        for reference in narinfo.info.references.iter() {
            assert!(files.contains_key(&narinfo::file_name(reference)));
        }
    }
    infos.len()
}

#[test]
fn what_was_copied_before_a_failure_stays_and_the_next_copy_goes_on() {
    let objects = chain();
    let store = objects.store();
    for after in [0, 1, 4, 5, 17, 29] {
        let directory = tempfile::tempdir().unwrap();
        let place = address(directory.path(), "compression=zstd");
        let error = copy_all(&Failing { store: &store, after }, &open(&place)).unwrap_err();
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
