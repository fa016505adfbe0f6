//! Files and directories outside of the store: what they hash to, and whether all of them was
//! copied.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ferry_formats::hash::NarHasher;
use ferry_formats::{NarHash, nar};

/// Larger trees are not hashed, in bytes of their NARs.
const LARGEST: u64 = 1 << 30;
/// Directories that are not made of files that somebody wrote.
const NO_SOURCES: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];
/// How many entries of a directory are compared: of one with more, nothing is said.
const MOST_ENTRIES: usize = 1_000_000;

struct Hashing(NarHasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.size() > LARGEST {
            return Err(io::Error::other("too large to be compared"));
        }
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether something can be a source: it is there, and no device, nor the whole of a machine.
pub(super) fn may_be_source(path: &Path) -> bool {
    let is_known = path.ancestors().count() > 2 || path.is_file();
    let kind = fs::symlink_metadata(path).map(|metadata| metadata.file_type());
    let is_source = kind.is_ok_and(|kind| kind.is_dir() || kind.is_file() || kind.is_symlink());
    is_known && is_source && !NO_SOURCES.iter().any(|place| path.starts_with(place))
}

/// The hash of a file or a tree as a NAR, if it can be read and is not too large.
pub(super) fn nar_hash(path: &Path) -> Option<NarHash> {
    let mut hashing = Hashing(NarHasher::default());
    nar::dump(path, &mut hashing).ok()?;
    Some(hashing.0.finish())
}

/// Whether everything that is in `original` is in `copy` too, by the names.
pub(super) fn is_all_of(copy: &Path, original: &Path) -> bool {
    let mut left = MOST_ENTRIES;
    has_all(copy, original, &mut left)
}

fn has_all(copy: &Path, original: &Path, left: &mut usize) -> bool {
    if !fs::symlink_metadata(original).is_ok_and(|metadata| metadata.is_dir()) {
        return fs::symlink_metadata(copy).is_ok();
    }
    let Ok(entries) = fs::read_dir(original) else { return false };
    for entry in entries {
        *left = left.saturating_sub(1);
        let Ok(entry) = entry else { return false };
        let there = copy.join(entry.file_name());
        if *left == 0
            || fs::symlink_metadata(&there).is_err()
            || !has_all(&there, &entry.path(), left)
        {
            return false;
        }
    }
    true
}
