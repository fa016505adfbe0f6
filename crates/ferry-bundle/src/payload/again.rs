//! The payload that is being written, read again for later blocks to refer to.

use std::path::Path;
use std::sync::Arc;

use ferry_formats::StorePath;
use ferry_store::NarRanges;

use super::history::History;
use super::writer::reach;
use crate::{BundleError, Result};

/// The NARs of a payload where they come from.
pub(crate) struct Origin {
    nars: Arc<dyn NarRanges>,
    /// What the payload is made of, and where each ends in it.
    paths: Vec<(u64, StorePath)>,
}

impl Origin {
    /// NARs of these sizes, one behind the other.
    pub(crate) fn new(
        nars: Arc<dyn NarRanges>,
        paths: impl IntoIterator<Item = (StorePath, u64)>,
    ) -> Self {
        let mut end = 0;
        let ended = |(path, size): (StorePath, u64)| {
            end += size;
            (end, path)
        };
        Self { nars, paths: paths.into_iter().map(ended).collect() }
    }

    fn read(&self, mut position: u64, mut buffer: &mut [u8]) -> ferry_store::Result<()> {
        let first = self.paths.partition_point(|(end, _)| *end <= position);
        let mut start = match first.checked_sub(1).and_then(|before| self.paths.get(before)) {
            Some((end, _)) => *end,
            None => 0,
        };
        for (end, path) in self.paths.iter().skip(first) {
            if buffer.is_empty() {
                break;
            }
            let here = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
            let (part, rest) = buffer.split_at_mut(here);
            self.nars.read_range(path, position - start, part)?;
            (position, buffer, start) = (position + here as u64, rest, *end);
        }
        Ok(())
    }
}

/// Where a writer reads its payload again.
pub(crate) enum Again {
    /// In the store that it comes from.
    Origin(Origin),
    /// Where it was put aside.
    Kept(History),
}

impl Again {
    /// For a payload of `size` bytes; what is put aside goes to `directory`.
    pub(crate) fn new(origin: Option<Origin>, size: u64, directory: &Path) -> Result<Self> {
        match origin {
            Some(origin) => Ok(Self::Origin(origin)),
            None => History::new(reach(size), directory).map(Self::Kept).map_err(BundleError::io(
                format!("make a temporary file in {}", directory.display()),
            )),
        }
    }

    /// Takes note of a block.
    pub(crate) fn put(&self, number: u64, block: &Arc<Vec<u8>>) -> std::io::Result<()> {
        match self {
            Self::Origin(_) => Ok(()),
            Self::Kept(history) => history.put(number, block),
        }
    }

    /// Fills `buffer` from `position` in the payload, which has gone by.
    pub(crate) fn read(&self, position: u64, buffer: &mut [u8]) -> Result<()> {
        let failed = || BundleError::io("read the payload again");
        match self {
            Self::Origin(origin) => origin
                .read(position, buffer)
                .map_err(|error| failed()(std::io::Error::other(error))),
            Self::Kept(history) => history.read(position, buffer).map_err(failed()),
        }
    }
}
