//! Which path an output got: finding that out of a store that can only be asked about outputs that
//! are named, and the order to tell it in.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::build_trace::{DrvKey, DrvOutput, Realisation};
use ferry_formats::derivation::{self, Derivation, Output};
use ferry_formats::realisation::RealisationHashes;
use ferry_formats::{ContentAddress, PathInfo, StorePath};

use crate::{Error, Result, Store, Wanted};

/// What of realisations was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotTaken {
    /// There the output has another path, which stays.
    pub other: Vec<DrvOutput>,
    /// They could not be told, for the first of these reasons.
    pub untold: Vec<DrvOutput>,
    /// Why the first of those could not be told.
    pub reason: Option<String>,
}

impl NotTaken {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.other.len() + self.untold.len()
    }

    /// Whether all was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Asks for these, and for what those found depend on, and so on. Returns those of which the output
/// is among `paths`.
///
/// # Errors
/// What `read` fails with, which is given several outputs at a time.
pub fn follow<E>(
    ids: BTreeSet<DrvOutput>,
    paths: &Wanted,
    mut read: impl FnMut(&[DrvOutput]) -> std::result::Result<Vec<Option<Realisation>>, E>,
) -> std::result::Result<Vec<Realisation>, E> {
    let mut found: BTreeMap<DrvOutput, Realisation> = BTreeMap::new();
    let mut open: Vec<DrvOutput> = ids.into_iter().collect();
    while !open.is_empty() {
        let read = read(&open)?.into_iter().flatten();
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

/// The outputs of derivations in a store that may have become one of `paths`: of those that it has
/// on record as having made them, and of those among `derivations` that are named so.
///
/// # Errors
/// When the store cannot be asked, or has a derivation that is none.
pub fn candidates(
    store: &dyn Store,
    paths: &BTreeMap<StorePath, PathInfo>,
    derivations: &mut dyn Iterator<Item = &StorePath>,
) -> Result<BTreeSet<DrvOutput>> {
    let floating: Vec<&PathInfo> = paths.values().filter(|info| can_float(info)).collect();
    let mut found = BTreeSet::new();
    let mut makers = BTreeSet::new();
    for info in &floating {
        let Some(deriver) = &info.deriver else { continue };
        makers.insert(deriver.clone());
        let output = output_name(stem(deriver), info.path.name()).unwrap_or("out");
        found.extend(DrvOutput::new(&deriver.to_basename(), output).ok());
    }
    // The deriver of record may be the resolved form of one that is filed under another hash.
    let may_have_made = |derivation: &&StorePath| {
        let made = |info: &PathInfo| output_name(stem(derivation), info.path.name()).is_some();
        derivation.is_derivation() && floating.iter().any(|info| made(info))
    };
    makers.extend(derivations.filter(may_have_made).cloned());
    let mut hashes = RealisationHashes::default();
    for path in makers {
        let Some(parsed) = derivation_in(store, &path)? else { continue };
        if parsed.outputs().values().any(|output| !matches!(output, Output::Floating { .. })) {
            continue;
        }
        let Some(hash) = hashes.of(&parsed, &mut |path| derivation_in(store, path))? else {
            continue;
        };
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
#[must_use]
pub fn can_float(info: &PathInfo) -> bool {
    info.deriver.is_some() && !matches!(info.ca, None | Some(ContentAddress::Flat(_)))
}

/// Reads a derivation, if a store has it.
///
/// # Errors
/// When the store cannot be asked, or what it has is no derivation.
pub fn derivation_in(store: &dyn Store, path: &StorePath) -> Result<Option<Derivation>> {
    match store.derivation_text(path) {
        Ok(text) => Ok(Some(derivation::parse(store.store_dir(), path, &text)?)),
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

/// In the order in which they are told: what others depend on first.
#[must_use]
pub fn dependencies_first(offered: &[Realisation]) -> Vec<&Realisation> {
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
#[allow(clippy::unwrap_used)]
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
