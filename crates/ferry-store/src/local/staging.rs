//! Where objects are unpacked before they have a place: a directory of our own inside the store
//! directory, so that moving them is a rename. It is locked while we live.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ferry_formats::{NarHash, nar};

use super::locks::try_exclusive;
use super::restore::{self, Kind};
use crate::admission::{Admitted, Verified};
use crate::{Error, Result};

const PREFIX: &str = "tmp-ferry-";

/// The directory.
pub(super) struct Staging {
    path: PathBuf,
    handle: File,
    next: AtomicU64,
}

/// An object that is unpacked and checked, and not yet in its place.
pub(super) struct Staged {
    pub(super) place: PathBuf,
    pub(super) kind: Kind,
    pub(super) verified: Verified,
}

impl Staging {
    /// Makes a directory, and removes those of writers that are no longer alive.
    pub(super) fn new(real_store_dir: &Path) -> Result<Self> {
        sweep(real_store_dir)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(real_store_dir)
            .map_err(Error::io(format!("make a directory in {}", real_store_dir.display())))?
            .keep();
        let handle = File::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
        let locked = try_exclusive(&handle);
        debug_assert!(locked, "nobody else knows this directory");
        Ok(Self { path, handle, next: AtomicU64::new(0) })
    }

    /// Makes sure that everything unpacked so far is on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        rustix::fs::syncfs(&self.handle)
            .map_err(Error::os(format!("flush {} to disk", self.path.display())))
    }

    /// Unpacks a NAR while it is checked.
    pub(super) fn unpack(&self, path: &str, admitted: Admitted<'_>) -> Result<Staged> {
        let mut unpacked = None;
        let verified = admitted.verify(|nar| {
            unpacked = Some(self.restore(path, nar)?);
            Ok(())
        })?;
        let (place, kind) = unpacked.unwrap_or((PathBuf::new(), Kind::Other));
        Ok(Staged { place, kind, verified })
    }

    /// Unpacks a NAR that was checked.
    pub(super) fn unpack_verified(
        &self,
        path: &str,
        mut nar: &[u8],
        verified: Verified,
    ) -> Result<Staged> {
        debug_assert_eq!(NarHash::of(nar), verified.info().nar_hash);
        let (place, kind) = self.restore(path, &mut nar)?;
        Ok(Staged { place, kind, verified })
    }

    fn restore(&self, path: &str, nar: &mut dyn std::io::Read) -> Result<(PathBuf, Kind)> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let place = self.path.join(&name);
        match restore::restore(nar, self.handle.as_fd(), &name) {
            Ok(kind) => Ok((place, kind)),
            Err(nar::Error::Io(source)) => {
                let action = format!("unpack {path} at {}", place.display());
                Err(Error::reading(action)(source))
            }
            Err(other) => {
                Err(Error::MalformedNar { path: path.to_owned(), reason: other.to_string() })
            }
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "staging directory left behind");
        }
    }
}

fn sweep(real_store_dir: &Path) -> Result<()> {
    let failed = || Error::io(format!("list {}", real_store_dir.display()));
    for entry in fs::read_dir(real_store_dir).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Gone meanwhile, or not ours to open: then not ours to remove.
        let Ok(handle) = File::open(entry.path()) else { continue };
        if try_exclusive(&handle) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a tree whose directories may be read-only.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = || Error::io(format!("remove {}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(failed())?;
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed())?;
    for entry in fs::read_dir(path).map_err(failed())? {
        remove(&entry.map_err(failed())?.path())?;
    }
    fs::remove_dir(path).map_err(failed())
}
