//! What of a selection need not be carried, as the other side has it, and what that has to be.

use std::collections::{BTreeMap, HashSet};

use ferry_formats::{PathInfo, StorePath};

/// A selection, in two parts.
#[derive(Clone, Debug, Default)]
pub struct Thinned {
    /// What is carried.
    pub carried: BTreeMap<StorePath, PathInfo>,
    /// What is not.
    pub left_out: BTreeMap<StorePath, PathInfo>,
    /// Those left out that the other side has to be asked for: what is carried refers to them, or
    /// nothing else that is left out does. Whoever has these has the rest, as a valid path is
    /// valid only with its references. In the order of their paths.
    pub prerequisites: Vec<PathInfo>,
}

/// Leaves out what is `there`, with what it refers to. `wanted` is closed under references.
#[must_use]
pub fn leave_out(
    wanted: BTreeMap<StorePath, PathInfo>,
    there: &dyn Fn(&StorePath) -> bool,
) -> Thinned {
    let mut out: HashSet<&StorePath> = wanted.keys().filter(|path| there(path)).collect();
    let mut open: Vec<&StorePath> = out.iter().copied().collect();
    while let Some(path) = open.pop() {
        let references = wanted.get(path).into_iter().flat_map(PathInfo::other_references);
        open.extend(references.filter(|reference| out.insert(reference)));
    }
    // Referred to by what is carried, and by others that are left out.
    let (mut by_carried, mut by_left_out) = (HashSet::new(), HashSet::new());
    for info in wanted.values() {
        let referred = if out.contains(&info.path) { &mut by_left_out } else { &mut by_carried };
        referred.extend(info.other_references());
    }
    let is_prerequisite =
        |path: &StorePath| by_carried.contains(path) || !by_left_out.contains(path);
    let prerequisites = wanted
        .values()
        .filter(|info| out.contains(&info.path) && is_prerequisite(&info.path))
        .cloned()
        .collect();
    let out: HashSet<StorePath> = out.into_iter().cloned().collect();
    let (left_out, carried) = wanted.into_iter().partition(|(path, _)| out.contains(path));
    Thinned { carried, left_out, prerequisites }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use ferry_formats::NarHash;

    use super::*;

    fn path(name: &str) -> StorePath {
        let digest: [u8; 20] = NarHash::of(name.as_bytes()).0[..20].try_into().unwrap();
        StorePath::from_parts(digest, name).unwrap()
    }

    /// Names with the names that they refer to; each refers to itself too.
    fn wanted(graph: &[(&str, &[&str])]) -> BTreeMap<StorePath, PathInfo> {
        let info = |(name, references): &(&str, &[&str])| {
            let mut references: Vec<StorePath> = references.iter().map(|name| path(name)).collect();
            references.push(path(name));
            references.sort();
            let info = PathInfo {
                path: path(name),
                nar_hash: NarHash([0; 32]),
                nar_size: 1,
                references: references.into(),
                deriver: None,
                ca: None,
                signatures: Vec::new(),
            };
            (info.path.clone(), info)
        };
        graph.iter().map(info).collect()
    }

    fn names<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> Vec<&'a str> {
        let mut names: Vec<&str> = paths.into_iter().map(StorePath::name).collect();
        names.sort_unstable();
        names
    }

    const CHAIN: [(&str, &[&str]); 6] = [
        ("libc", &[]),
        ("shell", &["libc"]),
        ("library", &["libc"]),
        ("tool", &["library", "shell"]),
        ("program", &["library"]),
        ("manual", &[]),
    ];

    fn thinned(there: &[&str]) -> (Vec<String>, Vec<String>) {
        let thinned = leave_out(wanted(&CHAIN), &|path| there.contains(&path.name()));
        let both = thinned.carried.len() + thinned.left_out.len();
        assert_eq!(both, CHAIN.len());
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        let prerequisites = thinned.prerequisites.iter().map(|info| &info.path);
        (owned(names(thinned.carried.keys())), owned(names(prerequisites)))
    }

    #[test]
    fn what_is_there_is_left_out_with_all_it_refers_to() {
        let (carried, _) = thinned(&["library"]);
        assert_eq!(carried, ["manual", "program", "shell", "tool"]);
        // What is there and not wanted is nobody's business.
        assert_eq!(thinned(&["other"]), (names_of_all(), vec![]));
    }

    fn names_of_all() -> Vec<String> {
        let mut all: Vec<String> = CHAIN.iter().map(|(name, _)| (*name).to_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn prerequisites_are_what_is_referred_to_and_what_nothing_else_stands_for() {
        // The shell, which is carried, refers to libc itself.
        assert_eq!(thinned(&["library"]).1, ["libc", "library"]);
        // Nothing carried refers to libc: who has the library has it.
        assert_eq!(thinned(&["library", "shell"]).1, ["library", "shell"]);
        // Nothing refers to the manual or to the tool, and both are wanted.
        assert_eq!(thinned(&["manual", "tool"]).1, ["library", "manual", "tool"]);
        assert_eq!(thinned(&["program"]).1, ["libc", "library", "program"]);
    }

    #[test]
    fn where_all_is_there_only_the_tops_have_to_be_asked_for() {
        let all: Vec<&str> = CHAIN.iter().map(|(name, _)| *name).collect();
        assert_eq!(thinned(&all), (vec![], vec!["manual".into(), "program".into(), "tool".into()]));
    }
}
