//! Narinfos that were fetched before, in a directory.
//!
//! A file for each, below a directory for each cache. The first line is the digest of the rest:
//! what was damaged counts as not there, and is fetched again. Only what a cache has is kept; what
//! it does not have it may have tomorrow.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ferry_formats::nixbase32;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::place::MAX_SIZE;

/// The kept answers of one cache.
pub(crate) struct Answers {
    directory: PathBuf,
}

impl Answers {
    /// Those of the cache at `url`, below `directory`. Nothing is made yet.
    pub(crate) fn new(directory: &Path, url: &str) -> Self {
        Self { directory: directory.join(digest(url.as_bytes())) }
    }

    /// What was kept under a name, if it is whole.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let mut kept = Vec::new();
        let file = File::open(self.directory.join(name)).ok()?;
        file.take(MAX_SIZE + 1024).read_to_end(&mut kept).ok()?;
        let end = kept.iter().position(|byte| *byte == b'\n')?;
        let (found, bytes) = kept.split_at_checked(end + 1)?;
        (found.strip_suffix(b"\n")? == digest(bytes).as_bytes()).then(|| bytes.to_vec())
    }

    /// Keeps an answer. That it cannot be kept is no failure: it will be fetched again.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        if let Err(error) = self.try_put(name, bytes) {
            let directory = self.directory.display();
            tracing::debug!(%directory, name, %error, "an answer cannot be kept");
        }
    }

    fn try_put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut file = NamedTempFile::new_in(&self.directory)?;
        writeln!(file, "{}", digest(bytes))?;
        file.write_all(bytes)?;
        file.persist(self.directory.join(name))?;
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> String {
    nixbase32::encode(&Sha256::digest(bytes))
}
