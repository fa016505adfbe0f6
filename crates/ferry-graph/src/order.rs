//! An order in which everything stands behind what it needs.

use std::collections::HashMap;

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

impl Explorer<'_> {
    /// The nodes of `set`, each behind those of them that it needs. Among the orders possible it
    /// is always the same one, whatever was learnt first.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where there is no such order, and when a source could not look.
    pub fn topological_order(
        &mut self,
        kinds: &[Kind],
        set: &NodeSet,
    ) -> Result<Vec<NodeId>, GraphError> {
        let unsorted: Vec<NodeId> = set.iter().collect();
        for &kind in kinds {
            self.learn(kind, &unsorted)?;
        }
        let nodes = self.sorted(set);
        let rank: HashMap<NodeId, usize> =
            nodes.iter().enumerate().map(|(rank, node)| (*node, rank)).collect();
        let edges = nodes.iter().enumerate().map(|(from, node)| {
            let mut targets = Vec::new();
            for &kind in kinds {
                self.neighbours(kind, *node, &mut |target| targets.extend(rank.get(&target)));
            }
            targets.retain(|target| *target != from);
            targets.sort_unstable();
            targets.dedup();
            targets
        });
        let order = post_order(&edges.collect::<Vec<_>>()).map_err(|cycle| {
            let nodes = cycle.iter().filter_map(|rank| nodes.get(*rank));
            GraphError::Cycle { cycle: nodes.map(|node| self.graph.render(*node)).collect() }
        })?;
        Ok(order.into_iter().filter_map(|rank| nodes.get(rank).copied()).collect())
    }

    /// The nodes of `set` in the order of their store paths, as Nix sorts them.
    #[must_use]
    pub fn sorted(&self, set: &NodeSet) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = set.iter().collect();
        nodes.sort_unstable_by(|a, b| self.graph.nodes.compare(*a, *b));
        nodes
    }

    /// Refuses derivations that need themselves. (Outputs may seem to: two derivations make the
    /// same download, one of them with a tool that was made from it.)
    pub(crate) fn refuse_circles(&self, set: &NodeSet) -> Result<(), GraphError> {
        let mut derivations: Vec<NodeId> =
            set.iter().flat_map(|node| self.builders(node).iter().copied()).collect();
        derivations.sort_unstable();
        derivations.dedup();
        let mut ranks: Vec<Option<usize>> = vec![None; self.graph.len()];
        for (rank, node) in derivations.iter().enumerate() {
            if let Some(place) = ranks.get_mut(node.index()) {
                *place = Some(rank);
            }
        }
        let inputs = |node: &NodeId| {
            let inputs =
                self.graph.derivation(*node).map(|derivation| derivation.inputs.as_slice());
            let inputs = inputs.unwrap_or_default().iter();
            inputs.filter_map(|(input, _)| *ranks.get(input.index())?).collect::<Vec<usize>>()
        };
        let edges: Vec<Vec<usize>> = derivations.iter().map(inputs).collect();
        post_order(&edges).map(drop).map_err(|cycle| {
            let nodes = cycle.iter().filter_map(|rank| derivations.get(*rank));
            GraphError::Cycle { cycle: nodes.map(|node| self.graph.render(*node)).collect() }
        })
    }
}

/// Numbers in an order in which each stands behind those that its list names: depth-first
/// post-order, without recursion, as a chain may be longer than a stack is deep.
///
/// # Errors
/// The way round a circle, its first number again at the end.
pub fn post_order(edges: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for root in 0..edges.len() {
        if state.get(root) != Some(&State::New) {
            continue;
        }
        let mut stack: Vec<(usize, usize)> = vec![(root, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            let target = edges.get(node).and_then(|targets| targets.get(*next)).copied();
            *next += 1;
            if let Some(current) = state.get_mut(node) {
                *current = if target.is_some() { State::Open } else { State::Done };
            }
            match target {
                None => {
                    order.push(node);
                    stack.pop();
                }
                Some(target) => match state.get(target) {
                    Some(State::New) => stack.push((target, 0)),
                    Some(State::Open) => {
                        let way = stack.iter().map(|(node, _)| *node);
                        let mut way: Vec<usize> = way.skip_while(|node| *node != target).collect();
                        way.push(target);
                        return Err(way);
                    }
                    _ => {}
                },
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::post_order;

    #[test]
    fn a_diamond_is_ordered_and_a_circle_is_shown() {
        assert_eq!(post_order(&[vec![1, 2], vec![3], vec![3], vec![]]), Ok(vec![3, 1, 2, 0]));
        assert_eq!(post_order(&[vec![1], vec![2], vec![3], vec![1]]), Err(vec![1, 2, 3, 1]));
        assert_eq!(post_order(&[vec![0]]), Err(vec![0, 0]));
        assert_eq!(post_order(&[]), Ok(vec![]));
    }

    #[test]
    fn a_chain_longer_than_any_stack_is_ordered() {
        let last = 1_000_000;
        let edges: Vec<Vec<usize>> =
            (0..=last).map(|node| if node < last { vec![node + 1] } else { vec![] }).collect();
        assert_eq!(post_order(&edges).map(|order| order.len()), Ok(last + 1));
    }
}
