//! Why one thing needs another: a shortest way between them.

use std::collections::HashMap;

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

/// One step of a way through the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What needs.
    pub from: NodeId,
    /// What it needs.
    pub to: NodeId,
    /// How.
    pub kind: Kind,
    /// Where the need is a derivation's and `from` is what it makes: that derivation.
    pub builder: Option<NodeId>,
}

impl Explorer<'_> {
    /// A shortest way over edges of these kinds from one of `from` to one of `to`, or `None`
    /// where there is none. Of several equally short ones it is always the same, whatever was
    /// learnt first: kinds given first are preferred, then lower store paths.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn shortest_way(
        &mut self,
        kinds: &[Kind],
        from: &NodeSet,
        to: &NodeSet,
    ) -> Result<Option<Vec<Step>>, GraphError> {
        let mut reached = from.clone();
        let mut frontier = self.sorted(from);
        let mut came_by: HashMap<NodeId, Step> = HashMap::new();
        loop {
            let arrived: NodeSet = frontier.iter().copied().filter(|n| to.contains(*n)).collect();
            if let Some(end) = self.sorted(&arrived).first() {
                return Ok(Some(steps_to(*end, &came_by)));
            }
            if frontier.is_empty() {
                return Ok(None);
            }
            let mut next = NodeSet::default();
            for &kind in kinds {
                self.learn(kind, &frontier)?;
                for &from in &frontier {
                    let mut step = |to, builder| {
                        if reached.insert(to) {
                            next.insert(to);
                            came_by.insert(to, Step { from, to, kind, builder });
                        }
                    };
                    if kind == Kind::Run {
                        self.neighbours(kind, from, &mut |to| step(to, None));
                        continue;
                    }
                    for &builder in self.builders(from) {
                        let between = Some(builder).filter(|builder| *builder != from);
                        self.needs_of_builder(kind, builder, &mut |to| step(to, between));
                    }
                }
            }
            frontier = self.sorted(&next);
        }
    }
}

fn steps_to(end: NodeId, came_by: &HashMap<NodeId, Step>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut node = end;
    while let Some(step) = came_by.get(&node) {
        node = step.from;
        steps.push(step.clone());
    }
    steps.reverse();
    steps
}
