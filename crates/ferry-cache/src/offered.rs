//! What several caches offer together, as one store that can be copied from.

use std::collections::{BTreeMap, HashMap};

use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::{NarVisitor, Result, Store};

use crate::missing::Place;

/// Paths, each in the place that offers it.
pub struct Offered<'a> {
    store_dir: StoreDir,
    places: &'a [Place<'a>],
    paths: BTreeMap<StorePath, PathInfo>,
    /// By number.
    place_of: HashMap<StorePath, usize>,
}

impl<'a> Offered<'a> {
    /// No paths yet, of those that are in `places`.
    #[must_use]
    pub fn new(store_dir: &StoreDir, places: &'a [Place<'a>]) -> Self {
        let store_dir = store_dir.clone();
        Self { store_dir, places, paths: BTreeMap::new(), place_of: HashMap::new() }
    }

    /// Adds a path that the place of this number offers.
    pub fn add(&mut self, place: usize, info: PathInfo) {
        self.place_of.insert(info.path.clone(), place);
        self.paths.insert(info.path.clone(), info);
    }

    /// All of them.
    #[must_use]
    pub fn paths(&self) -> &BTreeMap<StorePath, PathInfo> {
        &self.paths
    }

    fn place_of(&self, path: &StorePath) -> Option<usize> {
        self.place_of.get(path).copied()
    }
}

impl Store for Offered<'_> {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        let names: Vec<String> = self.places.iter().map(|place| place.store().describe()).collect();
        names.join(", ")
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        Ok(self.paths.get(path).cloned())
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        let deriver = self.paths.get(path).and_then(|info| info.deriver.clone());
        Ok(deriver.filter(|deriver| self.paths.contains_key(deriver)).into_iter().collect())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        let same_place =
            |one: &PathInfo, next: &PathInfo| self.place_of(&one.path) == self.place_of(&next.path);
        // In order: what refers to something comes behind it, wherever the two are.
        for run in wanted.chunk_by(same_place) {
            let place = run.first().and_then(|info| self.place_of(&info.path));
            match place.and_then(|place| self.places.get(place)) {
                Some(place) => place.store().read_nars(run, visit)?,
                None => run.iter().try_for_each(|info| self.require(&info.path).map(drop))?,
            }
        }
        Ok(())
    }
}
