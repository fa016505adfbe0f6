//! The graph: what has been learnt so far.

use std::collections::{HashMap, HashSet};

use ferry_formats::{StoreDir, StorePath};

use crate::edges::Edges;
use crate::facts::{DerivationFacts, Disagreement, ObjectFacts};
use crate::node::{NodeId, Nodes, Object};
use crate::set::NodeSet;

/// No size, no record, no deriver: what the numbers below say where nothing is known.
const UNKNOWN: u32 = u32::MAX;
const UNKNOWN_SIZE: u64 = u64::MAX;

/// A kind of dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The references of a store object.
    Run,
    /// What a derivation reads when it is built.
    Build,
    /// What had to be there before a derivation could exist.
    Eval,
}

impl Kind {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Run, Self::Build, Self::Eval];

    /// `run`, `build` or `eval`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Build => "build",
            Self::Eval => "eval",
        }
    }
}

/// What a `.drv` file says, by number.
pub(crate) struct Derivation {
    pub(crate) fixed_output: bool,
    /// Output names and what they stand for: a path, or an output whose path is not known.
    pub(crate) outputs: Vec<(Box<str>, NodeId)>,
    /// A derivation, and which of its outputs.
    pub(crate) inputs: Vec<(NodeId, Name)>,
    pub(crate) sources: Vec<NodeId>,
    pub(crate) exported: Vec<NodeId>,
    pub(crate) never_substituted: bool,
    pub(crate) urls: Box<[String]>,
}

/// An output's name, by number: there are few of them, and many who use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(u32);

