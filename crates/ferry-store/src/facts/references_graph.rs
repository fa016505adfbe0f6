//! What Nix writes into a build for `exportReferencesGraph`: the references of a closure, known
//! where there is no database to ask.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ferry_formats::{ContentAddress, NarHash, StoreDir, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, ObjectFacts, Question};
use thiserror::Error;

use super::{references_json, references_text};

/// A larger file is not read: a closure of some hundred thousand paths takes about this much.
const MAX_SIZE: u64 = 512 << 20;

/// Why a file is not a references graph.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReferencesGraphError {
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It is too large to be one.
    #[error("{file} is larger than {MAX_SIZE} bytes, which no references graph is")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// A line that does not belong there.
    #[error("{file}, line {line}: {reason}")]
    Line {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON value that does not belong there.
    #[error("{file}, at {place}: {reason}")]
    Json {
        /// The file.
        file: String,
        /// Where in it: `closure[3].references[0]`.
        place: String,
        /// What is wrong there.
        reason: String,
    },
    /// It says two different things about a path.
    #[error("{file} says two different things about {path}")]
    Contradiction {
        /// The file.
        file: String,
        /// The path.
        path: String,
    },
    /// It is of another store.
    #[error("{file} is about paths below {found}, not below {expected}")]
    OtherStore {
        /// The file.
        file: String,
        /// The directory that its paths begin with.
        found: String,
        /// The directory that they should begin with.
        expected: String,
    },
}

/// What a references graph says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencesGraphEntry {
    /// The path.
    pub path: StorePath,
    /// What it refers to, perhaps itself included; sorted.
    pub references: Vec<StorePath>,
    /// Hash of its NAR, where the form has it.
    pub nar_hash: Option<NarHash>,
    /// Size of its NAR in bytes, where the form has it.
    pub nar_size: Option<u64>,
    /// The derivation that made it. That there is none says nothing: most forms leave it out.
    pub deriver: Option<StorePath>,
    /// Whether its path follows from its content, where the form says so.
    pub content_addressed: Option<bool>,
    /// How it does, where the form says so in a way that is known.
    pub ca: Option<ContentAddress>,
}

/// The references graph in a file.
///
/// Nix has three forms of it, and [`parse`](Self::parse) tells them apart:
///
/// - what `exportReferencesGraph = [ "NAME" PATH ]` puts into the file `NAME`
///   (`makeValidityRegistration` in Nix's `store-api.cc`, without hashes): for each path a line
///   with it, a line with its deriver (always empty), a line with the number of its references,
///   and a line for each of those;
/// - the `registration` of nixpkgs' `closureInfo`, and what `nix-store --dump-db` prints: the
///   same with two lines behind the path, NAR hash and NAR size;
/// - with structured attributes, `.attrs.json`: an object whose member `exportReferencesGraph`
///   has the names of the graphs, each of them a member as well, a list of objects with `path`,
///   `references`, `narSize` and more. One such list by itself does too.
#[derive(Clone, Debug)]
pub struct ReferencesGraph {
    name: String,
    store_dir: StoreDir,
    entries: Vec<ReferencesGraphEntry>,
    places: HashMap<StorePath, usize>,
}

impl ReferencesGraph {
    /// Reads it from a file, of 512 MiB at most.
    ///
    /// # Errors
    /// When the file cannot be read, and as [`parse`](Self::parse).
    pub fn read(file: &Path, store_dir: &StoreDir) -> Result<Self, ReferencesGraphError> {
        let name = file.display().to_string();
        let mut bytes = Vec::new();
        File::open(file)
            .and_then(|open| open.take(MAX_SIZE + 1).read_to_end(&mut bytes))
            .map_err(|source| ReferencesGraphError::Io { file: name.clone(), source })?;
        Self::parse(&name, &bytes, store_dir)
    }

    /// Reads it from memory; `name` is what to call it in messages. A file with nothing in it is
    /// the graph of no paths.
    ///
    /// # Errors
    /// When it is none of the three forms, ends too early, or contradicts itself.
    pub fn parse(
        name: &str,
        bytes: &[u8],
        store_dir: &StoreDir,
    ) -> Result<Self, ReferencesGraphError> {
        if bytes.len() as u64 > MAX_SIZE {
            return Err(ReferencesGraphError::TooLarge { file: name.to_owned() });
        }
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let entries = match first {
            Some(b'{' | b'[') => references_json::parse(name, bytes, store_dir)?,
            _ => references_text::parse(name, bytes, store_dir)?,
        };
        let mut graph = Self {
            name: name.to_owned(),
            store_dir: store_dir.clone(),
            entries: Vec::with_capacity(entries.len()),
            places: HashMap::with_capacity(entries.len()),
        };
        for entry in entries {
            graph.add(entry)?;
        }
        Ok(graph)
    }

    /// Several graphs in one file share paths, and say the same about them.
    fn add(&mut self, mut entry: ReferencesGraphEntry) -> Result<(), ReferencesGraphError> {
        entry.references.sort();
        entry.references.dedup();
        match self.places.get(&entry.path).and_then(|place| self.entries.get(*place)) {
            Some(known) if *known == entry => {}
            Some(_) => {
                return Err(ReferencesGraphError::Contradiction {
                    file: self.name.clone(),
                    path: self.store_dir.render_path(&entry.path),
                });
            }
            None => {
                self.places.insert(entry.path.clone(), self.entries.len());
                self.entries.push(entry);
            }
        }
        Ok(())
    }

    /// What to call it: the file it is from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says, each path once, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[ReferencesGraphEntry] {
        &self.entries
    }

    /// What it says about one path.
    #[must_use]
    pub fn get(&self, path: &StorePath) -> Option<&ReferencesGraphEntry> {
        self.places.get(path).and_then(|place| self.entries.get(*place))
    }
}

impl Facts for ReferencesGraph {
    fn describe(&self) -> String {
        format!("references graph `{}`", self.name)
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if self.store_dir != *ledger.store_dir() {
            return Err(Box::new(ReferencesGraphError::OtherStore {
                file: self.name.clone(),
                found: self.store_dir.as_str().to_owned(),
                expected: ledger.store_dir().as_str().to_owned(),
            }));
        }
        match question {
            Question::Objects(nodes) => {
                for &node in nodes {
                    let path = ledger.path(node);
                    if let Some(entry) = path.as_ref().and_then(|path| self.get(path)) {
                        enter(entry, ledger);
                    }
                }
            }
            Question::Everything => self.entries.iter().for_each(|entry| enter(entry, ledger)),
            _ => {}
        }
        Ok(())
    }
}

fn enter(entry: &ReferencesGraphEntry, ledger: &mut Ledger<'_>) {
    let node = ledger.node(&entry.path);
    let references: Vec<NodeId> = entry.references.iter().map(|path| ledger.node(path)).collect();
    let deriver = entry.deriver.as_ref().map(|path| ledger.node(path));
    ledger.object(
        node,
        &ObjectFacts {
            references: &references,
            nar_size: entry.nar_size,
            deriver,
            content_addressed: entry.content_addressed,
        },
    );
}
