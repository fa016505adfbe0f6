//! Finding content that was seen: in the bases, and earlier in the payload.

use std::collections::HashMap;

use super::block::{Range, Source};
use super::sampling::Sample;
use crate::format::{BLOCK_SIZE, limit};

/// What is chosen, or not, as a whole, in bytes. Divides the size of a block.
const PAGE: u64 = 16 << 10;
/// A page is taken if this part of it, or more, is content of the block, by its samples.
const WORTH: u64 = 16;

/// How densely, how much, and in how large a prefix to look for what is similar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Samples are 2^bits bytes apart, or more where there is too much content.
    pub(crate) bits: u32,
    /// How many bytes a block is packed against at most.
    pub(crate) prefix: usize,
    /// Most entries of the table, as a power of two; each takes eight bytes.
    pub(crate) slots: u32,
}

/// Where fingerprints were seen first.
pub(crate) struct Similar {
    slots: Vec<Slot>,
    used: usize,
    effort: Effort,
    /// The size of each base in bytes, and the number of its first page.
    bases: Vec<(u64, u32)>,
    /// The number of the payload's first page.
    payload: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u32,
    /// Plus one; zero where nothing is.
    page: u32,
}

impl Similar {
    /// For bases of these sizes and a payload of `payload` bytes.
    pub(crate) fn new(sizes: &[u64], payload: u64, mut effort: Effort) -> Self {
        let mut page: u32 = 0;
        let mut bases = Vec::new();
        for size in sizes {
            bases.push((*size, page));
            page = page.saturating_add(pages(*size));
        }
        let total = sizes.iter().fold(payload, |sum, size| sum.saturating_add(*size));
        // Three quarters full at most.
        let most = (1u64 << effort.slots) / 4 * 3;
        while total >> effort.bits > most {
            effort.bits += 1;
        }
        let wanted = (total >> effort.bits).saturating_mul(3) / 2 + 1024;
        let slots = wanted.next_power_of_two().min(1 << effort.slots);
        let slots = usize::try_from(slots).unwrap_or(1 << effort.slots);
        Self { slots: vec![Slot::default(); slots], used: 0, effort, bases, payload: page }
    }

    /// How far apart samples are, as a power of two.
    pub(crate) fn bits(&self) -> u32 {
        self.effort.bits
    }

    fn slot(&self, fingerprint: u64) -> (usize, u32) {
        let mixed = (fingerprint ^ (fingerprint >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let tag = u32::try_from(mixed & 0xffff_ffff).unwrap_or_default();
        let place = usize::try_from(mixed >> 32).unwrap_or_default() & (self.slots.len() - 1);
        (place, tag)
    }

    /// The page on which something stood first, or the place in the table where that belongs.
    fn find(&self, fingerprint: u64) -> Result<u32, (usize, u32)> {
        let (mut place, tag) = self.slot(fingerprint);
        loop {
            match self.slots.get(place) {
                Some(slot) if slot.page == 0 => return Err((place, tag)),
                Some(slot) if slot.tag == tag => return Ok(slot.page - 1),
                Some(_) => place = (place + 1) & (self.slots.len() - 1),
                None => return Err((place, tag)),
            }
        }
    }

    fn add(&mut self, first_page: u32, within: u64, samples: &[Sample]) {
        for sample in samples {
            if self.used >= self.slots.len() / 4 * 3 {
                return;
            }
            if let Err((place, tag)) = self.find(sample.fingerprint) {
                let page = (within + u64::from(sample.position)) / PAGE;
                let page = first_page.saturating_add(u32::try_from(page).unwrap_or(u32::MAX - 1));
                if let Some(slot) = self.slots.get_mut(place) {
                    *slot = Slot { tag, page: page.saturating_add(1) };
                    self.used += 1;
                }
            }
        }
    }

    /// Takes in samples of a base, of what stands at `offset`.
    pub(crate) fn add_base(&mut self, number: usize, offset: u64, samples: &[Sample]) {
        if let Some((_, first)) = self.bases.get(number) {
            self.add(*first, offset, samples);
        }
    }

    /// Takes in a block of the payload.
    pub(crate) fn add_block(&mut self, number: u64, samples: &[Sample]) {
        self.add(self.payload, number * BLOCK_SIZE as u64, samples);
    }

    /// What a block with these samples should be packed against, sorted, within the limits of the
    /// format; and whether nearly all of the block is in that.
    pub(crate) fn ranges(&self, number: u64, samples: &[Sample]) -> (Vec<Range>, bool) {
        let mut votes: HashMap<u32, u64> = HashMap::new();
        for sample in samples {
            if let Ok(page) = self.find(sample.fingerprint) {
                *votes.entry(page).or_default() += 1;
            }
        }
        let least = ((PAGE >> self.effort.bits) / WORTH).max(1);
        let mut votes: Vec<(u32, u64)> =
            votes.into_iter().filter(|(_, votes)| *votes >= least).collect();
        votes.sort_unstable_by_key(|(page, votes)| (std::cmp::Reverse(*votes), *page));
        let most = self.effort.prefix / usize::try_from(PAGE).unwrap_or(1);
        votes.truncate(most);
        let covered: u64 = votes.iter().map(|(_, votes)| votes).sum();
        let same = covered >= samples.len() as u64 / 8 * 7;
        let mut chosen: Vec<u32> = votes.iter().map(|(page, _)| *page).collect();
        let mut known: std::collections::HashSet<u32> = chosen.iter().copied().collect();
        // What stands around it, in which zstd finds what samples did not.
        for distance in 1..=4 {
            for (page, _) in &votes {
                for near in [page.checked_sub(distance), page.checked_add(distance)] {
                    let Some(near) = near.filter(|_| chosen.len() < most) else { continue };
                    if self.source(*page) == self.source(near) && known.insert(near) {
                        chosen.push(near);
                    }
                }
            }
        }
        chosen.sort_unstable();
        (self.joined(number, &chosen), same)
    }

    fn joined(&self, number: u64, pages: &[u32]) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for page in pages {
            let (source, first) = self.source(*page);
            let size = match source {
                Source::Base(number) => self.bases.get(number).map_or(0, |(size, _)| *size),
                Source::Payload => number * BLOCK_SIZE as u64,
            };
            let offset = u64::from(page - first) * PAGE;
            let length = usize::try_from(PAGE.min(size.saturating_sub(offset))).unwrap_or_default();
            if length == 0 {
                continue;
            }
            let full = ranges.len() == limit::RANGES;
            match ranges.last_mut() {
                Some(last)
                    if last.source == source && last.offset + last.length as u64 == offset =>
                {
                    last.length += length;
                }
                _ if full => break,
                _ => ranges.push(Range { source, offset, length }),
            }
        }
        ranges
    }

    /// What a page is of, and the number of the first page of that.
    fn source(&self, page: u32) -> (Source, u32) {
        if page >= self.payload {
            return (Source::Payload, self.payload);
        }
        let number = self.bases.partition_point(|(_, first)| *first <= page).saturating_sub(1);
        let first = self.bases.get(number).map_or(0, |(_, first)| *first);
        (Source::Base(number), first)
    }
}

fn pages(size: u64) -> u32 {
    u32::try_from(size.div_ceil(PAGE)).unwrap_or(u32::MAX)
}
