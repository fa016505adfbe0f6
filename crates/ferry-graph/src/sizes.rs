//! How large things are, with what they refer to counted once.

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

/// The sizes of one member of a set, in bytes of NARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The member.
    pub node: NodeId,
    /// Of itself; `None` where no source says.
    pub nar: Option<u64>,
    /// Of everything it refers to, itself included.
    pub closure: u64,
    /// Of what would not be needed if this member were not in the set: what nothing else in the
    /// set refers to.
    pub added: u64,
}

/// The sizes of a set and its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SizeReport {
    /// Of each member, in no particular order.
    pub members: Vec<Sizes>,
    /// Of the members themselves.
    pub nar: u64,
    /// Of everything they refer to, shared parts counted once.
    pub closure: u64,
    /// How many objects that is.
    pub closure_objects: usize,
    /// How many objects have no known size; they count as nothing.
    pub unknown: usize,
}

/// Members whose closures are added up in one pass over the graph: a bit each.
const BATCH: usize = 64;

/// Which member of the set keeps an object.
#[derive(Clone, Copy, PartialEq)]
enum Keeper {
    Nobody,
    One(NodeId),
    Several,
}

impl Explorer<'_> {
    /// The sizes of `set` and its members, over *run* dependencies.
    ///
    /// Takes time in proportion to the graph for each 64 members.
    ///
    /// # Errors
    /// When a source could not look, or references go round in a circle.
    pub fn sizes(&mut self, set: &NodeSet) -> Result<SizeReport, GraphError> {
        let closure = self.closure(&[Kind::Run], set, None, None)?;
        self.learn_sizes(&closure.iter().collect::<Vec<_>>())?;
        let mut order = self.topological_order(&[Kind::Run], &closure)?;
        // Referrers first: what is known of them flows on to what they refer to.
        order.reverse();
        let size = |node: NodeId| self.graph.nar_size(node).unwrap_or(0);
        let added = self.added_sizes(set, &order);
        let members: Vec<NodeId> = set.iter().collect();
        let mut report = SizeReport {
            nar: members.iter().map(|node| size(*node)).sum(),
            closure: order.iter().map(|node| size(*node)).sum(),
            closure_objects: order.len(),
            unknown: order.iter().filter(|node| self.graph.nar_size(**node).is_none()).count(),
            ..SizeReport::default()
        };
        for batch in members.chunks(BATCH) {
            let closures = self.closure_sizes(batch, &order);
            for (node, closure) in batch.iter().zip(closures) {
                report.members.push(Sizes {
                    node: *node,
                    nar: self.graph.nar_size(*node),
                    closure,
                    added: added.get(node.index()).copied().unwrap_or(0),
                });
            }
        }
        Ok(report)
    }

    fn closure_sizes(&self, batch: &[NodeId], referrers_first: &[NodeId]) -> [u64; BATCH] {
        let mut masks = vec![0_u64; self.graph.len()];
        for (bit, node) in batch.iter().enumerate() {
            if let Some(mask) = masks.get_mut(node.index()) {
                *mask |= 1 << bit;
            }
        }
        let mut sums = [0; BATCH];
        for &node in referrers_first {
            let mask = masks.get(node.index()).copied().unwrap_or(0);
            let size = self.graph.nar_size(node).unwrap_or(0);
            let mut bits = mask;
            while bits != 0 {
                if let Some(sum) = sums.get_mut(bits.trailing_zeros() as usize) {
                    *sum += size;
                }
                bits &= bits - 1;
            }
            for target in self.graph.run.of(node) {
                if let Some(seen) = masks.get_mut(target.index()) {
                    *seen |= mask;
                }
            }
        }
        sums
    }

    /// For each node of the graph, what would not be needed without it.
    fn added_sizes(&self, set: &NodeSet, referrers_first: &[NodeId]) -> Vec<u64> {
        let mut keepers = vec![Keeper::Nobody; self.graph.len()];
        let mut added = vec![0; self.graph.len()];
        let meet = |keepers: &mut Vec<Keeper>, node: NodeId, keeper: Keeper| {
            if let Some(place) = keepers.get_mut(node.index()) {
                *place = match *place {
                    Keeper::Nobody => keeper,
                    same if same == keeper => same,
                    _ => Keeper::Several,
                };
            }
        };
        for &node in referrers_first {
            if set.contains(node) {
                meet(&mut keepers, node, Keeper::One(node));
            }
            let keeper = keepers.get(node.index()).copied().unwrap_or(Keeper::Nobody);
            if let Keeper::One(member) = keeper
                && let Some(sum) = added.get_mut(member.index())
            {
                *sum += self.graph.nar_size(node).unwrap_or(0);
            }
            for &target in self.graph.run.of(node) {
                meet(&mut keepers, target, keeper);
            }
        }
        added
    }
}
