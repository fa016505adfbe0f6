//! What is to be copied, before it is known what of it is there already.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ferry_formats::{NarHash, PathInfo, StorePath};

use crate::closure::closure;
use crate::{Error, Result, Store};

/// Paths that a destination is to have, with what is known of them.
///
/// Whether it has them already, their NAR hashes tell. All else is worth reading only of what it
/// does not have, where the store that is copied from can tell the hashes alone.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The NAR hashes; [`Store::path_infos`] tells the rest.
    Hashes(BTreeMap<StorePath, NarHash>),
    /// All that the store records.
    Infos(BTreeMap<StorePath, PathInfo>),
}

impl From<BTreeMap<StorePath, PathInfo>> for Wanted {
    fn from(infos: BTreeMap<StorePath, PathInfo>) -> Self {
        Self::Infos(infos)
    }
}

impl From<BTreeMap<StorePath, NarHash>> for Wanted {
    fn from(hashes: BTreeMap<StorePath, NarHash>) -> Self {
        Self::Hashes(hashes)
    }
}

impl Wanted {
    /// Everything that `roots` reach by references, roots included.
    ///
    /// # Errors
    /// [`Error::NotValid`] for a root that the store does not have, [`Error::MissingReference`] for
    /// a reference that it does not.
    pub fn closure(store: &dyn Store, roots: &[StorePath]) -> Result<Self> {
        match store.closure_hashes(Some(roots))? {
            Some(hashes) => Ok(Self::Hashes(hashes)),
            None => closure(store, roots).map(Self::Infos),
        }
    }

    /// Everything that is valid in a store; nothing where it cannot list that.
    ///
    /// # Errors
    /// As for [`closure`](Self::closure).
    pub fn everything(store: &dyn Store) -> Result<Option<Self>> {
        if let Some(hashes) = store.closure_hashes(None)? {
            return Ok(Some(Self::Hashes(hashes)));
        }
        let Some(paths) = store.all_paths()? else { return Ok(None) };
        closure(store, &paths).map(|infos| Some(Self::Infos(infos)))
    }

    /// How many paths there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Hashes(hashes) => hashes.len(),
            Self::Infos(infos) => infos.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a path is among them.
    #[must_use]
    pub fn contains(&self, path: &StorePath) -> bool {
        match self {
            Self::Hashes(hashes) => hashes.contains_key(path),
            Self::Infos(infos) => infos.contains_key(path),
        }
    }

    /// The paths, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<StorePath> {
        match self {
            Self::Hashes(hashes) => hashes.keys().cloned().collect(),
            Self::Infos(infos) => infos.keys().cloned().collect(),
        }
    }

    /// Those that `belongs` says yes of, and the others.
    #[must_use]
    pub fn split(self, belongs: impl Fn(&StorePath) -> bool) -> (Self, Self) {
        match self {
            Self::Hashes(hashes) => {
                let (these, others) = hashes.into_iter().partition(|(path, _)| belongs(path));
                (Self::Hashes(these), Self::Hashes(others))
            }
            Self::Infos(infos) => {
                let (these, others) = infos.into_iter().partition(|(path, _)| belongs(path));
                (Self::Infos(these), Self::Infos(others))
            }
        }
    }

    /// All that the store records of them, read where it is not known.
    ///
    /// # Errors
    /// As for [`infos`](Self::infos).
    pub fn known_infos(&self, store: &dyn Store) -> Result<Cow<'_, BTreeMap<StorePath, PathInfo>>> {
        Ok(match self {
            Self::Infos(infos) => Cow::Borrowed(infos),
            hashes @ Self::Hashes(_) => Cow::Owned(hashes.clone().infos(store)?),
        })
    }

    /// All that the store records of them.
    ///
    /// # Errors
    /// [`Error::NotValid`] for what has gone meanwhile, and when the store cannot be asked.
    pub fn infos(self, store: &dyn Store) -> Result<BTreeMap<StorePath, PathInfo>> {
        let paths = match self {
            Self::Infos(infos) => return Ok(infos),
            hashes @ Self::Hashes(_) => hashes.paths(),
        };
        let infos = store.path_infos(&paths)?;
        let infos = paths.into_iter().zip(infos).map(|(path, info)| match info {
            Some(info) => Ok((path, info)),
            None => Err(Error::NotValid {
                path: store.store_dir().render_path(&path),
                store: store.describe(),
            }),
        });
        infos.collect()
    }
}
