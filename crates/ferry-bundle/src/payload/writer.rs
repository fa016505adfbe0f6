//! Collects NARs into blocks, which threads compress and one thread writes.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use ferry_store::Error;
use sha2::{Digest as _, Sha256};

use super::Bases;
use super::again::{Again, Origin};
use super::block::{Range, Source, gather, put_ranges};
use super::compress::{Compressor, Prefix};
use super::sampling::{Sample, samples};
use super::similar::{Effort, Similar};
use crate::format::{BLOCK_SIZE, section};
use crate::head::put_section;
use crate::pipeline::{self, Closed, Input, Output};
use crate::{BundleError, Result};

/// Bytes of what stands before, so that a piece of a base has all its samples.
const LEAD: u64 = 31;

/// How far back blocks of a payload of `size` bytes refer at most, in bytes.
pub(crate) fn reach(size: u64) -> u64 {
    if size > BLOCK_SIZE as u64 { size } else { 0 }
}

pub(crate) struct HashedOutput<W> {
    pub(crate) sink: W,
    pub(crate) digest: Sha256,
}

impl<W: Write> HashedOutput<W> {
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.sink.write_all(bytes)
    }
}

/// How a payload is to be written.
pub(crate) struct Writing {
    /// What to call the bundle.
    pub(crate) name: String,
    /// zstd's compression level.
    pub(crate) level: i32,
    /// Its size in bytes.
    pub(crate) size: u64,
    pub(crate) bases: Bases,
    /// Where to read it again; otherwise it is put aside.
    pub(crate) origin: Option<Origin>,
    /// Where temporary files may be made.
    pub(crate) directory: PathBuf,
}

/// Takes numbered blocks, and gives the contents of their sections.
type Blocks = Input<(u64, Vec<u8>), Result<Vec<u8>>>;

/// Takes in the payload.
pub(crate) struct PayloadWriter {
    block: Vec<u8>,
    number: u64,
    blocks: Option<Blocks>,
    output: Option<JoinHandle<Result<()>>>,
    /// Set once everything is in. A bundle that was given up must not get an end: what stands on
    /// a stream cannot be taken back, and has to show that it is not whole.
    complete: Arc<AtomicBool>,
    name: String,
}

/// What the threads that compress share.
struct Shared {
    writing: Writing,
    again: Again,
    /// Blocks look for what is similar one after the other, so that the outcome does not hang on which
    /// thread is faster.
    turn: Mutex<Turn>,
    next: Condvar,
}

struct Turn {
    number: u64,
    similar: Similar,
}

impl PayloadWriter {
    pub(crate) fn start<W: Write + Send + 'static>(
        output: HashedOutput<W>,
        mut writing: Writing,
    ) -> Result<Self> {
        let name = writing.name.clone();
        let similar = look_through_bases(&writing)?;
        let bits = similar.bits();
        let again = Again::new(writing.origin.take(), writing.size, &writing.directory)?;
        let turn = Mutex::new(Turn { number: 0, similar });
        let shared = Arc::new(Shared { writing, again, turn, next: Condvar::new() });
        let (blocks, compressed) = pipeline::pipeline(move || {
            let shared = Arc::clone(&shared);
            let mut compressor = Compressor::new();
            move |(number, block)| shared.pack(number, block, bits, &mut compressor)
        });
        let complete = Arc::new(AtomicBool::new(false));
        let output = {
            let (complete, name) = (Arc::clone(&complete), name.clone());
            std::thread::spawn(move || {
                let output = write_blocks(&compressed, output, &name)?;
                if complete.load(Ordering::Acquire) { write_end(output, &name) } else { Ok(()) }
            })
        };
        Ok(Self {
            block: Vec::with_capacity(BLOCK_SIZE),
            number: 0,
            blocks: Some(blocks),
            output: Some(output),
            complete,
            name,
        })
    }

    fn flush(&mut self) -> ferry_store::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_SIZE));
        let number = self.number;
        self.number += 1;
        match self.blocks.as_ref().map(|blocks| blocks.send((number, block))) {
            Some(Ok(())) => Ok(()),
            // The writing thread has given up and knows why.
            _ => self.join(),
        }
    }

    /// Waits for the writing thread and returns its failure, if it has one.
    fn join(&mut self) -> ferry_store::Result<()> {
        self.blocks = None;
        match self.output.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => Ok(outcome?),
            _ => Err(BundleError::Io {
                action: format!("write {}", self.name),
                source: io::Error::other("the writing thread ended"),
            }
            .into()),
        }
    }

    /// Everything is in.
    pub(crate) fn finish(mut self) -> ferry_store::Result<()> {
        self.flush()?;
        self.complete.store(true, Ordering::Release);
        self.join()
    }

    pub(crate) fn take_in(&mut self, nar: &mut dyn Read) -> ferry_store::Result<()> {
        loop {
            let room = (BLOCK_SIZE - self.block.len()) as u64;
            let read = nar
                .take(room)
                .read_to_end(&mut self.block)
                .map_err(Error::reading("read a NAR to pack it"))?;
            if (read as u64) < room {
                return Ok(());
            }
            self.flush()?;
        }
    }
}

