//! From derivations to outputs and back, and what kind of thing a node is.

use crate::error::{GraphError, Missing};
use crate::explore::Explorer;
use crate::graph::Kind;
use crate::{NodeId, NodeSet};

impl Explorer<'_> {
    /// The outputs of the derivations among `of`.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn outputs(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let derivations: Vec<NodeId> = self.derivations(of).iter().collect();
        self.learn_derivations(&derivations)?;
        let mut found = NodeSet::default();
        for node in derivations {
            match self.graph.derivation(node) {
                Some(derivation) => {
                    found.extend(derivation.outputs.iter().map(|(_, object)| *object))
                }
                None => self.note_unknown_derivation(node),
            }
        }
        Ok(found)
    }

    /// The derivations that make what is in `of`. A source has none.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn derivers(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let (derivations, made): (Vec<NodeId>, Vec<NodeId>) =
            of.iter().partition(|node| self.graph.is_derivation(*node));
        self.learn_builders(&made)?;
        let mut found = NodeSet::default();
        for node in made {
            if self.builders(node).is_empty() && !self.is_source(node) {
                self.note_no_deriver(node);
            }
            found.extend(self.builders(node).iter().copied());
        }
        // A derivation stands for itself where it is built; here it is asked who made it.
        self.learn_producers(&derivations)?;
        for node in derivations {
            found.extend(self.producers(node));
        }
        Ok(found)
    }

    /// The derivations to build for these: a derivation for itself, for an output the one that
    /// makes it. Where none is known, nothing is, and nothing is noted.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn builders_of(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let nodes: Vec<NodeId> = of.iter().collect();
        self.learn_builders(&nodes)?;
        Ok(nodes.iter().flat_map(|node| self.builders(*node).iter().copied()).collect())
    }

    /// Those that are derivations.
    #[must_use]
    pub fn derivations(&self, of: &NodeSet) -> NodeSet {
        of.iter().filter(|node| self.graph.is_derivation(*node)).collect()
    }

    /// Those that no derivation makes: sources.
    ///
    /// # Errors
    /// When a source of facts could not look.
    pub fn sources(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let nodes: Vec<NodeId> = of.iter().collect();
        self.learn_builders(&nodes)?;
        Ok(nodes.into_iter().filter(|node| self.is_source(*node)).collect())
    }

    /// Those that are a fixed-output derivation, or the output of one.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn fixed_outputs(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let nodes: Vec<NodeId> = of.iter().collect();
        self.learn_builders(&nodes)?;
        // A derivation may be a fixed output itself.
        self.learn_producers(&nodes)?;
        let mut makers = Vec::new();
        for node in nodes {
            let mut builders = self.builders(node).to_vec();
            if self.graph.is_derivation(node) {
                builders.extend(self.producers(node));
            }
            makers.push((node, builders));
        }
        let all: Vec<NodeId> = makers.iter().flat_map(|(_, builders)| builders.clone()).collect();
        self.learn_derivations(&all)?;
        let mut found = NodeSet::default();
        for (node, builders) in makers {
            // A path that does not follow from its content is no fixed output, whoever made it.
            if builders.is_empty() && !self.is_source(node) && !self.graph.is_input_addressed(node)
            {
                self.note_no_deriver(node);
            }
            for builder in builders {
                match self.graph.derivation(builder) {
                    Some(derivation) if derivation.fixed_output => {
                        found.insert(node);
                    }
                    Some(_) => {}
                    None => self.note_unknown_derivation(builder),
                }
            }
        }
        Ok(found)
    }

    /// The outputs that evaluating `of` had built: import-from-derivation.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn fragments(&mut self, of: &NodeSet) -> Result<NodeSet, GraphError> {
        let nodes: Vec<NodeId> = of.iter().collect();
        self.learn(Kind::Eval, &nodes)?;
        let builders = nodes.iter().flat_map(|node| self.builders(*node).to_vec());
        Ok(builders.flat_map(|builder| self.graph.fragments.of(builder).to_vec()).collect())
    }

    pub(crate) fn is_source(&self, node: NodeId) -> bool {
        !self.graph.is_derivation(node)
            && self.builders(node).is_empty()
            && self.graph.is_source(node)
    }

    pub(crate) fn note_no_evaluation(&mut self, derivation: NodeId) {
        self.note(Missing::Evaluation(self.graph.render(derivation)));
    }
}
