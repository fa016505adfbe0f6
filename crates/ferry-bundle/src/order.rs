//! One order for everything in a bundle of version 1: the index and the coded derivations, each
//! in its own order, and references before their referrers.

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the index; its NAR is in the payload.
    Index(usize),
    /// Among the coded derivations.
    Derivation(usize),
}

/// Merges the two: a derivation as soon as all index entries that it needs stand before it. For
/// each index entry the number of derivations that it needs, and the other way round. `None`
/// where they need each other.
pub(crate) fn merge(index: &[u64], derivations: &[u64]) -> Option<Vec<Place>> {
    let mut order = Vec::with_capacity(index.len() + derivations.len());
    let (mut entry, mut derivation) = (0, 0);
    while order.len() < index.len() + derivations.len() {
        if derivations.get(derivation).is_some_and(|needed| *needed <= entry as u64) {
            order.push(Place::Derivation(derivation));
            derivation += 1;
        } else if index.get(entry).is_some_and(|needed| *needed <= derivation as u64) {
            order.push(Place::Index(entry));
            entry += 1;
        } else {
            return None;
        }
    }
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::{Place, merge};

    #[test]
    fn each_stands_behind_what_it_needs() {
        use Place::{Derivation as D, Index as I};
        assert_eq!(merge(&[0, 1, 0], &[1, 3]), Some(vec![I(0), D(0), I(1), I(2), D(1)]));
        assert_eq!(merge(&[], &[0]), Some(vec![D(0)]));
        assert_eq!(merge(&[], &[]), Some(vec![]));
    }

    #[test]
    fn those_that_need_each_other_have_no_order() {
        assert_eq!(merge(&[1], &[1]), None);
        assert_eq!(merge(&[0, 2], &[1, 2]), None);
        assert_eq!(merge(&[9], &[0]), None);
    }
}
