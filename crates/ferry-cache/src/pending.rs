//! Narinfos that wait for what they refer to.
//!
//! Several machines share the work of one copy. A path whose references are in the part of another
//! machine, and not there yet, must not appear before them; nobody waits either. So its NAR is put
//! in its place, and its narinfo under `.ferry-pending/`. Whoever ends looks at all that wait, and
//! gives a place to those whose references are there by now. As everybody has put his own there
//! before he looks, the last one to look sees all.

use std::collections::{BTreeMap, HashMap, HashSet};

use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::closure::references_first;
use ferry_store::parallel::in_parallel;

use crate::directory::Staging;
use crate::place::Place;
use crate::{CacheError, sweep};

/// Where they are.
pub(crate) const DIRECTORY: &str = ".ferry-pending/";

/// A narinfo that waits.
pub(crate) struct Pending {
    /// Its name in the cache.
    pub(crate) name: String,
    text: Vec<u8>,
    pub(crate) narinfo: Narinfo,
}

/// Where the narinfo of this name waits.
pub(crate) fn place_of(name: &str) -> String {
    format!("{DIRECTORY}{name}")
}

/// All that wait.
pub(crate) fn all(place: &Place, store_dir: &StoreDir) -> Result<Vec<Pending>, CacheError> {
    if matches!(place, Place::Web { .. }) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    place.list(DIRECTORY, &mut |file| {
        // What else is there is somebody else's.
        if file.name.ends_with(".narinfo") {
            names.push(file.name);
        }
        Ok(())
    })?;
    names.sort();
    let found = in_parallel(&names, place.connections(), |waiting| {
        // It has got its place meanwhile.
        let Some(text) = place.get(waiting)? else { return Ok(None) };
        let narinfo = narinfo::parse(store_dir, &text)
            .map_err(|error| CacheError::bad_narinfo(place, waiting, &error, &text))?;
        let name = narinfo::file_name(&narinfo.info.path);
        // A copy that somebody's program left there under a name of its own waits for nothing: its
        // place is another's.
        if *waiting != place_of(&name) {
            tracing::warn!(file = waiting, "is not called like what it holds, and is passed over");
            return Ok(None);
        }
        Ok::<_, CacheError>(Some(Pending { name, text, narinfo }))
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Gives a place to every narinfo whose references are there by now. Returns those that
/// still wait.
pub(crate) fn settle(
    place: &Place,
    store_dir: &StoreDir,
    make_staging: impl FnOnce() -> Result<Staging, CacheError>,
) -> Result<Vec<Pending>, CacheError> {
    let mut waiting = all(place, store_dir)?;
    if waiting.is_empty() {
        return Ok(waiting);
    }
    let staging = make_staging()?;
    let mut there = HashSet::new();
    loop {
        // What is found there stays for as long as this lives.
        let _quiet = sweep::quiet(place)?;
        let ready = ready(place, store_dir, &waiting, &mut there)?;
        if ready.is_empty() {
            return Ok(waiting);
        }
        let files = ready
            .iter()
            .map(|pending| Ok((staging.write(&pending.text)?, &pending.name)))
            .collect::<Result<Vec<_>, CacheError>>()?;
        staging.flush()?;
        for (file, name) in files {
            place.put(&file, name)?;
        }
        staging.flush()?;
        let names: Vec<String> = ready.iter().map(|pending| place_of(&pending.name)).collect();
        in_parallel(&names, place.puts_at_a_time(), |name| place.remove(name))?;
        // Others may have put some there meanwhile.
        waiting = all(place, store_dir)?;
    }
}

/// Those that may have their places, references first.
fn ready<'p>(
    place: &Place,
    store_dir: &StoreDir,
    waiting: &'p [Pending],
    there: &mut HashSet<StorePath>,
) -> Result<Vec<&'p Pending>, CacheError> {
    let by_path: HashMap<&StorePath, &Pending> =
        waiting.iter().map(|pending| (&pending.narinfo.info.path, pending)).collect();
    let outside: HashSet<&StorePath> = waiting
        .iter()
        .flat_map(|pending| pending.narinfo.info.other_references())
        .filter(|path| !by_path.contains_key(path) && !there.contains(*path))
        .collect();
    let outside: Vec<&StorePath> = outside.into_iter().collect();
    let found = in_parallel(&outside, place.connections(), |path| {
        Ok::<_, CacheError>(place.get(&narinfo::file_name(path))?.is_some())
    })?;
    there.extend(
        outside.into_iter().zip(found).filter(|(_, found)| *found).map(|(path, _)| path.clone()),
    );
    let infos: Vec<PathInfo> = waiting.iter().map(|pending| pending.narinfo.info.clone()).collect();
    // A circle has no order, and no place.
    let order = references_first(store_dir, infos).unwrap_or_default();
    let mut known = BTreeMap::new();
    let mut ready = Vec::new();
    for info in &order {
        let Some(pending) = by_path.get(&info.path) else { continue };
        let may = info
            .other_references()
            .all(|path| there.contains(path) || known.get(path).copied().unwrap_or(false))
            && has_nar(place, &pending.narinfo)?;
        known.insert(&info.path, may);
        if may {
            ready.push(*pending);
        }
    }
    Ok(ready)
}

/// Whether the NAR is there that a narinfo names.
pub(crate) fn has_nar(place: &Place, narinfo: &Narinfo) -> Result<bool, CacheError> {
    match narinfo.file_size.filter(|size| *size > 0) {
        Some(size) => place.has(&narinfo.url, size),
        None => Ok(place.open(&narinfo.url, None)?.is_some()),
    }
}
