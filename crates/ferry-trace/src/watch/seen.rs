//! What evaluators did with files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_store::facts::EntryKind;

/// Of larger directories the entries are not kept.
const MOST_ENTRIES: usize = 10_000;
/// How many files and directories are kept.
const MOST_FILES: usize = 2_000_000;

/// The entries of a directory when it was listed.
pub type Entries = BTreeMap<OsString, EntryKind>;

/// What becomes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It is opened, to be read.
    Open,
    /// Its entries are listed.
    List,
    /// It is looked at.
    LookAt,
}

/// What evaluators did with files. Paths are absolute, and as they were said: links in them are not
/// followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Files that were opened, and were there.
    pub read: BTreeSet<PathBuf>,
    /// Directories that were listed, with what was in them.
    pub listed: BTreeMap<PathBuf, Entries>,
    /// What was looked at in some other way, and was there.
    pub looked_at: BTreeSet<PathBuf>,
    /// Why something may be missing.
    pub missed: BTreeSet<String>,
}

impl Seen {
    /// Takes in what is about to become of a path.
    pub(super) fn note(&mut self, path: PathBuf, act: Act) {
        if self.read.len() + self.listed.len() + self.looked_at.len() >= MOST_FILES {
            self.missed.insert(format!("more than {MOST_FILES} files were read"));
            return;
        }
        match act {
            Act::List if !self.listed.contains_key(&path) => match entries(&path) {
                Some(entries) => drop(self.listed.insert(path, entries)),
                None => {
                    let shown = path.display();
                    self.missed.insert(format!(
                        "{shown} was listed, and has more than {MOST_ENTRIES} entries"
                    ));
                }
            },
            Act::Open if !self.read.contains(&path) && !self.looked_at.contains(&path) => {
                match path.metadata() {
                    // To be listed, or for what is in it.
                    Ok(metadata) if metadata.is_dir() => drop(self.looked_at.insert(path)),
                    Ok(_) => drop(self.read.insert(path)),
                    Err(_) => {}
                }
            }
            Act::Open if path.is_file() => drop(self.read.insert(path)),
            Act::LookAt if !self.looked_at.contains(&path) && path.symlink_metadata().is_ok() => {
                self.looked_at.insert(path);
            }
            _ => {}
        }
    }
}

/// The entries of a directory; nothing where they are too many.
fn entries(directory: &Path) -> Option<Entries> {
    let mut entries = Entries::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entries.len() >= MOST_ENTRIES {
            return None;
        }
        let kind = entry.file_type().map_or(EntryKind::Unknown, EntryKind::of);
        entries.insert(entry.file_name(), kind);
    }
    Some(entries)
}
