//! How wanted paths come to be where some are offered by substituters and some are not.
//!
//! The rules are those by which Nix plans what to substitute and what to build (`queryMissing` in
//! its `misc.cc`):
//!
//! * A path that is offered takes the offer, and all that it refers to.
//! * The outputs of a derivation that are wanted together are substituted if all of them are
//!   offered; else the derivation is built. So is one that says that it is never substituted.
//! * What is built takes the sources that it reads, and the outputs that it reads of other
//!   derivations.
//!
//! Where Nix gives up, there is more to tell: a path that something offered refers to, and that
//! nobody offers, is built too if a derivation is known that makes it.
//!
//! Nothing is asked here. A [`Realiser`] says which paths to ask about, each once, and takes
//! answers in any order; what comes out does not depend on it. It asks only about what is needed
//! for certain, so a path below one that turns out to be offered is never asked about.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::GraphError;
use crate::explore::Explorer;
use crate::{NodeId, NodeSet};

/// Works out how wanted paths come to be.
#[derive(Default)]
pub struct Realiser {
    /// Whether derivations are substituted that say that they are not.
    always_substitute: bool,
    asked: NodeSet,
    /// Of what is offered, what it refers to.
    offered: HashMap<NodeId, Box<[NodeId]>>,
    refused: NodeSet,
    /// To be asked about, and not handed out yet.
    questions: Vec<NodeId>,
    /// Paths that are wanted for themselves, whoever makes them.
    wanted: NodeSet,
    substituted: NodeSet,
    /// Those of `substituted` of which the references are to be looked at.
    unfollowed: Vec<NodeId>,
    requests: Vec<Request>,
    /// By the derivation and the outputs, in order.
    known_requests: HashSet<(NodeId, Vec<NodeId>)>,
    /// The requests that wait for the answer about a path.
    waiting: HashMap<NodeId, Vec<usize>>,
    /// What each output is made by that was read as one.
    makers: HashMap<NodeId, NodeId>,
    /// Outputs that nobody is asked about: they have no path yet, or are never substituted.
    unasked: NodeSet,
    sources: NodeSet,
    built: NodeSet,
    /// Those of `built` of which the inputs are to be looked at.
    unread: Vec<NodeId>,
    /// Paths that nobody offers, and whose makers are to be found.
    orphans: Vec<NodeId>,
}

/// Outputs of one derivation that are wanted together.
struct Request {
    derivation: NodeId,
    outputs: Vec<NodeId>,
    unanswered: usize,
}

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// It is offered, and needed: it would be fetched.
    Substituted,
    /// It is offered, and comes of a build that is needed for another output all the same.
    Spare,
    /// It is not offered, and this derivation makes it.
    Built(NodeId),
    /// It is not offered, and this derivation fetches it: its output is fixed.
    Fetched(NodeId),
    /// Whoever wants it builds it, offered or not: its derivation, this one, says so.
    BuiltAnyway(NodeId),
    /// It is not offered, and nothing makes it: a source.
    Source,
    /// It is not offered, and is a derivation, which only evaluating makes.
    Derivation,
    /// It is not offered, and nobody knows what makes it.
    Unknown,
}

impl Supply {
    /// Whether nobody offers it who should: what is built anyway need not be offered.
    #[must_use]
    pub fn is_missing(self) -> bool {
        match self {
            Self::Substituted | Self::Spare | Self::BuiltAnyway(_) => false,
            Self::Built(_) | Self::Fetched(_) | Self::Source | Self::Derivation | Self::Unknown => {
                true
            }
        }
    }
}

/// One thing that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// What it is.
    pub node: NodeId,
    /// Where it comes from.
    pub supply: Supply,
}

/// How wanted paths come to be.
#[derive(Clone, Debug, Default)]
pub struct Realisation {
    /// Everything that is needed, in the order of store paths.
    pub needed: Vec<Needed>,
    /// The derivations to build, those included that fetch.
    pub built: NodeSet,
    /// Paths that are substituted although something is not offered that they refer to, which
    /// stands behind each.
    pub incomplete: Vec<(NodeId, NodeId)>,
    /// All that are substituted and refer to something that is not offered, at any distance.
    pub not_whole: NodeSet,
}

