//! Derivations that both sides have, for others to be coded against.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use ferry_formats::derivation::InputDerivationHash;
use ferry_formats::derivation_parts::split;
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::admission::read_single_file;
use ferry_store::{Error, Result, Store};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::codec::put_number;
use crate::derivations::encode::Encoder;
use crate::derivations::form::hash_part;
use crate::derivations::model::{Identity, Recipe, Tables};

/// How much there is in the tables.
#[derive(Default)]
pub(crate) struct Extent {
    pub(crate) words: usize,
    pub(crate) keys: usize,
    pub(crate) shapes: usize,
    /// Different strings in each column.
    pub(crate) templates: Vec<usize>,
}

impl Extent {
    fn of(tables: &Tables) -> Self {
        Self {
            words: tables.words.len(),
            keys: tables.keys.len(),
            shapes: tables.shapes.len(),
            templates: tables.columns.iter().map(Vec::len).collect(),
        }
    }
}

/// What the base has in coded form, and how much of the tables is its own.
#[derive(Default)]
pub(crate) struct Base {
    pub(crate) recipes: Vec<Recipe>,
    /// Paths that its derivations refer to and that are no derivations.
    pub(crate) plain: u32,
    pub(crate) extent: Extent,
    /// References of all its derivations.
    pub(crate) references: u64,
    /// Bytes of all its derivations.
    pub(crate) text: u64,
    /// SHA-256 of their names.
    pub(crate) digest: [u8; 32],
    /// Their roots as numbers of prerequisites, in the order in which they were walked from.
    pub(crate) roots: Vec<u32>,
}

impl Base {
    /// Writes which derivations it is made of; a single zero where there is none.
    pub(crate) fn write_roots(&self, numbers: &mut Vec<u8>, digests: &mut Vec<u8>) {
        put_number(numbers, self.roots.len() as u64);
        if !self.roots.is_empty() {
            self.roots.iter().for_each(|root| put_number(numbers, u64::from(*root)));
            digests.extend(self.digest);
        }
    }
}

/// Derivations that are on both sides, for a bundle whose derivations are coded against them.
///
/// They are the closure of some derivations, without what is no derivation.
pub struct DerivationBase {
    roots: Vec<StorePath>,
    /// Those that have a code, and the sources of all.
    paths: HashSet<StorePath>,
    /// Those that have none.
    others: HashSet<StorePath>,
    hashes: Vec<(StorePath, InputDerivationHash)>,
    digest: [u8; 32],
    encoder: Mutex<Option<Encoder>>,
}

/// Why derivations cannot be a base.
#[derive(Debug, Error)]
enum Unfit {
    #[error("{0} is no derivation: the base of derivations has to be derivations")]
    NoDerivation(String),
    #[error(
        "derivation {path} in {store} is not the one that its path stands for: the store is damaged"
    )]
    Damaged { path: String, store: String },
}

impl DerivationBase {
    /// Reads `roots` and all derivations that they are made of.
    ///
    /// # Errors
    /// When one of them is not in the store, cannot be read, or is not what its path says.
    pub fn read(store: &dyn Store, roots: &[StorePath]) -> Result<Self> {
        let store_dir = store.store_dir();
        if let Some(path) = roots.iter().find(|path| !path.is_derivation()) {
            return Err(Error::other(Unfit::NoDerivation(store_dir.render_path(path))));
        }
        let infos = in_order(store, roots)?;
        let mut encoder = Encoder::empty(store_dir);
        let mut early: HashMap<StorePath, Vec<u8>> = HashMap::new();
        let mut waiting = infos.iter();
        let mut next = waiting.next();
        store.read_nars(&infos, &mut |info, nar| {
            // Most stores read them in the order that they are asked for.
            early.insert(info.path.clone(), read_single_file(store_dir, info, nar)?);
            while let Some((info, text)) =
                next.and_then(|info| Some((info, early.remove(&info.path)?)))
            {
                encoder.add_to_base(&store.describe(), info, &text).map_err(Error::other)?;
                next = waiting.next();
            }
            Ok(())
        })?;
        if let Some(info) = next {
            return Err(Error::NotValid {
                path: store_dir.render_path(&info.path),
                store: store.describe(),
            });
        }
        let digest = digest(&infos);
        encoder.end_base(digest);
        let hashes = encoder.known.iter().map(|known| (known.path.clone(), known.identity.hash()));
        let hashes: Vec<_> = hashes.collect();
        let coded = hashes.iter().map(|(path, _)| path);
        let paths: HashSet<StorePath> = coded.chain(&encoder.paths).cloned().collect();
        let derivations = infos.into_iter().map(|info| info.path);
        let others = derivations.filter(|path| !paths.contains(path)).collect();
        let encoder = Mutex::new(Some(encoder));
        Ok(Self { roots: roots.to_vec(), paths, others, hashes, digest, encoder })
    }

    /// The derivations that it is the closure of.
    #[must_use]
    pub fn roots(&self) -> &[StorePath] {
        &self.roots
    }

    /// Whether a path is one of its derivations, or a source of one.
    #[must_use]
    pub fn contains(&self, path: &StorePath) -> bool {
        self.is_known(path) || self.others.contains(path)
    }

