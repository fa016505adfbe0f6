//! What stands for derivations in their dependents, from the texts in a store, many at a time.

use std::collections::BTreeSet;

use ferry_formats::derivation::OutputPaths;
use ferry_formats::{PathInfo, StorePath};

use crate::admission::read_single_file;
use crate::closure::references_first;
use crate::{Result, Store};

/// Computes what stands for `derivations`, from all that they are made of and is not `known` yet.
/// `each` is given what was computed so far, the path info and the text of each.
///
/// # Errors
/// When one of them is not in the store, cannot be read, or is not valid.
pub fn learn(
    store: &dyn Store,
    derivations: &[StorePath],
    known: &mut OutputPaths,
    mut each: impl FnMut(&OutputPaths, &PathInfo, &[u8]),
) -> Result<()> {
    let closure = below(store, derivations, known)?;
    store.read_nars(&closure, &mut |info, nar| {
        let text = read_single_file(store.store_dir(), info, nar)?;
        // The store reads references first, so nothing has to be looked up.
        let mut lookup =
            |input: &StorePath| store.derivation_text(input).map_err(|error| error.to_string());
        known.check_text(store.store_dir(), &info.path, &text, &mut lookup)?;
        each(known, info, &text);
        Ok(())
    })
}

/// The derivations that these are made of, and they themselves, references first.
fn below(
    store: &dyn Store,
    derivations: &[StorePath],
    known: &OutputPaths,
) -> Result<Vec<PathInfo>> {
    let mut seen: BTreeSet<StorePath> = derivations.iter().cloned().collect();
    let mut wave: Vec<StorePath> = derivations.to_vec();
    let mut found = Vec::new();
    while !wave.is_empty() {
        let mut next = Vec::new();
        for (path, info) in wave.iter().zip(store.path_infos(&wave)?) {
            let info = match info {
                Some(info) => info,
                None => store.require(path)?,
            };
            let below = info.other_references().filter(|path| path.is_derivation());
            let below = below.filter(|path| known.known(path).is_none());
            next.extend(below.filter(|path| seen.insert((*path).clone())).cloned());
            found.push(info);
        }
        wave = next;
    }
    references_first(store.store_dir(), found)
}
