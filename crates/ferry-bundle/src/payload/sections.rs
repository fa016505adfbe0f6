//! The stream under a bundle: sections with their offsets.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use crate::format::section;
use crate::{BundleError, Result};

/// A bundle's bytes, counted and hashed as they are read.
pub(crate) struct Input<R> {
    reader: R,
    name: String,
    offset: u64,
    digest: Sha256,
}

impl<R: Read> Input<R> {
    /// `name` is what to call the file in messages.
    pub(crate) fn new(reader: R, name: String) -> Self {
        Self { reader, name, offset: 0, digest: Sha256::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many bytes were read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn digest_so_far(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    pub(crate) fn damaged(&self, offset: u64, reason: impl Into<String>) -> BundleError {
        BundleError::Damaged { bundle: self.name.clone(), offset, reason: reason.into() }
    }

    fn exactly(&mut self, length: u64, what: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Grows with what is really there, whatever length was claimed.
        let read = (&mut self.reader)
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(BundleError::io(format!("read {} at offset {}", self.name, self.offset)))?;
        self.digest.update(&bytes);
        self.offset += read as u64;
        if (read as u64) < length {
            return Err(BundleError::Truncated {
                bundle: self.name.clone(),
                offset: self.offset,
                what: what.to_owned(),
            });
        }
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let bytes = self.exactly(N as u64, what)?;
        bytes.as_slice().try_into().map_err(|_| self.damaged(self.offset, "wrong length"))
    }

    /// Reads a section that has to have this name, and returns where its contents begin.
    pub(crate) fn section(&mut self, expected: [u8; 4], most: u64) -> Result<(u64, Vec<u8>)> {
        let start = self.offset;
        let name: [u8; 4] = self.array("the name of a section")?;
        if name != expected {
            return Err(self.damaged(
                start,
                format!("a section `{}` where `{}` belongs", show(name), show(expected)),
            ));
        }
        let length = u64::from_le_bytes(self.array("the length of a section")?);
        if length > most {
            let reason = format!(
                "section `{}` claims {length} bytes; at most {most} are accepted",
                show(name)
            );
            return Err(self.damaged(start, reason));
        }
        let contents_at = self.offset;
        let contents = self.exactly(length, &format!("section `{}`", show(name)))?;
        Ok((contents_at, contents))
    }

    /// Reads the last section, compares the digest of the whole file, and makes sure that the
    /// file ends there.
    pub(crate) fn end(&mut self) -> Result<()> {
        let found = self.digest_so_far();
        let (at, stated) = self.section(section::END, 32)?;
        if stated != found {
            return Err(self.damaged(at, "the digest of the file is not the one stated here"));
        }
        let mut more = [0];
        match self.reader.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged(self.offset, "something follows the end of the bundle")),
            Err(error) => Err(BundleError::io(format!("read {}", self.name))(error)),
        }
    }
}

fn show(name: [u8; 4]) -> String {
    name.escape_ascii().to_string()
}
