//! The paths that outputs got which have none before they are built, as somebody else knows them.

use ferry_formats::StorePath;
use ferry_formats::build_trace::DrvOutput;
use ferry_formats::realisation::{self, RealisationHashes};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, Question};

use crate::realisations::derivation_in;
use crate::{Result, Store};

/// Looks outputs up, each under all that it may be filed under.
type Lookup<'a> = dyn FnMut(&[Vec<DrvOutput>]) -> Result<Vec<Option<StorePath>>> + 'a;

/// The facts of a source of derivations; and of their outputs whose paths it does not know, those
/// paths that somebody else knows.
pub struct RealisedIn<'a> {
    facts: Box<dyn Facts + 'a>,
    texts: &'a dyn Store,
    lookup: Box<Lookup<'a>>,
    hashes: RealisationHashes,
}

impl<'a> RealisedIn<'a> {
    /// `texts` has the derivations that `facts` knows. `lookup` is given outputs, each under all
    /// that it may be filed under, and answers in the same order.
    #[must_use]
    pub fn new(
        facts: Box<dyn Facts + 'a>,
        texts: &'a dyn Store,
        lookup: impl FnMut(&[Vec<DrvOutput>]) -> Result<Vec<Option<StorePath>>> + 'a,
    ) -> Self {
        let hashes = RealisationHashes::default();
        Self { facts, texts, lookup: Box::new(lookup), hashes }
    }

    fn enter(&mut self, derivations: &[NodeId], ledger: &mut Ledger<'_>) -> Result<()> {
        let (mut open, mut keys) = (Vec::new(), Vec::new());
        for &node in derivations {
            let names = ledger.open_outputs(node);
            let Some(path) = ledger.path(node).filter(|_| !names.is_empty()) else { continue };
            let filed_under = self.filed_under(&path)?;
            for name in names {
                let of = filed_under.iter().filter_map(|key| DrvOutput::new(key, &name).ok());
                keys.push(of.collect());
                open.push((node, name));
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let found = (self.lookup)(&keys)?;
        for ((derivation, name), path) in open.iter().zip(found) {
            if let Some(path) = path {
                let path = ledger.node(&path);
                ledger.realised(*derivation, name, path);
            }
        }
        Ok(())
    }

    /// Nix up to 2.34 files a derivation under its hash, and later versions under its path.
    fn filed_under(&mut self, path: &StorePath) -> Result<Vec<String>> {
        let texts = self.texts;
        let mut parse = |path: &StorePath| derivation_in(texts, path);
        let Some(parsed) = parse(path)? else { return Ok(Vec::new()) };
        let hash = self.hashes.of(&parsed, &mut parse)?;
        Ok(hash.iter().map(realisation::render).chain([path.to_basename()]).collect())
    }
}

impl Facts for RealisedIn<'_> {
    fn describe(&self) -> String {
        self.facts.describe()
    }

    fn is_remote(&self) -> bool {
        self.facts.is_remote()
    }

    fn learn(
        &mut self,
        question: Question<'_>,
        ledger: &mut Ledger<'_>,
    ) -> std::result::Result<(), FactsError> {
        self.facts.learn(question, ledger)?;
        match question {
            Question::Derivations(nodes) => Ok(self.enter(nodes, ledger)?),
            _ => Ok(()),
        }
    }
}
