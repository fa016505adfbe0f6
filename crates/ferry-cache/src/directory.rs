//! The files of a binary cache in a directory.
//!
//! What is written is made in a directory of ours inside the cache, `.ferry-…`, which is locked
//! while we live; the next writer removes what a dead one has left behind. What goes to the web is
//! made in a directory for temporary files. Some directories of ours are part of the cache itself:
//! [`KEPT`].

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::place::{Listed, Place};
use crate::{CacheError, layout};

/// How the names of our directories begin.
pub(crate) const PREFIX: &str = ".ferry-";
/// Makes the directories of a cache that are not there yet.
pub(crate) fn make_directories(cache: &Path) -> Result<(), CacheError> {
    for name in layout::directories() {
        let directory = cache.join(name);
        fs::create_dir_all(&directory)
            .map_err(CacheError::io("make the directory", directory.display()))?;
    }
    Ok(())
}

/// Those of them that are no writer's: narinfos that wait for what they refer to, and what is
/// written down while pruning.
const KEPT: [&str; 2] = [".ferry-pending", ".ferry-prune"];

/// Hands over the files of a cache whose names begin with `prefix`; those in our own directories
/// only where the prefix asks for them. Unless it is `deep`, only those right in the cache.
pub(crate) fn list(
    cache: &Path,
    prefix: &str,
    deep: bool,
    each: &mut dyn FnMut(Listed) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let begin = prefix.rfind('/').and_then(|end| prefix.get(..=end)).unwrap_or_default();
    let mut waiting = vec![begin.to_owned()];
    while let Some(below) = waiting.pop() {
        let directory = cache.join(&below);
        let failed = |source| CacheError::io("list", directory.display())(source);
        let entries = match fs::read_dir(&directory) {
            // Nothing has such a name, or somebody has taken it away meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !below.is_empty() => continue,
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // What is named otherwise is none of the files of a cache.
            let Some(name) = entry.file_name().to_str().map(|name| format!("{below}{name}")) else {
                continue;
            };
            if name.starts_with(PREFIX) && !prefix.starts_with(PREFIX) {
                continue;
            }
            let metadata = match entry.metadata() {
                // Somebody has taken it away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(failed)?,
            };
            // A file that stands somewhere else counts for what is there.
            let metadata = match metadata.is_symlink().then(|| fs::metadata(entry.path())) {
                Some(Ok(there)) if there.is_file() => there,
                _ => metadata,
            };
            if metadata.is_dir() {
                let below = format!("{name}/");
                if deep && (below.starts_with(prefix) || prefix.starts_with(&below)) {
                    waiting.push(below);
                }
            } else if name.starts_with(prefix) {
                let modified = metadata.modified().ok();
                each(Listed { name, size: metadata.len(), modified })?;
            }
        }
    }
    Ok(())
}

/// What became of a file that was to be written under the hash of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was not there, and is now.
    New,
    /// It was there before.
    Before,
    /// A file of that name with anything else in it is there. It may be somebody's who still writes
    /// it, or has died over it.
    No,
}

/// Writes a file that is called by the hash of what is in it, if there is none of its name.
pub(crate) fn write_new(cache: &Path, name: &str, bytes: &[u8]) -> Result<Written, CacheError> {
    let file = cache.join(name);
    match File::create_new(&file) {
        Ok(mut open) => open.write_all(bytes).map(|()| Written::New).map_err(|error| {
            // Not removed: by now the name may be that of somebody's who has replaced it.
            let _ = open.set_len(0);
            CacheError::io("write", file.display())(error)
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut there = Vec::new();
            // What cannot be read is replaced as well.
            let read = File::open(&file)
                .and_then(|open| open.take(bytes.len() as u64 + 1).read_to_end(&mut there));
            let is_same = read.is_ok() && there == bytes;
            Ok(if is_same { Written::Before } else { Written::No })
        }
        Err(error) => Err(CacheError::io("write", file.display())(error)),
    }
}

/// Gives a file its place, with the directories above it.
pub(crate) fn put(cache: &Path, file: &Path, name: &str) -> Result<(), CacheError> {
    let place = cache.join(name);
    loop {
        match fs::rename(file, &place) {
            // Somebody may take an empty directory away again before anything is in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.exists() => {
                let parent = place.parent().unwrap_or(cache);
                fs::create_dir_all(parent)
                    .map_err(CacheError::io("make the directory", parent.display()))?;
            }
            outcome => return outcome.map_err(CacheError::io("write", place.display())),
        }
    }
}

