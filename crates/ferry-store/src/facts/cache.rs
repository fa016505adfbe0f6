//! The narinfos of a binary cache: what is not in a store here, and what it refers to.
//!
//! Signatures are not checked: these facts are for working out what is needed. Whether a path may
//! become valid somewhere is decided when it is copied there.

use std::io;
use std::path::Path;

use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, ObjectFacts, Question};
use thiserror::Error;

use super::answers::Answers;
use super::cache_place::Place;
use crate::http::{HttpError, HttpOptions};
use crate::message::{Begins, beginning, harmless};
use crate::parallel::in_parallel;

/// The file that makes a directory a binary cache.
pub(super) const CACHE_INFO: &str = "nix-cache-info";

/// How many narinfos are held in memory at a time.
const BATCH: usize = 4096;

/// Why a binary cache could not be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// An address that is not understood.
    #[error("`{address}` is not the address of a binary cache: {reason}")]
    BadAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A file cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There is something else, or nothing.
    #[error("{cache} is not a binary cache: it has no `nix-cache-info`")]
    NotACache {
        /// Its address.
        cache: String,
    },
    /// It is of another store.
    #[error("binary cache {cache} is of paths below {found}, not below {expected}")]
    OtherStore {
        /// Its address.
        cache: String,
        /// The directory that its paths begin with.
        found: String,
        /// The directory that they should begin with.
        expected: String,
    },
    /// What should be a narinfo is none.
    #[error("{url}: {reason}{}", Begins(.beginning))]
    BadNarinfo {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// How it begins, made harmless.
        beginning: String,
    },
    /// A narinfo is about another path.
    #[error("{url} is about {found}, and should be about {expected}")]
    OtherPath {
        /// Where it is.
        url: String,
        /// The path in it.
        found: String,
        /// The path that was asked about.
        expected: String,
    },
}

/// A binary cache that is asked for narinfos.
pub struct BinaryCache {
    place: Place,
    store_dir: StoreDir,
    answers: Option<Answers>,
    /// Whether its `nix-cache-info` was looked at.
    checked: bool,
}

impl BinaryCache {
    /// The cache at an address: `https://…`, `http://…`, `file:///…` or an absolute directory.
    /// It is not looked at before it is asked something.
    ///
    /// `answers` is a directory in which to keep what a cache on the web has answered, and to
    /// look first. Nothing in it grows old: remove it to ask anew.
    ///
    /// # Errors
    /// When the address is none, or a setting cannot be used.
    pub fn new(
        address: &str,
        store_dir: &StoreDir,
        options: &HttpOptions,
        answers: Option<&Path>,
    ) -> Result<Self, CacheError> {
        let place = Place::parse(address, options)?;
        let answers = answers
            .filter(|_| place.is_remote())
            .map(|directory| Answers::new(directory, &place.shown()));
        Ok(Self { place, store_dir: store_dir.clone(), answers, checked: false })
    }

    /// What the cache says about each of `paths`; nothing where it does not have it. Several are
    /// asked for at a time.
    ///
    /// # Errors
    /// When it cannot be asked, is of another store, or what it answers is not a narinfo of the
    /// path asked about.
    pub fn narinfos(&mut self, paths: &[StorePath]) -> Result<Vec<Option<Narinfo>>, CacheError> {
        let mut found: Vec<Option<Narinfo>> = paths.iter().map(|path| self.kept(path)).collect();
        let open: Vec<(usize, &StorePath)> =
            paths.iter().enumerate().filter(|(i, _)| matches!(found.get(*i), Some(None))).collect();
        if open.is_empty() {
            return Ok(found);
        }
        self.check()?;
        let connections = self.place.connections();
        let fetched = in_parallel(&open, connections, |(_, path)| self.fetch(path))?;
        for ((index, _), narinfo) in open.into_iter().zip(fetched) {
            if let Some(place) = found.get_mut(index) {
                *place = narinfo;
            }
        }
        Ok(found)
    }

    /// Looks at its `nix-cache-info`, once.
    fn check(&mut self) -> Result<(), CacheError> {
        if self.checked {
            return Ok(());
        }
        let Some(info) = self.place.get(CACHE_INFO)? else {
            return Err(CacheError::NotACache { cache: self.place.shown() });
        };
        match narinfo::store_dir_of_cache(&info) {
            Some(found) if found != self.store_dir.as_str() => {
                return Err(CacheError::OtherStore {
                    cache: self.place.shown(),
                    found: harmless(&found),
                    expected: self.store_dir.as_str().to_owned(),
                });
            }
            _ => self.checked = true,
        }
        Ok(())
    }

    fn kept(&self, path: &StorePath) -> Option<Narinfo> {
        let name = narinfo::file_name(path);
        let text = self.answers.as_ref()?.get(&name)?;
        self.parse(path, &name, &text).ok()
    }

    fn fetch(&self, path: &StorePath) -> Result<Option<Narinfo>, CacheError> {
        let name = narinfo::file_name(path);
        let Some(text) = self.place.get(&name)? else { return Ok(None) };
        let narinfo = self.parse(path, &name, &text)?;
        if let Some(answers) = &self.answers {
            answers.put(&name, &text);
        }
        Ok(Some(narinfo))
    }

    fn parse(&self, path: &StorePath, name: &str, text: &[u8]) -> Result<Narinfo, CacheError> {
        let narinfo =
            narinfo::parse(&self.store_dir, text).map_err(|source| CacheError::BadNarinfo {
                url: self.place.shown_file(name),
                reason: source.to_string(),
                beginning: beginning(text),
            })?;
        if narinfo.info.path != *path {
            return Err(CacheError::OtherPath {
                url: self.place.shown_file(name),
                found: self.store_dir.render_path(&narinfo.info.path),
                expected: self.store_dir.render_path(path),
            });
        }
        Ok(narinfo)
    }
}

impl Facts for BinaryCache {
    fn describe(&self) -> String {
        format!("binary cache `{}`", self.place.shown())
    }

    fn is_remote(&self) -> bool {
        self.place.is_remote()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        let Question::Objects(nodes) = question else { return Ok(()) };
        let paths: Vec<StorePath> = nodes.iter().filter_map(|node| ledger.path(*node)).collect();
        for batch in paths.chunks(BATCH) {
            for narinfo in self.narinfos(batch)?.into_iter().flatten() {
                enter(&narinfo, &self.store_dir, ledger);
            }
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
