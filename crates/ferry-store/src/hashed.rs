//! NARs that are hashed as they are read.

use std::io::{self, Read};

use ferry_formats::hash::NarHasher;

/// Hashes what is read through it.
pub(crate) struct Hashed<R> {
    reader: R,
    /// Of what was read so far.
    pub(crate) hasher: NarHasher,
}

impl<R> Hashed<R> {
    /// Nothing was read yet.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, hasher: NarHasher::default() }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
