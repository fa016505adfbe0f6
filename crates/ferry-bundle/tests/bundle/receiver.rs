//! Verifying and loading, with a watch on everything round the store.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use ferry_bundle::{Bundle, BundleError, VerifyReport};
use ferry_formats::StorePath;
use ferry_store::local::{Layout, LocalStore};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{CopyReport, Destination as _, Error, Result, Store as _, copy};
use tempfile::TempDir;

use crate::objects::Memory;

/// What to call a bundle in messages.
const NAME: &str = "test.ferry";

pub(crate) fn open(bundle: &[u8]) -> Result<Bundle> {
    Ok(Bundle::from_stream(Cursor::new(bundle.to_vec()), NAME)?)
}

pub(crate) fn verify(bundle: &[u8]) -> Result<VerifyReport> {
    ferry_bundle::verify(&open(bundle)?, &TrustPolicy::accept_all(), &Silent)
}

/// A chroot store in a directory with other things in it.
pub(crate) struct Receiver {
    directory: TempDir,
    pub(crate) store: LocalStore,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self::with(TrustPolicy::accept_all())
    }

    pub(crate) fn with(trust: TrustPolicy) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("island");
        fs::create_dir_all(root.join("nix/var")).unwrap();
        for place in ["canary", "island/canary", "island/nix/canary", "island/nix/var/canary"] {
            fs::write(directory.path().join(place), "alive").unwrap();
        }
        symlink("canary", directory.path().join("to-canary")).unwrap();
        Self { store: LocalStore::new(Layout::chroot(&root), trust), directory }
    }

    /// Loads everything in a bundle.
    pub(crate) fn load(&self, bundle: &[u8]) -> Result<CopyReport> {
        let bundle = open(bundle)?;
        let offered: BTreeMap<_, _> =
            bundle.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect();
        copy(&bundle, &self.store, offered, &[], &Silent)
    }

    /// Everything that is not the store's own: place, kind, mode, time and contents.
    pub(crate) fn surroundings(&self) -> BTreeMap<PathBuf, String> {
        let nix = self.directory.path().join("island/nix");
        listing(self.directory.path(), &[&nix.join("store"), &nix.join("var/nix")])
    }

    /// What is in the store directory, valid or not; not the store's own `.links`.
    pub(crate) fn objects(&self) -> BTreeMap<PathBuf, String> {
        let store = &self.store.layout().real_store_dir;
        if !store.exists() {
            return BTreeMap::new();
        }
        let mut found = listing(store, &[&store.join(".links")]);
        found.remove(Path::new(""));
        found
    }

    pub(crate) fn valid(&self, paths: &[StorePath]) -> Vec<StorePath> {
        let present = self.store.present(paths).unwrap();
        let valid = paths.iter().zip(present).filter(|(_, hash)| hash.is_some());
        valid.map(|(path, _)| path.clone()).collect()
    }
}

/// A tree, with everything that can be seen of each thing in it.
fn listing(root: &Path, except: &[&Path]) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        if except.contains(&path.as_path()) {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mut seen = format!("{:o}", metadata.mode());
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let contents = match fs::read_link(&path) {
                Ok(target) => target.into_os_string().into_encoded_bytes(),
                Err(_) => fs::read(&path).unwrap(),
            };
            seen += &format!(" {} {}", metadata.mtime(), contents.escape_ascii());
        }
        found.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
    }
    found
}

/// Makes sure that a bundle is refused by `verify`, and by `load` for the same reason, and that
/// nothing comes of the attempt; returns the reason.
#[track_caller]
pub(crate) fn refused(bundle: &[u8]) -> Error {
    let verified = verify(bundle).expect_err("verify accepted it");
    let receiver = Receiver::new();
    let before = receiver.surroundings();
    let loaded = receiver.load(bundle).expect_err("load accepted it");
    assert_agree(&verified, &loaded);
    assert_eq!(receiver.surroundings(), before, "after: {loaded}");
    assert_eq!(receiver.objects(), BTreeMap::new(), "after: {loaded}");
    if let Ok(bundle) = open(bundle) {
        let paths: Vec<_> = bundle.path_infos().iter().map(|info| info.path.clone()).collect();
        assert_eq!(receiver.valid(&paths), [], "after: {loaded}");
    }
    verified
}

/// Verify and load may notice different things, but about the same path. Where the file is at
/// fault, or no path is, they say the same.
#[track_caller]
pub(crate) fn assert_agree(verified: &Error, loaded: &Error) {
    let place = |error: &Error| {
        let message = error.to_string();
        let path = message.split([' ', ':']).find(|word| word.starts_with("/nix/store/"));
        path.filter(|_| in_the_file(error).is_none()).map(str::to_owned).unwrap_or(message)
    };
    assert_eq!(place(verified), place(loaded), "verify: {verified}; load: {loaded}");
}

/// Like [`refused`], for a reason that has `words` in it.
#[track_caller]
pub(crate) fn refused_because(bundle: &[u8], words: &str) -> Error {
    let error = refused(bundle);
    let message = error.to_string();
    assert!(message.contains(words), "`{words}` is not in: {message}");
    assert!(message.len() < 4096, "a message of {} bytes", message.len());
    error
}

/// The reason, if it lies in the bundle as a file.
pub(crate) fn in_the_file(error: &Error) -> Option<&BundleError> {
    match error {
        Error::Other(inner) => inner.downcast_ref(),
        _ => None,
    }
}

/// The offset at which a file is damaged.
#[track_caller]
pub(crate) fn damaged_at(error: &Error) -> u64 {
    match in_the_file(error) {
        Some(BundleError::Damaged { offset, .. }) => *offset,
        _ => panic!("not damage at an offset: {error:?}"),
    }
}

/// How many NARs a bundle gives; each has to be the one that the store has which it was made from.
#[track_caller]
pub(crate) fn count_same_nars(bundle: &Bundle, store: &Memory) -> usize {
    let mut count = 0;
    bundle
        .read_nars(bundle.path_infos(), &mut |info, nar| {
            let mut bytes = Vec::new();
            nar.read_to_end(&mut bytes).unwrap();
            assert!(bytes == store.objects[&info.path].nar, "{}", info.path);
            count += 1;
            Ok(())
        })
        .unwrap();
    count
}
