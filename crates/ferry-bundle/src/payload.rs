//! The stream under a bundle: sections with their offsets, and the blocks with the NARs.

use std::io::{self, Read};
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use crate::format::{BLOCK_SIZE, limit, section};
use crate::pipeline::{self, Closed, Output};
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

    /// Where it stands, in bytes from the beginning.
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
    fn end(&mut self) -> Result<()> {
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

/// How long each block is, for a payload of this many bytes.
fn block_sizes(mut payload: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let size = payload.min(BLOCK_SIZE as u64);
        payload -= size;
        (size > 0).then(|| usize::try_from(size).unwrap_or(BLOCK_SIZE))
    })
}

/// A block on its way through the pipeline.
struct Compressed {
    offset: u64,
    size: usize,
    /// `None` for a block of which nothing is wanted.
    bytes: Option<Vec<u8>>,
}

/// A block as it comes out.
enum Block {
    Data(io::Cursor<Vec<u8>>),
    /// So many bytes that were not decompressed.
    Hole(u64),
}

/// The decompressed payload as one stream; its end is reached only in a file that is whole.
pub(crate) struct Payload {
    blocks: Output<Result<Block>>,
    block: Block,
    name: String,
}

impl Payload {
    /// Starts reading `size` bytes of payload, and decompressing those blocks of which `wanted`,
    /// a list of ranges in ascending order, wants something. The rest can only be skipped.
    pub(crate) fn start<R: Read + Send + 'static>(
        mut input: Input<R>,
        size: u64,
        wanted: Vec<Range<u64>>,
    ) -> Self {
        let name = input.name.clone();
        let worker_name = name.clone();
        let (jobs, blocks) = pipeline::pipeline(move || {
            let name = worker_name.clone();
            move |compressed: Result<Compressed>| decompress(&name, compressed?)
        });
        std::thread::spawn(move || {
            let mut wanted = wanted.into_iter().peekable();
            let mut position = 0;
            for size in block_sizes(size) {
                let end = position + size as u64;
                while wanted.peek().is_some_and(|range| range.end <= position) {
                    wanted.next();
                }
                let needed = wanted.peek().is_some_and(|range| range.start < end);
                position = end;
                let block = input.section(section::BLOCK, limit::BLOCK).map(|(offset, bytes)| {
                    Compressed { offset, size, bytes: needed.then_some(bytes) }
                });
                let failed = block.is_err();
                if jobs.send(block).is_err() || failed {
                    return;
                }
            }
            if let Err(error) = input.end() {
                // Nobody listening is nobody to tell.
                let _ = jobs.send(Err(error));
            }
        });
        Self { blocks, block: Block::Hole(0), name }
    }

    /// Leaves out the next `count` bytes.
    pub(crate) fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let passed = match &mut self.block {
                Block::Hole(size) => {
                    let passed = count.min(*size);
                    *size -= passed;
                    passed
                }
                Block::Data(data) => {
                    let left = (data.get_ref().len() as u64).saturating_sub(data.position());
                    let passed = count.min(left);
                    data.set_position(data.position() + passed);
                    passed
                }
            };
            count -= passed;
            if passed == 0 {
                self.block = self.next()?.ok_or_else(|| self.broken())?;
            }
        }
        Ok(())
    }

    /// After the last byte: reports what is wrong with the end of the file.
    pub(crate) fn finish(self) -> Result<()> {
        match self.next()? {
            None => Ok(()),
            Some(_) => Err(self.broken()),
        }
    }

    fn next(&self) -> Result<Option<Block>> {
        match self.blocks.next() {
            None => Ok(None),
            Some(Ok(block)) => block.map(Some),
            Some(Err(Closed)) => Err(self.broken()),
        }
    }

    fn broken(&self) -> BundleError {
        BundleError::Io {
            action: format!("decompress {}", self.name),
            source: io::Error::other("a worker thread ended"),
        }
    }
}

impl Read for Payload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Block::Data(data) = &mut self.block {
                let count = data.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
            }
            // Carried as the error type that a copy looks for in a failed read.
            let carried = |error: BundleError| io::Error::other(ferry_store::Error::from(error));
            match self.next().map_err(carried)? {
                None => return Ok(0),
                Some(block) => self.block = block,
            }
        }
    }
}

fn decompress(name: &str, compressed: Compressed) -> Result<Block> {
    let Compressed { offset, size, bytes } = compressed;
    let Some(bytes) = bytes else { return Ok(Block::Hole(size as u64)) };
    let damaged = |reason: String| BundleError::Damaged {
        bundle: name.to_owned(),
        offset,
        reason: format!("block: {reason}"),
    };
    let plain = zstd::bulk::decompress(&bytes, size).map_err(|error| damaged(error.to_string()))?;
    if plain.len() == size {
        Ok(Block::Data(io::Cursor::new(plain)))
    } else {
        Err(damaged(format!("it holds {} bytes instead of {size}", plain.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_full_except_the_last() {
        let sizes = |payload| block_sizes(payload).collect::<Vec<_>>();
        assert_eq!(sizes(0), [0; 0]);
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(BLOCK_SIZE as u64), [BLOCK_SIZE]);
        assert_eq!(sizes(BLOCK_SIZE as u64 + 1), [BLOCK_SIZE, 1]);
    }
}
