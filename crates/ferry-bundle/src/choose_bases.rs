//! Which content of the other side is worth packing against: what has the same name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferry_formats::{PathInfo, StorePath};
use ferry_store::NarRanges;

use crate::Against;

/// Smaller NARs are not worth the 60 bytes that the head takes for a base.
const LEAST: u64 = 16 << 10;

/// Objects that the other side has and the paths that take their place.
#[derive(Default)]
pub struct Counterparts {
    /// Those whose content is worth packing against, with the path that is packed.
    pub bases: Vec<(PathInfo, StorePath)>,
    /// Those that only the content of bases refers to.
    pub renames: Vec<(StorePath, StorePath)>,
}

impl Counterparts {
    /// Pairs what is `carried` with what is `there`: the object of the same name apart from the
    /// version, with the nearest version, then with the nearest size.
    #[must_use]
    pub fn find(carried: &BTreeMap<StorePath, PathInfo>, there: &[PathInfo]) -> Self {
        let mut by_name: BTreeMap<(&str, &str), Vec<&PathInfo>> = BTreeMap::new();
        for info in there {
            if !info.path.is_derivation() && !carried.contains_key(&info.path) {
                let name = Name::of(&info.path);
                by_name.entry((name.package, name.output)).or_default().push(info);
            }
        }
        let mut pairs: BTreeMap<&StorePath, (&PathInfo, &PathInfo)> = BTreeMap::new();
        for info in carried.values().filter(|info| !info.path.is_derivation()) {
            let name = Name::of(&info.path);
            let Some(candidates) = by_name.get(&(name.package, name.output)) else { continue };
            let distance = |other: &&&PathInfo| {
                let version = common(Name::of(&other.path).version, name.version);
                let size = other.nar_size.abs_diff(info.nar_size);
                // A base has one successor: it is better to have another one.
                let taken = pairs.contains_key(&other.path);
                (taken, std::cmp::Reverse(version), size, other.path.clone())
            };
            if let Some(base) = candidates.iter().min_by_key(distance) {
                pairs.entry(&base.path).or_insert((base, info));
            }
        }
        let worth = |base: &PathInfo, new: &PathInfo| base.nar_size.min(new.nar_size) >= LEAST;
        let mut found = Self::default();
        let mut referred: BTreeSet<&StorePath> = BTreeSet::new();
        for (base, new) in pairs.values().filter(|(base, new)| worth(base, new)) {
            referred.extend(base.references.iter());
            found.bases.push(((*base).clone(), new.path.clone()));
        }
        for (base, new) in pairs.values().filter(|(base, new)| !worth(base, new)) {
            if referred.contains(&base.path) {
                found.renames.push((base.path.clone(), new.path.clone()));
            }
        }
        found
    }

    /// To pack against them, with their NARs from `nars`.
    #[must_use]
    pub fn against(self, nars: Arc<dyn NarRanges>) -> Against {
        Against { bases: self.bases, renames: self.renames, nars }
    }
}

/// The parts of the name of a store path.
struct Name<'a> {
    package: &'a str,
    version: &'a str,
    output: &'a str,
}

impl<'a> Name<'a> {
    /// The version begins behind the first dash that no letter follows, as for Nix; behind it may
    /// stand the name of an output.
    fn of(path: &'a StorePath) -> Self {
        let name = path.name();
        let dash = name.match_indices('-').map(|(at, _)| at).find(|at| {
            let next = name.as_bytes().get(at + 1);
            next.is_some_and(|next| !next.is_ascii_alphabetic())
        });
        let (package, version) =
            dash.and_then(|at| name.split_at_checked(at)).unwrap_or((name, ""));
        let output = version.rfind('-').filter(|at| {
            let output = version.get(at + 1..).unwrap_or_default();
            !output.is_empty() && output.bytes().all(|byte| byte.is_ascii_alphabetic())
        });
        let (version, output) =
            output.and_then(|at| version.split_at_checked(at)).unwrap_or((version, ""));
        Self { package, version, output }
    }
}

/// How many bytes two versions have in common at the front.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_formats::NarHash;

    fn info(name: &str, size: u64) -> PathInfo {
        let mut digest = [0; 20];
        for (place, byte) in digest.iter_mut().zip(name.bytes()) {
            *place = byte;
        }
        digest[19] = u8::try_from(size % 251).unwrap();
        PathInfo {
            path: StorePath::from_parts(digest, name).unwrap(),
            nar_hash: NarHash([0; 32]),
            nar_size: size,
            references: Default::default(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        }
    }

    #[test]
    fn the_counterpart_is_the_same_output_of_the_nearest_version() {
        let new = info("glibc-2.40-36-dev", 1 << 20);
        let carried = BTreeMap::from([(new.path.clone(), new)]);
        let there = ["glibc-2.40-35", "glibc-2.40-35-dev", "glibc-2.39-dev", "glib-2.40-36-dev"];
        let there: Vec<PathInfo> = there.iter().map(|name| info(name, 1 << 20)).collect();
        let found = Counterparts::find(&carried, &there);
        let names: Vec<&str> = found.bases.iter().map(|(base, _)| base.path.name()).collect();
        assert_eq!(names, ["glibc-2.40-35-dev"]);
    }

    #[test]
    fn what_is_small_is_only_renamed_and_only_where_a_base_refers_to_it() {
        let new = [info("big-2", 1 << 20), info("small-2", 100), info("alone-2", 101)];
        let carried = new.into_iter().map(|info| (info.path.clone(), info)).collect();
        let (small, alone) = (info("small-1", 102), info("alone-1", 103));
        let mut big = info("big-1", 1 << 20);
        big.references = vec![small.path.clone()].into();
        let found = Counterparts::find(&carried, &[big.clone(), small.clone(), alone]);
        assert_eq!(found.bases.len(), 1);
        assert_eq!(found.renames.len(), 1);
        assert_eq!(found.renames[0].0, small.path);
    }
}
