//! The one operation that moves paths from a store to wherever they go.

use std::collections::BTreeMap;

use ferry_formats::build_trace::DrvOutput;
use ferry_formats::keys::SecretKey;
use ferry_formats::{PathInfo, StorePath};

use crate::admission::{self, Checks, Plan};
use crate::progress::Progress;
use crate::{Destination, Error, Result, Store};

/// What a copy did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Paths added.
    pub added: usize,
    /// Paths that were there already.
    pub present: usize,
    /// Bytes of NAR added.
    pub nar_size: u64,
    /// Those of the paths there already that have another content there. They stay as they are.
    pub kept: Vec<StorePath>,
    /// What became of outputs of derivations, and is known there now.
    pub realisations: usize,
    /// The same that was not taken: no trusted key has signed it.
    pub untrusted_realisations: Vec<DrvOutput>,
    /// The same that was not taken: there the output has another path.
    pub other_realisations: Vec<DrvOutput>,
}

/// Copies `paths` (not their closure: compute that first) from one store to a destination, each
/// after its references, and then what the source knows of derivations of which they are outputs.
/// All of it gets a signature by each of `sign_with` on the way.
///
/// Nothing is written unless everything fits ([`admission::plan`]); what has become valid before
/// a failure stays, and a second copy goes on from there.
///
/// # Errors
/// When a path is not in the source, does not fit the destination, or is not what it should be.
pub fn copy(
    source: &dyn Store,
    destination: &dyn Destination,
    paths: BTreeMap<StorePath, PathInfo>,
    sign_with: &[SecretKey],
    progress: &dyn Progress,
) -> Result<CopyReport> {
    require_same_directory(source, destination)?;
    let mut offered = paths;
    for info in offered.values_mut() {
        for key in sign_with {
            info.sign(source.store_dir(), key);
        }
    }
    let mut realisations = match destination.takes_realisations() {
        true => source.realisations(&offered)?,
        false => Vec::new(),
    };
    for realisation in &mut realisations {
        sign_with.iter().for_each(|key| realisation.sign(key));
    }
    let mut plan = admission::plan(offered, destination)?;
    plan.follow(source);
    let (realisations, untrusted_realisations) = admission::realisations(realisations, destination);
    let mut report = CopyReport {
        added: plan.infos().len(),
        present: plan.present(),
        nar_size: plan.nar_size(),
        kept: plan.kept().to_vec(),
        untrusted_realisations,
        ..CopyReport::default()
    };
    progress.begin(destination.activity(), report.added as u64, report.nar_size);
    let outcome = transfer(source, destination, &plan, progress);
    progress.end();
    outcome?;
    if !realisations.is_empty() {
        report.other_realisations = destination.add_realisations(&realisations)?;
        report.realisations = realisations.len() - report.other_realisations.len();
    }
    Ok(report)
}

/// Makes sure that paths can move from one store to the other at all; [`copy`] does so itself.
///
/// # Errors
/// [`Error::StoreDirMismatch`].
pub fn require_same_directory(source: &dyn Store, destination: &dyn Destination) -> Result<()> {
    if source.store_dir() == destination.store_dir() {
        return Ok(());
    }
    Err(Error::StoreDirMismatch {
        source_store: source.describe(),
        source_dir: source.store_dir().to_string(),
        destination: destination.describe(),
        destination_dir: destination.store_dir().to_string(),
    })
}

fn transfer(
    source: &dyn Store,
    destination: &dyn Destination,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<()> {
    let known = destination.output_paths();
    let mut checks = Checks::new(destination.store_dir().clone(), known, |path: &StorePath| {
        destination.derivation_text(path).map_err(|error| error.to_string())
    });
    let mut writer = destination.writer(plan)?;
    let mut transfer = |infos: &[PathInfo]| {
        source.read_nars(infos, &mut |info, nar| writer.add(checks.admit(info, nar, progress)))
    };
    if destination.derivations_first() {
        let (derivations, others): (Vec<PathInfo>, Vec<PathInfo>) =
            plan.infos().iter().cloned().partition(|info| info.path.is_derivation());
        for part in [derivations, others].iter().filter(|part| !part.is_empty()) {
            transfer(part)?;
        }
    } else {
        transfer(plan.infos())?;
    }
    writer.finish()
}
