//! A large NAR on its way through a compressor, in pieces.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::mpsc::Receiver;

use sha2::{Digest as _, Sha256};

/// A piece of a NAR that is being read.
pub(crate) enum Piece {
    Data(Vec<u8>),
    /// That was all, and it is what it should be. Where this does not come, it is not.
    Verified,
}

/// A file being written, with the hash and the size of what is in it.
pub(crate) struct Sink {
    pub(crate) file: BufWriter<File>,
    pub(crate) hasher: Sha256,
    pub(crate) size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what is read through it.
pub(crate) struct Tee<R, W> {
    pub(crate) nar: R,
    pub(crate) encoder: W,
    pub(crate) failure: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.nar.read(buffer)?;
        if let Err(error) = self.encoder.write_all(buffer.get(..count).unwrap_or_default()) {
            self.failure = Some(error);
            return Err(io::Error::other("what is read cannot be written"));
        }
        Ok(count)
    }
}

/// The pieces of one NAR as a reader.
pub(crate) struct Pieces {
    receiver: Receiver<Piece>,
    chunk: io::Cursor<Vec<u8>>,
    /// Whether it was what it should be, once that is known.
    pub(crate) end: Option<bool>,
}

impl Pieces {
    pub(crate) fn new(receiver: Receiver<Piece>) -> Self {
        Self { receiver, chunk: io::Cursor::default(), end: None }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.end.is_some() {
                return Ok(count);
            }
            match self.receiver.recv() {
                Ok(Piece::Data(bytes)) => self.chunk = io::Cursor::new(bytes),
                Ok(Piece::Verified) => self.end = Some(true),
                Err(_) => self.end = Some(false),
            }
        }
    }
}
