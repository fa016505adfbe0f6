//! The order of what is packed, and sources that have one of their own.

use std::collections::BTreeMap;
use std::io::Cursor;

use ferry_bundle::{Bundle, BundleError, BundleWriter, PackOptions};
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::progress::Silent;
use ferry_store::{NarVisitor, Result, Store, copy};

use crate::objects::{Memory, Object};
use crate::packed::{Shared, packed, packed_from};
use crate::receiver::{count_same_nars, in_the_file, open, verify};
use crate::wire::Wire;

/// Files of several kinds, some of which refer to earlier ones.
fn files() -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    for number in 0..40_usize {
        let kind = ["patch", "sh", "txt", "py"][number % 4];
        let contents = format!("{kind} {}", "x".repeat(number % 7));
        let nar = Wire::new().file(contents.as_bytes()).0;
        let references: Vec<StorePath> = match number % 5 {
            0 => objects.iter().skip(number / 2).step_by(3).map(|it| it.path().clone()).collect(),
            _ => Vec::new(),
        };
        let name = format!("file-{}.{kind}", number * 17 % 40);
        objects.push(Object::source(&name, nar, &references.iter().collect::<Vec<_>>()));
    }
    objects
}

fn copied(from: &dyn Store, infos: BTreeMap<StorePath, PathInfo>) -> Result<Vec<u8>> {
    let sink = Shared::default();
    let options = PackOptions { level: 3, ..PackOptions::default() };
    let writer =
        BundleWriter::new(sink.clone(), "test".to_owned(), from.store_dir().clone(), options);
    copy(from, &writer, infos, &[], &Silent)?;
    Ok(sink.take())
}

#[test]
fn files_of_a_kind_stand_together() {
    let bundle = packed(&files());
    let bundle = open(&bundle).unwrap();
    let free = bundle.path_infos().iter().filter(|info| info.references.is_empty());
    let kinds: Vec<&str> = free.map(|info| info.path.name().rsplit('.').next().unwrap()).collect();
    let mut changes = kinds.clone();
    changes.dedup();
    // Some come earlier, because others refer to them: never later than all of their kind.
    assert!(kinds.len() > 30 && changes.len() < 10, "{kinds:?}");
}

#[test]
fn a_part_of_a_bundle_is_packed_again_in_the_order_of_the_bundle() {
    let objects = files();
    let store = Memory::of(&objects);
    let all = packed_from(&store, &objects, 3, Vec::new());
    for first in 0..objects.len() {
        let from = Bundle::from_stream(Cursor::new(all.clone()), "all").unwrap();
        let roots = [objects[first].path().clone(), objects[39 - first].path().clone()];
        let part = ferry_store::closure::closure(&store, &roots).unwrap();
        let count = part.len();
        let bundle = copied(&from, part).unwrap();
        assert_eq!(verify(&bundle).unwrap().copied.added, count);
        assert_eq!(count_same_nars(&open(&bundle).unwrap(), &store), count);
    }
}

/// A store that reads in another order than it is asked for, and does not say so.
struct Backwards(Memory);

impl Store for Backwards {
    fn store_dir(&self) -> &StoreDir {
        self.0.store_dir()
    }

    fn describe(&self) -> String {
        "backwards".to_owned()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.0.path_info(path)
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.0.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        let wanted: Vec<PathInfo> = wanted.iter().rev().cloned().collect();
        self.0.read_nars(&wanted, visit)
    }
}

#[test]
fn what_comes_in_another_order_is_an_error_and_not_another_bundle() {
    let store = Backwards(Memory::of(&files()));
    let error = copied(&store, store.0.infos()).unwrap_err();
    assert!(matches!(in_the_file(&error), Some(BundleError::OutOfOrder { .. })), "{error}");
}