impl Realiser {
    /// Nothing is wanted yet. `always_substitute` is Nix's `always-allow-substitutes`.
    #[must_use]
    pub fn new(always_substitute: bool) -> Self {
        Self { always_substitute, ..Self::default() }
    }

    /// Wants a path for itself, or an output whose path is not known.
    pub fn want(&mut self, explorer: &Explorer<'_>, node: NodeId) {
        if let Some(derivation) = explorer.graph.nodes.derivation_of(node) {
            self.want_outputs(explorer, derivation, vec![node]);
        } else if self.wanted.insert(node) {
            self.ask(node);
            if self.offered.contains_key(&node) {
                self.substitute(node);
            } else if self.refused.contains(node) {
                self.orphans.push(node);
            }
        }
    }

    /// Wants outputs of one derivation, together.
    pub fn want_outputs(
        &mut self,
        explorer: &Explorer<'_>,
        derivation: NodeId,
        mut outputs: Vec<NodeId>,
    ) {
        outputs.sort_unstable();
        outputs.dedup();
        if !self.known_requests.insert((derivation, outputs.clone())) {
            return;
        }
        for &output in &outputs {
            self.made_by(explorer, output, derivation);
        }
        let record = explorer.graph.derivation(derivation);
        let never = record.is_some_and(|record| record.never_substituted);
        let has_no_path = |node: &NodeId| explorer.graph.nodes.derivation_of(*node).is_some();
        if never && !self.always_substitute || outputs.iter().any(has_no_path) {
            self.unasked.extend(outputs);
            self.build(derivation);
            return;
        }
        let number = self.requests.len();
        let mut unanswered = 0;
        for &output in &outputs {
            self.ask(output);
            if !self.offered.contains_key(&output) && !self.refused.contains(output) {
                unanswered += 1;
                self.waiting.entry(output).or_default().push(number);
            }
        }
        self.requests.push(Request { derivation, outputs, unanswered });
        self.decide(number);
    }

    /// What to ask about now. It comes to an end once nothing is left here and every question
    /// was [answered](Self::answer).
    ///
    /// # Errors
    /// When a source of facts could not look, and when an output is read that there is not.
    pub fn questions(&mut self, explorer: &mut Explorer<'_>) -> Result<Vec<NodeId>, GraphError> {
        loop {
            if let Some(node) = self.unfollowed.pop() {
                let references = self.offered.get(&node).cloned().unwrap_or_default();
                if explorer.graph.is_derivation(node) {
                    // Derivations and sources are all that a derivation refers to.
                    self.sources.extend(references.iter().copied());
                }
                references.iter().for_each(|reference| self.want(explorer, *reference));
            } else if !self.unread.is_empty() {
                let unread = std::mem::take(&mut self.unread);
                explorer.learn_derivations(&unread)?;
                explorer.learn_input_derivations(&unread)?;
                for derivation in unread {
                    self.read(explorer, derivation)?;
                }
            } else if !self.orphans.is_empty() {
                let orphans = std::mem::take(&mut self.orphans);
                explorer.learn_builders(&orphans)?;
                for orphan in orphans {
                    // A derivation makes its outputs, and not itself.
                    let makers = explorer.builders(orphan).first();
                    if let Some(&maker) = makers.filter(|maker| **maker != orphan) {
                        self.made_by(explorer, orphan, maker);
                        self.build(maker);
                    }
                }
            } else {
                return Ok(std::mem::take(&mut self.questions));
            }
        }
    }

    /// Takes in what was found out about a path: if it is offered, what it refers to.
    pub fn answer(&mut self, node: NodeId, offer: Option<Box<[NodeId]>>) {
        let is_wanted = self.wanted.contains(node);
        match offer {
            Some(references) => {
                self.offered.insert(node, references);
                if is_wanted {
                    self.substitute(node);
                }
            }
            None => {
                self.refused.insert(node);
                if is_wanted {
                    self.orphans.push(node);
                }
            }
        }
        for number in self.waiting.remove(&node).unwrap_or_default() {
            if let Some(request) = self.requests.get_mut(number) {
                request.unanswered -= 1;
            }
            self.decide(number);
        }
    }

