//! Where facts come from: one trait, and what an answer may hold.

use ferry_formats::derivation::{self, Derivation, DerivationError};
use ferry_formats::{StoreDir, StorePath};

use crate::graph::Graph;
use crate::{NodeId, Object};

/// What a source could not do, in its own words.
pub type FactsError = Box<dyn std::error::Error + Send + Sync>;

/// Something that knows facts: a store's database, its `.drv` files, a binary cache, a bundle, a
/// list made by `exportReferencesGraph`, a recorded evaluation.
pub trait Facts {
    /// What to call it in a message, such as ``local store `/nix` ``.
    fn describe(&self) -> String;

    /// Whether an answer costs a round trip over a network. Such a source is asked only about
    /// what no source before it knew.
    fn is_remote(&self) -> bool {
        false
    }

    /// Enters what it knows of the answer. It may enter more than was asked for, where that is
    /// cheaper than being asked again; what it does not know it leaves out.
    ///
    /// # Errors
    /// When it could not look: that is not the same as not knowing.
    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError>;
}

/// What a source is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// References, size and deriver of these: [`Ledger::object`].
    Objects(&'a [NodeId]),
    /// What these `.drv` files say: [`Ledger::derivation`].
    Derivations(&'a [NodeId]),
    /// Which derivations have these as outputs: [`Ledger::deriver`].
    Derivers(&'a [NodeId]),
    /// What had to be there before these derivations could exist: [`Ledger::evaluation`].
    Evaluations(&'a [NodeId]),
    /// Every object that it has, as for [`Question::Objects`]. A source that has objects and cannot
    /// list them says so: [`Ledger::cannot_list`].
    Everything,
}

/// What a source knows of one store object.
#[derive(Clone, Copy, Debug, Default)]
pub struct ObjectFacts<'a> {
    /// What it refers to; whether it is among them itself makes no difference.
    pub references: &'a [NodeId],
    /// Size of its NAR in bytes.
    pub nar_size: Option<u64>,
    /// The derivation that is recorded as having made it.
    pub deriver: Option<NodeId>,
    /// Whether its path follows from its content; `None` where the source does not say.
    pub content_addressed: Option<bool>,
}

/// What a `.drv` file says, as far as the graph wants to know.
#[derive(Clone, Debug, Default)]
pub struct DerivationFacts {
    /// The outputs, with the path where it is known before building.
    pub outputs: Vec<(String, Option<StorePath>)>,
    /// Whether it is a fixed-output derivation.
    pub fixed_output: bool,
    /// The outputs it reads: a derivation and an output's name. An output of a derivation that
    /// is an output itself has the names one behind the other: `out^out`.
    pub inputs: Vec<(StorePath, String)>,
    /// The sources it reads.
    pub sources: Vec<StorePath>,
    /// Derivations that `exportReferencesGraph` names: Nix wants the outputs of every derivation
    /// in their closures to be there.
    pub exported: Vec<StorePath>,
    /// Whether it says that it is always to be built, and never substituted.
    pub never_substituted: bool,
    /// Where a fixed output is fetched from.
    pub urls: Vec<String>,
}

impl DerivationFacts {
    /// Takes them from a parsed derivation.
    ///
    /// # Errors
    /// When a fixed output's path cannot be computed.
    pub fn of(derivation: &Derivation) -> Result<Self, DerivationError> {
        let mut inputs = Vec::with_capacity(derivation.input_derivations().len());
        for (path, input) in derivation.input_derivations() {
            let mut chain: Vec<&str> = Vec::new();
            for node in input.walk() {
                if let Some(followed) = node.dynamic_output() {
                    chain.truncate(node.depth().saturating_sub(1));
                    chain.push(followed);
                }
                for name in node.input().outputs() {
                    let mut names = chain.clone();
                    names.push(name);
                    inputs.push((path.clone(), names.join("^")));
                }
            }
        }
        let fixed_output = derivation.is_fixed_output().unwrap_or(false);
        Ok(Self {
            outputs: derivation::outputs(derivation)?,
            fixed_output,
            inputs,
            sources: derivation.input_sources().iter().cloned().collect(),
            exported: derivation::exported_derivations(derivation),
            never_substituted: !derivation::allows_substitutes(derivation),
            urls: if fixed_output { derivation::fetched_urls(derivation) } else { Vec::new() },
        })
    }
}

/// Two sources that do not agree about an object. The one asked first is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The object, written out.
    pub object: String,
    /// What they differ in: `references` or `NAR size`.
    pub about: &'static str,
    /// The source that is believed.
    pub believed: String,
    /// The one that says otherwise.
    pub other: String,
}

/// Where one source enters what it knows.
pub struct Ledger<'a> {
    pub(crate) graph: &'a mut Graph,
    /// The number of the source that writes.
    pub(crate) source: u16,
    /// Whether that source has answered with all that it has.
    pub(crate) is_whole: bool,
}

impl Ledger<'_> {
    /// The directory that store paths begin with.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        self.graph.store_dir()
    }

    /// The node of a store path, a new one if need be.
    pub fn node(&mut self, path: &StorePath) -> NodeId {
        self.graph.nodes.path(path)
    }

    /// The store path that a node of a question stands for, if its path is known.
    #[must_use]
    pub fn path(&self, node: NodeId) -> Option<StorePath> {
        match self.graph.object(node) {
            Some(Object::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// Notes that the source has objects that it cannot list.
    pub fn cannot_list(&mut self) {
        self.is_whole = false;
    }

    /// The names of those outputs of a derivation of which no source knew the path so far.
    #[must_use]
    pub fn open_outputs(&self, derivation: NodeId) -> Vec<String> {
        let outputs = self.graph.derivation(derivation).map(|record| record.outputs.as_slice());
        let is_open = |object: NodeId| self.graph.nodes.derivation_of(object).is_some();
        let open = outputs.unwrap_or_default().iter().filter(|(_, object)| is_open(*object));
        open.map(|(name, _)| name.to_string()).collect()
    }

    /// Enters what is known of an object that this source has.
    pub fn object(&mut self, node: NodeId, facts: &ObjectFacts<'_>) {
        self.graph.enter_object(self.source, node, facts);
    }

    /// Enters what a `.drv` file says.
    pub fn derivation(&mut self, node: NodeId, facts: &DerivationFacts) {
        self.graph.enter_derivation(self.source, node, facts);
    }

    /// Enters that `output` is an output of `derivation`, whose file this source has.
    pub fn deriver(&mut self, output: NodeId, derivation: NodeId) {
        self.graph.enter_deriver(output, derivation);
    }

    /// Enters the path that an output got which has none before it is built.
    pub fn realised(&mut self, derivation: NodeId, output: &str, path: NodeId) {
        self.graph.enter_realised(derivation, output, path);
    }

    /// Enters what evaluating `derivation` wanted to have. `fragments` are those of `needs` that
    /// it had built (import-from-derivation).
    pub fn evaluation(&mut self, derivation: NodeId, needs: &[NodeId], fragments: &[NodeId]) {
        self.graph.enter_evaluation(derivation, needs, fragments);
    }
}
