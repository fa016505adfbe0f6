//! Content of the other side that bundles are packed against.

use std::collections::{BTreeMap, BTreeSet};

use ferry_bundle::{Against, Bundle, Counterparts};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose};

use crate::context::{Context, temporary_directory};
use crate::failure::Failure;
use crate::have;

/// Has a bundle read what it is packed against from `store`.
pub(crate) fn read_from(bundle: &mut Bundle, store: &OpenStore) -> Result<(), Failure> {
    let wanted: Vec<StorePath> = bundle
        .prerequisites()
        .iter()
        .filter(|one| one.content.is_some())
        .map(|one| one.path.clone())
        .collect();
    if !wanted.is_empty() {
        let infos = store.store().path_infos(&wanted)?;
        let infos: Vec<PathInfo> = infos.into_iter().flatten().collect();
        bundle.read_bases_from(store.nar_ranges(&infos, &temporary_directory())?);
    }
    Ok(())
}

/// What of `place` to pack `carried` against. The content of a store is read from there, that of
/// what a list or a bundle names from `source`, where it is there.
pub(crate) fn choose(
    context: &Context,
    place: &str,
    source: &OpenStore,
    carried: &BTreeMap<StorePath, PathInfo>,
) -> Result<Option<Against>, Failure> {
    let file = context.surroundings.working_directory.join(place);
    if place == "-" || file.exists() && !file.is_dir() {
        let listed = have::listed(context, place, source.store().store_dir())?;
        return against(source, &listed, carried);
    }
    let trust = TrustPolicy::accept_all();
    let opened = context.open_store(place, Purpose::Read, trust, false, &[])?;
    let Some(all) = opened.store().all_paths()? else {
        return Err(Failure::usage(format!("--base {place}: this store cannot be listed")));
    };
    against(&opened, &all, carried)
}

fn against(
    store: &OpenStore,
    there: &[StorePath],
    carried: &BTreeMap<StorePath, PathInfo>,
) -> Result<Option<Against>, Failure> {
    let there: BTreeSet<&StorePath> = there.iter().collect();
    let there: Vec<StorePath> = there.into_iter().cloned().collect();
    let infos: Vec<PathInfo> = store.store().path_infos(&there)?.into_iter().flatten().collect();
    let found = Counterparts::find(carried, &infos);
    if found.bases.is_empty() {
        return Ok(None);
    }
    let wanted: Vec<PathInfo> = found.bases.iter().map(|(base, _)| base.clone()).collect();
    Ok(Some(found.against(store.nar_ranges(&wanted, &temporary_directory())?)))
}
