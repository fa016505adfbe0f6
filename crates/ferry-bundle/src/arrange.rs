//! Like with like: the order in which the payload is smallest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use ferry_formats::{PathInfo, StorePath};
use ferry_store::difference::parse_name;

/// Longest ending of a name that is taken for a kind of file, in bytes.
const LONGEST_ENDING: usize = 5;

/// Puts objects that are alike by their names side by side, as far as references allow: each
/// stands behind what it refers to. Derivations, which are coded, keep the order that they have,
/// and come as early as they can. Expects references first, and gives that.
pub(crate) fn like_with_like(infos: Vec<PathInfo>) -> Vec<PathInfo> {
    let numbers: HashMap<&StorePath, usize> =
        infos.iter().zip(0..).map(|(info, number)| (&info.path, number)).collect();
    let mut waits = vec![0_usize; infos.len()];
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); infos.len()];
    let mut last_derivation = None;
    for (info, number) in infos.iter().zip(0..) {
        let references = info.other_references().filter_map(|path| numbers.get(path).copied());
        // What does not stand before it is of a list that was not in order; it is left as it is.
        let mut behind: Vec<usize> = references.filter(|other| *other < number).collect();
        if info.path.is_derivation() {
            behind.extend(last_derivation.replace(number));
        }
        for other in behind {
            if let (Some(list), Some(count)) = (dependents.get_mut(other), waits.get_mut(number)) {
                list.push(number);
                *count += 1;
            }
        }
    }
    drop(numbers);
    let ranks = ranks(&infos);
    let rank = |number: usize| (ranks.get(number).copied(), number);
    let free = waits.iter().zip(0..).filter(|(count, _)| **count == 0);
    let mut ready: BinaryHeap<_> = free.map(|(_, number)| Reverse(rank(number))).collect();
    let mut order = Vec::with_capacity(infos.len());
    while let Some(Reverse((_, number))) = ready.pop() {
        order.push(number);
        for dependent in dependents.get_mut(number).map(std::mem::take).unwrap_or_default() {
            if let Some(count) = waits.get_mut(dependent) {
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse(rank(dependent)));
                }
            }
        }
    }
    let mut infos: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    order.into_iter().filter_map(|number| infos.get_mut(number)?.take()).collect()
}

/// For each, what place it would have if nothing referred to anything.
fn ranks(infos: &[PathInfo]) -> Vec<usize> {
    let mut sorted: Vec<(usize, &PathInfo)> =
        infos.iter().enumerate().filter(|(_, info)| !info.path.is_derivation()).collect();
    sorted.sort_by_cached_key(|(_, info)| {
        let name = info.path.name();
        (ending(name).to_owned(), parse_name(&info.path).name, info.nar_size, info.path.clone())
    });
    // Derivations come before all others.
    let mut ranks = vec![0; infos.len()];
    for ((number, _), place) in sorted.into_iter().zip(1..) {
        if let Some(rank) = ranks.get_mut(number) {
            *rank = place;
        }
    }
    ranks
}

/// The kind of file that a name says it is, `patch` in `fix-1.2.patch`; empty where it says none.
fn ending(name: &str) -> &str {
    let found = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let is_kind = found.len() <= LONGEST_ENDING && found.bytes().all(|b| b.is_ascii_alphabetic());
    if is_kind { found } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_formats::NarHash;

    fn info(number: u8, name: &str, references: &[u8], all: &[PathInfo]) -> PathInfo {
        let of = |number: &u8| {
            let found = all.iter().find(|info| info.path.digest()[0] == *number);
            found.unwrap().path.clone()
        };
        PathInfo {
            path: StorePath::from_parts([number; 20], name).unwrap(),
            nar_hash: NarHash([0; 32]),
            nar_size: u64::from(number),
            references: references.iter().map(of).collect::<Vec<_>>().into(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        }
    }

    fn arranged(of: &[(u8, &str, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (number, name, references) in of {
            all.push(info(*number, name, references, &all));
        }
        like_with_like(all).iter().map(|info| info.path.digest()[0]).collect()
    }

    #[test]
    fn what_is_alike_stands_together() {
        let order = arranged(&[
            (1, "b.patch", &[]),
            (2, "glibc-2.40", &[]),
            (3, "a.py", &[]),
            (4, "a.patch", &[]),
            (5, "bash-5.2", &[]),
            (6, "glibc-2.39", &[]),
        ]);
        assert_eq!(order, [5, 2, 6, 4, 1, 3]);
    }

    #[test]
    fn references_stand_first_and_derivations_keep_their_order() {
        let order = arranged(&[
            (9, "z.sh", &[]),
            (1, "b.drv", &[9]),
            (2, "a.drv", &[]),
            (3, "lib-1", &[2]),
            (4, "app-1", &[3]),
            (5, "c.drv", &[4]),
            (6, "a-1", &[]),
        ]);
        // The first derivation waits for its source, and the second for the first.
        assert_eq!(order, [6, 9, 1, 2, 3, 4, 5]);
    }
}
