//! Which store paths others have taken the place of, in what the payload is packed against.

use std::collections::HashMap;

use ferry_formats::StorePath;

use crate::codec::{Malformed, Take, put_number};

/// The section of the head that says it.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    /// What took the place of each base, in the order of the bases.
    pub(crate) bases: Vec<Option<StorePath>>,
    /// Digests of other paths, and of those that took their places.
    pub(crate) others: Vec<([u8; 20], [u8; 20])>,
}

impl Replaced {
    /// Where nothing took the place of any of so many bases.
    pub(crate) fn none(bases: usize) -> Self {
        Self { bases: vec![None; bases], others: Vec::new() }
    }

    /// Encodes it, with the numbers of `entries` of the index.
    pub(crate) fn encode<'a>(&self, entries: impl Iterator<Item = &'a StorePath>) -> Vec<u8> {
        let (mut by_path, mut by_digest) = (HashMap::new(), HashMap::new());
        for (path, number) in entries.zip(1..) {
            by_path.entry(path).or_insert(number);
            by_digest.entry(path.digest()).or_insert(number);
        }
        let mut out = Vec::new();
        for path in &self.bases {
            let number = path.as_ref().and_then(|path| by_path.get(path));
            put_number(&mut out, number.copied().unwrap_or_default());
        }
        put_number(&mut out, self.others.len() as u64);
        for (old, new) in &self.others {
            out.extend_from_slice(old);
            let number = by_digest.get(new).copied().unwrap_or_default();
            put_number(&mut out, number);
            if number == 0 {
                out.extend_from_slice(new);
            }
        }
        out
    }

    /// Decodes it, for an index with these entries and so many bases.
    pub(crate) fn decode(
        section: &[u8],
        entries: &[StorePath],
        bases: usize,
    ) -> Result<Self, Malformed> {
        let mut take = Take::new(section);
        let entry = |take: &mut Take<'_>| match take.length()? {
            0 => Ok(None),
            number => match entries.get(number - 1) {
                Some(path) => Ok(Some(path)),
                None => take.malformed(format!("no entry {number}")),
            },
        };
        let mut found = Self::default();
        for _ in 0..bases {
            found.bases.push(entry(&mut take)?.cloned());
        }
        for _ in 0..take.number()? {
            let old = take.array()?;
            let new = match entry(&mut take)? {
                Some(path) => *path.digest(),
                None => take.array()?,
            };
            found.others.push((old, new));
        }
        take.finish()?;
        Ok(found)
    }
}
