//! What a bundle is packed against.

use std::sync::Arc;

use ferry_formats::{PathInfo, StorePath};
use ferry_store::NarRanges;

use crate::Prerequisite;
use crate::replaced::Replaced;

/// Content that the other side has, to pack what is similar against.
#[derive(Clone)]
pub struct Against {
    /// Objects that the other side has and that are not packed, each with a path that is packed
    /// and has taken its place. Their NARs serve to make the payload small.
    pub bases: Vec<(PathInfo, StorePath)>,
    /// More store paths that others have taken the place of. Their hashes, like those of the
    /// bases, are replaced in what is read of the bases.
    pub renames: Vec<(StorePath, StorePath)>,
    /// Where the NARs of the bases are read.
    pub nars: Arc<dyn NarRanges>,
}

impl Against {
    /// What took the place of each of `prerequisites` whose content is used, and of other paths.
    pub(crate) fn replaced(&self, prerequisites: &[Prerequisite]) -> Replaced {
        let bases = prerequisites.iter().filter(|one| one.content.is_some());
        let by = |base: &Prerequisite| {
            let mut pairs = self.bases.iter().filter(|(info, _)| info.path == base.path);
            pairs.next().map(|(_, new)| new.clone())
        };
        let mut known: std::collections::HashSet<&StorePath> =
            self.bases.iter().map(|(info, _)| &info.path).collect();
        Replaced {
            bases: bases.map(by).collect(),
            others: self
                .renames
                .iter()
                .filter(|(old, _)| known.insert(old))
                .map(|(old, new)| (*old.digest(), *new.digest()))
                .collect(),
        }
    }
}
