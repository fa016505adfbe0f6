//! Closures over references, and the order that every store wants: references first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_graph::post_order;
use hashbrown::{HashMap, HashSet};
use rayon::prelude::*;

use crate::{Error, Result, Store};

/// The path infos of everything that `roots` reach by references, roots included.
///
/// # Errors
/// [`Error::NotValid`] for a root that the store does not have, [`Error::MissingReference`] for a
/// reference that it does not.
pub fn closure(store: &dyn Store, roots: &[StorePath]) -> Result<BTreeMap<StorePath, PathInfo>> {
    let mut found = BTreeMap::new();
    let mut wave: Vec<StorePath> = roots.to_vec();
    wave.sort();
    wave.dedup();
    let mut seen: HashSet<StorePath> = wave.iter().cloned().collect();
    while !wave.is_empty() {
        let mut next = Vec::new();
        for (path, info) in wave.iter().zip(store.path_infos(&wave)?) {
            let info = info.ok_or_else(|| missing(store, path, roots, &found))?;
            for reference in info.references.iter() {
                // Most are known by now: only what is new is worth a copy.
                if !seen.contains(reference) {
                    seen.insert(reference.clone());
                    next.push(reference.clone());
                }
            }
            found.insert(path.clone(), info);
        }
        wave = next;
    }
    Ok(found)
}

/// Those paths that none of the others refers to: keep these, and all are kept.
#[must_use]
pub fn unreferenced<'a>(infos: impl IntoIterator<Item = &'a PathInfo>) -> Vec<StorePath> {
    let infos: Vec<&PathInfo> = infos.into_iter().collect();
    let numbers: HashMap<&StorePath, usize> =
        infos.iter().map(|info| &info.path).zip(0..).collect();
    let referred: Vec<AtomicBool> = infos.iter().map(|_| AtomicBool::new(false)).collect();
    infos.par_iter().flat_map_iter(|info| info.other_references()).for_each(|path| {
        if let Some(referred) = numbers.get(path).and_then(|number| referred.get(*number)) {
            referred.store(true, Ordering::Relaxed);
        }
    });
    let top = infos.iter().zip(referred).filter(|(_, referred)| !referred.load(Ordering::Relaxed));
    top.map(|(info, _)| info.path.clone()).collect()
}

/// The error for a path that a store does not have: it was asked for, or one of those found
/// refers to it.
fn missing(
    store: &dyn Store,
    path: &StorePath,
    roots: &[StorePath],
    found: &BTreeMap<StorePath, PathInfo>,
) -> Error {
    let store_dir = store.store_dir();
    let mut found = found.values().filter(|_| !roots.contains(path));
    match found.find(|info| info.references.contains(path)) {
        None => Error::NotValid { path: store_dir.render_path(path), store: store.describe() },
        Some(referrer) => Error::MissingReference {
            path: store_dir.render_path(&referrer.path),
            reference: store_dir.render_path(path),
            store: store.describe(),
        },
    }
}

/// Puts path infos in an order in which every reference stands before its referrers. Among the
/// orders possible it is always the same one, so that equal sets give equal bundles. References
/// to what is not in the set are not looked at.
///
/// # Errors
/// [`Error::ReferenceCycle`] where the references allow no order.
pub fn references_first(
    store_dir: &StoreDir,
    infos: impl IntoIterator<Item = PathInfo>,
) -> Result<Vec<PathInfo>> {
    let mut infos: Vec<Option<PathInfo>> = infos.into_iter().map(Some).collect();
    infos.sort_by(|a, b| a.as_ref().map(|i| &i.path).cmp(&b.as_ref().map(|i| &i.path)));
    let index: HashMap<&StorePath, usize> =
        infos.iter().flatten().enumerate().map(|(number, info)| (&info.path, number)).collect();
    let edges = infos.par_iter().map(|info| {
        let references = info.iter().flat_map(PathInfo::other_references);
        references.filter_map(|reference| index.get(reference).copied()).collect()
    });
    let edges: Vec<Vec<usize>> = edges.collect();
    drop(index);
    let order = post_order(&edges).map_err(|circle| Error::ReferenceCycle {
        path: circle
            .first()
            .and_then(|node| infos.get(*node)?.as_ref())
            .map(|info| store_dir.render_path(&info.path))
            .unwrap_or_default(),
    })?;
    Ok(order
        .into_iter()
        .filter_map(|number| infos.get_mut(number).and_then(Option::take))
        .collect())
}
