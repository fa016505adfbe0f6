//! What became of the outputs of derivations, as a binary cache keeps it: a file an output
//! ([`ferry_formats::build_trace`]).
//!
//! The files are named after derivations. Where a cache can be listed, all of them are read to
//! find those of some paths. On the web they are looked for under the derivations in the cache
//! that may have made the paths.

use std::collections::BTreeSet;

use ferry_formats::build_trace::{DIRECTORIES, DrvOutput, Realisation};
use ferry_store::parallel::in_parallel;
use ferry_store::realisations::{self, NotTaken};
use ferry_store::{Result, Wanted};

use crate::{BinaryCache, CacheError};

/// Those of which the output is among `paths`.
pub(crate) fn of_paths(cache: &BinaryCache, paths: &Wanted) -> Result<Vec<Realisation>> {
    let ids = match listed(cache) {
        Err(CacheError::NoListing { .. }) => {
            let infos = paths.known_infos(cache)?;
            realisations::candidates(cache, &infos, &mut infos.keys())?
        }
        listed => listed?,
    };
    let read =
        |ids: &[DrvOutput]| in_parallel(ids, cache.place.connections(), |id| read(cache, id));
    Ok(realisations::follow(ids, paths, read)?)
}

/// Reads one, if it is there.
pub(crate) fn read(
    cache: &BinaryCache,
    id: &DrvOutput,
) -> std::result::Result<Option<Realisation>, CacheError> {
    let name = id.file_name();
    let Some(text) = cache.place.get(&name)? else { return Ok(None) };
    Realisation::parse(id, &text).map(Some).map_err(|error| CacheError::BadRealisation {
        url: cache.place.shown_file(&name),
        reason: error.to_string(),
        beginning: ferry_store::message::beginning(&text),
    })
}

/// The outputs that it has files about.
fn listed(cache: &BinaryCache) -> std::result::Result<BTreeSet<DrvOutput>, CacheError> {
    let mut found = BTreeSet::new();
    for directory in DIRECTORIES {
        cache.place.list(&format!("{directory}/"), &mut |file| {
            // Whatever else is there is none of them.
            found.extend(DrvOutput::of_file(&file.name).ok());
            Ok(())
        })?;
    }
    Ok(found)
}

/// Adds them, what others depend on first. Answers those of which the cache says something else.
pub(crate) fn add(cache: &BinaryCache, offered: &[Realisation]) -> Result<NotTaken> {
    let mut refused = NotTaken::default();
    for realisation in realisations::dependencies_first(offered) {
        let mut merged = realisation.clone();
        if let Some(there) = read(cache, &realisation.id)? {
            if there.path != realisation.path {
                refused.other.push(realisation.id.clone());
                continue;
            }
            merged = there.clone();
            merged.add_signatures(&realisation.signatures);
            if merged == there {
                continue;
            }
        }
        let name = merged.id.file_name();
        cache.write(&name, &mut merged.render().as_bytes())?;
    }
    Ok(refused)
}
