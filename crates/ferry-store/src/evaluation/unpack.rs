//! An evaluation object laid out again, to be worked with.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};

use ferry_formats::{PathInfo, nar};

use super::error::{EvaluationError, Result};
use super::restored::Restored;
use super::{git, name, untrusted};
use crate::Store;
use crate::hashed::Hashed;
use crate::local::restore::{Form, restore};

/// A registry of flakes in which nothing is.
const EMPTY_REGISTRY: &str = "{\"flakes\":[],\"version\":2}\n";

/// What unpacking has done.
#[derive(Debug)]
pub struct Unpacked {
    /// What is there now.
    pub evaluation: Restored,
    /// Whether it was there already. Then nothing in it was touched.
    pub was_there: bool,
    /// What a person should know about it, a sentence each.
    pub notes: Vec<String>,
}

/// Lays the evaluation object `info` of `store` out in `directory`, whose parent directories are
/// made. It appears whole, or not at all. Where it lies already, what somebody has edited stays.
///
/// # Errors
/// When something else is there, the object is not what `info` says or is no evaluation, or files
/// cannot be written.
pub fn unpack(store: &dyn Store, info: &PathInfo, directory: &Path) -> Result<Unpacked> {
    let object = store.store_dir().render_path(&info.path);
    let marker = directory.join(name::OBJECT);
    if directory.symlink_metadata().is_ok() && !is_empty_directory(directory) {
        return match fs::read_to_string(&marker) {
            Ok(text) if text.trim_end() == object => {
                let evaluation = Restored::open(directory)?;
                Ok(Unpacked { evaluation, was_there: true, notes: Vec::new() })
            }
            _ => Err(EvaluationError::Occupied { directory: directory.to_owned(), object }),
        };
    }
    let parent = directory.parent().unwrap_or(directory);
    fs::create_dir_all(parent)
        .map_err(EvaluationError::io(format!("create {}", parent.display())))?;
    let temporary = tempfile::Builder::new()
        .prefix(".ferry-evaluation-")
        .tempdir_in(parent)
        .map_err(EvaluationError::io(format!("create a directory in {}", parent.display())))?;
    let tree = temporary.path().join("tree");
    write(store, info, temporary.path())?;
    untrusted::check(&tree)
        .map_err(|reason| EvaluationError::BadObject { object: object.clone(), reason })?;
    put(&tree.join(name::OBJECT), format!("{object}\n").as_bytes())?;
    put(&tree.join(name::REGISTRY), EMPTY_REGISTRY.as_bytes())?;
    let cache = tree.join(name::CACHE);
    fs::create_dir_all(&cache)
        .map_err(EvaluationError::io(format!("create {}", cache.display())))?;
    let notes = track(&Restored::open(&tree)?);
    let flushing = || EvaluationError::io(format!("flush {} to disk", parent.display()));
    let parent = File::open(parent).map_err(flushing())?;
    rustix::fs::syncfs(&parent).map_err(|error| flushing()(error.into()))?;
    // An empty directory may be in the way: renaming puts this one in its place.
    fs::rename(&tree, directory)
        .map_err(EvaluationError::io(format!("rename {}", directory.display())))?;
    parent.sync_all().map_err(flushing())?;
    Ok(Unpacked { evaluation: Restored::open(directory)?, was_there: false, notes })
}

fn is_empty_directory(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Makes a file that is not there yet.
fn put(file: &Path, bytes: &[u8]) -> Result<()> {
    File::create_new(file)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(EvaluationError::io(format!("write {}", file.display())))
}

/// Unpacks the NAR as `tree` in `parent`, and makes sure that it is the one promised.
fn write(store: &dyn Store, info: &PathInfo, parent: &Path) -> Result<()> {
    let object = store.store_dir().render_path(&info.path);
    let bad = |reason: String| EvaluationError::BadObject { object: object.clone(), reason };
    let handle =
        File::open(parent).map_err(EvaluationError::io(format!("open {}", parent.display())))?;
    let mut outcome = Ok(());
    store
        .read_nars(std::slice::from_ref(info), &mut |_, nar| {
            let mut reader = BufReader::with_capacity(64 << 10, Hashed::new(nar));
            let restored = restore(&mut reader, handle_of(&handle), "tree", Form::Writable);
            outcome = match restored {
                Err(nar::Error::Io(source)) => Err(EvaluationError::Io {
                    action: format!("unpack {object} in {}", parent.display()),
                    source,
                }),
                Err(other) => Err(bad(other.to_string())),
                Ok(_) => match reader.into_inner().hasher.finish() {
                    found if found == info.nar_hash => Ok(()),
                    found => Err(bad(format!(
                        "its NAR has hash {found}, and should have {}",
                        info.nar_hash
                    ))),
                },
            };
            Ok(())
        })
        .map_err(|error| bad(error.to_string()))?;
    outcome
}

fn handle_of(file: &File) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(file)
}

/// Makes the working trees what they were, as far as that goes.
fn track(evaluation: &Restored) -> Vec<String> {
    let Ok(files) = fs::canonicalize(evaluation.at(Path::new("/"))) else { return Vec::new() };
    let trees = evaluation.description().working_trees.iter();
    let trees: Vec<PathBuf> = trees
        .filter_map(|tree| fs::canonicalize(evaluation.at(Path::new(tree))).ok())
        // A link in there may lead anywhere.
        .filter(|tree| tree.is_dir() && tree.starts_with(&files))
        .collect();
    let tracked = trees.iter().map(|tree| git::track_all(tree));
    let failed = tracked.filter_map(|outcome| outcome.err());
    failed.map(|error| format!("{error} (a flake there is its whole directory, then)")).collect()
}
