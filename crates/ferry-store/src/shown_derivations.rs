//! Derivations of a store as JSON.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::{PathInfo, StorePath, derivation, derivation_json};

use crate::admission::read_single_file;
use crate::{Error, Result, Store};

/// These derivations in JSON of version 4, by path, each in one line; with what they refer to,
/// if that is wanted.
///
/// # Errors
/// When one of them is not in the store or cannot be read.
pub fn show(
    store: &dyn Store,
    roots: &[StorePath],
    recursive: bool,
) -> Result<BTreeMap<StorePath, Vec<u8>>> {
    let infos =
        if recursive { derivations_below(store, roots)? } else { require_all(store, roots)? };
    let mut shown = BTreeMap::new();
    store.read_nars(&infos, &mut |info, nar| {
        let text = read_single_file(store.store_dir(), info, nar)?;
        let parsed = derivation::parse(store.store_dir(), &info.path, &text)?;
        shown.insert(info.path.clone(), derivation_json::write(&parsed)?);
        Ok(())
    })?;
    Ok(shown)
}

fn require_all(store: &dyn Store, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
    let infos = store.path_infos(paths)?.into_iter().zip(paths);
    let required = infos.map(|(info, path)| {
        info.ok_or_else(|| Error::NotValid {
            path: store.store_dir().render_path(path),
            store: store.describe(),
        })
    });
    required.collect()
}

/// The derivations that these reach by references. (Sources may be somewhere else.)
fn derivations_below(store: &dyn Store, roots: &[StorePath]) -> Result<Vec<PathInfo>> {
    let mut seen: BTreeSet<StorePath> = roots.iter().cloned().collect();
    let mut wave: Vec<StorePath> = seen.iter().cloned().collect();
    let mut found = Vec::new();
    while !wave.is_empty() {
        let infos = require_all(store, &wave)?;
        let references = infos.iter().flat_map(PathInfo::other_references);
        wave = references
            .filter(|path| path.is_derivation() && seen.insert((*path).clone()))
            .cloned()
            .collect();
        found.extend(infos);
    }
    Ok(found)
}
