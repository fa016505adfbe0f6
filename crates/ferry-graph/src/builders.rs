//! Who makes an object, and what a derivation reads when it is built.

use crate::error::GraphError;
use crate::explore::{Explorer, fresh};
use crate::facts::Question;
use crate::graph::{Kind, Name};
use crate::{NodeId, NodeSet};

impl Explorer<'_> {
    /// Finds out who makes each of these objects.
    pub(crate) fn learn_builders(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        let mut made = Vec::new();
        for &node in nodes {
            if self.builders.get(node).is_some() {
            } else if self.graph.is_derivation(node) {
                self.builders.set(node, [node]);
            } else if let Some(derivation) = self.graph.nodes.derivation_of(node) {
                self.builders.set(node, [derivation]);
            } else {
                made.push(node);
            }
        }
        self.learn_derivers(&made)?;
        for node in made {
            let builders = self.choose_builders(node)?;
            self.builders.set(node, builders);
        }
        Ok(())
    }

    /// Learns which derivations make these paths.
    fn learn_derivers(&mut self, made: &[NodeId]) -> Result<(), GraphError> {
        self.learn_objects(made)?;
        let wanted = fresh(&mut self.asked.derivers, &self.graph, made);
        // Derivers add up: nobody's answer makes another's superfluous.
        self.ask_about(&wanted, Question::Derivers, |_, _| false)?;
        let recorded: Vec<NodeId> =
            made.iter().filter_map(|node| self.graph.recorded_deriver(*node)).collect();
        self.learn_derivations(&recorded)
    }

    /// The derivation that makes a path. Where several are known: those that what is named is
    /// made from; else the one recorded; else the first in order.
    fn choose_builders(&mut self, node: NodeId) -> Result<Vec<NodeId>, GraphError> {
        let known = self.all_builders(node);
        if known.len() < 2 {
            return Ok(known);
        }
        self.learn_meant()?;
        let meant =
            |deriver: &NodeId| self.meant.as_ref().is_some_and(|set| set.contains(*deriver));
        let mut chosen: Vec<NodeId> = known.iter().copied().filter(meant).collect();
        if !chosen.is_empty() {
            // Not in the order in which they were learnt.
            chosen.sort_by_cached_key(|deriver| self.graph.path(*deriver));
            return Ok(chosen);
        }
        let recorded = self.recorded_builder(node);
        Ok(recorded.or_else(|| self.first_in_order(&known)).into_iter().collect())
    }

    /// Everything below the derivations that are named, or that made what is named.
    fn learn_meant(&mut self) -> Result<(), GraphError> {
        if self.meant.is_some() {
            return Ok(());
        }
        let quiet = std::mem::replace(&mut self.quiet, true);
        let meant = self.below_what_is_named();
        self.quiet = quiet;
        self.meant = Some(meant?);
        Ok(())
    }

    fn below_what_is_named(&mut self) -> Result<NodeSet, GraphError> {
        let mut roots = NodeSet::default();
        let mut made = Vec::new();
        for mut node in self.named().iter() {
            while let Some(derivation) = self.graph.nodes.derivation_of(node) {
                node = derivation;
            }
            if self.graph.is_derivation(node) {
                roots.insert(node);
            } else {
                made.push(node);
            }
        }
        self.learn_derivers(&made)?;
        let mut undecided = Vec::new();
        for node in made {
            let builders = self.all_builders(node);
            match self.recorded_builder(node) {
                Some(recorded) => drop(roots.insert(recorded)),
                None if builders.len() > 1 => undecided.push(builders),
                None => roots.extend(builders),
            }
        }
        // What is named without a choice decides about the rest.
        let meant = self.closure(&[Kind::Run], &roots, None, None)?;
        undecided.retain(|builders| !builders.iter().any(|builder| meant.contains(*builder)));
        roots.extend(undecided.iter().filter_map(|builders| self.first_in_order(builders)));
        self.closure(&[Kind::Run], &roots, None, None)
    }

    /// All derivations known to make a path.
    pub(crate) fn all_builders(&self, node: NodeId) -> Vec<NodeId> {
        let mut all = self.graph.known_derivers(node).to_vec();
        all.extend(self.recorded_builder(node).filter(|deriver| !all.contains(deriver)));
        all
    }

    /// The derivation recorded as having made a path, if some source has it.
    fn recorded_builder(&self, node: NodeId) -> Option<NodeId> {
        let recorded = self.graph.recorded_deriver(node);
        recorded.filter(|deriver| self.graph.derivation(*deriver).is_some())
    }

    fn first_in_order(&self, derivations: &[NodeId]) -> Option<NodeId> {
        derivations.iter().copied().min_by_key(|derivation| self.graph.path(*derivation))
    }

    pub(crate) fn learn_reads(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        self.learn_builders(nodes)?;
        let mut derivations = Vec::new();
        for &node in nodes {
            if self.builders.of(node).is_empty() && !self.graph.is_source(node) {
                self.note_no_deriver(node);
            }
            let builders = self.builders.of(node).iter();
            derivations.extend(builders.copied().filter(|drv| self.reads.get(*drv).is_none()));
        }
        derivations.sort_unstable();
        derivations.dedup();
        self.learn_derivations(&derivations)?;
        self.learn_input_derivations(&derivations)?;
        for derivation in derivations {
            let mut reads = self.inputs_of(derivation)?;
            reads.extend(self.exported_outputs(derivation)?);
            reads.sort_unstable();
            reads.dedup();
            self.reads.set(derivation, reads);
        }
        Ok(())
    }

    /// Learns the derivations whose outputs these read: only they know which paths those are.
    pub(crate) fn learn_input_derivations(
        &mut self,
        derivations: &[NodeId],
    ) -> Result<(), GraphError> {
        let mut inputs: Vec<(NodeId, Name)> = derivations
            .iter()
            .filter_map(|derivation| self.graph.derivation(*derivation))
            .flat_map(|derivation| derivation.inputs.iter().copied())
            .collect();
        inputs.sort_unstable_by_key(|(derivation, _)| *derivation);
        inputs.dedup();
        let direct: Vec<NodeId> = inputs.iter().map(|(derivation, _)| *derivation).collect();
        self.learn_derivations(&direct)?;
        inputs.retain(|(_, name)| self.graph.output_name(*name).contains('^'));
        for (derivation, name) in inputs {
            let name = self.graph.output_name(name);
            // `out^out`: what the first output is decides about the second.
            let parts: Vec<String> = name.split('^').map(str::to_owned).collect();
            let mut derivation = derivation;
            for part in parts.split_last().map(|(_, before)| before).unwrap_or_default() {
                derivation = self.resolve_step(derivation, part)?;
                self.learn_derivations(&[derivation])?;
            }
        }
        Ok(())
    }

    fn inputs_of(&mut self, derivation: NodeId) -> Result<Vec<NodeId>, GraphError> {
        let Some(record) = self.graph.derivation(derivation) else {
            self.note_unknown_derivation(derivation);
            return Ok(Vec::new());
        };
        let mut reads = record.sources.clone();
        for (input, name) in record.inputs.clone() {
            reads.push(self.resolve_input(input, name)?.1);
        }
        Ok(reads)
    }

    /// An output that is read, and the derivation that makes it, once what makes it was learnt
    /// ([`learn_input_derivations`](Self::learn_input_derivations)).
    pub(crate) fn resolve_input(
        &mut self,
        input: NodeId,
        name: Name,
    ) -> Result<(NodeId, NodeId), GraphError> {
        let name = self.graph.output_name(name);
        // Nearly all of them.
        if let Some(object) = self.graph.known_output(input, name) {
            return Ok((input, object));
        }
        let name = name.to_owned();
        let (mut derivation, mut object) = (input, input);
        for part in name.split('^') {
            derivation = object;
            if self.graph.is_derivation(derivation) {
                self.note_unknown_derivation(derivation);
            }
            object = self.resolve_step(derivation, part)?;
        }
        Ok((derivation, object))
    }

    /// The outputs that `exportReferencesGraph` wants to list.
    pub(crate) fn exported_outputs(
        &mut self,
        derivation: NodeId,
    ) -> Result<Vec<NodeId>, GraphError> {
        let exported = self.graph.derivation(derivation).map(|record| record.exported.as_slice());
        let exported: NodeSet = exported.unwrap_or_default().iter().copied().collect();
        if exported.is_empty() {
            return Ok(Vec::new());
        }
        let closure = self.closure(&[Kind::Run], &exported, None, None)?;
        Ok(self.outputs(&closure)?.iter().collect())
    }

    /// One output of a derivation that was asked for before.
    pub(crate) fn resolve_step(
        &mut self,
        derivation: NodeId,
        name: &str,
    ) -> Result<NodeId, GraphError> {
        let Some(record) = self.graph.derivation(derivation) else {
            return Ok(self.graph.nodes.output(derivation, name));
        };
        let found = self.graph.known_output(derivation, name);
        found.ok_or_else(|| GraphError::NoSuchOutput {
            derivation: self.graph.render(derivation),
            output: name.to_owned(),
            known: record.outputs.iter().map(|(output, _)| output.to_string()).collect(),
        })
    }
}
