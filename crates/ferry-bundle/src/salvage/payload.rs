//! What is left of a payload, by position.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use ferry_formats::hash::NarHasher;
use ferry_formats::{NarHash, PathInfo};

use super::blocks::{Block, Run, decompress};
use crate::format::BLOCK_SIZE;

const SIZE: u64 = BLOCK_SIZE as u64;
/// How many places are tried for a run; a bundle of 256 GiB has no more.
const MOST_PLACES: usize = 1 << 16;

/// Blocks by their number.
pub(super) struct Rest {
    file: File,
    blocks: BTreeMap<u64, Block>,
    /// The block decompressed last.
    open: Option<(u64, Vec<u8>)>,
}

impl Rest {
    /// Finds out which block is which. Between runs some are lost, nobody knows how many; but the
    /// NARs in a run have their hashes in one place only. `nars` are all of them, with their places
    /// in a payload of `size` bytes.
    pub(super) fn new(
        file: File,
        size: u64,
        runs: Vec<Run>,
        nars: &[(Range<u64>, PathInfo)],
    ) -> io::Result<Self> {
        let mut rest = Self { file, blocks: BTreeMap::new(), open: None };
        let seen: u64 = runs.iter().map(|run| run.lost_before + run.blocks.len() as u64).sum();
        let mut next = 0;
        let mut runs = VecDeque::from(runs);
        while let Some(mut run) = runs.pop_front() {
            let Some(start) = rest.place(next, size, &run, nars)? else { continue };
            if seen < size.div_ceil(SIZE)
                && let Some(behind) = rest.cut(start, size, &mut run, nars)?
            {
                runs.push_front(behind);
            }
            next = start + run.blocks.len() as u64;
            rest.blocks.extend((start..).zip(run.blocks));
        }
        Ok(rest)
    }

    /// Cuts a run where blocks are gone without a trace, and returns what comes behind.
    fn cut(
        &mut self,
        start: u64,
        size: u64,
        run: &mut Run,
        nars: &[(Range<u64>, PathInfo)],
    ) -> io::Result<Option<Run>> {
        let placed = || (start..).zip(run.blocks.iter().cloned());
        self.blocks.extend(placed());
        let mut wrong = None;
        for (range, info) in inside(nars, start, run) {
            if self.hash(range.clone())? != Some(info.nar_hash) {
                wrong = Some(range.clone());
                break;
            }
        }
        self.blocks.split_off(&start);
        self.open = None;
        let Some(wrong) = wrong else { return Ok(None) };
        for number in wrong.start / SIZE + 1..=(wrong.end - 1) / SIZE {
            let behind = usize::try_from(number - start).unwrap_or(usize::MAX);
            let blocks = run.blocks.get(behind..).unwrap_or_default().to_vec();
            let behind = Run { lost_before: 1, blocks };
            if self.place(number, size, &behind, nars)?.is_some() {
                let length = run.blocks.len() - behind.blocks.len();
                run.blocks.truncate(length);
                return Ok(Some(behind));
            }
        }
        Ok(None)
    }

    /// The number of a run's first block, which is `next` or a later one; nothing where that makes
    /// no difference, because no NAR lies in it.
    fn place(
        &mut self,
        next: u64,
        size: u64,
        run: &Run,
        nars: &[(Range<u64>, PathInfo)],
    ) -> io::Result<Option<u64>> {
        let likely = next + run.lost_before;
        let all = size.div_ceil(SIZE);
        let last = all.saturating_sub(run.blocks.len() as u64);
        let others = (next..=last).filter(|start| *start != likely);
        for start in std::iter::once(likely).chain(others).take(MOST_PLACES) {
            // The last one of a payload is shorter, and may stand behind a cut.
            let but_last = run.blocks.iter().take(run.blocks.len().saturating_sub(1));
            let fits = but_last.into_iter().all(|block| block.size == BLOCK_SIZE);
            let first = inside(nars, start, run).first();
            if let (true, Some((range, info))) = (fits, first) {
                self.blocks.extend((start..).zip(run.blocks.iter().cloned()));
                let found = self.hash(range.clone())?;
                self.blocks.split_off(&start);
                self.open = None;
                if found == Some(info.nar_hash) {
                    return Ok(Some(start));
                }
            }
        }
        Ok(None)
    }

    /// Whether all of a range is left.
    fn has(&self, range: &Range<u64>) -> bool {
        let blocks = range.start / SIZE..range.end.div_ceil(SIZE);
        let count = self.blocks.range(blocks.clone()).count() as u64;
        count == blocks.end.saturating_sub(blocks.start)
    }

    /// The hash of a range, if all of it is left.
    pub(super) fn hash(&mut self, range: Range<u64>) -> io::Result<Option<NarHash>> {
        if range.is_empty() || !self.has(&range) {
            return Ok(None);
        }
        let mut hasher = NarHasher::default();
        let mut reader = self.read(range);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Some(hasher.finish())),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Reads a range.
    pub(super) fn read(&mut self, range: Range<u64>) -> Reader<'_> {
        Reader { rest: self, range }
    }

    fn open(&mut self, number: u64) -> io::Result<&[u8]> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let gone = || io::Error::other("a block that is not there");
            let block = self.blocks.get(&number).ok_or_else(gone)?;
            let data = decompress(&self.file, &block.frame)?.ok_or_else(gone)?;
            self.open = Some((number, data));
        }
        Ok(self.open.as_ref().map(|(_, data)| data.as_slice()).unwrap_or_default())
    }
}

/// The NARs that lie in a run of blocks, if this is the number of its first one.
fn inside<'n>(
    nars: &'n [(Range<u64>, PathInfo)],
    start: u64,
    run: &Run,
) -> &'n [(Range<u64>, PathInfo)] {
    let end = (start + run.blocks.len() as u64).saturating_mul(SIZE);
    let first = nars.partition_point(|(range, _)| range.start < start.saturating_mul(SIZE));
    let behind = nars.partition_point(|(range, _)| range.end <= end);
    nars.get(first..behind).unwrap_or_default()
}

/// A part of what is left.
pub(super) struct Reader<'a> {
    rest: &'a mut Rest,
    range: Range<u64>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.range.is_empty() {
            return Ok(0);
        }
        let within = usize::try_from(self.range.start % SIZE).unwrap_or_default();
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let data = self.rest.open(self.range.start / SIZE)?;
        let mut data = data.get(within..).unwrap_or_default();
        data = data.get(..left).unwrap_or(data);
        let count = data.read(buffer)?;
        self.range.start += count as u64;
        Ok(count)
    }
}
