//! The locks by which Nix processes keep out of each other's way (`pathlocks.cc`, `gc.cc`).

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::{Error, Result};

/// Opens a lock file as Nix does, readable by its owner only.
pub(super) fn open_lock_file(path: &Path) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(Error::os(format!("open the lock file {}", path.display())))?;
    Ok(file.into())
}

/// Holds a lock file shared, waiting for whoever holds it exclusively. Released when dropped.
pub(super) fn hold_shared(path: &Path) -> Result<File> {
    let file = open_lock_file(path)?;
    rustix::fs::flock(&file, FlockOperation::LockShared)
        .map_err(Error::os(format!("lock {}", path.display())))?;
    Ok(file)
}

/// Tries to hold a file exclusively; `false` where somebody else holds it.
pub(super) fn try_exclusive(file: &impl std::os::fd::AsFd) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// The lock that every Nix process holds shared while it has the store open (`big-lock`).
pub(super) struct StoreLock(File);

impl StoreLock {
    /// Holds it as everybody does.
    pub(super) fn hold(path: &Path) -> Result<Self> {
        hold_shared(path).map(Self)
    }

    /// Runs `work`, if possible with nobody else in the store; tells it whether that is so. Who
    /// wants to open the store meanwhile waits.
    pub(super) fn alone_if_possible<T>(&self, work: impl FnOnce(bool) -> Result<T>) -> Result<T> {
        let alone = try_exclusive(&self.0);
        // Trying in vain lets go of what was held.
        if !alone {
            self.share()?;
        }
        let outcome = work(alone);
        if alone {
            self.share()?;
        }
        outcome
    }

    fn share(&self) -> Result<()> {
        rustix::fs::flock(&self.0, FlockOperation::LockShared)
            .map_err(Error::os("share the lock of the store"))
    }
}

/// The lock on one store path, `PATH.lock`; released and removed when dropped.
pub(super) struct PathLock {
    file: File,
    lock_path: PathBuf,
}

impl PathLock {
    /// Waits for the lock on the path whose real place is `real_path`.
    pub(super) fn acquire(real_path: &Path) -> Result<Self> {
        let mut lock_path = real_path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        loop {
            let file = open_lock_file(&lock_path)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map_err(Error::os(format!("lock {}", lock_path.display())))?;
            let metadata =
                file.metadata().map_err(Error::io(format!("look at {}", lock_path.display())))?;
            // Something written in it says that its holder removed it before we got it.
            if metadata.len() == 0 {
                return Ok(Self { file, lock_path });
            }
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Removing it is a tidiness; the mark tells whoever waits for this file to open a new one.
        let removed = std::fs::remove_file(&self.lock_path);
        let marked = self.file.write_all(b"d");
        if let Err(error) = removed.and(marked) {
            tracing::debug!(%error, lock = %self.lock_path.display(), "lock file left behind");
        }
    }
}
