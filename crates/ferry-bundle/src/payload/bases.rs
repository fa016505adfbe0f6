//! Content of the other side that a payload is packed against.

use std::sync::Arc;

use ferry_formats::{NarHash, StoreDir, StorePath};
use ferry_store::NarRanges;
use sha2::{Digest as _, Sha256};

use super::rewrite::Renames;
use crate::replaced::Replaced;
use crate::{BundleError, Prerequisite, Result};

/// Bytes that are read at a time to check a base.
const CHUNK: u64 = 1 << 20;

/// A store object whose NAR blocks may use.
struct Base {
    path: StorePath,
    nar_hash: NarHash,
    nar_size: u64,
}

/// All bases of a bundle, and where their NARs are read.
pub(crate) struct Bases {
    entries: Vec<Base>,
    renames: Renames,
    store_dir: StoreDir,
    nars: Option<Arc<dyn NarRanges>>,
}

impl Bases {
    /// Those of `prerequisites` whose content is used.
    pub(crate) fn of(
        store_dir: &StoreDir,
        prerequisites: &[Prerequisite],
        replaced: &Replaced,
        nars: Option<Arc<dyn NarRanges>>,
    ) -> Self {
        let entries: Vec<Base> = prerequisites
            .iter()
            .filter_map(|one| {
                let (nar_hash, nar_size) = one.content?;
                Some(Base { path: one.path.clone(), nar_hash, nar_size })
            })
            .collect();
        let pairs = entries.iter().zip(&replaced.bases);
        let pairs =
            pairs.filter_map(|(base, by)| Some((base.path.digest(), by.as_ref()?.digest())));
        let others = replaced.others.iter().map(|(old, new)| (old, new));
        let renames = Renames::new(pairs.chain(others));
        Self { entries, renames, store_dir: store_dir.clone(), nars }
    }

    /// Whether their NARs can be read at all.
    pub(crate) fn are_there(&self) -> bool {
        self.nars.is_some()
    }

    /// Their NAR sizes in bytes, in order.
    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.entries.iter().map(|base| base.nar_size).collect()
    }

    /// Fills `buffer` from the NAR of a base, with its hashes replaced.
    pub(crate) fn read(&self, number: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_plain(number, offset, buffer)?;
        self.renames.apply(buffer);
        Ok(())
    }

    fn read_plain(&self, number: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (Some(base), Some(nars)) = (self.entries.get(number), &self.nars) else {
            let base = self.entries.get(number);
            return Err(BundleError::NoBases {
                base: base.map_or_else(String::new, |base| self.store_dir.render_path(&base.path)),
            });
        };
        nars.read_range(&base.path, offset, buffer).map_err(|source| BundleError::ContentBase {
            base: self.store_dir.render_path(&base.path),
            reason: source.to_string(),
        })
    }

    /// Makes sure that the NAR of a base is the one that is meant.
    pub(crate) fn check(&self, number: usize) -> Result<()> {
        let Some(base) = self.entries.get(number) else { return Ok(()) };
        let mut digest = Sha256::new();
        let mut position = 0;
        let mut buffer = Vec::new();
        while position < base.nar_size {
            let length = CHUNK.min(base.nar_size - position);
            buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
            self.read_plain(number, position, &mut buffer)?;
            digest.update(&buffer);
            position += length;
        }
        let found = NarHash(digest.finalize().into());
        if found == base.nar_hash {
            return Ok(());
        }
        Err(BundleError::ContentBase {
            base: self.store_dir.render_path(&base.path),
            reason: format!(
                "its NAR has the hash {found} in {}, and the bundle was packed against {}",
                self.nars.as_ref().map(|nars| nars.describe()).unwrap_or_default(),
                base.nar_hash,
            ),
        })
    }
}
