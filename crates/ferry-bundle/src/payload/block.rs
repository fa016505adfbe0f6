//! One block: which ranges its frame is packed against, and the frame.

use crate::codec::{Malformed, Take, put_number};
use crate::format::limit;

/// Part of what a block is packed against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) source: Source,
    /// In bytes, in the payload or in the NAR of the base.
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

/// Where a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The payload itself, before the block.
    Payload,
    /// The NAR of a base.
    Base(usize),
}

/// Appends the ranges, in the form in which they stand before the frame.
pub(crate) fn put_ranges(out: &mut Vec<u8>, ranges: &[Range]) {
    put_number(out, ranges.len() as u64);
    for range in ranges {
        put_number(
            out,
            match range.source {
                Source::Payload => 0,
                Source::Base(number) => number as u64 + 1,
            },
        );
        put_number(out, range.offset);
        put_number(out, range.length as u64);
    }
}

/// The bytes of ranges, one behind the other: what a frame is packed against. `read` fills a buffer
/// from an offset of a source.
pub(crate) fn gather<E>(
    ranges: &[Range],
    mut read: impl FnMut(Source, u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut prefix = vec![0; ranges.iter().map(|range| range.length).sum()];
    let mut rest = prefix.as_mut_slice();
    for range in ranges {
        let (part, others) = rest.split_at_mut(range.length.min(rest.len()));
        rest = others;
        read(range.source, range.offset, part)?;
    }
    Ok(prefix)
}

/// What ranges of a block may reach.
pub(crate) struct Bounds<'a> {
    /// Where the block begins in the payload.
    pub(crate) start: u64,
    /// How far before that a range may begin.
    pub(crate) reach: u64,
    /// The sizes of the bases.
    pub(crate) bases: &'a [u64],
}

/// Takes the ranges off the front of a block; what is left is its frame.
pub(crate) fn take_ranges(
    take: &mut Take<'_>,
    bounds: &Bounds<'_>,
) -> Result<Vec<Range>, Malformed> {
    let count = take.length()?;
    if count > limit::RANGES {
        return take.malformed(format!("{count} ranges; at most {} are accepted", limit::RANGES));
    }
    let mut ranges = Vec::with_capacity(count);
    let mut total: usize = 0;
    for _ in 0..count {
        let source = match take.length()? {
            0 => Source::Payload,
            number => Source::Base(number - 1),
        };
        let (offset, length) = (take.number()?, take.length()?);
        total = total.saturating_add(length);
        if length == 0 || total > limit::PREFIX {
            return take.malformed(format!("a range of {length} bytes, {total} in all"));
        }
        let end = offset.checked_add(length as u64);
        let fits = match source {
            Source::Payload => {
                end.is_some_and(|end| end <= bounds.start)
                    && offset >= bounds.start.saturating_sub(bounds.reach)
            }
            Source::Base(number) => {
                bounds.bases.get(number).is_some_and(|size| end.is_some_and(|end| end <= *size))
            }
        };
        if !fits {
            return take.malformed(format!("a range of {length} bytes at {offset}, out of reach"));
        }
        ranges.push(Range { source, offset, length });
    }
    Ok(ranges)
}
