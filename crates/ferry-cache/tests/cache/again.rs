//! Copies out of a store on a disk to caches that have most of it already. What is there is told
//! from hashes; no more is read of it.

use std::fs;
use std::path::Path;

use ferry_cache::BinaryCache;
use ferry_formats::narinfo;
use ferry_store::closure::closure;
use ferry_store::local::LocalStore;
use ferry_store::progress::Silent;
use ferry_store::{CopyReport, Error, Result, Store as _, Wanted, copy};
use tempfile::TempDir;

use crate::support::{Objects, address, all, files, key, new_store, open, path, text};

/// Enough that the tables of its database are read whole.
const MANY: usize = 60;

/// A store on a disk, and a cache that has all of it.
struct Both {
    root: TempDir,
    cache: TempDir,
}

impl Both {
    /// Each path refers to the one before it, and all but the first to themselves.
    fn new() -> Self {
        let mut objects = Objects::new();
        for number in 0..MANY {
            let (own, below) = (format!("p{number}"), format!("p{}", number.saturating_sub(1)));
            let references: &[&str] = if number == 0 { &[] } else { &[&below, &own] };
            objects.add(&own, own.as_bytes(), references);
        }
        let both = Self { root: tempfile::tempdir().unwrap(), cache: tempfile::tempdir().unwrap() };
        let (objects, keys) = (objects.store(), [key("a", 1), key("b", 2)]);
        copy(&objects, &both.store(), all(&objects), &keys, &Silent).unwrap();
        let report = both.copy(&Wanted::everything(&both.store()).unwrap().unwrap()).unwrap();
        assert_eq!((report.added, report.present), (MANY, 0));
        both
    }

    fn store(&self) -> LocalStore {
        new_store(self.root.path())
    }

    fn cache(&self) -> BinaryCache {
        open(&address(self.cache.path(), ""))
    }

    /// The file of a narinfo.
    fn narinfo(&self, name: &str) -> std::path::PathBuf {
        self.cache.path().join(narinfo::file_name(&path(name)))
    }

    fn copy(&self, wanted: &Wanted) -> Result<CopyReport> {
        copy(&self.store(), &self.cache(), wanted.clone(), &[], &Silent)
    }

    /// Copies everything again; what is wanted is known by hashes alone.
    fn copy_again(&self) -> Result<CopyReport> {
        let wanted = Wanted::everything(&self.store())?.unwrap();
        assert!(matches!(wanted, Wanted::Hashes(_)));
        self.copy(&wanted)
    }

    fn execute(&self, statement: &str) {
        let database = rusqlite::Connection::open(self.store().layout().database()).unwrap();
        database.pragma_update(None, "foreign_keys", false).unwrap();
        assert!(database.execute(statement, []).unwrap() > 0);
    }
}

fn replace(file: &Path, from: &str, to: &str) {
    let before = fs::read_to_string(file).unwrap();
    let after = before.replace(from, to);
    assert_ne!(before, after);
    fs::write(file, after).unwrap();
}

#[test]
fn the_hashes_of_a_closure_are_those_of_its_path_infos() {
    let both = Both::new();
    let store = both.store();
    let all = Wanted::everything(&store).unwrap().unwrap();
    assert_eq!(all.len(), MANY);
    // Roots that reach more than themselves, and not everything.
    let roots: Vec<_> =
        (20..MANY - 1).step_by(2).map(|number| path(&format!("p{number}"))).collect();
    let Wanted::Hashes(hashes) = Wanted::closure(&store, &roots).unwrap() else {
        panic!("the tables were not read whole")
    };
    let infos = closure(&store, &roots).unwrap();
    assert_eq!(infos.len(), MANY - 1);
    let expected: Vec<_> = infos.values().map(|info| (info.path.clone(), info.nar_hash)).collect();
    assert_eq!(hashes.into_iter().collect::<Vec<_>>(), expected);
    // Read together or one by one, they say the same.
    for info in infos.values() {
        assert_eq!(store.path_info(&info.path).unwrap().as_ref(), Some(info));
        assert_eq!(info.signatures.len(), 2);
    }
    assert_eq!(Wanted::closure(&store, &roots).unwrap().infos(&store).unwrap(), infos);
    let twice: Vec<_> = infos.keys().chain(infos.keys()).cloned().collect();
    let found = store.path_infos(&twice).unwrap();
    assert!(found.iter().flatten().eq(infos.values().chain(infos.values())));
    let mut absent = infos.keys().cloned().collect::<Vec<_>>();
    absent.insert(1, path("absent"));
    let found = store.path_infos(&absent).unwrap();
    assert!(found[1].is_none() && found.iter().flatten().eq(infos.values()));
    // Few are looked up one by one.
    let few = Wanted::closure(&store, &roots[..1]).unwrap();
    assert!(matches!(few, Wanted::Infos(infos) if infos.len() == 21));
}

