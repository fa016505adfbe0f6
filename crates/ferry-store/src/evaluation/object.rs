//! The evaluation as a store object, and that object as a store of its own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ferry_formats::{ContentAddress, NixHash, PathInfo};
use tempfile::TempDir;

use super::collect::{Limits, collect};
use super::error::{EvaluationError, Result};
use super::name;
use super::recorded::Evaluation;
use super::stage::Stage;
use super::untrusted;
use crate::facts::cache_beside;
use crate::local::{Layout, UnregisteredStore, hash_tree};
use crate::{NarRanges, Store};

/// What an evaluation takes along besides store paths, as one content-addressed store object.
///
/// It is a copy, made when the object is: what happens to the files afterwards changes nothing.
pub struct EvaluationObject {
    info: PathInfo,
    store: UnregisteredStore,
    notes: Vec<String>,
    // Holds the files, and takes them away.
    _directory: TempDir,
}

impl EvaluationObject {
    /// Copies what the trace names into a directory in `scratch`, and finds its store path. `store`
    /// is the one that was evaluated with.
    ///
    /// # Errors
    /// When a file is gone or has changed since, is too large, or cannot be copied.
    pub fn make(
        evaluation: &Evaluation,
        store: &dyn Store,
        scratch: &Path,
        limits: Limits<'_>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ferry-evaluation-")
            .tempdir_in(scratch)
            .map_err(EvaluationError::io(format!("create a directory in {}", scratch.display())))?;
        let layout = Layout::below(Some(directory.path().to_owned()), evaluation.store_dir.clone());
        let tree = layout.real_store_dir.join("tree");
        let files = tree.join(name::FILES);
        fs::create_dir_all(&files)
            .map_err(EvaluationError::io(format!("create {}", files.display())))?;

        let mut stage = Stage::new(files, limits.bytes);
        let collected = collect(evaluation, store, limits, &mut stage)?;
        take_cache(evaluation, &tree, &mut stage)?;
        stage.take_to(&evaluation.file, &tree.join(name::TRACE), &|_| false)?;
        let mut description = evaluation.description.clone();
        description.working_trees =
            collected.working_trees.iter().map(|tree| tree.to_string_lossy().into()).collect();
        let file = tree.join(name::DESCRIPTION);
        fs::write(&file, description.to_json())
            .map_err(EvaluationError::io(format!("write {}", file.display())))?;

        let info = info(evaluation, &tree)?;
        let real = layout.real_path(&info.path);
        fs::rename(&tree, &real)
            .map_err(EvaluationError::io(format!("rename {}", tree.display())))?;
        let store = UnregisteredStore::of_object(layout, "the evaluation".to_owned(), &info);
        Ok(Self { info, store, notes: collected.notes, _directory: directory })
    }

    /// What a store records about it.
    #[must_use]
    pub fn info(&self) -> &PathInfo {
        &self.info
    }

    /// A store in which it is, and nothing else.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &self.store
    }

    /// Its NAR at any position.
    #[must_use]
    pub fn files(&self) -> Arc<dyn NarRanges> {
        self.store.files()
    }

    /// What a person should know about it, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn take_cache(evaluation: &Evaluation, tree: &Path, stage: &mut Stage) -> Result<()> {
    let cache = cache_beside(&evaluation.file);
    for entry in &evaluation.cache {
        let file = cache.join(entry);
        if file.symlink_metadata().is_err() {
            return Err(EvaluationError::Gone { file });
        }
    }
    if !cache.is_dir() {
        return Ok(());
    }
    stage.begin(&cache);
    stage.take_to(&cache, &tree.join(name::CACHE), &untrusted::is_hooks)
}

fn info(evaluation: &Evaluation, tree: &Path) -> Result<PathInfo> {
    let (nar_hash, nar_size) = hash_tree(tree).map_err(EvaluationError::tree(tree))?;
    let ca = ContentAddress::Nar(NixHash::Sha256(nar_hash.0));
    let name = evaluation.name();
    let path = evaluation
        .store_dir
        .build_ca_path(&name, &ca, [], false)
        .map_err(|error| EvaluationError::BadObject { object: name, reason: error.to_string() })?;
    Ok(PathInfo {
        path,
        nar_hash,
        nar_size,
        references: [].into(),
        deriver: None,
        ca: Some(ca),
        signatures: Vec::new(),
    })
}
