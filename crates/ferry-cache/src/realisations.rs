//! What became of the outputs of derivations, as a binary cache keeps it: a file an output
//! ([`ferry_formats::build_trace`]).
//!
//! The files are named after derivations. Where a cache can be listed, all of them are read to
//! find those of some paths. On the web they are looked for under the derivations in the cache
//! that may have made the paths.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::build_trace::{DIRECTORIES, DrvKey, DrvOutput, Realisation};
use ferry_formats::derivation::{self, Derivation, Output};
use ferry_formats::realisation::RealisationHashes;
use ferry_formats::{ContentAddress, PathInfo, StorePath};
use ferry_store::parallel::in_parallel;
use ferry_store::{Error, Result, Store, Wanted};

use crate::{BinaryCache, CacheError};

/// Those of which the output is among `paths`.
pub(crate) fn of_paths(cache: &BinaryCache, paths: &Wanted) -> Result<Vec<Realisation>> {
    let ids = match listed(cache) {
        Err(CacheError::NoListing { .. }) => candidates(cache, paths)?,
        listed => listed?,
    };
    let mut found: BTreeMap<DrvOutput, Realisation> = BTreeMap::new();
    let mut open: Vec<DrvOutput> = ids.into_iter().collect();
    while !open.is_empty() {
        let read = in_parallel(&open, cache.place.connections(), |id| read(cache, id))?;
        let read = read.into_iter().flatten();
        let wanted = read.filter(|realisation| paths.contains(&realisation.path));
        let new: Vec<Realisation> = wanted.collect();
        let dependencies: BTreeSet<DrvOutput> =
            new.iter().flat_map(|realisation| realisation.dependencies.keys().cloned()).collect();
        found.extend(new.into_iter().map(|realisation| (realisation.id.clone(), realisation)));
        let asked: BTreeSet<DrvOutput> = open.into_iter().collect();
        let unknown = |id: &DrvOutput| !found.contains_key(id) && !asked.contains(id);
        open = dependencies.into_iter().filter(unknown).collect();
    }
    Ok(found.into_values().collect())
}

/// Reads one, if it is there.
fn read(
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

/// The outputs of derivations in the cache that may have become one of `paths`.
fn candidates(cache: &BinaryCache, paths: &Wanted) -> Result<BTreeSet<DrvOutput>> {
    let infos = match paths {
        Wanted::Infos(infos) => Cow::Borrowed(infos),
        hashes @ Wanted::Hashes(_) => Cow::Owned(hashes.clone().infos(cache)?),
    };
    let floating: Vec<&PathInfo> = infos.values().filter(|info| can_float(info)).collect();
    let mut found = BTreeSet::new();
    let mut derivations = BTreeSet::new();
    for info in &floating {
        let Some(deriver) = &info.deriver else { continue };
        derivations.insert(deriver.clone());
        let output = output_name(stem(deriver), info.path.name()).unwrap_or("out");
        found.extend(DrvOutput::new(&deriver.to_basename(), output).ok());
    }
    // The deriver of record may be the resolved form of one that is filed under another hash.
    let may_have_made = |derivation: &&StorePath| {
        let made = |info: &PathInfo| output_name(stem(derivation), info.path.name()).is_some();
        derivation.is_derivation() && floating.iter().any(|info| made(info))
    };
    derivations.extend(infos.keys().filter(may_have_made).cloned());
    let mut hashes = RealisationHashes::default();
    for path in derivations {
        let Some(parsed) = parse(cache, &path)? else { continue };
        if parsed.outputs().values().any(|output| !matches!(output, Output::Floating { .. })) {
            continue;
        }
        let Some(hash) = hashes.of(&parsed, &mut |path| parse(cache, path))? else { continue };
        found.extend(
            parsed
                .outputs()
                .keys()
                .map(|name| DrvOutput { derivation: DrvKey::Hash(hash), output: name.to_string() }),
        );
    }
    Ok(found)
}

/// Whether a path can be an output whose path was not known before it was built. Downloads mostly
/// have the hash of a file, and are far more.
fn can_float(info: &PathInfo) -> bool {
    info.deriver.is_some() && !matches!(info.ca, None | Some(ContentAddress::Flat(_)))
}

/// Reads a derivation, if the cache has it.
fn parse(cache: &BinaryCache, path: &StorePath) -> Result<Option<Derivation>> {
    match cache.derivation_text(path) {
        Ok(text) => Ok(Some(derivation::parse(cache.store_dir(), path, &text)?)),
        Err(Error::NotValid { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn stem(derivation: &StorePath) -> &str {
    derivation.name().strip_suffix(".drv").unwrap_or(derivation.name())
}

/// The output of a derivation that a path of this name can be.
fn output_name<'a>(stem: &str, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(stem)?;
    if rest.is_empty() { Some("out") } else { rest.strip_prefix('-') }
}

/// Adds them, what others depend on first. Answers those of which the cache says something else.
pub(crate) fn add(cache: &BinaryCache, offered: &[Realisation]) -> Result<Vec<DrvOutput>> {
    let mut refused = Vec::new();
    for realisation in dependencies_first(offered) {
        let mut merged = realisation.clone();
        if let Some(there) = read(cache, &realisation.id)? {
            if there.path != realisation.path {
                refused.push(realisation.id.clone());
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

fn dependencies_first(offered: &[Realisation]) -> Vec<&Realisation> {
    let by_id: BTreeMap<&DrvOutput, &Realisation> =
        offered.iter().map(|realisation| (&realisation.id, realisation)).collect();
    let mut ordered = Vec::with_capacity(offered.len());
    let mut seen: BTreeSet<&DrvOutput> = BTreeSet::new();
    for first in offered {
        // What is on the stack a second time has all of its dependencies before it.
        let mut open = vec![(first, false)];
        while let Some((next, is_ready)) = open.pop() {
            if is_ready {
                ordered.push(next);
            } else if seen.insert(&next.id) {
                open.push((next, true));
                let dependencies = next.dependencies.keys().filter_map(|id| by_id.get(id));
                open.extend(dependencies.map(|dependency| (*dependency, false)));
            }
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_known_by_their_names() {
        assert_eq!(output_name("a-1.0", "a-1.0"), Some("out"));
        assert_eq!(output_name("a-1.0", "a-1.0-dev"), Some("dev"));
        assert_eq!(output_name("a-1.0", "a-1.0b"), None);
        assert_eq!(output_name("a", "b"), None);
    }

    #[test]
    fn what_depends_on_another_comes_behind_it() {
        let id = |digit: &str| DrvOutput::new(&format!("sha256:{}", digit.repeat(64)), "out");
        let path = StorePath::from_parts([1; 20], "a").unwrap();
        let make = |digit: &str, on: &[&str]| Realisation {
            id: id(digit).unwrap(),
            path: path.clone(),
            signatures: Vec::new(),
            dependencies: on.iter().map(|digit| (id(digit).unwrap(), path.clone())).collect(),
        };
        // One depends on itself, and one on what is not among them.
        let offered = [make("1", &["2", "3"]), make("3", &["3", "2"]), make("2", &["4"])];
        let ordered: Vec<_> = dependencies_first(&offered).iter().map(|one| &one.id).collect();
        assert_eq!(ordered, [&offered[2].id, &offered[1].id, &offered[0].id]);
    }
}
