//! What is left of a payload, by position.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use ferry_formats::hash::NarHasher;
use ferry_formats::{NarHash, PathInfo};
use ferry_store::progress::Progress;

use super::blocks::{Block, Run, Wreck};
use crate::codec::Take;
use crate::format::BLOCK_SIZE;
use crate::payload::{Bases, Bounds, Source, decompress, take_ranges};
use crate::{BundleError, Result};

const SIZE: u64 = BLOCK_SIZE as u64;
/// How many blocks and places are tried at most to find the place of a run.
const MOST_TRIED: u64 = 1 << 13;

/// Whether a run is in its place, as the NARs in it tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    /// No NAR lies in it that is whole.
    Unknown,
}

/// All NARs of the payload, with their places in it.
pub(super) type Nars = [(Range<u64>, PathInfo)];

/// Finds out which block is which, and decompresses those that are whole. One that is packed
/// against something lost is lost too.
pub(super) struct Rescue<'a> {
    name: String,
    wreck: Wreck,
    bases: Arc<Bases>,
    /// Those that were found to be what they should be.
    checked: HashSet<usize>,
    nars: &'a Nars,
    /// Bytes of the payload.
    size: u64,
    /// Blocks that were decompressed, and places that were wrong.
    tried: u64,
    progress: &'a dyn Progress,
    /// How far in the payload it has been told that blocks were decompressed.
    told: u64,
    rest: Rest,
}

