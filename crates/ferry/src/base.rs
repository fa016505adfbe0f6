//! What the other side has that what is packed can be told apart from.

use std::collections::{BTreeMap, HashSet};

use ferry_bundle::DerivationBase;
use ferry_formats::{PathInfo, StorePath};
use ferry_store::Store;
use ferry_store::closure::unreferenced;

use crate::context::Context;
use crate::failure::Failure;
use crate::have::{is_file, listed, require_directory};
use crate::sources::OpenSource;

/// What a place has that is of use.
pub(crate) struct Base {
    /// Paths of the selection that are there.
    pub(crate) there: HashSet<StorePath>,
    /// Derivations that those of the selection are coded against, if it has any.
    pub(crate) derivations: Option<DerivationBase>,
}

impl Base {
    /// Looks for what is like the derivations of a selection, by name. What a list or a bundle
    /// names is read from `store`.
    pub(crate) fn find(
        context: &Context,
        place: &str,
        store: &dyn Store,
        wanted: &BTreeMap<StorePath, PathInfo>,
    ) -> Result<Self, Failure> {
        if is_file(context, place) {
            let there = listed(context, place, store.store_dir(), Some(store))?;
            return Self::among(place, store, there, wanted);
        }
        let opened = OpenSource::open(context, place)?;
        let other = opened.store().ok_or_else(|| {
            Failure::usage(format!("--base {place}: what a binary cache has, no store has yet"))
                .hint("give a list of what the other side has, or its store")
        })?;
        require_directory(place, other.store_dir(), store.store_dir())?;
        let there = other.all_paths()?.ok_or_else(|| {
            Failure::usage(format!("--base {place}: {} cannot list its paths", other.describe()))
                .hint("give a list of what it has, as `nix path-info --all` prints it there")
        })?;
        Self::among(place, other, there, wanted)
    }

    fn among(
        place: &str,
        store: &dyn Store,
        there: Vec<StorePath>,
        wanted: &BTreeMap<StorePath, PathInfo>,
    ) -> Result<Self, Failure> {
        let derivations = wanted.values().filter(|info| info.path.is_derivation());
        let derivations: Vec<PathInfo> = derivations.cloned().collect();
        let mut roots: Vec<StorePath> = Vec::new();
        for wanted in unreferenced(&derivations) {
            let found = closest(&wanted, store, &there)?;
            roots
                .extend(found.into_iter().filter(|path| !roots.contains(path)).collect::<Vec<_>>());
        }
        if roots.is_empty() && !derivations.is_empty() {
            return Err(Failure::new(format!(
                "--base {place}: it has no derivation with the name of one that is packed"
            ))
            .hint("leave out what it has with --have"));
        }
        let derivations = match roots.is_empty() {
            true => None,
            false => Some(DerivationBase::read(store, &roots)?),
        };
        Ok(Self { there: there.into_iter().collect(), derivations })
    }
}

/// The derivation that is most like another: it has its name, or at least the name without the
/// version, and of several the most references.
fn closest(
    wanted: &StorePath,
    store: &dyn Store,
    there: &[StorePath],
) -> Result<Option<StorePath>, Failure> {
    if there.contains(wanted) {
        return Ok(Some(wanted.clone()));
    }
    let like = |name: &dyn Fn(&StorePath) -> String| -> Vec<StorePath> {
        let of_wanted = name(wanted);
        let derivations = there.iter().filter(|path| path.is_derivation());
        derivations.filter(|path| name(path) == of_wanted).cloned().collect()
    };
    let mut candidates = like(&|path| path.name().to_owned());
    if candidates.is_empty() {
        candidates = like(&|path| stem(path.name()).to_owned());
    }
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let infos = store.path_infos(&candidates)?;
    let rank = |info: &Option<PathInfo>| {
        info.as_ref().map(|info| (info.references.len(), info.path.clone()))
    };
    Ok(infos.iter().filter_map(rank).max().map(|(_, path)| path))
}

/// A name without its version.
fn stem(name: &str) -> &str {
    let bytes = name.as_bytes();
    let dash = bytes
        .windows(2)
        .position(|pair| matches!(pair, [b'-', next] if !next.is_ascii_alphabetic()));
    dash.and_then(|dash| name.get(..dash)).unwrap_or(name)
}
