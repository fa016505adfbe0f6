//! What the tests have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::closure::closure;
use ferry_store::facts::ReferencesGraph;
use ferry_store::local::{Layout, LocalStore, UnregisteredStore};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{CopyReport, Destination, Result, Store, copy};
use ferry_test_world::{Machine, NixVersion, Origin, World, crossing};
use tempfile::TempDir;

pub(crate) use crate::asking::{explorer, impatient, parse, path, run_closure, text};

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

/// The files below a directory, with what is in them.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The address of a directory with parameters.
pub(crate) fn address(directory: &Path, parameters: &str) -> String {
    format!("file://{}?{parameters}", directory.display())
}

/// A server with the files of a cache.
pub(crate) fn serve(directory: &Path) -> Origin {
    let origin = Origin::start();
    for (name, bytes) in files(directory) {
        origin.serve(&format!("/{name}"), bytes);
    }
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