    /// How everything comes to be, once all questions are answered.
    #[must_use]
    pub fn finish(self, explorer: &Explorer<'_>) -> Realisation {
        let mut needed = self.asked.clone();
        needed.union_with(&self.unasked);
        let supply = |node| Needed { node, supply: self.supply(explorer, node) };
        let mut incomplete = Vec::new();
        let mut referrers: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        for node in explorer.sorted(&self.substituted) {
            for &reference in self.offered.get(&node).into_iter().flatten() {
                if self.refused.contains(reference) {
                    incomplete.push((node, reference));
                }
                referrers.entry(reference).or_default().push(node);
            }
        }
        let mut not_whole = NodeSet::default();
        let mut open: Vec<NodeId> = incomplete.iter().map(|(node, _)| *node).collect();
        while let Some(node) = open.pop() {
            if not_whole.insert(node) {
                open.extend(referrers.get(&node).into_iter().flatten());
            }
        }
        Realisation {
            needed: explorer.sorted(&needed).into_iter().map(supply).collect(),
            built: self.built,
            incomplete,
            not_whole,
        }
    }

    fn supply(&self, explorer: &Explorer<'_>, node: NodeId) -> Supply {
        if self.substituted.contains(node) {
            return Supply::Substituted;
        }
        if self.offered.contains_key(&node) {
            return Supply::Spare;
        }
        let graph = &explorer.graph;
        let maker = self.makers.get(&node).copied();
        let has_path = graph.nodes.derivation_of(node).is_none();
        match maker.filter(|maker| graph.derivation(*maker).is_some()) {
            Some(maker) if has_path && !self.refused.contains(node) => Supply::BuiltAnyway(maker),
            Some(maker) if graph.is_fixed_output(maker) => Supply::Fetched(maker),
            Some(maker) => Supply::Built(maker),
            None if graph.is_derivation(node) => Supply::Derivation,
            None if self.sources.contains(node) || explorer.is_source(node) => Supply::Source,
            None => Supply::Unknown,
        }
    }

    fn ask(&mut self, node: NodeId) {
        if self.asked.insert(node) {
            self.questions.push(node);
        }
    }

    fn substitute(&mut self, node: NodeId) {
        if self.substituted.insert(node) {
            self.unfollowed.push(node);
        }
    }

    fn build(&mut self, derivation: NodeId) {
        if self.built.insert(derivation) {
            self.unread.push(derivation);
        }
    }

    /// Notes who makes an output. Where there are several, it is always the same one of them.
    fn made_by(&mut self, explorer: &Explorer<'_>, output: NodeId, derivation: NodeId) {
        let known = self.makers.entry(output).or_insert(derivation);
        if explorer.graph.nodes.compare(derivation, *known) == Ordering::Less {
            *known = derivation;
        }
    }

    /// Substitutes what a request asks for, or builds it, once it is known which.
    fn decide(&mut self, number: usize) {
        let Some(request) = self.requests.get(number) else { return };
        if request.outputs.iter().any(|output| self.refused.contains(*output)) {
            self.build(request.derivation);
        } else if request.unanswered == 0 {
            for output in request.outputs.clone() {
                self.substitute(output);
            }
        }
    }

    /// Wants what a build of a derivation takes.
    fn read(&mut self, explorer: &mut Explorer<'_>, derivation: NodeId) -> Result<(), GraphError> {
        let Some(record) = explorer.graph.derivation(derivation) else {
            explorer.note_unknown_derivation(derivation);
            return Ok(());
        };
        let (sources, inputs) = (record.sources.clone(), record.inputs.clone());
        for source in sources {
            self.sources.insert(source);
            self.want(explorer, source);
        }
        let mut outputs: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (input, name) in inputs {
            let (maker, output) = explorer.resolve_input(input, name)?;
            outputs.entry(maker).or_default().push(output);
        }
        for (maker, outputs) in outputs {
            self.want_outputs(explorer, maker, outputs);
        }
        for exported in explorer.exported_outputs(derivation)? {
            self.want(explorer, exported);
        }
        Ok(())
    }
}
