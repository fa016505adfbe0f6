//! What a cache has besides: files that nothing names, realisations, its description.

use std::collections::HashSet;

use ferry_formats::build_trace::Realisation;
use ferry_formats::narinfo;
use ferry_store::message::harmless;
use ferry_store::parallel::in_parallel;

use super::names::Names;
use super::{Fault, FaultKind};
use crate::layout::FileKind;
use crate::place::{CACHE_INFO, Place};
use crate::{BinaryCache, CacheError, directory, pending};

/// What of the cache's description is no `NAME: VALUE`.
pub(super) fn cache_info(cache: &BinaryCache) -> Vec<Fault> {
    let text = String::from_utf8_lossy(cache.checked.get().map_or(&[], Vec::as_slice));
    let bad = text.lines().filter(|line| !line.trim().is_empty() && !line.contains(": "));
    bad.map(|line| fault(FaultKind::BadCacheInfo, CACHE_INFO, format!("`{}`", harmless(line))))
        .collect()
}

/// NARs and listings that no narinfo names, and what writers have left that are no more.
pub(super) fn orphans(cache: &BinaryCache, names: &Names) -> Result<Vec<Fault>, CacheError> {
    let mut faults = Vec::new();
    let mut add = |kind, file: &str, size, message: &str| {
        faults.push(Fault { size, ..fault(kind, file, message.to_owned()) });
    };
    // Narinfos that wait for other machines name theirs, too.
    let waiting = pending::all(&cache.place, &cache.store_dir)?;
    let waited_for: HashSet<&str> = waiting.iter().map(|one| one.narinfo.url.as_str()).collect();
    for (name, entry) in names.like(FileKind::Nar) {
        if !entry.is_named() && !waited_for.contains(name) {
            add(FaultKind::OrphanNar, name, Some(entry.size), "no narinfo names it");
        }
    }
    for (name, entry) in names.like(FileKind::Listing) {
        if !names.lists(&name.replace(".ls", ".narinfo")) {
            add(FaultKind::OrphanListing, name, Some(entry.size), "its path has no narinfo");
        }
    }
    if let Place::Directory(directory) = cache.place.as_ref() {
        for (left, _) in directory::abandoned(directory)? {
            let name = left.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add(FaultKind::StaleStaging, &name, None, "its writer is no more");
        }
    }
    Ok(faults)
}

/// What is wrong with realisations: in `realisations/ID.doi`, of Nix up to 2.34, and in
/// `build-trace-v2/DERIVATION/OUTPUT.doi`.
pub(super) fn realisations(cache: &BinaryCache, names: &Names) -> Result<Vec<Fault>, CacheError> {
    let files = names.like(FileKind::Realisation);
    let faults = in_parallel(&files, cache.place.nars_at_a_time(), |(name, _)| {
        let Some(text) = cache.place.get(name)? else { return Ok(None) };
        let realisation = Realisation::of_file(name, &text);
        let (kind, message) = match realisation.map(|realisation| realisation.path) {
            Err(error) => (FaultKind::BadRealisation, error.to_string()),
            Ok(path) if names.has_narinfo(cache, &path)? => return Ok(None),
            Ok(path) => {
                let file = narinfo::file_name(&path);
                let path = cache.store_dir.render_path(&path);
                (FaultKind::DanglingRealisation, format!("it is of {path}, and there is no {file}"))
            }
        };
        Ok::<_, CacheError>(Some(fault(kind, name, message)))
    })?;
    Ok(faults.into_iter().flatten().collect())
}

fn fault(kind: FaultKind, file: &str, message: String) -> Fault {
    Fault { kind, file: harmless(file), path: None, message, size: None }
}
