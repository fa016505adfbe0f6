//! Answers from a graph that is filled while they are sought.

use std::collections::BTreeSet;

use ferry_formats::{StoreDir, StorePath};

use crate::edges::Edges;
use crate::error::{GraphError, Missing};
use crate::facts::{Facts, Ledger, Question};
use crate::graph::{Graph, Kind};
use crate::{NodeId, NodeSet};

/// A graph and the sources that it is filled from, in the order in which they are believed.
///
/// Every answer first has the sources asked for what it takes. What none of them knows is noted
/// in [`missing`](Self::missing), and the answer goes on without it: look there before you use
/// an answer.
pub struct Explorer<'a> {
    pub(crate) graph: Graph,
    sources: Vec<(u16, Box<dyn Facts + 'a>)>,
    pub(crate) asked: Asked,
    missing: BTreeSet<Missing>,
    unrecorded: BTreeSet<String>,
    /// While it is set, nothing that is missing is noted.
    pub(crate) quiet: bool,
    /// What the query names.
    named: NodeSet,
    /// The derivations that what is named is made from.
    pub(crate) meant: Option<NodeSet>,
    /// The derivations that make an object; a derivation stands for itself.
    pub(crate) builders: Edges,
    /// What a derivation reads when it is built.
    pub(crate) reads: Edges,
}

/// What the sources were asked already.
#[derive(Default)]
pub(crate) struct Asked {
    objects: NodeSet,
    sizes: NodeSet,
    derivations: NodeSet,
    pub(crate) derivers: NodeSet,
    evaluations: NodeSet,
    everything: bool,
}

