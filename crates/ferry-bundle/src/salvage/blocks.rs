//! The blocks that are left in a damaged file.
//!
//! A block begins with its name and its length. Where that is damaged, or the block behind it has
//! not the form of one, the next one that has is looked for. Blocks without damage between them
//! form a run. Whether what a block holds is whole shows when it is decompressed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use memchr::memmem;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use crate::codec::Take;
use crate::format::{BLOCK_SIZE, limit, section};
use crate::payload::{Bounds, take_ranges};

/// Bytes of a section's name and length.
const HEADER: u64 = 12;
/// How much of the file is searched at a time.
const WINDOW: usize = 1 << 20;
/// How many bytes of what only looks like blocks are read at most, as a multiple of the file's
/// size, and besides.
const MOST_LOOKED_AT: (u64, u64) = (4, 256 << 20);
/// The longest header of a zstd frame.
const FRAME_HEADER: usize = 18;

/// What has the form of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Where the contents of its section are in the file.
    pub(super) contents: Range<u64>,
    /// Bytes of NAR in it.
    pub(super) size: usize,
}

/// Blocks that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// How many blocks are damaged between the run before and this one, at the least.
    pub(super) lost_before: u64,
    pub(super) blocks: Vec<Block>,
}

/// A damaged file, and what is known of its blocks.
pub(super) struct Wreck {
    pub(super) file: File,
    /// Whether blocks say what they are packed against. In version 0 they do not.
    pub(super) ranged: bool,
    /// The sizes of the bases.
    pub(super) bases: Vec<u64>,
}

impl Wreck {
    /// Finds the blocks, from this offset on, and no more than the payload has. Gives up where too
    /// much looks like a block and is none: only those who want to waste time write that.
    pub(super) fn find(&self, from: u64, most: u64) -> io::Result<Vec<Run>> {
        let mut runs = vec![Run::default()];
        let mut found = 0;
        let mut at = from;
        let size = self.file.metadata()?.len();
        let (factor, more) = MOST_LOOKED_AT;
        let mut left = size.saturating_mul(factor).saturating_add(more);
        while found < most {
            let lead = match self.header(at)? {
                Some((section::END, 32)) => break,
                Some((section::BLOCK, length)) => Some(at + HEADER..at + HEADER + length),
                _ => None,
            };
            if let Some(contents) = lead {
                if let Some(size) = self.form(&contents)? {
                    at = contents.end;
                    if let Some(run) = runs.last_mut() {
                        run.blocks.push(Block { contents, size });
                    }
                    found += 1;
                    continue;
                }
                // Damaged; its length is right if it leads to a section, or to the end.
                if contents.end == size || self.header(contents.end)?.is_some() {
                    lose(&mut runs);
                    at = contents.end;
                    continue;
                }
            }
            match self.search(at + 1, &mut left)? {
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

    /// A section's name and length, if they are those of a block or of the end.
    fn header(&self, at: u64) -> io::Result<Option<([u8; 4], u64)>> {
        let bytes = self.read(&(at..at.saturating_add(HEADER)))?;
        let Some((name, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let Ok(length) = rest.try_into() else { return Ok(None) };
        let length = u64::from_le_bytes(length);
        let known = match *name {
            section::BLOCK => length <= limit::BLOCK,
            section::END => length == 32,
            _ => false,
        };
        Ok(known.then_some((*name, length)))
    }

    /// The next thing that has the form of a block, unless more than what is `left` has to be
    /// looked at for that.
    fn search(&self, from: u64, left: &mut u64) -> io::Result<Option<u64>> {
        let mut at = from;
        loop {
            let window = self.read(&(at..at.saturating_add(WINDOW as u64)))?;
            for place in memmem::find_iter(&window, &section::BLOCK) {
                let place = at + place as u64;
                let Some((section::BLOCK, length)) = self.header(place)? else { continue };
                if self.form(&(place + HEADER..place + HEADER + length))?.is_some() {
                    return Ok(Some(place));
                }
                match left.checked_sub(length) {
                    Some(less) => *left = less,
                    None => return Ok(None),
                }
            }
            if window.len() < WINDOW {
                return Ok(None);
            }
            // A name may lie across two windows.
            at += (window.len() - section::BLOCK.len() + 1) as u64;
        }
    }

    /// How many bytes of NAR a block holds, if these contents have the form of one: ranges, and a
    /// frame that is as long as what is left.
    fn form(&self, contents: &Range<u64>) -> io::Result<Option<usize>> {
        let most = (limit::RANGES_SIZE + FRAME_HEADER) as u64;
        let head = self.read(&(contents.start..contents.end.min(contents.start + most)))?;
        let Some(start) = self.frame_start(&head) else { return Ok(None) };
        let stated = match get_frame_content_size(head.get(start..).unwrap_or_default()) {
            Ok(Some(size)) if size == 0 || size > BLOCK_SIZE as u64 => return Ok(None),
            Ok(size) => size.and_then(|size| usize::try_from(size).ok()),
            Err(_) => return Ok(None),
        };
        let all = self.read(contents)?;
        let frame = all.get(start..).unwrap_or_default();
        if all.len() as u64 != contents.end - contents.start
            || find_frame_compressed_size(frame) != Ok(frame.len())
        {
            return Ok(None);
        }
        Ok(match stated {
            None if !self.ranged => {
                let plain = zstd::bulk::decompress(frame, BLOCK_SIZE).ok();
                plain.map(|plain| plain.len()).filter(|size| *size > 0)
            }
            stated => stated,
        })
    }

    /// How many bytes the ranges before a frame take.
    fn frame_start(&self, contents: &[u8]) -> Option<usize> {
        if !self.ranged {
            return Some(0);
        }
        // Which block it is, is not known yet.
        let bounds = Bounds { start: u64::MAX, reach: u64::MAX, bases: &self.bases };
        let mut take = Take::new(contents);
        take_ranges(&mut take, &bounds).ok()?;
        Some(contents.len() - take.remaining())
    }

    /// A part of the file, as far as it goes.
    pub(super) fn read(&self, part: &Range<u64>) -> io::Result<Vec<u8>> {
        let length = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or_default();
        let mut buffer = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, part.start + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }
}

fn lose(runs: &mut Vec<Run>) {
    match runs.last_mut() {
        Some(run) if run.blocks.is_empty() => run.lost_before += 1,
        _ => runs.push(Run { lost_before: 1, blocks: Vec::new() }),
    }
}
