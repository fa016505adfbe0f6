//! A few objects in front of a store.

use std::io::Read;
use std::sync::Arc;

use ferry_formats::build_trace::Realisation;
use ferry_formats::{PathInfo, StoreDir, StorePath};

use crate::store::NarVisitor;
use crate::{NarRanges, Protection, Result, Store, Wanted};

/// A store as if what is in some others were in it as well. They have no references to it, and
/// nothing in it refers to them.
pub struct Joined<'a> {
    store: &'a dyn Store,
    besides: Vec<(&'a dyn Store, StorePath)>,
}

impl<'a> Joined<'a> {
    /// `store`, and the objects with these path infos, which are in the stores beside them.
    #[must_use]
    pub fn new(store: &'a dyn Store, besides: &[(&'a dyn Store, &PathInfo)]) -> Self {
        let besides = besides.iter().map(|(store, info)| (*store, info.path.clone())).collect();
        Self { store, besides }
    }

    /// The store that has a path, or might.
    fn of(&self, path: &StorePath) -> &'a dyn Store {
        let beside = self.besides.iter().find(|(_, of)| of == path);
        beside.map_or(self.store, |(store, _)| *store)
    }

    fn is_beside(&self, path: &StorePath) -> bool {
        self.besides.iter().any(|(_, of)| of == path)
    }
}

impl Store for Joined<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.store.store_dir()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.of(path).path_info(path)
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        if !paths.iter().any(|path| self.is_beside(path)) {
            return self.store.path_infos(paths);
        }
        paths.iter().map(|path| self.path_info(path)).collect()
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        let Some(mut all) = self.store.all_paths()? else { return Ok(None) };
        all.extend(self.besides.iter().map(|(_, path)| path.clone()));
        Ok(Some(all))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.of(path).derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        let runs =
            wanted.chunk_by(|one, next| self.is_beside(&one.path) == self.is_beside(&next.path));
        for run in runs {
            if run.first().is_some_and(|info| self.is_beside(&info.path)) {
                for info in run {
                    let one = std::slice::from_ref(info);
                    self.of(&info.path).read_nars(one, visit)?;
                }
            } else {
                self.store.read_nars(run, visit)?;
            }
        }
        Ok(())
    }

    fn in_own_order(&self, infos: &mut [PathInfo]) {
        // Those beside come last: a store that is read from front to back is not interrupted.
        infos.sort_by_key(|info| self.is_beside(&info.path));
        let own = infos.partition_point(|info| !self.is_beside(&info.path));
        if let Some(own) = infos.get_mut(..own) {
            self.store.in_own_order(own);
        }
    }

    fn realisations(&self, paths: &Wanted) -> Result<Vec<Realisation>> {
        self.store.realisations(paths)
    }

    fn build_log(&self, derivation: &StorePath) -> Result<Option<Box<dyn Read + Send>>> {
        self.of(derivation).build_log(derivation)
    }

    fn protect(&self, paths: &[StorePath]) -> Result<Protection> {
        let own: Vec<_> = paths.iter().filter(|path| !self.is_beside(path)).cloned().collect();
        self.store.protect(&own)
    }
}

/// The NARs of [`Joined`] stores at any position.
pub struct JoinedRanges {
    store: Arc<dyn NarRanges>,
    besides: Vec<(Arc<dyn NarRanges>, StorePath)>,
}

impl JoinedRanges {
    /// Those of `store`, and of objects beside it.
    #[must_use]
    pub fn new(store: Arc<dyn NarRanges>, besides: Vec<(Arc<dyn NarRanges>, StorePath)>) -> Self {
        Self { store, besides }
    }
}

impl NarRanges for JoinedRanges {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let beside = self.besides.iter().find(|(_, of)| of == path);
        beside.map_or(&self.store, |(nars, _)| nars).read_range(path, offset, buffer)
    }
}
