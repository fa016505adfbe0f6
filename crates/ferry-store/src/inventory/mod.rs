//! Inventories: what a store has, to tell another machine.
//!
//! There are two kinds, which [`Inventory::read`] tells apart: a *list* of store paths, a line
//! each, and the *compact* form that [`write()`] makes, about four bytes a path
//! (`docs/inventory-format.md`). A list is exact. The compact form holds shortened hashes, so it
//! claims a path that is not there once in 2^[`BITS`] look-ups; [`Inventory::claimed`] says how
//! likely it is that this has happened to a set of paths.

mod claims;
mod compact;
mod list;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;

use std::collections::HashSet;
use std::io::{BufRead, Cursor, Read as _, Write};

use ferry_formats::{PathInfo, StoreDir, StorePath};

use crate::{Error, Result};

pub use claims::Claims;
pub use compact::{BITS, MAGIC};

/// What a store has, or is said to have.
#[derive(Debug)]
pub struct Inventory {
    paths: Paths,
}

#[derive(Debug)]
enum Paths {
    Listed(HashSet<StorePath>),
    Compact(compact::Compact),
}

impl Inventory {
    /// Reads an inventory of paths below `store_dir`, of either kind; `name` is what to call it
    /// in a message.
    ///
    /// # Errors
    /// [`Error::BadInventory`] with the number of a line that is not a store path,
    /// [`Error::UnusableInventory`] when a compact one is damaged, of a version that is not known,
    /// or of another store directory; and when it cannot be read.
    pub fn read(name: &str, mut input: impl BufRead, store_dir: &StoreDir) -> Result<Self> {
        let mut start = Vec::new();
        (&mut input)
            .take(MAGIC.len() as u64)
            .read_to_end(&mut start)
            .map_err(Error::io(format!("read {name}")))?;
        let begins_compact = compact::looks_like_one(&start);
        let mut input = Cursor::new(start).chain(input);
        let paths = if begins_compact {
            Paths::Compact(compact::read(name, &mut input, store_dir)?)
        } else {
            Paths::Listed(list::read(name, input, store_dir)?.into_iter().collect())
        };
        Ok(Self { paths })
    }

    /// The inventory that has exactly these paths.
    pub fn of(paths: impl IntoIterator<Item = StorePath>) -> Self {
        Self { paths: Paths::Listed(paths.into_iter().collect()) }
    }

    /// Whether it has `path`. In compact form: whether it seems to; [`Inventory::claimed`] is
    /// more certain.
    #[must_use]
    pub fn has(&self, path: &StorePath) -> bool {
        match &self.paths {
            Paths::Listed(paths) => paths.contains(path),
            Paths::Compact(compact) => compact.has(path),
        }
    }

    /// How many paths it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.paths {
            Paths::Listed(paths) => paths.len(),
            Paths::Compact(compact) => compact.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of its paths, where it knows them: the compact form does not.
    #[must_use]
    pub fn paths(&self) -> Option<&HashSet<StorePath>> {
        match &self.paths {
            Paths::Listed(paths) => Some(paths),
            Paths::Compact(_) => None,
        }
    }

    /// For the compact form: it claims a path that is not there once in 2 to the power of this.
    #[must_use]
    pub fn bits(&self) -> Option<u8> {
        match &self.paths {
            Paths::Listed(_) => None,
            Paths::Compact(compact) => Some(compact.bits()),
        }
    }

    /// Which of `candidates` it has, and how certain that is.
    ///
    /// What is valid in a store has its references there. A compact inventory that claims a path
    /// and not all of its references is wrong about it, so the path counts as absent. A reference
    /// that is not among the candidates counts as there if it is claimed.
    pub fn claimed<'a>(&self, candidates: impl IntoIterator<Item = &'a PathInfo>) -> Claims {
        claims::claimed(self, candidates)
    }
}

/// Writes the inventory of a store that has `paths`, in compact form. The order of the paths does
/// not matter, and each counts once.
///
/// # Errors
/// When there are more than 2^26 paths, or it cannot be written.
pub fn write(out: &mut dyn Write, paths: &[StorePath], store_dir: &StoreDir) -> Result<()> {
    let bytes = compact::encode(paths, store_dir, BITS)?;
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(Error::io("write the inventory"))
}
