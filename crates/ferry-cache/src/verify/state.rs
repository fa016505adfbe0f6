//! What was read and found to be right, and when: so that a run goes on where another was stopped.
//!
//! A text file. The first line is `ferry-cache-verify 1 CACHE`. Each other line is about one NAR:
//!
//! ```text
//! HASH SECONDS NARHASH SIZE MODIFIED URL
//! ```
//!
//! the hash part of the path; when it was read, in seconds since 1970; the hash of the NAR in
//! base 32; of the file with it, the size in bytes and when it was last written, in nanoseconds
//! since 1970 (`-` where a cache does not tell); and its URL. Of several lines about a path the
//! last one counts. A line is written as soon as a NAR was read, and a half-written one at the end
//! counts for nothing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ferry_formats::narinfo::Narinfo;
use ferry_formats::nixbase32;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::layout::hash_part;
use crate::{BinaryCache, CacheError};

const MAGIC: &str = "ferry-cache-verify 1 ";
/// No state is larger, in bytes: that of ten million paths.
const MAX_STATE: u64 = 4 << 30;

/// What was verified before.
pub struct VerifyState {
    path: PathBuf,
    file: File,
    /// Holds the lock of a file that was replaced.
    _replaced: Option<File>,
    /// For each hash part, when it was read, and what was read.
    known: HashMap<String, (u64, String)>,
}

impl VerifyState {
    /// Opens the state that is kept in a file for a cache, or begins one.
    ///
    /// # Errors
    /// When it is no such file, of another cache, in use by another run, or cannot be written.
    pub fn open(path: &Path, cache: &BinaryCache) -> Result<Self, CacheError> {
        let failed = |action| CacheError::io(action, path.display());
        let open = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = open.map_err(failed("open"))?;
        lock(&file, path)?;
        let mut text = Vec::new();
        (&mut file).take(MAX_STATE).read_to_end(&mut text).map_err(failed("read"))?;
        let header = format!("{MAGIC}{}", cache.place.shown());
        let bad =
            |reason: String| CacheError::BadState { file: path.display().to_string(), reason };
        // What has no end was being written when its writer was killed.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text.get(..whole).unwrap_or_default();
        let lines = std::str::from_utf8(lines).map_err(|_| bad("it is not text".to_owned()))?;
        let mut lines = lines.lines();
        match lines.next() {
            None if !header.as_bytes().starts_with(text.get(whole..).unwrap_or_default()) => {
                return Err(bad("it is something else".to_owned()));
            }
            None => {}
            Some(first) if first == header => {}
            Some(first) => {
                return Err(bad(match first.strip_prefix(MAGIC) {
                    Some(other) => format!("it is about the cache {other}"),
                    None => "it is something else".to_owned(),
                }));
            }
        }
        let mut count = 0;
        let mut known = HashMap::new();
        for (number, line) in lines.enumerate() {
            let record =
                record(line).ok_or_else(|| bad(format!("line {} is damaged", number + 2)))?;
            known.insert(record.0, record.1);
            count += 1;
        }
        let mut state = Self { path: path.to_owned(), file, _replaced: None, known };
        if whole == 0 || count > 2 * state.known.len() {
            state.rewrite(&header)?;
        } else if whole < text.len() {
            state.file.set_len(whole as u64).map_err(failed("write"))?;
        }
        Ok(state)
    }

    /// Writes it again, with each path once.
    fn rewrite(&mut self, header: &str) -> Result<(), CacheError> {
        let path = self.path.clone();
        let failed = || CacheError::io("write", path.display());
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut file = NamedTempFile::new_in(parent.unwrap_or(Path::new("."))).map_err(failed())?;
        lock(file.as_file(), &path)?;
        let mut text = format!("{header}\n");
        for (hash, (when, what)) in &self.known {
            text.push_str(&format!("{hash} {when} {what}\n"));
        }
        file.write_all(text.as_bytes()).map_err(failed())?;
        file.as_file().sync_all().map_err(failed())?;
        let mut file = file.persist(&path).map_err(|error| failed()(error.error))?;
        file.seek(io::SeekFrom::End(0)).map_err(failed())?;
        self._replaced = Some(std::mem::replace(&mut self.file, file));
        Ok(())
    }

    /// Whether just this was read and found to be right, and not longer ago than that.
    pub(super) fn has(&self, record: &Record, again_after: Option<Duration>) -> bool {
        let Some((when, what)) = self.known.get(&record.hash) else { return false };
        let age = now().saturating_sub(*when);
        *what == record.what && again_after.is_none_or(|limit| age < limit.as_secs())
    }

    /// Notes that something was read and found to be right.
    pub(super) fn add(&self, record: &Record) -> Result<(), CacheError> {
        let line = format!("{} {} {}\n", record.hash, now(), record.what);
        let failed = CacheError::io("write", self.path.display());
        (&self.file).write_all(line.as_bytes()).map_err(failed)
    }
}

/// What is noted of a NAR.
pub(super) struct Record {
    hash: String,
    what: String,
}

impl Record {
    /// Of the NAR that the narinfo of this name tells of, in a file of this size and age.
    pub(super) fn new(
        name: &str,
        narinfo: &Narinfo,
        file: Option<(u64, Option<SystemTime>)>,
    ) -> Self {
        let hash = hash_part(name, ".narinfo").unwrap_or_default().to_owned();
        let size = file.map_or("-".to_owned(), |(size, _)| size.to_string());
        let modified = file.and_then(|(_, modified)| modified?.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or("-".to_owned(), |since| since.as_nanos().to_string());
        let nar_hash = nixbase32::encode(&narinfo.info.nar_hash.0);
        Self { hash, what: format!("{nar_hash} {size} {modified} {}", narinfo.url) }
    }
}

/// A line of it, taken apart.
fn record(line: &str) -> Option<(String, (u64, String))> {
    let (hash, rest) = line.split_once(' ')?;
    let (when, what) = rest.split_once(' ')?;
    let is_whole = hash_part(&format!("{hash}.narinfo"), ".narinfo").is_some()
        && what.splitn(4, ' ').filter(|part| !part.is_empty()).count() == 4;
    is_whole.then_some((hash.to_owned(), (when.parse().ok()?, what.to_owned())))
}

fn lock(file: &File, path: &Path) -> Result<(), CacheError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(CacheError::BadState {
            file: path.display().to_string(),
            reason: "another run uses it".to_owned(),
        }),
        // Where there are no locks, nobody is kept away.
        _ => Ok(()),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