impl<'a> Rescue<'a> {
    /// Has a temporary file in `directory` for the payload of `size` bytes.
    pub(super) fn new(
        (wreck, name): (Wreck, String),
        bases: Arc<Bases>,
        nars: &'a Nars,
        size: u64,
        (directory, progress): (&Path, &'a dyn Progress),
    ) -> Result<Self> {
        let plain = tempfile::tempfile_in(directory).map_err(BundleError::io(format!(
            "make a temporary file in {}",
            directory.display()
        )))?;
        let rest = Rest { plain, there: BTreeSet::new() };
        let (checked, tried, told) = (HashSet::new(), 0, 0);
        Ok(Self { name, wreck, bases, checked, nars, size, tried, progress, told, rest })
    }

    /// Looks for blocks from an offset in the file on.
    pub(super) fn run(mut self, from: u64) -> Result<Rest> {
        let all = self.size.div_ceil(SIZE);
        let runs = self.wreck.find(from, all).map_err(self.failed())?;
        let seen: u64 = runs.iter().map(|run| run.lost_before + run.blocks.len() as u64).sum();
        let mut next = 0;
        let mut runs = VecDeque::from(runs);
        while let Some(mut run) = runs.pop_front() {
            let likely = next + run.lost_before;
            let start = match seen < all {
                true => self.place(next, &run)?.unwrap_or(likely),
                false => likely,
            };
            self.fill(start, &run.blocks)?;
            if seen < all
                && let Some(behind) = self.cut(start, &mut run)?
            {
                runs.push_front(behind);
            }
            next = start + run.blocks.len() as u64;
        }
        Ok(self.rest)
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> BundleError + use<> {
        BundleError::io(format!("take out what is left of {}", self.name))
    }

    /// The number of a run's first block, which is `next` or a later one, if the NARs in it tell.
    /// Between runs some blocks are lost, nobody knows how many; but the NARs in a run have their
    /// hashes in one place only.
    fn place(&mut self, next: u64, run: &Run) -> Result<Option<u64>> {
        let likely = next + run.lost_before;
        let last = self.size.div_ceil(SIZE).saturating_sub(run.blocks.len() as u64);
        // Nothing is lost before the first run, or else no trace of it is left.
        let others = (next..=last).filter(|start| run.lost_before > 0 && *start != likely);
        let before = self.tried;
        for start in std::iter::once(likely).chain(others) {
            if self.judge(start, run)? == Verdict::Right {
                return Ok(Some(start));
            }
            // A damaged head may claim a payload of any size.
            self.tried += 1;
            if self.tried - before > MOST_TRIED {
                break;
            }
        }
        Ok(None)
    }

    /// Decompresses as much of a run as it takes to tell whether it is in its place.
    fn judge(&mut self, start: u64, run: &Run) -> Result<Verdict> {
        let mut verdict = Verdict::Unknown;
        let mut filled = 0;
        for (range, info) in inside(self.nars, start, run) {
            let end = usize::try_from(range.end.div_ceil(SIZE) - start).unwrap_or(usize::MAX);
            let blocks = run.blocks.get(filled..end).unwrap_or_default();
            self.fill(start + filled as u64, blocks)?;
            filled = filled.max(end);
            if let Some(found) = self.hash(range)? {
                let right = found == info.nar_hash;
                verdict = if right { Verdict::Right } else { Verdict::Wrong };
                break;
            }
        }
        self.rest.there.split_off(&start);
        Ok(verdict)
    }

    /// Cuts a run where blocks are gone without a trace, and returns what comes behind.
    fn cut(&mut self, start: u64, run: &mut Run) -> Result<Option<Run>> {
        // Behind a NAR that is in its place nothing is missing before.
        let (mut from, mut to) = (start, None);
        for (range, info) in inside(self.nars, start, run) {
            match self.hash(range)? {
                Some(found) if found == info.nar_hash => {
                    (from, to) = (range.end.div_ceil(SIZE), None);
                }
                Some(_) => {
                    to = Some(range.end.div_ceil(SIZE));
                    break;
                }
                None => to = Some(start + run.blocks.len() as u64),
            }
        }
        let before = self.tried;
        for number in from..to.unwrap_or(from) {
            let length = usize::try_from(number - start).unwrap_or(usize::MAX);
            let blocks = run.blocks.get(length..).unwrap_or_default().to_vec();
            let behind = Run { lost_before: 1, blocks };
            self.rest.there.split_off(&number);
            if self.place(number, &behind)?.is_some() {
                run.blocks.truncate(length);
                return Ok(Some(behind));
            }
            // Others were in its place meanwhile.
            if self.tried - before > MOST_TRIED {
                self.fill(number, &behind.blocks)?;
                break;
            }
            self.fill(number, behind.blocks.get(..1).unwrap_or_default())?;
        }
        if let Some(to) = to {
            let length = usize::try_from(to - start).unwrap_or(usize::MAX);
            self.fill(to, run.blocks.get(length..).unwrap_or_default())?;
        }
        Ok(None)
    }

    /// Decompresses blocks into their places, as far as that is possible.
    fn fill(&mut self, start: u64, blocks: &[Block]) -> Result<()> {
        for (number, block) in (start..).zip(blocks) {
            let position = number.saturating_mul(SIZE);
            if position >= self.size {
                break;
            }
            self.tried += 1;
            if let Some(plain) = self.decompress(position, block)? {
                self.rest.plain.write_all_at(&plain, position).map_err(self.failed())?;
                self.rest.there.insert(number);
            }
            let end = position.saturating_add(SIZE).min(self.size);
            self.progress.bytes(end.saturating_sub(self.told));
            self.told = self.told.max(end);
        }
        Ok(())
    }

    /// What is in a block that begins at `position` in the payload, or nothing where it is
    /// damaged.
    fn decompress(&mut self, position: u64, block: &Block) -> Result<Option<Vec<u8>>> {
        let contents = self.wreck.read(&block.contents).map_err(self.failed())?;
        let mut take = Take::new(&contents);
        // How far back it may refer is what the manifest says, which may be damaged.
        let bounds = Bounds { start: position, reach: u64::MAX, bases: &self.wreck.bases };
        let ranges = match self.wreck.ranged {
            true => take_ranges(&mut take, &bounds),
            false => Ok(Vec::new()),
        };
        let Ok(ranges) = ranges else { return Ok(None) };
        let mut prefix = vec![0; ranges.iter().map(|range| range.length).sum()];
        let mut left = prefix.as_mut_slice();
        for range in &ranges {
            let (part, others) = left.split_at_mut(range.length.min(left.len()));
            left = others;
            match range.source {
                Source::Base(base) => self.bases.read(base, range.offset, part)?,
                Source::Payload => {
                    if !self.rest.has(&(range.offset..range.offset + range.length as u64)) {
                        return Ok(None);
                    }
                    let read = self.rest.plain.read_exact_at(part, range.offset);
                    read.map_err(self.failed())?;
                }
            }
        }
        let frame = contents.get(contents.len() - take.remaining()..).unwrap_or_default();
        if let Ok(plain) = decompress(frame, &prefix, block.size) {
            return Ok(Some(plain));
        }
        for range in &ranges {
            // More often than the bundle, a base is not what it was where it was packed.
            if let Source::Base(base) = range.source
                && !self.checked.contains(&base)
            {
                self.bases.check(base)?;
                self.checked.insert(base);
            }
        }
        Ok(None)
    }

    fn hash(&self, range: &Range<u64>) -> Result<Option<NarHash>> {
        self.rest.hash(range.clone()).map_err(self.failed())
    }
}

/// The NARs that lie in a run of blocks, if this is the number of its first one.
fn inside<'n>(nars: &'n Nars, start: u64, run: &Run) -> &'n Nars {
    let end = (start + run.blocks.len() as u64).saturating_mul(SIZE);
    let first = nars.partition_point(|(range, _)| range.start < start.saturating_mul(SIZE));
    let behind = nars.partition_point(|(range, _)| range.end <= end);
    nars.get(first..behind).unwrap_or_default()
}

/// The blocks that are left, decompressed.
pub(super) struct Rest {
    /// Each where it is in the payload.
    plain: File,
    /// Their numbers.
    there: BTreeSet<u64>,
}

impl Rest {
    /// Whether all of a range is left.
    fn has(&self, range: &Range<u64>) -> bool {
        let blocks = range.start / SIZE..range.end.div_ceil(SIZE);
        let count = self.there.range(blocks.clone()).count() as u64;
        count == blocks.end.saturating_sub(blocks.start)
    }

    /// The hash of a range, if all of it is left.
    pub(super) fn hash(&self, range: Range<u64>) -> io::Result<Option<NarHash>> {
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
    pub(super) fn read(&self, range: Range<u64>) -> Reader<'_> {
        Reader { plain: &self.plain, range }
    }
}

/// A part of what is left.
pub(super) struct Reader<'a> {
    plain: &'a File,
    range: Range<u64>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let count = self.plain.read_at(part, self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}
