//! The tree of an evaluation object, while it is put together.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use super::error::{EvaluationError, Result};

/// So many links are followed in one path, as by Linux.
const MAX_LINKS: usize = 40;
/// So many directories may stand in each other.
const DEEPEST: usize = 256;

/// A directory into which files are copied, at their absolute paths.
pub(super) struct Stage {
    directory: PathBuf,
    /// How much more may be taken, in bytes.
    left: u64,
    limit: u64,
    /// What was taken because of which name in the trace.
    sizes: Vec<(PathBuf, u64)>,
    /// Real directories that were made.
    made: HashSet<PathBuf>,
}

impl Stage {
    /// An empty one in `directory`, which is there; at most `limit` bytes of files go into it.
    pub(super) fn new(directory: PathBuf, limit: u64) -> Self {
        Self { directory, left: limit, limit, sizes: Vec::new(), made: HashSet::new() }
    }

    /// Where a file that was copied is now.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        self.directory.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Begins to take what one name in the trace stands for.
    pub(super) fn begin(&mut self, name: &Path) {
        self.sizes.push((name.to_owned(), 0));
    }

    /// Copies a file, a link or a whole directory; `leave_out` tells which names in directories do
    /// not come along. What is there already stays.
    pub(super) fn take(&mut self, path: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<()> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let real = self.make_way(&path)?;
            let to = self.place(&real);
            self.copy(&real, &to, leave_out, 0)?;
            // A link alone leads nowhere.
            let Ok(target) = fs::read_link(&real) else { return Ok(()) };
            path = normal(&real.parent().unwrap_or(&real).join(target));
        }
        Err(too_many_links(&path))
    }

    /// Copies a file or a link, or makes a directory, with nothing in it.
    pub(super) fn take_one(&mut self, path: &Path) -> Result<()> {
        self.take(path, &|_| true)
    }

    /// Makes an empty file where a file is, unless there is one already.
    pub(super) fn make_empty(&mut self, path: &Path) -> Result<()> {
        let real = self.make_way(path)?;
        let place = self.place(&real);
        if place.symlink_metadata().is_ok() {
            return Ok(());
        }
        fs::write(&place, []).map_err(EvaluationError::io(format!("create {}", place.display())))
    }

    /// What has been put into a directory.
    pub(super) fn entries(&self, directory: &Path) -> Result<Vec<OsString>> {
        let place = self.place(directory);
        let failed = || EvaluationError::io(format!("read {}", place.display()));
        let entries = fs::read_dir(&place).map_err(failed())?;
        entries.map(|entry| Ok(entry.map_err(failed())?.file_name())).collect()
    }

    /// Takes something out again.
    pub(super) fn remove(&mut self, path: &Path) -> Result<()> {
        let place = self.place(path);
        let is_directory = place.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let removed = match is_directory {
            true => fs::remove_dir_all(&place),
            false => fs::remove_file(&place),
        };
        self.made.retain(|made| !made.starts_with(path));
        removed.map_err(EvaluationError::io(format!("remove {}", place.display())))
    }

    /// Copies something to a place of its own; `leave_out` tells what in it does not come along.
    pub(super) fn take_to(
        &mut self,
        from: &Path,
        to: &Path,
        leave_out: &dyn Fn(&Path) -> bool,
    ) -> Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)
                .map_err(EvaluationError::io(format!("create {}", parent.display())))?;
        }
        self.copy(from, to, leave_out, 0)
    }

    /// Makes the directories above a path, with the links that lead to it, and returns where it
    /// really is.
    fn make_way(&mut self, path: &Path) -> Result<PathBuf> {
        let mut ahead: Vec<PathBuf> = parts(path);
        let mut real = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            let next = real.join(&part);
            if ahead.is_empty() {
                return Ok(next);
            }
            let target = match fs::read_link(&next) {
                Ok(target) => target,
                Err(_) => {
                    real = next;
                    self.make_directory(&real)?;
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(too_many_links(path));
            }
            self.copy_link(&next, &self.place(&next), true)?;
            let onward = normal(&real.join(target));
            ahead.extend(parts(&onward));
            real = PathBuf::from("/");
        }
        Ok(real)
    }

    fn make_directory(&mut self, real: &Path) -> Result<()> {
        if self.made.insert(real.to_owned()) {
            let place = self.place(real);
            fs::create_dir_all(&place)
                .map_err(EvaluationError::io(format!("create {}", place.display())))?;
        }
        Ok(())
    }

    fn copy(
        &mut self,
        from: &Path,
        to: &Path,
        leave_out: &dyn Fn(&Path) -> bool,
        depth: usize,
    ) -> Result<()> {
        let reading = || format!("read {}", from.display());
        let metadata = match from.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(EvaluationError::Gone { file: from.to_owned() });
            }
            metadata => metadata.map_err(EvaluationError::io(reading()))?,
        };
        if metadata.is_dir() {
            if depth > DEEPEST {
                let source = std::io::Error::other("the directories in it are too deep");
                return Err(EvaluationError::Io { action: reading(), source });
            }
            fs::create_dir_all(to)
                .map_err(EvaluationError::io(format!("create {}", to.display())))?;
            for entry in fs::read_dir(from).map_err(EvaluationError::io(reading()))? {
                let entry = entry.map_err(EvaluationError::io(reading()))?;
                let child = entry.path();
                let kind = entry.file_type().map_err(EvaluationError::io(reading()))?;
                // No NAR holds sockets and the like, so Nix cannot have read them.
                let can_travel = kind.is_dir() || kind.is_file() || kind.is_symlink();
                if can_travel && !leave_out(&child) {
                    self.copy(&child, &to.join(entry.file_name()), leave_out, depth + 1)?;
                }
            }
            return Ok(());
        }
        if to.symlink_metadata().is_ok() {
            return Ok(());
        }
        if metadata.is_symlink() {
            return self.copy_link(from, to, false);
        }
        self.account(metadata.len())?;
        fs::copy(from, to).map_err(EvaluationError::io(format!(
            "copy {} to {}",
            from.display(),
            to.display()
        )))?;
        Ok(())
    }

    /// Copies a link. One above a path has to lead to the copy, so it is made relative.
    fn copy_link(&self, from: &Path, to: &Path, relative: bool) -> Result<()> {
        let failed = || EvaluationError::io(format!("copy the link {}", from.display()));
        match fs::read_link(to) {
            // One that came with a whole directory, before anything behind it was taken.
            Ok(there) if relative && there.is_absolute() => {
                fs::remove_file(to).map_err(failed())?;
            }
            _ if to.symlink_metadata().is_ok() => return Ok(()),
            _ => {}
        }
        let mut target = fs::read_link(from).map_err(failed())?;
        if relative && target.is_absolute() {
            let up: PathBuf = from.components().skip(2).map(|_| "..").collect();
            target = up.join(target.strip_prefix("/").unwrap_or(&target));
        }
        symlink(target, to).map_err(failed())
    }

    fn account(&mut self, size: u64) -> Result<()> {
        if let Some((_, sum)) = self.sizes.last_mut() {
            *sum = sum.saturating_add(size);
        }
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                let largest = self.sizes.iter().max_by_key(|(_, size)| *size).cloned();
                let (largest, size) = largest.unwrap_or_default();
                Err(EvaluationError::TooLarge { largest, size, limit: self.limit })
            }
        }
    }
}

/// The names in an absolute path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        _ => None,
    });
    let mut names: Vec<PathBuf> = names.collect();
    names.reverse();
    names
}

/// A path without `.` and `..`, as its words say: Nix takes these away without looking at the disk.
#[must_use]
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

fn too_many_links(path: &Path) -> EvaluationError {
    EvaluationError::Io {
        action: format!("follow {}", path.display()),
        source: std::io::Error::other("too many links"),
    }
}