/// How hard to look where there are bases: what is packed is likely to be like them.
const AGAINST_BASES: Effort = Effort { bits: 7, prefix: 8 << 20, slots: 23 };
/// And where there is only what was packed before: the same content rarely stands there twice.
const AMONG_ITSELF: Effort = Effort { bits: 8, prefix: 8 << 20, slots: 21 };

/// Samples all bases.
fn look_through_bases(writing: &Writing) -> Result<Similar> {
    let sizes = writing.bases.sizes();
    let effort = if sizes.is_empty() { AMONG_ITSELF } else { AGAINST_BASES };
    let mut similar = Similar::new(&sizes, writing.size, effort);
    let bits = similar.bits();
    if !writing.bases.are_there() {
        return Ok(similar);
    }
    let pieces = sizes.iter().zip(0..).flat_map(|(size, base)| {
        (0..*size).step_by(BLOCK_SIZE).map(move |offset| (base, offset, *size))
    });
    let pieces: Vec<(usize, u64, u64)> = pieces.collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    for batch in pieces.chunks(threads) {
        let found: Vec<Result<(usize, u64, Vec<Sample>)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = batch
                .iter()
                .map(|(base, offset, size)| {
                    scope.spawn(move || {
                        let start = offset.saturating_sub(LEAD);
                        let end = offset.saturating_add(BLOCK_SIZE as u64).min(*size);
                        let mut piece = vec![0; usize::try_from(end - start).unwrap_or_default()];
                        writing.bases.read(*base, start, &mut piece)?;
                        Ok((*base, start, samples(&piece, bits)))
                    })
                })
                .collect();
            let ended = || Err(BundleError::io("read a base")(io::Error::other("a thread ended")));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| ended())).collect()
        });
        for found in found {
            let (base, offset, samples) = found?;
            similar.add_base(base, offset, &samples);
        }
    }
    Ok(similar)
}

impl Shared {
    /// The contents of the section for a block.
    fn pack(
        &self,
        number: u64,
        block: Vec<u8>,
        bits: u32,
        compressor: &mut Compressor,
    ) -> Result<Vec<u8>> {
        let failed = || BundleError::io(format!("write {}", self.writing.name));
        let found = samples(&block, bits);
        let block = Arc::new(block);
        // Before its turn is over: whoever comes next may refer to it.
        let kept = self.again.put(number, &block);
        let (ranges, same) = self.in_turn(number, |similar| {
            let chosen = similar.ranges(number, &found);
            similar.add_block(number, &found);
            chosen
        });
        kept.map_err(failed())?;
        let prefix = Prefix { bytes: self.prefix(&ranges)?, same };
        let mut out = Vec::new();
        put_ranges(&mut out, &ranges);
        compressor.append(&mut out, &block, &prefix, self.writing.level).map_err(failed())?;
        Ok(out)
    }

    fn in_turn<T>(&self, number: u64, run: impl FnOnce(&mut Similar) -> T) -> T {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.number < number {
            turn = self.next.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        let outcome = run(&mut turn.similar);
        turn.number = number + 1;
        self.next.notify_all();
        outcome
    }

    fn prefix(&self, ranges: &[Range]) -> Result<Vec<u8>> {
        gather(ranges, |source, offset, buffer| match source {
            Source::Base(base) => self.writing.bases.read(base, offset, buffer),
            Source::Payload => self.again.read(offset, buffer),
        })
    }
}

fn write_blocks<W: Write>(
    compressed: &Output<Result<Vec<u8>>>,
    mut output: HashedOutput<W>,
    name: &str,
) -> Result<HashedOutput<W>> {
    let failed = || BundleError::io(format!("write {name}"));
    let mut framed = Vec::new();
    while let Some(block) = compressed.next() {
        let block = match block {
            Ok(block) => block?,
            Err(Closed) => return Err(failed()(io::Error::other("a worker thread ended"))),
        };
        framed.clear();
        put_section(&mut framed, section::BLOCK, &block);
        output.put(&framed).map_err(failed())?;
    }
    Ok(output)
}

fn write_end<W: Write>(mut output: HashedOutput<W>, name: &str) -> Result<()> {
    let digest = output.digest.clone().finalize();
    let mut framed = Vec::new();
    put_section(&mut framed, section::END, &digest);
    output
        .put(&framed)
        .and_then(|()| output.sink.flush())
        .map_err(BundleError::io(format!("write {name}")))
}
