//! What the other side has that what is packed can be told apart from.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ferry_bundle::{Against, Bundle, Counterparts, DerivationBase, Prerequisite};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::closure::unreferenced;
use ferry_store::difference::parse_name;
use ferry_store::uri::OpenStore;
use ferry_store::{NarRanges, Store};

use crate::context::{Context, temporary_directory};
use crate::failure::Failure;
use crate::have::{claimed, inventory, is_file, require_directory};
use crate::sources::OpenSource;

/// Has a bundle read the content that it is packed against from `store`.
pub(crate) fn read_content_from(bundle: &mut Bundle, store: &OpenStore) -> Result<(), Failure> {
    if let Some(nars) = content_of(bundle.prerequisites(), store)? {
        bundle.read_bases_from(nars);
    }
    Ok(())
}

/// The content in `store` that a bundle with these prerequisites is packed against, if it is.
pub(crate) fn content_of(
    prerequisites: &[Prerequisite],
    store: &OpenStore,
) -> Result<Option<Arc<dyn NarRanges>>, Failure> {
    let wanted = prerequisites.iter().filter(|one| one.content.is_some());
    let wanted: Vec<StorePath> = wanted.map(|one| one.path.clone()).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let infos = store.store().path_infos(&wanted)?;
    let infos: Vec<PathInfo> = infos.into_iter().flatten().collect();
    Ok(Some(store.nar_ranges(&infos, &temporary_directory())?))
}

/// What a place has that is of use.
pub(crate) struct Base {
    /// All that is there.
    pub(crate) there: HashSet<StorePath>,
    /// Derivations that those of the selection are coded against, if it has any.
    pub(crate) derivations: Option<DerivationBase>,
    /// The store that it is, unless it is a list.
    store: Option<OpenStore>,
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
            let inventory = inventory(context, place, store.store_dir(), Some(store))?;
            let there = match inventory.paths() {
                Some(paths) => paths.iter().cloned().collect(),
                // It names none: what of the store packed from is there?
                None => {
                    let here = all_paths(place, store)?;
                    let here: Vec<PathInfo> =
                        store.path_infos(&here)?.into_iter().flatten().collect();
                    claimed(context, place, &inventory, &here).collect()
                }
            };
            return Self::among(place, store, there, wanted);
        }
        let OpenSource::Store(opened) = OpenSource::open(context, place)? else {
            return Err(Failure::usage(format!(
                "--base {place}: what a binary cache has, no store has yet"
            ))
            .hint("give a list of what the other side has, or its store"));
        };
        let other = opened.store();
        require_directory(place, other.store_dir(), store.store_dir())?;
        let there = all_paths(place, other)?;
        let found = Self::among(place, other, there, wanted)?;
        Ok(Self { store: Some(opened), ..found })
    }

    /// What of its content to pack `carried` against. That of a list is read from `source`, where
    /// it is there.
    pub(crate) fn content(
        &self,
        source: &OpenStore,
        carried: &BTreeMap<StorePath, PathInfo>,
    ) -> Result<Option<Against>, Failure> {
        let store = self.store.as_ref().unwrap_or(source);
        let mut there: Vec<StorePath> = self.there.iter().cloned().collect();
        there.sort();
        let infos: Vec<PathInfo> =
            store.store().path_infos(&there)?.into_iter().flatten().collect();
        let found = Counterparts::find(carried, &infos);
        if found.bases.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<PathInfo> = found.bases.iter().map(|(base, _)| base.clone()).collect();
        Ok(Some(found.against(store.nar_ranges(&wanted, &temporary_directory())?)))
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
        Ok(Self { there: there.into_iter().collect(), derivations, store: None })
    }
}

fn all_paths(place: &str, store: &dyn Store) -> Result<Vec<StorePath>, Failure> {
    store.all_paths()?.ok_or_else(|| {
        Failure::usage(format!("--base {place}: {} cannot list its paths", store.describe()))
            .hint("give a list of what it has, as `nix path-info --all` prints it there")
    })
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
        candidates = like(&|path| parse_name(path).name);
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
