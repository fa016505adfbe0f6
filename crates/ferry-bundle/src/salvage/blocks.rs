//! The blocks that are left in a damaged file.
//!
//! A block begins with its name and its length. Where that is damaged, or the block behind it, the
//! next one that can be decompressed is looked for. Blocks without damage between them form a run.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use memchr::memmem;

use crate::format::{BLOCK_SIZE, limit, section};

/// Bytes of a section's name and length.
const HEADER: u64 = 12;
/// How much of the file is searched at a time.
const WINDOW: usize = 1 << 20;

/// A block that can be decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where its frame is in the file.
    pub(super) frame: Range<u64>,
    /// Bytes of NAR in it.
    pub(super) size: usize,
}

/// Blocks that follow each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// How many blocks are damaged between the run before and this one, at the least.
    pub(super) lost_before: u64,
    pub(super) blocks: Vec<Block>,
}

/// Finds them, from this offset on, and no more than the payload has.
pub(super) fn find(file: &File, from: u64, most: u64) -> io::Result<Vec<Run>> {
    let mut runs = vec![Run::default()];
    let mut found = 0;
    let mut at = from;
    let size = file.metadata()?.len();
    while found < most {
        let lead = match header(file, at)? {
            Some((section::END, 32)) => break,
            Some((section::BLOCK, length)) => Some(at + HEADER..at + HEADER + length),
            _ => None,
        };
        if let Some(frame) = lead {
            if let Some(data) = decompress(file, &frame)? {
                if let Some(run) = runs.last_mut() {
                    run.blocks.push(Block { frame: frame.clone(), size: data.len() });
                }
                found += 1;
                at = frame.end;
                continue;
            }
            // Damaged; its length is right if it leads to a section, or to the end.
            if frame.end == size || header(file, frame.end)?.is_some() {
                lose(&mut runs);
                at = frame.end;
                continue;
            }
        }
        match search(file, at + 1)? {
            Some(found) => {
                lose(&mut runs);
                at = found;
            }
            None => break,
        }
    }
    runs.retain(|run| !run.blocks.is_empty());
    Ok(runs)
}

fn lose(runs: &mut Vec<Run>) {
    match runs.last_mut() {
        Some(run) if run.blocks.is_empty() => run.lost_before += 1,
        _ => runs.push(Run { lost_before: 1, blocks: Vec::new() }),
    }
}

/// A section's name and length, if they are those of a block or of the end.
fn header(file: &File, at: u64) -> io::Result<Option<([u8; 4], u64)>> {
    let mut bytes = [0; 12];
    if read_at(file, &mut bytes, at)? < bytes.len() {
        return Ok(None);
    }
    let (name, length) = bytes.split_at(4);
    let (Ok(name), Ok(length)) = (name.try_into(), length.try_into()) else { return Ok(None) };
    let length = u64::from_le_bytes(length);
    let known = match name {
        section::BLOCK => length <= limit::BLOCK,
        section::END => length == 32,
        _ => false,
    };
    Ok(known.then_some((name, length)))
}

/// The next block that can be decompressed.
fn search(file: &File, from: u64) -> io::Result<Option<u64>> {
    let mut at = from;
    let mut window = vec![0; WINDOW];
    loop {
        let count = read_at(file, &mut window, at)?;
        for place in memmem::find_iter(window.get(..count).unwrap_or_default(), &section::BLOCK) {
            let place = at + place as u64;
            if let Some((section::BLOCK, length)) = header(file, place)?
                && decompress(file, &(place + HEADER..place + HEADER + length))?.is_some()
            {
                return Ok(Some(place));
            }
        }
        if count < window.len() {
            return Ok(None);
        }
        // A name may lie across two windows.
        at += (count - section::BLOCK.len() + 1) as u64;
    }
}

/// What is in a frame, or nothing where it is damaged. (It has a checksum.)
pub(super) fn decompress(file: &File, frame: &Range<u64>) -> io::Result<Option<Vec<u8>>> {
    let part = Part { file, range: frame.clone() };
    let Ok(decoder) = zstd::Decoder::new(part) else { return Ok(None) };
    let mut data = Vec::new();
    let read = decoder.take(BLOCK_SIZE as u64 + 1).read_to_end(&mut data);
    Ok((read.is_ok() && !data.is_empty() && data.len() <= BLOCK_SIZE).then_some(data))
}

struct Part<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let count =
            self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
