//! How two sets of store paths differ: path by path, package by package, and what differs in the
//! derivations of a package.

mod derivations;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::{PathInfo, StorePath};

pub use derivations::{Change, DerivationChange, DerivationChanges, derivation_changes};
pub use names::{Named, parse_name};

/// What one set has and the other has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only in the first, by path.
    pub only_before: Vec<StorePath>,
    /// Only in the second, by path.
    pub only_after: Vec<StorePath>,
    /// In both, with different contents.
    pub conflicting: Vec<StorePath>,
    /// Packages in which something differs, by name.
    pub packages: Vec<PackageChange>,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.only_before.is_empty() && self.only_after.is_empty() && self.conflicting.is_empty()
    }
}

/// What differs of the paths of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageChange {
    /// The name without a version.
    pub name: String,
    /// Whether these are its derivations, not what they have made.
    pub derivations: bool,
    /// Versions that only the first set has; the empty one where there is none.
    pub removed: BTreeSet<String>,
    /// Versions that only the second set has.
    pub added: BTreeSet<String>,
    /// Versions that both have, with different paths.
    pub rebuilt: BTreeSet<String>,
    /// Sum of the NAR sizes in the first set, in bytes.
    pub size_before: u64,
    /// Sum of the NAR sizes in the second set.
    pub size_after: u64,
}

/// The paths of a version, in each of the two sets.
#[derive(Default)]
struct Version<'a> {
    before: BTreeSet<&'a StorePath>,
    after: BTreeSet<&'a StorePath>,
}

#[derive(Default)]
struct Package<'a> {
    versions: BTreeMap<String, Version<'a>>,
    size_before: u64,
    size_after: u64,
}

/// Compares two sets.
#[must_use]
pub fn compare(before: &[PathInfo], after: &[PathInfo]) -> Difference {
    let by_path = |infos| -> BTreeMap<_, _> {
        let infos: &[PathInfo] = infos;
        infos.iter().map(|info| (&info.path, info)).collect()
    };
    let (first, second) = (by_path(before), by_path(after));
    let only = |these: &BTreeMap<&StorePath, &PathInfo>, those: &BTreeMap<_, _>| {
        let only = these.keys().filter(|path| !those.contains_key(**path));
        only.map(|path| (*path).clone()).collect::<Vec<_>>()
    };
    let conflicting = first.iter().filter(|(path, info)| {
        second.get(*path).is_some_and(|other| other.nar_hash != info.nar_hash)
    });
    Difference {
        only_before: only(&first, &second),
        only_after: only(&second, &first),
        conflicting: conflicting.map(|(path, _)| (*path).clone()).collect(),
        packages: packages(before, after),
    }
}

fn packages(before: &[PathInfo], after: &[PathInfo]) -> Vec<PackageChange> {
    let mut packages: BTreeMap<(String, bool), Package<'_>> = BTreeMap::new();
    for info in before {
        let Named { name, version, derivation } = parse_name(&info.path);
        let package = packages.entry((name, derivation)).or_default();
        package.versions.entry(version).or_default().before.insert(&info.path);
        package.size_before = package.size_before.saturating_add(info.nar_size);
    }
    for info in after {
        let Named { name, version, derivation } = parse_name(&info.path);
        let package = packages.entry((name, derivation)).or_default();
        package.versions.entry(version).or_default().after.insert(&info.path);
        package.size_after = package.size_after.saturating_add(info.nar_size);
    }
    let changes = packages.into_iter().map(|((name, derivations), package)| {
        let those = |holds: &dyn Fn(&Version<'_>) -> bool| {
            let versions = package.versions.iter().filter(|(_, version)| holds(version));
            versions.map(|(version, _)| version.clone()).collect::<BTreeSet<_>>()
        };
        PackageChange {
            removed: those(&|it| it.after.is_empty()),
            added: those(&|it| it.before.is_empty()),
            rebuilt: those(&|it| {
                !it.before.is_empty() && !it.after.is_empty() && it.before != it.after
            }),
            name,
            derivations,
            size_before: package.size_before,
            size_after: package.size_after,
        }
    });
    changes
        .filter(|it| !(it.removed.is_empty() && it.added.is_empty() && it.rebuilt.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use ferry_formats::NarHash;

    use super::*;

    fn info(digit: char, name: &str, nar_size: u64) -> PathInfo {
        let base = format!("{}-{name}", digit.to_string().repeat(32));
        PathInfo {
            path: StorePath::from_basename(base.as_bytes()).unwrap(),
            nar_hash: NarHash([0; 32]),
            nar_size,
            references: [].into(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        }
    }

    #[test]
    fn what_is_the_same_has_no_difference() {
        let infos = [info('0', "a-1", 1), info('1', "b", 2)];
        assert!(compare(&infos, &infos).is_empty());
        assert_eq!(compare(&infos, &infos), Difference::default());
        assert!(!compare(&infos, &[]).is_empty());
    }

    #[test]
    fn versions_come_and_go_and_are_built_again() {
        let before = [info('0', "a-1", 10), info('1', "b-1", 5), info('2', "b-1-dev", 1)];
        let after = [info('3', "a-2", 30), info('4', "b-1", 5), info('2', "b-1-dev", 1)];
        let found = compare(&before, &after);
        let set = |text: &str| BTreeSet::from([text.to_owned()]);
        let [a, b] = found.packages.as_slice() else { panic!("{found:?}") };
        assert_eq!((&a.removed, &a.added, a.rebuilt.len()), (&set("1"), &set("2"), 0));
        assert_eq!((a.size_before, a.size_after), (10, 30));
        assert_eq!((b.removed.len(), b.added.len(), &b.rebuilt), (0, 0, &set("1")));
        assert_eq!((found.only_before.len(), found.only_after.len()), (2, 2));
    }

    #[test]
    fn one_path_with_two_contents_is_a_conflict() {
        let before = info('0', "a", 1);
        let after = PathInfo { nar_hash: NarHash([1; 32]), ..before.clone() };
        let found = compare(std::slice::from_ref(&before), &[after]);
        assert_eq!(found.conflicting, [before.path]);
        assert!(!found.is_empty());
    }
}