impl<'a> Explorer<'a> {
    /// An empty graph of paths below `store_dir`.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            graph: Graph::new(store_dir),
            sources: Vec::new(),
            asked: Asked::default(),
            missing: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
            quiet: false,
            named: NodeSet::default(),
            meant: None,
            builders: Edges::default(),
            reads: Edges::default(),
        }
    }

    /// Adds a source. Where two disagree, the one added first is believed.
    pub fn add_source(&mut self, source: Box<dyn Facts + 'a>) {
        let number = self.graph.add_source(source.describe());
        self.sources.push((number, source));
    }

    /// What has been learnt so far.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The facts that answers took and no source had, in order.
    pub fn missing(&self) -> impl Iterator<Item = &Missing> {
        self.missing.iter()
    }

    /// The derivations that closures over evaluations began from and of which no evaluation was
    /// recorded.
    pub fn unrecorded(&self) -> impl Iterator<Item = &str> {
        self.unrecorded.iter().map(String::as_str)
    }

    /// The node of a store path.
    pub fn node(&mut self, path: &StorePath) -> NodeId {
        self.graph.nodes.path(path)
    }

    /// Says that a query names this. Where a path has several derivers, the one that is meant is
    /// the one that the things named are made from.
    pub fn name(&mut self, node: NodeId) {
        if self.named.insert(node) {
            self.meant = None;
        }
    }

    /// What the queries have named.
    #[must_use]
    pub fn named(&self) -> &NodeSet {
        &self.named
    }

    /// What the sources are called, for a message.
    #[must_use]
    pub fn describe_sources(&self) -> String {
        let names: Vec<String> = self.sources.iter().map(|(_, source)| source.describe()).collect();
        match names.as_slice() {
            [] => "no source".to_owned(),
            [only] => only.clone(),
            several => format!("any of {}", several.join(", ")),
        }
    }

    /// The outputs of a derivation by name, or `None` where no source has it.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn named_outputs(
        &mut self,
        derivation: NodeId,
    ) -> Result<Option<Vec<(String, NodeId)>>, GraphError> {
        self.learn_derivations(&[derivation])?;
        self.note_unknown_derivation(derivation);
        let record = self.graph.derivation(derivation);
        Ok(record.map(|record| {
            record.outputs.iter().map(|(name, object)| (name.to_string(), *object)).collect()
        }))
    }

    /// The object that an output is: its path, or `derivation^name` where that is not known.
    ///
    /// # Errors
    /// When there is no such output, or a source could not look.
    pub fn output(&mut self, derivation: NodeId, name: &str) -> Result<NodeId, GraphError> {
        self.learn_derivations(&[derivation])?;
        // What is an output of an output that is not built can be named, if nothing more.
        if self.graph.nodes.derivation_of(derivation).is_none() {
            self.note_unknown_derivation(derivation);
        }
        self.resolve_step(derivation, name)
    }

    /// Those objects that some source has.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn known(&mut self, nodes: &[NodeId]) -> Result<NodeSet, GraphError> {
        self.learn_objects(nodes)?;
        // A derivation that is in no database may still be in some file.
        let unknown = self.without(nodes, |graph, node| graph.run.get(node).is_some());
        let derivations: Vec<NodeId> =
            unknown.into_iter().filter(|node| self.graph.is_derivation(*node)).collect();
        self.learn_derivations(&derivations)?;
        let known = |node: &NodeId| self.graph.run.get(*node).is_some();
        Ok(nodes.iter().copied().filter(known).collect())
    }

    /// Every object that the sources can list.
    ///
    /// # Errors
    /// When a source could not look.
    pub fn everything(&mut self) -> Result<NodeSet, GraphError> {
        if !std::mem::replace(&mut self.asked.everything, true) {
            self.ask(Question::Everything, |_| true)?;
        }
        let known = (0..self.graph.len()).map(NodeId::from_index);
        Ok(known.filter(|node| self.graph.run.get(*node).is_some()).collect())
    }

    /// Makes sure that the edges of a kind that begin at these nodes are known.
    pub(crate) fn learn(&mut self, kind: Kind, nodes: &[NodeId]) -> Result<(), GraphError> {
        match kind {
            Kind::Run => self.learn_references(nodes),
            Kind::Build => self.learn_reads(nodes),
            Kind::Eval => self.learn_evaluations(nodes),
        }
    }

    /// Visits the other ends of the edges that were learnt.
    pub(crate) fn neighbours(&self, kind: Kind, node: NodeId, visit: &mut dyn FnMut(NodeId)) {
        if kind == Kind::Run {
            self.graph.run.of(node).iter().copied().for_each(visit);
            return;
        }
        for &builder in self.builders.of(node) {
            self.needs_of_builder(kind, builder, visit);
        }
    }

    /// Visits what a derivation reads, or what was needed before it could exist.
    pub(crate) fn needs_of_builder(
        &self,
        kind: Kind,
        builder: NodeId,
        visit: &mut dyn FnMut(NodeId),
    ) {
        match kind {
            Kind::Run => {}
            Kind::Build => self.reads.of(builder).iter().copied().for_each(visit),
            Kind::Eval => {
                self.graph.eval.of(builder).iter().copied().for_each(&mut *visit);
                self.producers(builder).into_iter().for_each(visit);
            }
        }
    }

    /// The derivations that make an object, once they were learnt.
    pub(crate) fn builders(&self, node: NodeId) -> &[NodeId] {
        self.builders.of(node)
    }

    /// Whether an evaluation of one of the object's builders was recorded.
    pub(crate) fn is_recorded(&self, node: NodeId) -> bool {
        self.builders.of(node).iter().any(|&builder| {
            self.graph.eval.get(builder).is_some() || !self.producers(builder).is_empty()
        })
    }

    pub(crate) fn note(&mut self, missing: Missing) {
        if !self.quiet {
            self.missing.insert(missing);
        }
    }

    pub(crate) fn note_unrecorded(&mut self, derivation: String) {
        if !self.quiet {
            self.unrecorded.insert(derivation);
        }
    }

    /// The derivations that make a derivation: it is an output itself, a *dynamic* one.
    pub(crate) fn producers(&self, derivation: NodeId) -> Vec<NodeId> {
        match self.graph.nodes.derivation_of(derivation) {
            Some(producer) => vec![producer],
            None => self.all_builders(derivation),
        }
    }

    fn learn_references(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        self.learn_objects(nodes)?;
        let unknown: Vec<NodeId> = self.without(nodes, |graph, node| graph.run.get(node).is_some());
        // A derivation that is in no database may still be in some file.
        let derivations: Vec<NodeId> =
            unknown.iter().copied().filter(|node| self.graph.is_derivation(*node)).collect();
        self.learn_derivations(&derivations)?;
        for node in unknown {
            if self.graph.run.get(node).is_none() {
                self.note_no_object(node);
            }
        }
        Ok(())
    }

    pub(crate) fn learn_objects(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        let wanted = fresh(&mut self.asked.objects, &self.graph, nodes);
        self.ask_about(&wanted, Question::Objects, |graph, node| graph.run.get(node).is_some())
    }

    /// Asks for the sizes of objects whose references were learnt from elsewhere, such as a `.drv`
    /// file, which made it superfluous to ask who is far away.
    pub(crate) fn learn_sizes(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        let unsized_nodes: Vec<NodeId> = nodes
            .iter()
            .copied()
            .filter(|node| self.graph.run.get(*node).is_some())
            .filter(|node| self.graph.nar_size(*node).is_none())
            .collect();
        let wanted = fresh(&mut self.asked.sizes, &self.graph, &unsized_nodes);
        self.ask_about(&wanted, Question::Objects, |graph, node| graph.nar_size(node).is_some())
    }

    pub(crate) fn learn_derivations(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        let wanted = fresh(&mut self.asked.derivations, &self.graph, nodes);
        // What a derivation says follows from its path: one answer is enough.
        for index in 0..self.sources.len() {
            let open = self.without(&wanted, |graph, node| graph.derivation(node).is_some());
            if open.is_empty() {
                break;
            }
            self.ask_one(index, Question::Derivations(&open))?;
        }
        Ok(())
    }

    pub(crate) fn note_unknown_derivation(&mut self, derivation: NodeId) {
        if self.graph.derivation(derivation).is_some() {
            return;
        }
        let text = self.graph.render(derivation);
        let is_output = self.graph.nodes.derivation_of(derivation).is_some();
        self.note(if is_output { Missing::Output(text) } else { Missing::Derivation(text) });
    }

    fn note_no_object(&mut self, node: NodeId) {
        let path = self.graph.render(node);
        if self.graph.nodes.derivation_of(node).is_some() {
            return self.note(Missing::Output(path));
        }
        let output_of = self.graph.known_derivers(node).first().and_then(|&derivation| {
            let outputs = &self.graph.derivation(derivation)?.outputs;
            let (name, _) = outputs.iter().find(|(_, object)| *object == node)?;
            Some((self.graph.render(derivation), name.to_string()))
        });
        self.note(Missing::Object { path, output_of });
    }

    pub(crate) fn note_no_deriver(&mut self, node: NodeId) {
        // What no source has at all is missing itself.
        if self.graph.run.get(node).is_none() && self.graph.recorded_deriver(node).is_none() {
            return self.note_no_object(node);
        }
        let recorded = self.graph.recorded_deriver(node).map(|drv| self.graph.render(drv));
        self.note(Missing::Deriver { path: self.graph.render(node), recorded });
    }

    pub(crate) fn learn_evaluations(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        self.learn_builders(nodes)?;
        let builders: Vec<NodeId> =
            nodes.iter().flat_map(|node| self.builders.of(*node).iter().copied()).collect();
        let wanted = fresh(&mut self.asked.evaluations, &self.graph, &builders);
        self.ask_about(&wanted, Question::Evaluations, |graph, node| {
            graph.eval.get(node).is_some()
        })?;
        self.learn_producers(&builders)
    }

    /// Finds out which of these derivations were made by another one.
    pub(crate) fn learn_producers(&mut self, nodes: &[NodeId]) -> Result<(), GraphError> {
        let derivations: Vec<NodeId> =
            nodes.iter().copied().filter(|node| self.graph.is_derivation(*node)).collect();
        let wanted = fresh(&mut self.asked.derivers, &self.graph, &derivations);
        // It is known to whoever has the other one, or only recorded, where the path was not
        // known before. No source that is far away is asked about what a file tells already.
        self.ask_about(&wanted, Question::Derivers, |_, _| false)?;
        self.learn_derivations(&wanted)?;
        self.learn_objects(&wanted)?;
        let recorded: Vec<NodeId> =
            wanted.iter().filter_map(|node| self.graph.recorded_deriver(*node)).collect();
        self.learn_derivations(&recorded)
    }

    /// Asks every source, those that are far away only about what nobody else knew.
    pub(crate) fn ask_about<'q>(
        &mut self,
        wanted: &'q [NodeId],
        question: impl Fn(&'q [NodeId]) -> Question<'q>,
        is_known: impl Fn(&Graph, NodeId) -> bool,
    ) -> Result<(), GraphError> {
        if wanted.is_empty() {
            return Ok(());
        }
        self.ask(question(wanted), |source| !source.is_remote())?;
        for index in 0..self.sources.len() {
            if !self.sources.get(index).is_some_and(|(_, source)| source.is_remote()) {
                continue;
            }
            let open = self.without(wanted, &is_known);
            if !open.is_empty() {
                let question = match question(wanted) {
                    Question::Objects(_) => Question::Objects(&open),
                    Question::Derivations(_) => Question::Derivations(&open),
                    Question::Derivers(_) => Question::Derivers(&open),
                    Question::Evaluations(_) => Question::Evaluations(&open),
                    Question::Everything => Question::Everything,
                };
                self.ask_one(index, question)?;
            }
        }
        Ok(())
    }

    fn ask(
        &mut self,
        question: Question<'_>,
        which: impl Fn(&dyn Facts) -> bool,
    ) -> Result<(), GraphError> {
        for index in 0..self.sources.len() {
            if self.sources.get(index).is_some_and(|(_, source)| which(source.as_ref())) {
                self.ask_one(index, question)?;
            }
        }
        Ok(())
    }

    fn ask_one(&mut self, index: usize, question: Question<'_>) -> Result<(), GraphError> {
        let Some((number, source)) = self.sources.get_mut(index) else { return Ok(()) };
        let mut ledger = Ledger { graph: &mut self.graph, source: *number, is_whole: true };
        source
            .learn(question, &mut ledger)
            .map_err(|error| GraphError::Source { name: source.describe(), source: error })?;
        if !ledger.is_whole {
            self.missing.insert(Missing::Listing(source.describe()));
        }
        Ok(())
    }

    pub(crate) fn without(
        &self,
        nodes: &[NodeId],
        known: impl Fn(&Graph, NodeId) -> bool,
    ) -> Vec<NodeId> {
        nodes.iter().copied().filter(|node| !known(&self.graph, *node)).collect()
    }
}

/// Those store paths that were not asked about before, each once.
pub(crate) fn fresh(asked: &mut NodeSet, graph: &Graph, nodes: &[NodeId]) -> Vec<NodeId> {
    nodes
        .iter()
        .copied()
        .filter(|node| graph.nodes.derivation_of(*node).is_none() && asked.insert(*node))
        .collect()
}