#[test]
fn of_what_is_there_already_nothing_but_hashes_is_read() {
    let both = Both::new();
    let before = files(both.cache.path());
    // Whoever reads more than that stumbles.
    both.execute("update ValidPaths set sigs = 'no signature', ca = 'no address'");
    let report = both.copy_again().unwrap();
    assert_eq!((report.added, report.present), (0, MANY));
    assert!(files(both.cache.path()) == before);

    fs::remove_file(both.narinfo("p7")).unwrap();
    let error = both.copy_again().unwrap_err().to_string();
    assert!(error.contains(&text("p7")), "{error}");
}

#[test]
fn what_a_cache_lacks_below_what_it_has_is_added() {
    let both = Both::new();
    let before = files(both.cache.path());
    for name in ["p7", "p30"] {
        fs::remove_file(both.narinfo(name)).unwrap();
    }
    let report = both.copy_again().unwrap();
    assert_eq!((report.added, report.present), (2, MANY - 2));
    assert!(files(both.cache.path()) == before);
}

#[test]
fn what_a_cache_has_with_another_content_is_named_and_stays() {
    let both = Both::new();
    let hash = |name: &str| both.store().path_info(&path(name)).unwrap().unwrap().nar_hash;
    replace(&both.narinfo("p7"), &hash("p7").to_string(), &hash("p8").to_string());
    let before = files(both.cache.path());
    let report = both.copy_again().unwrap();
    assert_eq!((report.added, report.present, report.kept), (0, MANY, vec![path("p7")]));
    assert!(files(both.cache.path()) == before);
}

#[test]
fn a_narinfo_in_the_way_that_is_none_is_an_error_that_names_it() {
    let both = Both::new();
    let file = both.narinfo("p7");
    fs::write(&file, "").unwrap();
    let error = both.copy_again().unwrap_err().to_string();
    assert!(error.contains(&*file.to_string_lossy()), "{error}");
    fs::copy(both.narinfo("p8"), &file).unwrap();
    let error = both.copy_again().unwrap_err().to_string();
    assert!(error.contains(&text("p7")) && error.contains(&text("p8")), "{error}");
}

#[test]
fn roots_that_are_not_valid_and_references_to_nothing_are_errors() {
    let both = Both::new();
    let mut roots: Vec<_> = (0..MANY).map(|number| path(&format!("p{number}"))).collect();
    roots.push(path("absent"));
    let error = Wanted::closure(&both.store(), &roots).unwrap_err();
    assert!(matches!(&error, Error::NotValid { path, .. } if *path == text("absent")), "{error}");
    roots.pop();
    both.execute(&format!("delete from ValidPaths where path = '{}'", text("p5")));
    let error = Wanted::closure(&both.store(), &roots).unwrap_err().to_string();
    assert!(error.contains(&text("p5")), "{error}");
    let above = &roots[20..];
    let error = Wanted::closure(&both.store(), above).unwrap_err().to_string();
    assert!(error.contains("db.sqlite") && error.contains(&text("p6")), "{error}");
}
