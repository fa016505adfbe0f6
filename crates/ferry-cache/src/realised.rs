//! The paths that outputs got which have none before they are built, as binary caches know them.

use ferry_formats::StorePath;
use ferry_formats::build_trace::DrvOutput;
use ferry_formats::realisation::{self, RealisationHashes};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, Question};
use ferry_store::parallel::in_parallel;
use ferry_store::realisations::derivation_in;
use ferry_store::{Result, Store};

use crate::{BinaryCache, CacheError, realisations};

/// The facts of a source of derivations; and of their outputs whose paths it does not know, those
/// paths that caches have, as whoever substitutes would ask them. Signatures are not looked at:
/// Nix does not look at these.
pub struct RealisedIn<'a> {
    facts: Box<dyn Facts + 'a>,
    texts: &'a dyn Store,
    caches: Vec<&'a BinaryCache>,
    hashes: RealisationHashes,
}

/// An output, and what it may be filed under.
struct Open {
    derivation: NodeId,
    name: String,
    keys: Vec<DrvOutput>,
}

impl<'a> RealisedIn<'a> {
    /// `texts` has the derivations that `facts` knows; `caches` are asked in their order.
    #[must_use]
    pub fn new(
        facts: Box<dyn Facts + 'a>,
        texts: &'a dyn Store,
        caches: Vec<&'a BinaryCache>,
    ) -> Self {
        Self { facts, texts, caches, hashes: RealisationHashes::default() }
    }

    fn enter(&mut self, derivations: &[NodeId], ledger: &mut Ledger<'_>) -> Result<()> {
        let mut open = Vec::new();
        for &node in derivations {
            let names = ledger.open_outputs(node);
            let Some(path) = ledger.path(node).filter(|_| !names.is_empty()) else { continue };
            let filed_under = self.filed_under(&path)?;
            for name in names {
                let keys = filed_under.iter().filter_map(|key| DrvOutput::new(key, &name).ok());
                open.push(Open { derivation: node, keys: keys.collect(), name });
            }
        }
        let threads = self.caches.iter().map(|cache| cache.place.connections()).max();
        let caches = &self.caches;
        let found = in_parallel(&open, threads.unwrap_or(1), |open| find(caches, &open.keys))?;
        for (open, path) in open.iter().zip(found) {
            if let Some(path) = path {
                let path = ledger.node(&path);
                ledger.realised(open.derivation, &open.name, path);
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

/// The path that the first cache has which knows one.
fn find(
    caches: &[&BinaryCache],
    keys: &[DrvOutput],
) -> std::result::Result<Option<StorePath>, CacheError> {
    for cache in caches {
        for key in keys {
            match realisations::read(cache, key) {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(Some(found.path)),
                // What is none is not there, as with narinfos.
                Err(CacheError::BadRealisation { url, reason, .. }) => {
                    tracing::debug!(url, reason, "a realisation is passed over");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
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
            Question::Derivations(nodes) if !self.caches.is_empty() => {
                Ok(self.enter(nodes, ledger)?)
            }
            _ => Ok(()),
        }
    }
}
