//! Store objects whose files are here, and that no database speaks of: those of a closure inside a
//! Nix build, where `exportReferencesGraph` says what refers to what.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ferry_formats::hash::NarHasher;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath, nar};

use super::layout::Layout;
use super::reader;
use crate::facts::{ReferencesGraph, ReferencesGraphEntry};
use crate::parallel::in_parallel;
use crate::store::NarVisitor;
use crate::{Result, Store};

/// The files of a store, with references graphs in place of a database. What is in none of the
/// graphs is not in it.
///
/// Where a graph has no NAR hash for a path (only `closureInfo` and structured attributes have),
/// its files are read once more to find it. Content addresses and signatures it has none.
pub struct UnregisteredStore {
    layout: Layout,
    names: Vec<String>,
    entries: BTreeMap<StorePath, ReferencesGraphEntry>,
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
        }
        let names = graphs.iter().map(|graph| graph.name().to_owned()).collect();
        Self { layout, names, entries }
    }

    /// What is said about a path, with what its files say.
    fn complete(&self, entry: &ReferencesGraphEntry) -> Result<PathInfo> {
        let (nar_hash, nar_size) = match (entry.nar_hash, entry.nar_size) {
            (Some(hash), Some(size)) => (hash, size),
            _ => self.hash(&entry.path)?,
        };
        Ok(PathInfo {
            path: entry.path.clone(),
            nar_hash,
            nar_size,
            references: entry.references.as_slice().into(),
            deriver: entry.deriver.clone(),
            ca: None,
            signatures: Vec::new(),
        })
    }

    fn hash(&self, path: &StorePath) -> Result<(NarHash, u64)> {
        let mut hasher = Hashing(NarHasher::default());
        nar::dump(&self.layout.real_path(path), &mut hasher)
            .map_err(|error| reader::read_error(&self.layout, path, error))?;
        let size = hasher.0.size();
        Ok((hasher.0.finish(), size))
    }
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
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        in_parallel(paths, threads, |path| self.path_info(path))
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        Ok(Some(self.entries.keys().cloned().collect()))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        let deriver = self.entries.get(path).and_then(|entry| entry.deriver.clone());
        Ok(deriver.filter(|deriver| self.entries.contains_key(deriver)).into_iter().collect())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        reader::read_nars(&self.layout, wanted, visit)
    }
}

struct Hashing(NarHasher);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
