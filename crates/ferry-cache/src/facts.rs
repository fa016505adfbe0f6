//! A binary cache as facts: what is not in a store here, and what it refers to, by its narinfos;
//! derivations, where the cache has them, by their texts.
//!
//! Signatures are not checked: these facts are for working out what is needed. Whether a path may
//! become valid somewhere is decided when it is copied there.

use std::path::Path;

use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, ObjectFacts, Question};
use ferry_store::Store as _;
use ferry_store::facts::enter_derivations;

use crate::answers::Answers;
use crate::{BinaryCache, CacheError};

/// How many narinfos are held in memory at a time.
const BATCH: usize = 4096;

/// A binary cache that is asked for facts.
pub struct CacheFacts<'a> {
    cache: &'a BinaryCache,
    answers: Option<Answers>,
}

impl<'a> CacheFacts<'a> {
    /// What `cache` knows. It is not looked at before it is asked something.
    ///
    /// `answers` is a directory in which to keep what a cache on the web has answered, and to
    /// look first. Nothing in it grows old: remove it to ask anew.
    pub(crate) fn new(cache: &'a BinaryCache, answers: Option<&Path>) -> Self {
        let answers = answers
            .filter(|_| cache.place.is_remote())
            .map(|directory| Answers::new(directory, &cache.place.shown()));
        Self { cache, answers }
    }

    /// What the cache says about each of `paths`; nothing where it does not have it. Several are
    /// asked for at a time.
    ///
    /// # Errors
    /// When it cannot be asked, is of another store, or what it answers is not a narinfo of the
    /// path asked about.
    pub fn narinfos(&self, paths: &[StorePath]) -> Result<Vec<Option<Narinfo>>, CacheError> {
        Ok(self.ask(paths)?.into_iter().map(|(narinfo, _)| narinfo).collect())
    }

    /// The same; with each, whether the cache was asked now.
    fn ask(&self, paths: &[StorePath]) -> Result<Vec<(Option<Narinfo>, bool)>, CacheError> {
        let mut found: Vec<_> = paths.iter().map(|path| (self.kept(path), false)).collect();
        let open = paths.iter().zip(&found).filter(|(_, (narinfo, _))| narinfo.is_none());
        let open: Vec<StorePath> = open.map(|(path, _)| path.clone()).collect();
        let fetched = self.cache.fetch_all(&open, |name, text| {
            if let Some(answers) = &self.answers {
                answers.put(name, text);
            }
        })?;
        let places = found.iter_mut().filter(|(narinfo, _)| narinfo.is_none());
        places.zip(fetched).for_each(|(place, narinfo)| *place = (narinfo, true));
        Ok(found)
    }

    fn kept(&self, path: &StorePath) -> Option<Narinfo> {
        let name = narinfo::file_name(path);
        let text = self.answers.as_ref()?.get(&name)?;
        self.cache.parse(path, &name, &text).ok()
    }
}

impl Facts for CacheFacts<'_> {
    fn describe(&self) -> String {
        self.cache.describe()
    }

    fn is_remote(&self) -> bool {
        self.cache.place.is_remote()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        let paths_of = |nodes: &[NodeId], ledger: &Ledger<'_>| -> Vec<StorePath> {
            nodes.iter().filter_map(|node| ledger.path(*node)).collect()
        };
        let (mut paths, is_about_derivations) = match question {
            Question::Objects(nodes) => (paths_of(nodes, ledger), false),
            Question::Derivations(nodes) => (paths_of(nodes, ledger), true),
            Question::Everything => match self.cache.all_paths()? {
                Some(paths) => (paths, false),
                None => {
                    ledger.cannot_list();
                    return Ok(());
                }
            },
            _ => return Ok(()),
        };
        if is_about_derivations {
            paths.retain(StorePath::is_derivation);
        }
        for batch in paths.chunks(BATCH) {
            let mut derivations = Vec::new();
            for (narinfo, is_new) in self.ask(batch)? {
                let Some(narinfo) = narinfo else { continue };
                if is_about_derivations {
                    self.cache.note(&narinfo)?;
                    derivations.push(narinfo.info.clone());
                } else {
                    enter(&narinfo, self.cache.store_dir(), ledger);
                }
                if is_new {
                    self.cache.keep(narinfo);
                }
            }
            enter_derivations(self.cache, &derivations, ledger)?;
        }
        Ok(())
    }
}

fn enter(narinfo: &Narinfo, store_dir: &StoreDir, ledger: &mut Ledger<'_>) {
    let info = &narinfo.info;
    let node = ledger.node(&info.path);
    let references: Vec<NodeId> = info.references.iter().map(|path| ledger.node(path)).collect();
    let deriver = info.deriver.as_ref().map(|path| ledger.node(path));
    ledger.object(
        node,
        &ObjectFacts {
            references: &references,
            nar_size: Some(info.nar_size),
            deriver,
            // Not every server of a cache passes the content address on.
            content_addressed: info.is_content_addressed(store_dir).then_some(true),
        },
    );
}
