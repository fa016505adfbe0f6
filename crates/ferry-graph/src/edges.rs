//! Lists of nodes by node, all in one long array: compressed sparse rows that grow.

use crate::NodeId;

/// The place of one node's list. A list that nobody has given is not the same as an empty one.
#[derive(Clone, Copy)]
struct Row {
    start: u32,
    length: u32,
}

const NOT_GIVEN: Row = Row { start: 0, length: u32::MAX };

/// For each node a list of nodes, or nothing.
#[derive(Default)]
pub(crate) struct Edges {
    rows: Vec<Row>,
    targets: Vec<NodeId>,
}

impl Edges {
    /// The list of a node, if one was given.
    pub(crate) fn get(&self, node: NodeId) -> Option<&[NodeId]> {
        let row = self.rows.get(node.index())?;
        if row.length == u32::MAX {
            return None;
        }
        let start = row.start as usize;
        self.targets.get(start..start + row.length as usize)
    }

    /// The list of a node, empty if none was given.
    pub(crate) fn of(&self, node: NodeId) -> &[NodeId] {
        self.get(node).unwrap_or_default()
    }

    /// Gives a node its list; the first one given stays.
    pub(crate) fn set(&mut self, node: NodeId, targets: impl IntoIterator<Item = NodeId>) {
        if self.get(node).is_none() {
            self.replace(node, targets);
        }
    }

    /// Gives a node its list, whether or not it had one.
    pub(crate) fn replace(&mut self, node: NodeId, targets: impl IntoIterator<Item = NodeId>) {
        let start = self.targets.len();
        self.targets.extend(targets);
        let length = self.targets.len() - start;
        if self.rows.len() <= node.index() {
            self.rows.resize(node.index() + 1, NOT_GIVEN);
        }
        let (Ok(start), Ok(length)) = (u32::try_from(start), u32::try_from(length)) else {
            // More than four thousand million edges do not fit: 16 GB of them.
            self.targets.truncate(start);
            return;
        };
        if let Some(row) = self.rows.get_mut(node.index()) {
            *row = Row { start, length };
        }
    }
}
