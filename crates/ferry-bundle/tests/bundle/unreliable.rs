//! Sources that hand over something else than was planned, and a store from which something is
//! taken away meanwhile.

use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};
use ferry_store::progress::Silent;
use ferry_store::{Error, NarVisitor, Result, Store, copy};
use std::collections::BTreeMap;

use crate::objects::{Memory, Object, any_path};
use crate::receiver::Receiver;
use crate::wire::Wire;

/// What such a source does before or instead of handing over a NAR.
type Trick<'a> = dyn Fn(&PathInfo, &mut NarVisitor<'_>) -> Result<()> + 'a;

struct Unreliable<'a> {
    store: &'a Memory,
    trick: &'a Trick<'a>,
}

impl Store for Unreliable<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.store.store_dir()
    }

    fn describe(&self) -> String {
        "an unreliable store".to_owned()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.store.path_info(path)
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.store.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        wanted.iter().try_for_each(|info| {
            (self.trick)(info, visit)?;
            self.store.read_nars(std::slice::from_ref(info), visit)
        })
    }
}

fn output(name: &str, references: &[&StorePath]) -> Object {
    Object::output(&any_path(name, name), Wire::new().file(name.as_bytes()).0, references)
}

#[test]
fn a_nar_proves_what_was_planned_and_not_what_is_said_of_it_on_the_way() {
    let offered = output("offered", &[]);
    let memory = Memory::of(std::slice::from_ref(&offered));
    let other = Wire::new().file(b"something else").0;
    let trick = |info: &PathInfo, visit: &mut NarVisitor<'_>| {
        let (nar_hash, nar_size) = (NarHash::of(&other), other.len() as u64);
        visit(&PathInfo { nar_hash, nar_size, ..info.clone() }, &mut other.as_slice())
    };
    let receiver = Receiver::new();
    let source = Unreliable { store: &memory, trick: &trick };
    let error = copy(&source, &receiver.store, memory.infos(), &[], &Silent).unwrap_err();
    assert!(matches!(error, Error::WrongNarHash { .. } | Error::WrongNarSize { .. }), "{error}");
    assert_eq!(receiver.valid(&[offered.path().clone()]), []);
}

#[test]
fn a_path_that_nobody_has_asked_for_is_not_taken_in() {
    let objects = [output("asked-for", &[]), output("not-asked-for", &[])];
    let memory = Memory::of(&objects);
    let [wanted, other] = &objects;
    let trick =
        |_: &PathInfo, visit: &mut NarVisitor<'_>| visit(&other.info, &mut other.nar.as_slice());
    let receiver = Receiver::new();
    let source = Unreliable { store: &memory, trick: &trick };
    let offered = BTreeMap::from([(wanted.path().clone(), wanted.info.clone())]);
    let error = copy(&source, &receiver.store, offered, &[], &Silent).unwrap_err();
    assert!(error.to_string().contains(&other.rendered()), "{error}");
    assert_eq!(receiver.valid(&[other.path().clone()]), []);
}

#[test]
fn what_refers_to_something_that_is_taken_away_meanwhile_does_not_become_valid() {
    let below = output("below", &[]);
    let above = output("above", &[below.path()]);
    let memory = Memory::of(&[below.clone(), above.clone()]);
    let receiver = Receiver::new();
    let first = BTreeMap::from([(below.path().clone(), below.info.clone())]);
    copy(&memory, &receiver.store, first, &[], &Silent).unwrap();
    let database = receiver.store.layout().state_dir.join("db/db.sqlite");
    // As who ignores what keeps it alive.
    let trick = |_: &PathInfo, _: &mut NarVisitor<'_>| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        assert_eq!(connection.execute("delete from ValidPaths", []).unwrap(), 1);
        Ok(())
    };
    let source = Unreliable { store: &memory, trick: &trick };
    let second = BTreeMap::from([(above.path().clone(), above.info.clone())]);
    let error = copy(&source, &receiver.store, second, &[], &Silent).unwrap_err();
    assert!(error.to_string().contains(&below.rendered()), "{error}");
    assert_eq!(receiver.valid(&[above.path().clone()]), []);
}
