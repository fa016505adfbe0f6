//! Where objects are unpacked before they have a place, and how they come to it: a directory of our
//! own inside the store directory, so that moving them is a rename. It is locked while we live, and
//! it is called like a store path, so that a temporary root keeps the garbage collector of every
//! Nix version from it.

use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use ferry_formats::{NarHash, StoreDir, StorePath, nar};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::layout::Layout;
use super::locks::try_exclusive;
use super::restore::{self, Form, Kind};
use crate::admission::{Admitted, Verified};
use crate::{Error, Result};

/// The name behind the hash part.
const NAME: &str = "ferry-staging";
/// What tells it from an object of that name: nobody may write to any object.
const MODE: u32 = 0o700;

/// How many of them this process has made.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The directory.
pub(super) struct Staging {
    path: PathBuf,
    handle: File,
    /// The directory that it is in, where objects have their places.
    store: (PathBuf, File),
    next: AtomicU64,
}

/// An object that is unpacked and checked, and not yet in its place.
pub(super) struct Staged {
    /// What it is called meanwhile.
    name: String,
    kind: Kind,
    pub(super) verified: Verified,
}

impl Staging {
    /// A path that nobody has.
    pub(super) fn new_path() -> StorePath {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{} {} {count}", std::process::id(), now.as_nanos());
        let mut digest = [0; 20];
        for (place, byte) in digest.iter_mut().zip(NarHash::of(unique.as_bytes()).0) {
            *place = byte;
        }
        StorePath::from_parts(digest, NAME).unwrap_or_else(|_| unreachable!("the name is valid"))
    }

    /// Makes the directory at `path`, and removes those of writers that are no longer alive.
    pub(super) fn create(layout: &Layout, path: &StorePath) -> Result<Self> {
        sweep(&layout.real_store_dir)?;
        let path = layout.real_path(path);
        let store = &layout.real_store_dir;
        let store = File::open(store)
            .map(|handle| (store.clone(), handle))
            .map_err(Error::io(format!("open the directory {}", store.display())))?;
        loop {
            DirBuilder::new()
                .mode(MODE)
                .create(&path)
                .map_err(Error::io(format!("make the directory {}", path.display())))?;
            // Until it is locked, another writer that sweeps takes it for a dead one's.
            let handle = match open_directory(&path) {
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(Error::os(format!("open {}", path.display())))?,
            };
            if try_exclusive(&handle) && path.exists() {
                return Ok(Self { path, handle, store, next: AtomicU64::new(0) });
            }
        }
    }

    /// Makes sure that everything unpacked so far is on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        rustix::fs::syncfs(&self.handle)
            .map_err(Error::os(format!("flush {} to disk", self.path.display())))
    }

    /// Unpacks a NAR while it is checked.
    pub(super) fn unpack(&self, store_dir: &StoreDir, admitted: Admitted<'_>) -> Result<Staged> {
        let mut unpacked = None;
        let path = admitted.info().path.clone();
        let verified = admitted.verify(|nar| {
            let mut nar = BufReader::with_capacity(64 << 10, nar);
            unpacked = Some(self.restore(&|| store_dir.render_path(&path), &mut nar)?);
            Ok(())
        })?;
        let (name, kind) = unpacked.unwrap_or((String::new(), Kind::Other));
        Ok(Staged { name, kind, verified })
    }

    /// Unpacks a NAR that was checked.
    pub(super) fn unpack_verified(
        &self,
        store_dir: &StoreDir,
        mut nar: &[u8],
        verified: Verified,
    ) -> Result<Staged> {
        debug_assert_eq!(NarHash::of(nar), verified.info().nar_hash);
        let path = || store_dir.render_path(&verified.info().path);
        let (name, kind) = self.restore(&path, &mut nar)?;
        Ok(Staged { name, kind, verified })
    }

    fn restore(&self, path: &dyn Fn() -> String, nar: &mut impl BufRead) -> Result<(String, Kind)> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        match restore::restore(nar, self.handle.as_fd(), &name, Form::Canonical) {
            Ok(kind) => Ok((name, kind)),
            Err(nar::Error::Io(source)) => {
                let place = self.path.join(&name);
                let action = format!("unpack {} at {}", path(), place.display());
                Err(Error::reading(action)(source))
            }
            Err(other) => Err(Error::MalformedNar { path: path(), reason: other.to_string() }),
        }
    }
}

impl Staging {
    /// Moves an object to its place, where there is none that is valid.
    pub(super) fn move_into_place(&self, staged: &Staged) -> Result<()> {
        let (store, handle) = &self.store;
        let name = staged.verified.info().path.to_basename();
        let place = || store.join(&name);
        let failed = || Error::os(format!("move an object to {}", place().display()));
        match self.rename_to_free(&staged.name, &name) {
            Err(Errno::EXIST) => {
                // Not valid: left behind by somebody who was interrupted.
                remove(&place())?;
                self.rename_to_free(&staged.name, &name).map_err(failed())?;
            }
            Err(error) => return Err(failed()(error)),
            Ok(()) => {}
        }
        if staged.kind == Kind::Directory {
            rustix::fs::chmodat(handle, &name, Mode::from_raw_mode(0o555), AtFlags::empty())
                .map_err(Error::os(format!("make {} read-only", place().display())))?;
        }
        Ok(())
    }

    /// Renames, and replaces nothing.
    fn rename_to_free(&self, from: &str, to: &str) -> rustix::io::Result<()> {
        let (here, (_, there)) = (&self.handle, &self.store);
        match rustix::fs::renameat_with(here, from, there, to, RenameFlags::NOREPLACE) {
            // A file system that cannot refuse by itself.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::statat(there, to, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(Errno::NOENT) => rustix::fs::renameat(here, from, there, to),
                    Err(error) => Err(error),
                }
            }
            outcome => outcome,
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
        let name = entry.file_name();
        let is_staging =
            StorePath::from_basename(name.as_encoded_bytes()).is_ok_and(|path| path.name() == NAME);
        if !is_staging {
            continue;
        }
        // Gone meanwhile, or not ours to open: then not ours to remove.
        let Ok(handle) = open_directory(&entry.path()) else { continue };
        // An object may have that name. Nobody may write to one, nor anybody but the owner to ours.
        let is_ours = handle.metadata().is_ok_and(|found| found.mode() & 0o7777 == MODE);
        if is_ours && try_exclusive(&handle) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn open_directory(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// Removes a tree whose directories may be read-only.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = || Error::io(format!("remove {}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(failed())?;
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed());
    }
    match fs::remove_dir_all(path) {
        // Who is not root has to make directories writable first, which root must not: it would
        // follow a link that somebody puts in the way.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            make_writable(path).map_err(failed())?;
            fs::remove_dir_all(path).map_err(failed())
        }
        outcome => outcome.map_err(failed()),
    }
}

fn make_writable(directory: &Path) -> std::io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn objects_that_are_called_like_ours_are_nobodys_to_sweep() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::chroot(directory.path());
        let store = &layout.real_store_dir;
        let make = |mode| {
            let place = layout.real_path(&Staging::new_path());
            fs::create_dir_all(&place).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            place
        };
        let (object, left_behind) = (make(0o555), make(0o700));
        let staging = Staging::create(&layout, &Staging::new_path()).unwrap();
        assert!(object.exists() && !left_behind.exists());
        assert_eq!(fs::read_dir(store).unwrap().count(), 2);
        // One that is in use stays.
        let other = Staging::create(&layout, &Staging::new_path()).unwrap();
        assert!(staging.path.exists() && other.path.exists());
    }
}