/// Store objects and the three kinds of edges between them, as far as they have been learnt.
pub struct Graph {
    store_dir: StoreDir,
    pub(crate) nodes: Nodes,
    /// References, the object itself left out.
    pub(crate) run: Edges,
    /// Who said so, for each node; another source may say otherwise.
    said_by: Vec<u16>,
    sizes: Vec<u64>,
    /// Who said how large it is: perhaps somebody else.
    sized_by: Vec<u16>,
    content_addressed: NodeSet,
    input_addressed: NodeSet,
    recorded_derivers: Vec<u32>,
    /// All derivations known to have a path as an output.
    derivers: HashMap<NodeId, Vec<NodeId>>,
    derivations: Vec<Derivation>,
    /// Node of a `.drv` to its place in `derivations`.
    records: Vec<u32>,
    names: Vec<Box<str>>,
    name_numbers: HashMap<Box<str>, Name>,
    /// What some derivation reads as a source.
    input_sources: NodeSet,
    realised: HashMap<(NodeId, Box<str>), NodeId>,
    pub(crate) eval: Edges,
    pub(crate) fragments: Edges,
    sources: Vec<String>,
    disagreements: Vec<Disagreement>,
    disagreed: HashSet<(NodeId, &'static str)>,
}

impl Graph {
    /// A graph that knows nothing, of paths below `store_dir`.
    #[must_use]
    pub fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            nodes: Nodes::default(),
            run: Edges::default(),
            said_by: Vec::new(),
            sizes: Vec::new(),
            sized_by: Vec::new(),
            content_addressed: NodeSet::default(),
            input_addressed: NodeSet::default(),
            recorded_derivers: Vec::new(),
            derivers: HashMap::new(),
            derivations: Vec::new(),
            records: Vec::new(),
            names: Vec::new(),
            name_numbers: HashMap::new(),
            input_sources: NodeSet::default(),
            realised: HashMap::new(),
            eval: Edges::default(),
            fragments: Edges::default(),
            sources: Vec::new(),
            disagreements: Vec::new(),
            disagreed: HashSet::new(),
        }
    }

    /// The directory that store paths begin with.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    /// How many nodes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The node of a store path, if it has been heard of.
    #[must_use]
    pub fn find(&self, path: &StorePath) -> Option<NodeId> {
        self.nodes.find(path)
    }

    /// What a node stands for; `None` for a node of another graph.
    #[must_use]
    pub fn object(&self, node: NodeId) -> Option<Object> {
        self.nodes.object(node)
    }

    /// The store path of a node, unless it is an output whose path is not known.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Option<StorePath> {
        match self.object(node) {
            Some(Object::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// The name without the digest; of an output whose path is not known, the output's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        self.nodes.name(node)
    }

    /// The node written out: `/nix/store/…`, or `/nix/store/….drv^out`.
    #[must_use]
    pub fn render(&self, node: NodeId) -> String {
        self.nodes.render(self.store_dir.as_str(), node)
    }

    /// Whether it is the path of a derivation.
    #[must_use]
    pub fn is_derivation(&self, node: NodeId) -> bool {
        self.nodes.is_derivation(node)
    }

    /// Whether it is the path of a derivation with a fixed output, as far as its file is known.
    #[must_use]
    pub fn is_fixed_output(&self, derivation: NodeId) -> bool {
        self.derivation(derivation).is_some_and(|derivation| derivation.fixed_output)
    }

    /// Where a derivation with a fixed output fetches it from, as far as that is known.
    #[must_use]
    pub fn urls(&self, derivation: NodeId) -> &[String] {
        self.derivation(derivation).map(|derivation| &*derivation.urls).unwrap_or_default()
    }

    /// Size of its NAR in bytes, if a source has said it.
    #[must_use]
    pub fn nar_size(&self, node: NodeId) -> Option<u64> {
        self.sizes.get(node.index()).copied().filter(|size| *size != UNKNOWN_SIZE)
    }

    /// What it refers to, itself left out, if a source has said it.
    #[must_use]
    pub fn references(&self, node: NodeId) -> Option<&[NodeId]> {
        self.run.get(node)
    }

    /// Where sources did not agree.
    #[must_use]
    pub fn disagreements(&self) -> &[Disagreement] {
        &self.disagreements
    }

    pub(crate) fn add_source(&mut self, name: String) -> u16 {
        self.sources.push(name);
        u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX)
    }

    pub(crate) fn derivation(&self, node: NodeId) -> Option<&Derivation> {
        let record = *self.records.get(node.index())?;
        self.derivations.get(record as usize)
    }

    /// What an output is, if the derivation's file is known and names it.
    pub(crate) fn known_output(&self, derivation: NodeId, name: &str) -> Option<NodeId> {
        let outputs = &self.derivation(derivation)?.outputs;
        outputs.iter().find(|(output, _)| **output == *name).map(|(_, object)| *object)
    }

    pub(crate) fn recorded_deriver(&self, node: NodeId) -> Option<NodeId> {
        self.recorded_derivers
            .get(node.index())
            .filter(|node| **node != UNKNOWN)
            .map(|&n| NodeId(n))
    }

    /// The derivations known to have this as an output, in the order they were learnt.
    pub(crate) fn known_derivers(&self, node: NodeId) -> &[NodeId] {
        self.derivers.get(&node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether no derivation makes it: its path follows from its content, or a derivation reads
    /// it as a source; and nobody is known to have made it.
    pub(crate) fn is_source(&self, node: NodeId) -> bool {
        self.recorded_deriver(node).is_none()
            && self.known_derivers(node).is_empty()
            && (self.content_addressed.contains(node) || self.input_sources.contains(node))
    }

    /// Whether a source says that its path does not follow from its content.
    pub(crate) fn is_input_addressed(&self, node: NodeId) -> bool {
        self.input_addressed.contains(node)
    }

    /// The text of an output's name: `out`, or `out^out` for an output of an output.
    pub(crate) fn output_name(&self, name: Name) -> &str {
        self.names.get(name.0 as usize).map(AsRef::as_ref).unwrap_or_default()
    }

    pub(crate) fn enter_object(&mut self, source: u16, node: NodeId, facts: &ObjectFacts<'_>) {
        self.enter_references(source, node, facts.references);
        if self.is_derivation(node) {
            // Derivations and sources are all that a derivation refers to.
            self.input_sources.extend(facts.references.iter().copied());
        }
        if let Some(size) = facts.nar_size {
            let known = self.nar_size(node);
            let known_by = self.sized_by.get(node.index()).copied().unwrap_or(u16::MAX);
            if known.is_some_and(|known| known != size) {
                self.disagree(node, "NAR size", known_by, source);
            }
            if known.is_none() || source < known_by {
                put(&mut self.sizes, node, size, UNKNOWN_SIZE);
                put(&mut self.sized_by, node, source, u16::MAX);
            }
        }
        if let (Some(deriver), None) = (facts.deriver, self.recorded_deriver(node)) {
            put(&mut self.recorded_derivers, node, deriver.0, UNKNOWN);
        }
        match facts.content_addressed {
            Some(true) => drop(self.content_addressed.insert(node)),
            Some(false) => drop(self.input_addressed.insert(node)),
            None => {}
        }
    }

    fn enter_references(&mut self, source: u16, node: NodeId, references: &[NodeId]) {
        let others = || references.iter().copied().filter(|reference| *reference != node);
        let known_by = self.said_by.get(node.index()).copied().unwrap_or(u16::MAX);
        let Some(known) = self.run.get(node) else {
            self.run.set(node, others());
            put(&mut self.said_by, node, source, u16::MAX);
            return;
        };
        if known_by == source || sorted(known.iter().copied()) == sorted(others()) {
            return;
        }
        self.disagree(node, "references", known_by, source);
        // The source added first is believed, even where another one volunteered.
        if source < known_by {
            self.run.replace(node, others());
            put(&mut self.said_by, node, source, u16::MAX);
        }
    }

    fn disagree(&mut self, node: NodeId, about: &'static str, known_by: u16, source: u16) {
        if known_by == source || !self.disagreed.insert((node, about)) {
            return;
        }
        let (believed, other) = (known_by.min(source), known_by.max(source));
        let name = |number: u16| self.sources.get(usize::from(number)).cloned().unwrap_or_default();
        self.disagreements.push(Disagreement {
            object: self.render(node),
            about,
            believed: name(believed),
            other: name(other),
        });
    }

    pub(crate) fn enter_derivation(&mut self, source: u16, node: NodeId, facts: &DerivationFacts) {
        let inputs: Vec<(NodeId, Name)> = facts
            .inputs
            .iter()
            .map(|(path, name)| (self.nodes.path(path), self.intern_name(name)))
            .collect();
        let sources: Vec<NodeId> = facts.sources.iter().map(|path| self.nodes.path(path)).collect();
        // A derivation refers to what it reads and to nothing else.
        let mut references: Vec<NodeId> = inputs
            .iter()
            .map(|(derivation, _)| *derivation)
            .chain(sources.iter().copied())
            .collect();
        references.sort_unstable();
        references.dedup();
        self.enter_references(source, node, &references);
        if self.derivation(node).is_some() {
            return;
        }
        self.input_sources.extend(sources.iter().copied());
        let outputs = facts
            .outputs
            .iter()
            .map(|(name, path)| {
                let object = match path {
                    Some(path) => self.nodes.path(path),
                    None => match self.realised.get(&(node, Box::from(name.as_str()))) {
                        Some(&realised) => realised,
                        None => self.nodes.output(node, name),
                    },
                };
                self.enter_deriver(object, node);
                (Box::from(name.as_str()), object)
            })
            .collect();
        let exported = facts.exported.iter().map(|path| self.nodes.path(path)).collect();
        put(&mut self.records, node, NodeId::from_index(self.derivations.len()).0, UNKNOWN);
        self.derivations.push(Derivation {
            fixed_output: facts.fixed_output,
            outputs,
            inputs,
            sources,
            exported,
            never_substituted: facts.never_substituted,
            urls: facts.urls.clone().into(),
        });
    }

    pub(crate) fn enter_deriver(&mut self, output: NodeId, derivation: NodeId) {
        let known = self.derivers.entry(output).or_default();
        if !known.contains(&derivation) {
            known.push(derivation);
        }
    }

    pub(crate) fn enter_realised(&mut self, derivation: NodeId, output: &str, path: NodeId) {
        let path = *self.realised.entry((derivation, Box::from(output))).or_insert(path);
        self.enter_deriver(path, derivation);
        // What its file says may be known already.
        let Some(&record) = self.records.get(derivation.index()) else { return };
        let Some(record) = self.derivations.get_mut(record as usize) else { return };
        for (_, object) in record.outputs.iter_mut().filter(|(name, _)| **name == *output) {
            if self.nodes.derivation_of(*object).is_some() {
                *object = path;
            }
        }
    }

    pub(crate) fn enter_evaluation(
        &mut self,
        derivation: NodeId,
        needs: &[NodeId],
        fragments: &[NodeId],
    ) {
        self.eval.set(derivation, needs.iter().copied());
        self.fragments.set(derivation, fragments.iter().copied());
    }

    fn intern_name(&mut self, text: &str) -> Name {
        if let Some(&name) = self.name_numbers.get(text) {
            return name;
        }
        let name = Name(NodeId::from_index(self.names.len()).0);
        self.names.push(Box::from(text));
        self.name_numbers.insert(Box::from(text), name);
        name
    }
}

/// In order, each once.
fn sorted(nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

fn put<T: Copy>(values: &mut Vec<T>, node: NodeId, value: T, unknown: T) {
    if values.len() <= node.index() {
        values.resize(node.index() + 1, unknown);
    }
    if let Some(place) = values.get_mut(node.index()) {
        *place = value;
    }
}