    /// The same, but for derivations without a code, which nothing can be said about in a bundle
    /// unless they are prerequisites.
    pub(crate) fn is_known(&self, path: &StorePath) -> bool {
        self.paths.contains(path)
    }

    /// What stands for its derivations in those that are made of them.
    pub(crate) fn hashes(&self) -> &[(StorePath, InputDerivationHash)] {
        &self.hashes
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// All of it, for one bundle.
    pub(crate) fn take(&self) -> Option<Encoder> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Identity {
    pub(crate) fn hash(self) -> InputDerivationHash {
        match self {
            Self::Regular(hash) => InputDerivationHash::Regular(hash),
            Self::Fixed(hash) => InputDerivationHash::FixedOutput(hash),
            Self::Deferred => InputDerivationHash::Deferred,
        }
    }
}

impl Encoder {
    fn add_to_base(
        &mut self,
        store: &str,
        info: &PathInfo,
        text: &[u8],
    ) -> std::result::Result<(), Unfit> {
        // What is not what it should be would be taken for another form.
        if !is_whole(&self.store_dir, info, text) {
            let path = self.store_dir.render_path(&info.path);
            return Err(Unfit::Damaged { path, store: store.to_owned() });
        }
        self.announce_sources(text);
        let before = Extent::of(&self.tables);
        let Some((recipe, settled)) = self.settled(&info.path, text) else {
            // It has no code: nothing can be like it, and nothing that is coded can mention it.
            self.forget(&before);
            return Ok(());
        };
        if self.learn(&settled.known).is_none() {
            return Ok(());
        }
        self.base.references += settled.references.len() as u64;
        self.base.text += text.len() as u64;
        self.recipes.push(recipe);
        self.known.push(settled.known);
        Ok(())
    }

    /// Makes the sources of a derivation known, which get their numbers in this order.
    fn announce_sources(&mut self, text: &[u8]) {
        for source in split(text).map(|parts| parts.sources).unwrap_or_default() {
            let Some(hash) = hash_part(source, &self.prefix) else { continue };
            if let Ok(path) = self.store_dir.parse_path(source)
                && !path.is_derivation()
                && !self.plain.contains_key(&hash)
            {
                self.announce(&path);
            }
        }
    }

    fn end_base(&mut self, digest: [u8; 32]) {
        self.base = Base {
            recipes: std::mem::take(&mut self.recipes),
            plain: u32::try_from(self.paths.len()).unwrap_or(u32::MAX),
            extent: Extent::of(&self.tables),
            references: self.base.references,
            text: self.base.text,
            digest,
            roots: Vec::new(),
        };
    }
}

/// Whether a text is the one that its path was made from.
fn is_whole(store_dir: &StoreDir, info: &PathInfo, text: &[u8]) -> bool {
    let address = ferry_formats::ContentAddress::Text(Sha256::digest(text).into());
    let path = store_dir.build_ca_path(info.path.name(), &address, &*info.references, false);
    path.is_ok_and(|path| path == info.path)
}

/// SHA-256 of the base names of derivations, each with a line end.
fn digest(infos: &[PathInfo]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for info in infos {
        digest.update(info.path.to_basename().as_bytes());
        digest.update(b"\n");
    }
    digest.finalize().into()
}

/// The derivations that `roots` are made of, and they themselves: each behind those that it refers
/// to, which are walked in the order of their paths.
fn in_order(store: &dyn Store, roots: &[StorePath]) -> Result<Vec<PathInfo>> {
    let mut infos: BTreeMap<StorePath, PathInfo> = BTreeMap::new();
    let mut wave: Vec<StorePath> = roots.to_vec();
    wave.sort_unstable();
    wave.dedup();
    let mut absent = Vec::new();
    while !wave.is_empty() {
        let mut next = Vec::new();
        for (path, info) in wave.iter().zip(store.path_infos(&wave)?) {
            let Some(info) = info else {
                absent.push(store.store_dir().render_path(path));
                continue;
            };
            next.extend(info.other_references().filter(|path| path.is_derivation()).cloned());
            infos.insert(path.clone(), info);
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|path| !infos.contains_key(path));
        wave = next;
    }
    if !absent.is_empty() {
        return Err(Error::MissingPaths { paths: absent, store: store.describe() });
    }
    let mut order = Vec::with_capacity(infos.len());
    let mut open: Vec<Vec<StorePath>> = vec![roots.iter().rev().cloned().collect()];
    let mut entered: Vec<PathInfo> = Vec::new();
    while let Some(level) = open.last_mut() {
        let Some(path) = level.pop() else {
            open.pop();
            order.extend(entered.pop());
            continue;
        };
        // Each is entered once: it is no longer there afterwards.
        let Some(info) = infos.remove(&path) else { continue };
        let mut below: Vec<StorePath> =
            info.other_references().filter(|path| path.is_derivation()).cloned().collect();
        below.sort_unstable_by(|a, b| b.cmp(a));
        open.push(below);
        entered.push(info);
    }
    Ok(order)
}
