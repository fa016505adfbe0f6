//! Which blocks of a file refer to which, found out before they are read.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range as Span;

use super::block::{Bounds, Source, take_ranges};
use super::reader::block_sizes;
use crate::codec::Take;
use crate::format::{BLOCK_SIZE, limit};

/// Bytes before the contents of a section: its name and its length.
const SECTION_HEAD: usize = 12;

/// What is needed of a payload to read what is wanted of it.
pub(crate) struct Scan {
    blocks: Vec<Block>,
    reach: u64,
}

#[derive(Clone, Copy, Default)]
struct Block {
    needed: bool,
    kept: bool,
}

impl Scan {
    /// Looks at the beginning of each block in `file`, in which the payload begins at `position`.
    /// `None` where something is wrong: reading it from front to back will tell what.
    pub(crate) fn new(
        file: &mut (impl Read + Seek),
        mut position: u64,
        size: u64,
        reach: u64,
        bases: &[u64],
        wanted: &[Span<u64>],
    ) -> Option<Self> {
        let mut spans: Vec<Vec<Span<u64>>> = Vec::new();
        let mut start = 0;
        for size in block_sizes(size) {
            file.seek(SeekFrom::Start(position)).ok()?;
            let mut head = Vec::new();
            let most = (SECTION_HEAD + limit::RANGES_SIZE) as u64;
            io::Read::by_ref(file).take(most).read_to_end(&mut head).ok()?;
            let (length, contents) = head.get(4..)?.split_first_chunk::<8>()?;
            let length = u64::from_le_bytes(*length);
            let contents = contents.get(..usize::try_from(length).ok()?.min(contents.len()))?;
            let ranges =
                take_ranges(&mut Take::new(contents), &Bounds { start, reach, bases }).ok()?;
            let own = ranges.iter().filter(|range| range.source == Source::Payload);
            spans.push(own.map(|range| range.offset..range.offset + range.length as u64).collect());
            start += size as u64;
            position = position.checked_add(length)?.checked_add(SECTION_HEAD as u64)?;
        }
        Some(Self::follow(&spans, wanted))
    }

    /// From the last block to the first: what a block refers to stands before it.
    fn follow(spans: &[Vec<Span<u64>>], wanted: &[Span<u64>]) -> Self {
        let mut blocks = vec![Block::default(); spans.len()];
        let mut reach = 0;
        for span in wanted {
            each(&mut blocks, span, |block| block.needed = true);
        }
        for (number, spans) in spans.iter().enumerate().rev() {
            if !blocks.get(number).is_some_and(|block| block.needed) {
                continue;
            }
            let start = (number * BLOCK_SIZE) as u64;
            for span in spans {
                reach = reach.max(start.saturating_sub(span.start));
                each(&mut blocks, span, |block| *block = Block { needed: true, kept: true });
            }
        }
        Self { blocks, reach }
    }

    /// How far back needed blocks refer, in bytes.
    pub(crate) fn reach(&self) -> u64 {
        self.reach
    }

    /// Whether a block is needed.
    pub(crate) fn is_needed(&self, number: u64) -> bool {
        self.get(number).needed
    }

    /// Whether a later block that is needed refers to it.
    pub(crate) fn is_kept(&self, number: u64) -> bool {
        self.get(number).kept
    }

    fn get(&self, number: u64) -> Block {
        let number = usize::try_from(number).ok();
        number.and_then(|number| self.blocks.get(number)).copied().unwrap_or_default()
    }
}

fn each(blocks: &mut [Block], span: &Span<u64>, set: impl Fn(&mut Block)) {
    let block = |position: u64| usize::try_from(position / BLOCK_SIZE as u64).unwrap_or(usize::MAX);
    if span.is_empty() {
        return;
    }
    let last = block(span.end - 1);
    for block in blocks.iter_mut().take(last.saturating_add(1)).skip(block(span.start)) {
        set(block);
    }
}
