//! The blocks as one stream of NARs.

use std::io::{self, Read};
use std::ops::Range as Span;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::{Bounds, Range, Source, gather, take_ranges};
use super::compress::decompress;
use super::history::History;
use super::scan::Scan;
use super::{Bases, Input};
use crate::codec::Take;
use crate::format::{BLOCK_SIZE, limit, section};
use crate::pipeline::{self, Closed, Output};
use crate::{BundleError, Result};

/// How long each block is, for a payload of this many bytes.
pub(super) fn block_sizes(mut payload: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let size = payload.min(BLOCK_SIZE as u64);
        payload -= size;
        (size > 0).then(|| usize::try_from(size).unwrap_or(BLOCK_SIZE))
    })
}

/// How a payload is to be read.
pub(crate) struct Reading {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What is wanted of it, in ascending order. The rest can only be skipped.
    pub(crate) wanted: Vec<Span<u64>>,
    /// Whether blocks say what they are packed against. In version 0 they do not.
    pub(crate) ranged: bool,
    /// How far back they refer at most, in bytes.
    pub(crate) reach: u64,
    pub(crate) bases: Arc<Bases>,
    /// Which blocks refer to which, where that could be found out before.
    pub(crate) scan: Option<Scan>,
    /// Where temporary files may be made.
    pub(crate) directory: PathBuf,
}

/// A block on its way through the pipeline.
struct Compressed {
    number: u64,
    offset: u64,
    size: usize,
    /// `None` for a block of which nothing is wanted.
    frame: Option<Frame>,
}

struct Frame {
    /// The section, in which the frame begins at `start`.
    section: Vec<u8>,
    start: usize,
    prefix: Vec<u8>,
    /// The bases that are part of the prefix.
    bases: Vec<usize>,
    /// Whether later blocks may refer to it.
    kept: bool,
}

/// A block as it comes out.
enum Block {
    Data(io::Cursor<Shared>),
    /// So many bytes that were not decompressed.
    Hole(u64),
}

/// A block that later ones may refer to as well.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The decompressed payload as one stream; its end is reached only in a file that is whole.
pub(crate) struct Payload {
    blocks: Output<Result<Block>>,
    block: Block,
    name: String,
}

impl Payload {
    /// Starts reading, and decompressing what is wanted.
    pub(crate) fn start<R: Read + Send + 'static>(
        input: Input<R>,
        reading: Reading,
    ) -> Result<Self> {
        let name = input.name().to_owned();
        let reach = reading.scan.as_ref().map_or(reading.reach, Scan::reach);
        let directory = &reading.directory;
        let history = History::new(reach, directory).map_err(BundleError::io(format!(
            "make a temporary file in {}",
            directory.display()
        )))?;
        let history = Arc::new(history);
        let worker = Worker {
            name: name.clone(),
            bases: Arc::clone(&reading.bases),
            history: Arc::clone(&history),
        };
        let (jobs, blocks) = pipeline::pipeline(move || {
            let worker = worker.clone();
            move |compressed: Result<Compressed>| worker.decompress(compressed?)
        });
        let mut feeder = Feeder { input, reading, history };
        std::thread::spawn(move || {
            let mut wanted = std::mem::take(&mut feeder.reading.wanted).into_iter().peekable();
            let mut start = 0;
            for (size, number) in block_sizes(feeder.reading.size).zip(0..) {
                let end = start + size as u64;
                while wanted.peek().is_some_and(|span| span.end <= start) {
                    wanted.next();
                }
                let wanted = wanted.peek().is_some_and(|span| span.start < end);
                let block = feeder.block(number, start, size, wanted);
                start = end;
                let failed = block.is_err();
                if jobs.send(block).is_err() || failed {
                    return;
                }
            }
            if let Err(error) = feeder.input.end() {
                // Nobody listening is nobody to tell.
                let _ = jobs.send(Err(error));
            }
        });
        Ok(Self { blocks, block: Block::Hole(0), name })
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
                    let left = (data.get_ref().0.len() as u64).saturating_sub(data.position());
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

/// Reads sections, and gathers what their blocks are packed against.
struct Feeder<R> {
    input: Input<R>,
    reading: Reading,
    history: Arc<History>,
}

impl<R: Read> Feeder<R> {
    fn block(&mut self, number: u64, start: u64, size: usize, wanted: bool) -> Result<Compressed> {
        let (offset, section) = self.input.section(section::BLOCK, limit::BLOCK)?;
        let mut take = Take::new(&section);
        let ranges = match self.reading.ranged {
            false => Vec::new(),
            true => {
                let sizes = self.reading.bases.sizes();
                let bounds = Bounds { start, reach: self.reading.reach, bases: &sizes };
                take_ranges(&mut take, &bounds).map_err(|error| {
                    let at = offset + error.position as u64;
                    self.input.damaged(at, format!("block: {}", error.reason))
                })?
            }
        };
        let start_of_frame = section.len() - take.remaining();
        let (needed, kept) = match &self.reading.scan {
            Some(scan) => (scan.is_needed(number), scan.is_kept(number)),
            // Nobody knows what the blocks to come refer to.
            None => (wanted || self.reading.reach > 0, self.reading.reach > 0),
        };
        if !(needed || wanted) {
            return Ok(Compressed { number, offset, size, frame: None });
        }
        let prefix = self.prefix(&ranges)?;
        let mut bases: Vec<usize> = ranges
            .iter()
            .filter_map(|range| match range.source {
                Source::Base(base) => Some(base),
                Source::Payload => None,
            })
            .collect();
        bases.dedup();
        let frame = Frame { section, start: start_of_frame, prefix, bases, kept };
        Ok(Compressed { number, offset, size, frame: Some(frame) })
    }

    fn prefix(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        gather(ranges, |source, offset, buffer| match source {
            Source::Base(base) => self.reading.bases.read(base, offset, buffer),
            Source::Payload => self.history.read(offset, buffer).map_err(BundleError::io(format!(
                "read again what was read of {}",
                self.input.name()
            ))),
        })
    }
}

/// Decompresses blocks.
#[derive(Clone)]
struct Worker {
    name: String,
    bases: Arc<Bases>,
    history: Arc<History>,
}

impl Worker {
    fn decompress(&self, compressed: Compressed) -> Result<Block> {
        let Compressed { number, offset, size, frame } = compressed;
        let Some(frame) = frame else { return Ok(Block::Hole(size as u64)) };
        let outcome = self.plain(number, offset, size, &frame);
        if outcome.is_err() {
            // Whoever waits for this block would wait in vain.
            self.history.end();
        }
        outcome
    }

    fn plain(&self, number: u64, offset: u64, size: usize, frame: &Frame) -> Result<Block> {
        let bytes = frame.section.get(frame.start..).unwrap_or_default();
        let plain = match decompress(bytes, &frame.prefix, size) {
            Ok(plain) => Arc::new(plain),
            Err(reason) => {
                // More often than the bundle, a base is not what it was where it was packed.
                for base in &frame.bases {
                    self.bases.check(*base)?;
                }
                let bundle = self.name.clone();
                let reason = format!("block: {reason}");
                return Err(BundleError::Damaged { bundle, offset, reason });
            }
        };
        if frame.kept {
            let kept = self.history.put(number, &plain);
            kept.map_err(BundleError::io(format!("keep what was read of {}", self.name)))?;
        }
        Ok(Block::Data(io::Cursor::new(Shared(plain))))
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