/// Takes a file away, if it is there; of a directory of ours nothing stays when it was the last.
pub(crate) fn remove(cache: &Path, name: &str) -> Result<(), CacheError> {
    let file = cache.join(name);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(CacheError::io("remove", file.display())(error));
        }
        _ => {}
    }
    if let Some((directory, _)) = name.split_once('/')
        && KEPT.contains(&directory)
    {
        // Whatever else is in it keeps it.
        let _ = fs::remove_dir(cache.join(directory));
    }
    Ok(())
}

/// Where files are made before they have a place.
pub(crate) struct Staging {
    // The lock goes before the directory.
    handle: File,
    directory: TempDir,
    next: AtomicU64,
}

impl Staging {
    /// Makes one for what goes to `place`: beside it, if that is on a disk, else in `scratch`.
    pub(crate) fn beside(place: &Place, scratch: &Path) -> Result<Self, CacheError> {
        match place {
            Place::Directory(cache) => Self::create(cache),
            _ => Self::temporary(scratch),
        }
    }

    /// Makes one inside `cache`, and removes those of writers that are no longer alive.
    fn create(cache: &Path) -> Result<Self, CacheError> {
        sweep(cache)?;
        loop {
            let directory = make(cache)?;
            // Until it is locked, another writer that sweeps takes it for a dead one's.
            let Ok(handle) = File::open(directory.path()) else { continue };
            let locked = rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive);
            // Where there are no locks at all, nothing is swept either.
            if locked != Err(Errno::WOULDBLOCK) && directory.path().exists() {
                return Ok(Self { handle, directory, next: AtomicU64::new(0) });
            }
        }
    }

    /// Makes one for what goes elsewhere.
    fn temporary(scratch: &Path) -> Result<Self, CacheError> {
        let directory = make(scratch)?;
        let failed = CacheError::io("open", directory.path().display());
        let handle = File::open(directory.path()).map_err(failed)?;
        Ok(Self { handle, directory, next: AtomicU64::new(0) })
    }

    /// A name in it that nobody has.
    pub(crate) fn new_file(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(number.to_string())
    }

    /// A new file in it that holds this.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<PathBuf, CacheError> {
        let file = self.new_file();
        fs::write(&file, bytes).map_err(CacheError::io("write", file.display()))?;
        Ok(file)
    }

    /// What it is called, which no other is.
    pub(crate) fn name(&self) -> String {
        let name = self.directory.path().file_name().unwrap_or_default();
        name.to_string_lossy().trim_start_matches(PREFIX).to_owned()
    }

    /// Makes sure that everything made so far is on the disk.
    pub(crate) fn flush(&self) -> Result<(), CacheError> {
        rustix::fs::syncfs(&self.handle).map_err(|error| {
            CacheError::io("flush to disk", self.directory.path().display())(error.into())
        })
    }
}

fn make(parent: &Path) -> Result<TempDir, CacheError> {
    let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
    made.map_err(CacheError::io("make a directory in", parent.display()))
}

fn sweep(cache: &Path) -> Result<(), CacheError> {
    for (directory, _lock) in abandoned(cache)? {
        let left = fs::remove_dir_all(&directory);
        tracing::debug!(directory = %directory.display(), ?left, "swept");
    }
    Ok(())
}

/// The directories of writers that are no longer alive, each with what keeps another from it.
pub(crate) fn abandoned(cache: &Path) -> Result<Vec<(PathBuf, File)>, CacheError> {
    let failed = |source| CacheError::io("list", cache.display())(source);
    let mut abandoned = Vec::new();
    for entry in fs::read_dir(cache).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let is_ours = name.to_string_lossy().starts_with(PREFIX)
            && !KEPT.iter().any(|kept| name == *kept)
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_ours {
            continue;
        }
        let Ok(handle) = File::open(entry.path()) else { continue };
        if rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            abandoned.push((entry.path(), handle));
        }
    }
    Ok(abandoned)
}
