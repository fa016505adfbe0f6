//! Store objects whose files are here, and that no database speaks of: those of a closure inside a
//! Nix build, where `exportReferencesGraph` says what refers to what.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath, content_address, derivation, nar};
use sha2::{Digest as _, Sha256};

use super::layout::Layout;
use super::ranges::LocalNarRanges;
use super::reader;
use crate::facts::{ReferencesGraph, ReferencesGraphEntry, read_derivation};
use crate::parallel::in_parallel;
use crate::store::NarVisitor;
use crate::{Error, NarRanges, Result, Store};

/// The files of a store, with references graphs in place of a database. What is in none of the
/// graphs is not in it.
///
/// Where a graph has no NAR hash for a path (only `closureInfo` and structured attributes have),
/// its files are read once more to find it. Content addresses are those that structured attributes
/// state; other forms leave them out, and then those by SHA-256 are found in the files. Signatures
/// it has none, and derivers only of what is an output of a derivation in it.
pub struct UnregisteredStore {
    layout: Layout,
    names: Vec<String>,
    entries: BTreeMap<StorePath, ReferencesGraphEntry>,
    /// What the files say, of which not everything is in a graph.
    completed: Mutex<HashMap<StorePath, PathInfo>>,
    derivers: OnceLock<HashMap<StorePath, Vec<StorePath>>>,
}

impl UnregisteredStore {
    /// The store at `layout`, as far as these graphs know it; the first that has a path is
    /// believed, and later ones add what it does not say.
    #[must_use]
    pub fn new(layout: Layout, graphs: &[ReferencesGraph]) -> Self {
        let mut entries: BTreeMap<StorePath, ReferencesGraphEntry> = BTreeMap::new();
        for entry in graphs.iter().flat_map(ReferencesGraph::entries) {
            let known = entries.entry(entry.path.clone()).or_insert_with(|| entry.clone());
            known.nar_hash = known.nar_hash.or(entry.nar_hash);
            known.nar_size = known.nar_size.or(entry.nar_size);
            known.deriver = known.deriver.take().or_else(|| entry.deriver.clone());
            known.content_addressed = known.content_addressed.or(entry.content_addressed);
            known.ca = known.ca.take().or_else(|| entry.ca.clone());
        }
        let names = graphs.iter().map(|graph| graph.name().to_owned()).collect();
        let completed = Mutex::default();
        Self { layout, names, entries, completed, derivers: OnceLock::new() }
    }

    /// The store at `layout` with one object in it, whose files are there; `name` is what to call
    /// the store in messages.
    pub(crate) fn of_object(layout: Layout, name: String, info: &PathInfo) -> Self {
        let entry = ReferencesGraphEntry {
            path: info.path.clone(),
            references: info.references.iter().cloned().collect(),
            nar_hash: Some(info.nar_hash),
            nar_size: Some(info.nar_size),
            deriver: info.deriver.clone(),
            content_addressed: Some(info.ca.is_some()),
            ca: info.ca.clone(),
        };
        let entries = [(info.path.clone(), entry)].into();
        let completed = Mutex::default();
        Self { layout, names: vec![name], entries, completed, derivers: OnceLock::new() }
    }

    /// Its NARs at any position.
    #[must_use]
    pub fn files(&self) -> Arc<dyn NarRanges> {
        Arc::new(LocalNarRanges::new(self.layout.clone()))
    }

    /// What is said about a path, with what its files say.
    fn complete(&self, entry: &ReferencesGraphEntry) -> Result<PathInfo> {
        let is_complete = entry.nar_hash.is_some() && entry.content_addressed.is_some();
        if !is_complete {
            let completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(info) = completed.get(&entry.path) {
                return Ok(info.clone());
            }
        }
        let (nar_hash, nar_size) = match (entry.nar_hash, entry.nar_size) {
            (Some(hash), Some(size)) => (hash, size),
            _ => self.hash(&entry.path)?,
        };
        let mut info = PathInfo {
            path: entry.path.clone(),
            nar_hash,
            nar_size,
            references: entry.references.as_slice().into(),
            deriver: entry.deriver.clone(),
            ca: entry.ca.clone(),
            signatures: Vec::new(),
        };
        if entry.content_addressed.is_none() {
            let file = self.digest(&entry.path)?;
            info.ca = content_address::found(&self.layout.store_dir, &info, file);
        }
        if !is_complete {
            let mut completed = self.completed.lock().unwrap_or_else(PoisonError::into_inner);
            completed.insert(entry.path.clone(), info.clone());
        }
        Ok(info)
    }

    fn hash(&self, path: &StorePath) -> Result<(NarHash, u64)> {
        hash_tree(&self.layout.real_path(path))
            .map_err(|error| reader::read_error(&self.layout, path, error))
    }

    /// The SHA-256 digest of an object that is one file.
    fn digest(&self, path: &StorePath) -> Result<Option<[u8; 32]>> {
        let real = self.layout.real_path(path);
        let failed = || Error::io(format!("read {}", real.display()));
        if !real.symlink_metadata().map_err(failed())?.is_file() {
            return Ok(None);
        }
        let mut digest = Sha256::new();
        let mut file = File::open(&real).map_err(failed())?;
        io::copy(&mut file, &mut digest).map_err(failed())?;
        Ok(Some(digest.finalize().into()))
    }

    /// The derivations in it by their outputs.
    fn all_derivers(&self) -> Result<&HashMap<StorePath, Vec<StorePath>>> {
        if let Some(found) = self.derivers.get() {
            return Ok(found);
        }
        let derivations: Vec<_> = self.entries.keys().filter(|path| path.is_derivation()).collect();
        let outputs = in_parallel(&derivations, threads(), |path| -> Result<Vec<StorePath>> {
            let parsed = read_derivation(&self.layout, path, &mut Vec::new())?;
            let Some(parsed) = parsed else { return Ok(Vec::new()) };
            Ok(derivation::outputs(&parsed)?.into_iter().filter_map(|(_, path)| path).collect())
        })?;
        let mut derivers: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        for (derivation, outputs) in derivations.into_iter().zip(outputs) {
            for output in outputs {
                derivers.entry(output).or_default().push(derivation.clone());
            }
        }
        Ok(self.derivers.get_or_init(|| derivers))
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Store for UnregisteredStore {
    fn store_dir(&self) -> &StoreDir {
        &self.layout.store_dir
    }

    fn describe(&self) -> String {
        format!("references graph `{}`", self.names.join("`, `"))
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.entries.get(path).map(|entry| self.complete(entry)).transpose()
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        in_parallel(paths, threads(), |path| self.path_info(path))
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        Ok(Some(self.entries.keys().cloned().collect()))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        Ok(self.all_derivers()?.get(path).cloned().unwrap_or_default())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        reader::read_nars(&self.layout, wanted, visit)
    }
}

/// Hash and size of the NAR of a file tree.
pub(crate) fn hash_tree(tree: &Path) -> std::result::Result<(NarHash, u64), nar::Error> {
    nar::hash(tree, u64::MAX)
}
