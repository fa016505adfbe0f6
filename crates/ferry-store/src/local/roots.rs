//! What keeps paths from the garbage collector: roots that stay, and roots that live as long as a
//! process.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;

use super::layout::Layout;
use super::locks::{hold_shared, open_lock_file, try_exclusive};
use crate::{Error, Result};

/// Makes `link` point at `target`, whatever it pointed at before, in one step.
pub fn replace_symlink(target: &Path, link: &Path) -> Result<()> {
    let parent = link.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)
        .map_err(Error::io(format!("make the directory {}", parent.display())))?;
    let mut new = link.as_os_str().to_owned();
    new.push(format!(".tmp-{}", std::process::id()));
    let new = PathBuf::from(new);
    let failed = || Error::io(format!("make the garbage collector root {}", link.display()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => symlink(target, &new).map_err(failed())?,
    }
    fs::rename(&new, link).map_err(failed())
}

/// Roots that live as long as this value: an entry in `temproots`, which the collector reads
/// while its owner holds a lock on it.
pub(super) struct TemporaryRoots {
    file: File,
    path: PathBuf,
}

impl TemporaryRoots {
    /// Holds `paths`. Waits for a collection that is under way.
    pub(super) fn new(layout: &Layout, paths: &[StorePath]) -> Result<Self> {
        let directory = layout.state_dir.join("temproots");
        let _collector = hold_shared(&layout.state_dir.join("gc.lock"))?;
        let mut roots = Self::create(&directory)?;
        let mut contents = Vec::new();
        for path in paths {
            contents.extend_from_slice(layout.store_dir.render_path(path).as_bytes());
            contents.push(0);
        }
        roots
            .file
            .rewind()
            .and_then(|()| roots.file.write_all(&contents))
            .map_err(Error::io(format!("write {}", roots.path.display())))?;
        Ok(roots)
    }

    /// Nix names the file by process. A process in another container may have our number, and
    /// this process may want several: numbers above all process numbers are free.
    fn create(directory: &Path) -> Result<Self> {
        const ABOVE_ALL_PROCESSES: u32 = 1 << 30;
        for attempt in 0..64 {
            let number = ABOVE_ALL_PROCESSES + std::process::id() + attempt;
            let path = directory.join(number.to_string());
            let file = open_lock_file(&path)?;
            if !try_exclusive(&file) {
                continue;
            }
            // Whoever lists roots removes files that nobody holds, perhaps just before we held it.
            let links = rustix::fs::fstat(&file).map_or(0, |metadata| metadata.st_nlink);
            if links == 0 {
                continue;
            }
            file.set_len(0).map_err(Error::io(format!("empty {}", path.display())))?;
            return Ok(Self { file, path });
        }
        Err(Error::Io {
            action: format!("find a free name in {}", directory.display()),
            source: std::io::ErrorKind::AlreadyExists.into(),
        })
    }
}

impl Drop for TemporaryRoots {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, file = %self.path.display(), "temporary roots left behind");
        }
    }
}
