//! Closures over references, and the order that every store wants: references first.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferry_formats::{PathInfo, StoreDir, StorePath};

use crate::{Error, Result, Store};

/// The path infos of everything that `roots` reach by references, roots included.
///
/// # Errors
/// [`Error::NotValid`] for a root that the store does not have, [`Error::MissingReference`] for a
/// reference that it does not.
pub fn closure(store: &dyn Store, roots: &[StorePath]) -> Result<BTreeMap<StorePath, PathInfo>> {
    let mut found = BTreeMap::new();
    let mut pending: Vec<(StorePath, Option<StorePath>)> =
        roots.iter().map(|root| (root.clone(), None)).collect();
    let mut seen: BTreeSet<StorePath> = roots.iter().cloned().collect();
    while let Some((path, referrer)) = pending.pop() {
        let Some(info) = store.path_info(&path)? else {
            let store_dir = store.store_dir();
            return Err(match referrer {
                None => {
                    Error::NotValid { path: store_dir.render_path(&path), store: store.describe() }
                }
                Some(referrer) => Error::MissingReference {
                    path: store_dir.render_path(&referrer),
                    reference: store_dir.render_path(&path),
                    store: store.describe(),
                },
            });
        };
        for reference in info.references.iter() {
            if seen.insert(reference.clone()) {
                pending.push((reference.clone(), Some(path.clone())));
            }
        }
        found.insert(path, info);
    }
    Ok(found)
}

/// Puts path infos in an order in which every reference stands before its referrers. Among the
/// orders possible it is always the same one, so that equal sets give equal bundles. References
/// to what is not in the set are not looked at.
///
/// # Errors
/// [`Error::ReferenceCycle`] where the references allow no order.
pub fn references_first(
    store_dir: &StoreDir,
    infos: impl IntoIterator<Item = PathInfo>,
) -> Result<Vec<PathInfo>> {
    let mut infos: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    infos.sort_by(|a, b| a.as_ref().map(|i| &i.path).cmp(&b.as_ref().map(|i| &i.path)));
    let index: HashMap<StorePath, usize> = infos
        .iter()
        .flatten()
        .enumerate()
        .map(|(number, info)| (info.path.clone(), number))
        .collect();
    let edges: Vec<Vec<usize>> = infos
        .iter()
        .flatten()
        .map(|info| {
            info.other_references().filter_map(|reference| index.get(reference).copied()).collect()
        })
        .collect();
    let order = postorder(&edges).map_err(|node| Error::ReferenceCycle {
        path: infos
            .get(node)
            .and_then(Option::as_ref)
            .map(|info| store_dir.render_path(&info.path))
            .unwrap_or_default(),
    })?;
    Ok(order
        .into_iter()
        .filter_map(|number| infos.get_mut(number).and_then(Option::take))
        .collect())
}

/// Depth-first post-order without recursion; `Err` is a node on a circle.
fn postorder(edges: &[Vec<usize>]) -> std::result::Result<Vec<usize>, usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for root in 0..edges.len() {
        let mut stack = vec![(root, 0)];
        while let Some((node, next)) = stack.pop() {
            let (Some(current), Some(targets)) = (state.get_mut(node), edges.get(node)) else {
                continue;
            };
            if next == 0 {
                match current {
                    State::Done => continue,
                    State::Open => return Err(node),
                    State::New => *current = State::Open,
                }
            }
            if let Some(&target) = targets.get(next) {
                stack.push((node, next + 1));
                match state.get(target) {
                    Some(State::New) => stack.push((target, 0)),
                    Some(State::Open) => return Err(target),
                    _ => {}
                }
            } else {
                if let Some(current) = state.get_mut(node) {
                    *current = State::Done;
                }
                order.push(node);
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::postorder;

    #[test]
    fn a_diamond_is_ordered_and_a_circle_is_found() {
        assert_eq!(postorder(&[vec![1, 2], vec![3], vec![3], vec![]]), Ok(vec![3, 1, 2, 0]));
        assert_eq!(postorder(&[vec![1], vec![2], vec![0]]), Err(0));
        assert_eq!(postorder(&[]), Ok(vec![]));
    }

    #[test]
    fn a_chain_longer_than_any_stack_is_ordered() {
        let edges: Vec<Vec<usize>> = (0..1_000_000)
            .map(|node| if node + 1 < 1_000_000 { vec![node + 1] } else { vec![] })
            .collect();
        assert_eq!(postorder(&edges).map(|order| order.len()), Ok(1_000_000));
    }
}
