//! Any store as facts: a daemon, a bundle.

use ferry_formats::{PathInfo, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, ObjectFacts, Question};

use super::derivations::Texts;
use crate::admission::read_single_file;
use crate::{Result, Store};

/// The facts of a [`Store`], asked for one wave at a time: several path infos in one exchange,
/// several derivations in one go through a store that is read from front to back.
pub struct StoreFacts<'a> {
    store: &'a dyn Store,
    is_remote: bool,
}

impl<'a> StoreFacts<'a> {
    /// The facts of a store on this machine.
    #[must_use]
    pub fn new(store: &'a dyn Store) -> Self {
        Self { store, is_remote: false }
    }

    /// The facts of a store that is asked over a network.
    #[must_use]
    pub fn over_network(store: &'a dyn Store) -> Self {
        Self { store, is_remote: true }
    }

    /// The path infos of those of `paths` that the store has.
    fn infos(&self, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
        Ok(self.store.path_infos(paths)?.into_iter().flatten().collect())
    }

    fn learn_objects(&self, paths: &[StorePath], ledger: &mut Ledger<'_>) -> Result<()> {
        for info in self.infos(paths)? {
            let node = ledger.node(&info.path);
            let references: Vec<NodeId> =
                info.references.iter().map(|reference| ledger.node(reference)).collect();
            let facts = ObjectFacts {
                references: &references,
                nar_size: Some(info.nar_size).filter(|size| *size > 0),
                deriver: info.deriver.as_ref().map(|deriver| ledger.node(deriver)),
                content_addressed: Some(info.ca.is_some()),
            };
            ledger.object(node, &facts);
        }
        Ok(())
    }

    fn learn_derivers(&self, paths: &[StorePath], ledger: &mut Ledger<'_>) -> Result<()> {
        for path in paths {
            let output = ledger.node(path);
            for deriver in self.store.derivers(path)? {
                let deriver = ledger.node(&deriver);
                ledger.deriver(output, deriver);
            }
        }
        Ok(())
    }
}

/// Reads derivations that are in a store, and enters what they say.
///
/// # Errors
/// When one of them cannot be read, or is no derivation.
pub fn enter_derivations(
    store: &dyn Store,
    derivations: &[PathInfo],
    ledger: &mut Ledger<'_>,
) -> Result<()> {
    let store_dir = store.store_dir();
    let mut texts = Texts::new(store_dir);
    store.read_nars(derivations, &mut |info, nar| {
        let text = read_single_file(store_dir, info, nar)?;
        texts.push(info.path.clone(), text, ledger)
    })?;
    texts.enter(ledger)
}

impl Facts for StoreFacts<'_> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn is_remote(&self) -> bool {
        self.is_remote
    }

    fn learn(
        &mut self,
        question: Question<'_>,
        ledger: &mut Ledger<'_>,
    ) -> std::result::Result<(), FactsError> {
        let paths = |ledger: &Ledger<'_>, nodes: &[NodeId]| -> Vec<StorePath> {
            nodes.iter().filter_map(|node| ledger.path(*node)).collect()
        };
        match question {
            Question::Objects(wanted) => self.learn_objects(&paths(ledger, wanted), ledger)?,
            Question::Derivations(wanted) => {
                let mut paths = paths(ledger, wanted);
                paths.retain(StorePath::is_derivation);
                enter_derivations(self.store, &self.infos(&paths)?, ledger)?;
            }
            Question::Derivers(wanted) => self.learn_derivers(&paths(ledger, wanted), ledger)?,
            Question::Everything => match self.store.all_paths()? {
                Some(paths) => self.learn_objects(&paths, ledger)?,
                None => ledger.cannot_list(),
            },
            Question::Evaluations(_) => {}
        }
        Ok(())
    }
}
