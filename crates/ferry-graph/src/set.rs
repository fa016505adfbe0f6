//! Sets of nodes.

use fixedbitset::FixedBitSet;

use crate::NodeId;

/// A set of nodes of one graph, a bit a node.
#[derive(Clone, Debug, Default)]
pub struct NodeSet {
    bits: FixedBitSet,
}

impl NodeSet {
    /// Adds a node, and tells whether it is new.
    pub fn insert(&mut self, node: NodeId) -> bool {
        let index = node.index();
        if index >= self.bits.len() {
            // Doubling, as a vector does: nodes come one by one while a graph grows.
            self.bits.grow((index + 1).next_power_of_two());
        }
        !self.bits.put(index)
    }

    /// Whether a node is in it.
    #[must_use]
    pub fn contains(&self, node: NodeId) -> bool {
        self.bits.contains(node.index())
    }

    /// How many nodes are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bits.count_ones(..)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits.is_clear()
    }

    /// Its nodes, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.bits.ones().map(NodeId::from_index)
    }

    /// Adds what is in `other`.
    pub fn union_with(&mut self, other: &Self) {
        self.bits.union_with(&other.bits);
    }

    /// Takes out what is in `other`.
    pub fn difference_with(&mut self, other: &Self) {
        self.bits.difference_with(&other.bits);
    }

    /// Keeps what is in `other` too.
    pub fn intersect_with(&mut self, other: &Self) {
        self.bits.intersect_with(&other.bits);
    }
}

impl PartialEq for NodeSet {
    fn eq(&self, other: &Self) -> bool {
        // The number of bits is no part of the meaning.
        self.iter().eq(other.iter())
    }
}

impl Eq for NodeSet {}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<T: IntoIterator<Item = NodeId>>(nodes: T) -> Self {
        let mut set = Self::default();
        set.extend(nodes);
        set
    }
}

impl Extend<NodeId> for NodeSet {
    fn extend<T: IntoIterator<Item = NodeId>>(&mut self, nodes: T) {
        for node in nodes {
            self.insert(node);
        }
    }
}
