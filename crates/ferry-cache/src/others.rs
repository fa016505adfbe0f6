//! Writing to a cache that others write to, share the work of, or prune.

use std::collections::{HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use ferry_formats::{NarHash, StorePath};
use ferry_store::admission::Plan;
use ferry_store::parallel::in_parallel;

use crate::directory::{self, Staging};
use crate::pending::{self, Pending, has_nar};
use crate::place::Place;
use crate::{BinaryCache, CacheError, sweep};

/// What is known of the others.
pub(crate) struct Others {
    /// Which sweep was the last, before anything was looked at.
    token: Option<Vec<u8>>,
    /// What waits for its references.
    waiting: HashMap<StorePath, NarHash>,
    /// What has a narinfo, and no NAR any more.
    without_nar: HashSet<StorePath>,
}

type Result<T> = std::result::Result<T, CacheError>;

impl BinaryCache {
    /// How many paths there are, written by whomever, that wait for what they refer to, as far as
    /// the copy that ended last could tell.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.others().as_ref().map_or(0, |others| others.waiting.len())
    }

    fn others(&self) -> MutexGuard<'_, Option<Others>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new place to make files in before they go to the cache.
    pub(crate) fn new_staging(&self) -> Result<Staging> {
        if let Place::Directory(cache) = self.place.as_ref() {
            directory::make_directories(cache)?;
        }
        Staging::beside(&self.place, &self.scratch)
    }

    /// Looks who else is there, once, before anything is relied on.
    pub(crate) fn look_at_others(&self) -> Result<()> {
        let mut others = self.others();
        if others.is_none() {
            let _quiet = sweep::quiet(&self.place)?;
            let token = sweep::token(&self.place)?;
            let waiting = self.whole(pending::all(&self.place, &self.store_dir)?)?;
            *others = Some(Others { token, waiting, without_nar: HashSet::new() });
        }
        Ok(())
    }

    /// Those of the narinfos that wait whose NARs are there.
    fn whole(&self, waiting: Vec<Pending>) -> Result<HashMap<StorePath, NarHash>> {
        let found = in_parallel(&waiting, self.place.connections(), |pending| {
            has_nar(&self.place, &pending.narinfo)
        })?;
        let whole = waiting.into_iter().zip(found).filter(|(_, found)| *found);
        let infos = whole.map(|(pending, _)| pending.narinfo.info);
        Ok(infos.map(|info| (info.path, info.nar_hash)).collect())
    }

    /// What the last sweep was before anything was looked at.
    pub(crate) fn token(&self) -> Option<Vec<u8>> {
        self.others().as_ref().and_then(|others| others.token.clone())
    }

    /// Whether a path has a narinfo that waits.
    pub(crate) fn is_waiting(&self, path: &StorePath) -> bool {
        self.others().as_ref().is_some_and(|others| others.waiting.contains_key(path))
    }

    /// What is in the cache, where its narinfos say this: with what only waits, and without what has
    /// lost its NAR.
    pub(crate) fn corrected(
        &self,
        paths: &[StorePath],
        hashes: Vec<Option<NarHash>>,
    ) -> Vec<Option<NarHash>> {
        let others = self.others();
        let Some(others) = others.as_ref() else { return hashes };
        let corrected = paths.iter().zip(hashes).map(|(path, hash)| match hash {
            Some(hash) => Some(hash).filter(|_| !others.without_nar.contains(path)),
            None => others.waiting.get(path).copied(),
        });
        corrected.collect()
    }

    /// Gives a place to whatever waits and may have one; and then, if somebody has swept since this
    /// was begun, looks what of the plan is gone.
    pub(crate) fn lost_of(&self, plan: &Plan) -> Result<Vec<StorePath>> {
        let left = pending::settle(&self.place, &self.store_dir, || self.new_staging())?;
        let _quiet = sweep::quiet(&self.place)?;
        let token = sweep::token(&self.place)?;
        let mut others = self.others();
        let Some(others) = others.as_mut() else { return Ok(Vec::new()) };
        others.waiting = self.whole(left)?;
        others.without_nar.clear();
        if others.token == token {
            return Ok(Vec::new());
        }
        others.token = token;
        let added = plan.infos().iter().map(|info| &info.path);
        let mut paths: Vec<StorePath> = added.chain(plan.relied_on()).cloned().collect();
        let found = in_parallel(&paths, self.place.connections(), |path| {
            let Some(narinfo) = self.narinfos(std::slice::from_ref(path))?.pop().flatten() else {
                return Ok((others.waiting.contains_key(path), false));
            };
            let whole = has_nar(&self.place, &narinfo)?;
            Ok::<_, CacheError>((whole, !whole))
        })?;
        let without_nar = paths.iter().zip(&found).filter(|(_, (_, without))| *without);
        others.without_nar.extend(without_nar.map(|(path, _)| path.clone()));
        let mut found = found.into_iter();
        paths.retain(|_| !found.next().is_some_and(|(is_there, _)| is_there));
        Ok(paths)
    }
}
