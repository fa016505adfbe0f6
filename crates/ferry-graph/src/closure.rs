//! Immediate dependencies, closures over them, and closures against the arrows.

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

impl Explorer<'_> {
    /// The immediate dependencies of these nodes.
    ///
    /// * *run*: what they refer to.
    /// * *build*: of a derivation, the outputs and sources that it reads; of an output, those of
    ///   the derivation that makes it.
    /// * *eval*: what had to be there before the derivation (of an output: that makes it) could
    ///   exist.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn immediate(&mut self, kind: Kind, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let nodes: Vec<NodeId> = of.iter().collect();
        self.learn(kind, &nodes)?;
        if kind == Kind::Eval {
            self.insist_on_evaluations(&nodes);
        }
        let mut found = NodeSet::default();
        for node in nodes {
            self.neighbours(kind, node, &mut |target| {
                found.insert(target);
            });
        }
        Ok(found)
    }

    /// These nodes and everything they reach over edges of these kinds. What is in `stop` is
    /// reached, and nothing beyond it; `depth` is how many edges are followed at most.
    ///
    /// An evaluation that was not recorded ends nothing: most derivations have none of their
    /// own, but share that of the derivation it was made for. Where a node to start from has
    /// none, [`unrecorded`](Self::unrecorded) says so.
    ///
    /// # Errors
    /// When a source could not look, or a derivation needs itself to be built.
    pub fn closure(
        &mut self,
        kinds: &[Kind],
        of: &NodeSet,
        stop: Option<&NodeSet>,
        depth: Option<u32>,
    ) -> Result<NodeSet, GraphError> {
        let goes_on = |node: NodeId| !stop.is_some_and(|stop| stop.contains(node));
        let mut reached = of.clone();
        let mut frontier: Vec<NodeId> = of.iter().filter(|node| goes_on(*node)).collect();
        if kinds.contains(&Kind::Eval) {
            self.note_unrecorded_evaluations(&frontier)?;
        }
        let mut left = depth.unwrap_or(u32::MAX);
        while !frontier.is_empty() && left > 0 {
            left -= 1;
            let mut next = Vec::new();
            for &kind in kinds {
                self.learn(kind, &frontier)?;
                for &node in &frontier {
                    self.neighbours(kind, node, &mut |target| {
                        if reached.insert(target) && goes_on(target) {
                            next.push(target);
                        }
                    });
                }
            }
            frontier = next;
        }
        if kinds.contains(&Kind::Build) {
            self.refuse_circles(&reached)?;
        }
        Ok(reached)
    }

    /// Those nodes in the closure of `universe` that reach one of `targets`, `targets` included.
    /// `depth` is how many edges are followed at most.
    ///
    /// # Errors
    /// As for [`closure`](Self::closure).
    pub fn dependents(
        &mut self,
        kinds: &[Kind],
        universe: &NodeSet,
        targets: &NodeSet,
        depth: Option<u32>,
    ) -> Result<NodeSet, GraphError> {
        let within = self.closure(kinds, universe, None, None)?;
        let against = Reversed::new(self, kinds, &within);
        let mut reached = targets.clone();
        reached.intersect_with(&within);
        let mut frontier: Vec<NodeId> = reached.iter().collect();
        let mut left = depth.unwrap_or(u32::MAX);
        while !frontier.is_empty() && left > 0 {
            left -= 1;
            let mut next = Vec::new();
            for node in frontier {
                next.extend(against.of(node).iter().copied().filter(|from| reached.insert(*from)));
            }
            frontier = next;
        }
        Ok(reached)
    }

    /// Notes those that no recorded evaluation explains.
    fn insist_on_evaluations(&mut self, nodes: &[NodeId]) {
        for &node in nodes {
            if self.is_source(node) || self.is_recorded(node) {
                continue;
            }
            match self.builders(node).first() {
                None => self.note_no_deriver(node),
                Some(&builder) => self.note_no_evaluation(builder),
            }
        }
    }

    fn note_unrecorded_evaluations(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        self.learn(Kind::Eval, nodes)?;
        for &node in nodes {
            if let (Some(&builder), false) = (self.builders(node).first(), self.is_recorded(node)) {
                let text = self.graph().render(builder);
                self.note_unrecorded(text);
            }
        }
        Ok(())
    }
}

/// The edges of some kinds among some nodes, turned round.
struct Reversed {
    /// Where the list of each node begins; one more at the end.
    starts: Vec<usize>,
    sources: Vec<NodeId>,
}

impl Reversed {
    fn new(explorer: &Explorer<'_>, kinds: &[Kind], within: &NodeSet) -> Self {
        let each_edge = |visit: &mut dyn FnMut(NodeId, NodeId)| {
            for node in within.iter() {
                for &kind in kinds {
                    explorer.neighbours(kind, node, &mut |target| visit(node, target));
                }
            }
        };
        // Counted first, so that everything fits into one array.
        let mut starts = vec![0; explorer.graph().len() + 1];
        each_edge(&mut |_, target| {
            if let Some(count) = starts.get_mut(target.index() + 1) {
                *count += 1;
            }
        });
        let mut total = 0;
        for start in &mut starts {
            total += *start;
            *start = total;
        }
        let mut sources = vec![NodeId(0); total];
        let mut ends = starts.clone();
        each_edge(&mut |node, target| {
            if let Some(end) = ends.get_mut(target.index()) {
                if let Some(place) = sources.get_mut(*end) {
                    *place = node;
                }
                *end += 1;
            }
        });
        Self { starts, sources }
    }

    fn of(&self, node: NodeId) -> &[NodeId] {
        let start = self.starts.get(node.index()).copied().unwrap_or(0);
        let end = self.starts.get(node.index() + 1).copied().unwrap_or(start);
        self.sources.get(start..end).unwrap_or_default()
    }
}
