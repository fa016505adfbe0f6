//! What the tests have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::keys::SecretKey;
use ferry_formats::{PathInfo, StoreDir, StorePath, narinfo};
use ferry_store::closure::closure;
use ferry_store::facts::ReferencesGraph;
use ferry_store::http::{HttpOptions, HttpTimeouts};
use ferry_store::local::{Layout, LocalStore, UnregisteredStore};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{CopyReport, Destination, Error, NarVisitor, Result, Store, copy};
pub(crate) use ferry_test_world::files;
use ferry_test_world::{Machine, NixVersion, Origin, World, crossing};
use tempfile::TempDir;

pub(crate) use crate::asking::{explorer, impatient, parse, path, run_closure, text};

/// A key made from a fixed seed, as it stands in a file.
pub(crate) fn key_text(name: &str, seed: u8) -> String {
    let pair = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).to_keypair_bytes();
    format!("{name}:{}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// A key made from a fixed seed.
pub(crate) fn key(name: &str, seed: u8) -> SecretKey {
    SecretKey::parse(&key_text(name, seed)).unwrap()
}

/// The same, giving up on a server that says nothing after a fifth of a second.
pub(crate) fn hasty() -> HttpOptions {
    let read = Duration::from_millis(200);
    HttpOptions { timeouts: HttpTimeouts { read, ..impatient().timeouts }, ..impatient() }
}

/// The binary cache at an address.
pub(crate) fn open(address: &str) -> BinaryCache {
    let address = CacheAddress::parse(address).unwrap();
    BinaryCache::new(&address, &StoreDir::default(), &impatient()).unwrap()
}

/// Objects whose files are in a directory of their own, with what they refer to.
pub(crate) struct Objects {
    root: TempDir,
    registration: String,
}

impl Objects {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("nix/store")).unwrap();
        Self { root, registration: String::new() }
    }

    /// Adds a directory with one file.
    pub(crate) fn add(&mut self, name: &str, contents: &[u8], references: &[&str]) {
        let directory = self.root.path().join("nix/store").join(path(name).to_basename());
        fs::create_dir_all(directory.join("bin")).unwrap();
        fs::write(directory.join("bin").join("file"), contents).unwrap();
        let references: Vec<String> = references.iter().map(|name| text(name)).collect();
        let count = references.len();
        self.registration += &format!("{}\n\n{count}\n", text(name));
        references.iter().for_each(|reference| self.registration += &format!("{reference}\n"));
    }

    pub(crate) fn store(&self) -> UnregisteredStore {
        let graph =
            ReferencesGraph::parse("objects", self.registration.as_bytes(), &StoreDir::default());
        UnregisteredStore::new(Layout::chroot(self.root.path()), &[graph.unwrap()])
    }
}

/// A few small objects, two of them the same, and one that does not fit into memory whole.
pub(crate) fn some_objects() -> Objects {
    let mut objects = Objects::new();
    objects.add("bottom", b"at the bottom", &[]);
    objects.add("middle", b"in between", &["bottom", "middle"]);
    objects.add("twin", b"in between", &["bottom"]);
    objects.add("large", &noise(3 << 20), &["middle"]);
    objects.add("top", b"on top", &["large", "twin"]);
    objects
}

/// Bytes that compress a little.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 58).unwrap()
    };
    (0..size).map(|_| next()).collect()
}

/// Objects in a chain, every fifth of them large.
pub(crate) fn chain() -> Objects {
    let mut objects = Objects::new();
    for number in 0..30_usize {
        let below = format!("p{}", number.saturating_sub(1));
        let references: &[&str] = if number == 0 { &[] } else { &[&below] };
        let size = if number % 5 == 4 { 3 << 20 } else { 100 };
        objects.add(&format!("p{number}"), &vec![u8::try_from(number).unwrap(); size], references);
    }
    objects
}

/// A store to which something happens before each NAR is read; it is told how many were.
pub(crate) struct Hooked<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) before: Box<dyn Fn(usize) -> Result<()> + 'a>,
}

/// A store whose disk fails after so many NARs.
pub(crate) fn failing(store: &dyn Store, after: usize) -> Hooked<'_> {
    let fails = move |read| match read >= after {
        true => Err(Error::io("read the disk")(std::io::Error::other("it went away"))),
        false => Ok(()),
    };
    Hooked { store, before: Box::new(fails) }
}

impl Store for Hooked<'_> {
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
        let mut read = 0;
        self.store.read_nars(wanted, &mut |info, nar| {
            (self.before)(read)?;
            read += 1;
            visit(info, nar)
        })
    }
}

/// Every narinfo has its NAR, and the narinfos of all that it refers to. Returns how many there are.
pub(crate) fn count_whole(directory: &Path) -> usize {
    let files = files(directory);
    let infos: Vec<_> = files
        .iter()
        .filter(|(name, _)| name.ends_with(".narinfo") && !name.starts_with(".ferry-"))
        .collect();
    for (_, text) in &infos {
        let narinfo = narinfo::parse(&StoreDir::default(), text).unwrap();
        assert_eq!(files[&narinfo.url].len() as u64, narinfo.file_size.unwrap());
        for reference in narinfo.info.references.iter() {
            let is_there = files.contains_key(&narinfo::file_name(reference));
            assert!(is_there, "{} refers to {reference}", narinfo.info.path);
        }
    }
    infos.len()
}

/// All that a store has.
pub(crate) fn all(store: &dyn Store) -> BTreeMap<StorePath, PathInfo> {
    closure(store, &store.all_paths().unwrap().unwrap()).unwrap()
}

/// The closure of one path.
pub(crate) fn named(store: &dyn Store, name: &str) -> BTreeMap<StorePath, PathInfo> {
    closure(store, &[path(name)]).unwrap()
}

/// Copies everything.
pub(crate) fn copy_all(from: &dyn Store, to: &dyn Destination) -> Result<CopyReport> {
    copy(from, to, all(from), &[], &Silent)
}

/// A new store below a directory, which takes what anybody has signed or nobody.
pub(crate) fn new_store(root: &Path) -> LocalStore {
    LocalStore::new(Layout::chroot(root), TrustPolicy::accept_all())
}

/// The address of a directory with parameters.
pub(crate) fn address(directory: &Path, parameters: &str) -> String {
    format!("file://{}?{parameters}", directory.display())
}

/// A server with the files of a cache.
pub(crate) fn serve(directory: &Path) -> Origin {
    let origin = Origin::start();
    origin.serve_files(directory);
    origin
}

/// The store of a machine, seen from outside of it.
pub(crate) fn store_of(machine: &Machine) -> LocalStore {
    new_store(machine.path("/nix").parent().unwrap())
}

/// A machine on which everything of `crossing.nix` was built, and the path that refers to all else.
pub(crate) fn built(world: &World, version: NixVersion) -> (Machine, String) {
    let machine = Machine::new(world, version);
    let origin = crossing::origin();
    let top = crossing::command(&machine, "nix-build", "c", &origin.url()).online().ok();
    (machine, top)
}
