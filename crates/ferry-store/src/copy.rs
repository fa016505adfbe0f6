//! The one operation that moves paths from a store to wherever they go.

use std::collections::HashSet;

use ferry_formats::build_trace::{DrvOutput, Realisation};
use ferry_formats::keys::SecretKey;
use ferry_formats::{PathInfo, StorePath};

use crate::admission::{self, Checks, Plan};
use crate::progress::Progress;
use crate::realisations::NotTaken;
use crate::{Destination, Error, Result, SignatureCheck, Store, Wanted};

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
    /// The same that was not taken, but for the signatures.
    pub realisations_not_taken: NotTaken,
}

/// So often is copied again what somebody takes away meanwhile.
const ROUNDS: usize = 20;

/// Copies `paths` (not their closure: compute that first) from one store to a destination, each
/// after its references, and then what the source knows of derivations of which they are outputs.
/// What is added gets a signature by each of `sign_with` on the way.
///
/// Nothing is written unless everything fits ([`admission::plan`]); what has become valid before
/// a failure stays, and a second copy goes on from there.
///
/// # Errors
/// When a path is not in the source, does not fit the destination, or is not what it should be.
pub fn copy(
    source: &dyn Store,
    destination: &dyn Destination,
    paths: impl Into<Wanted>,
    sign_with: &[SecretKey],
    progress: &dyn Progress,
) -> Result<CopyReport> {
    let paths = paths.into();
    require_same_directory(source, destination)?;
    let mut realisations = match destination.takes_realisations() {
        true => source.realisations(&paths)?,
        false => Vec::new(),
    };
    for realisation in &mut realisations {
        sign_with.iter().for_each(|key| realisation.sign(key));
    }
    let (taken, untrusted) = admission::realisations(realisations, destination);
    let mut report = copy_paths(source, destination, paths, &taken, sign_with, progress)?;
    report.untrusted_realisations = untrusted;
    if !taken.is_empty() {
        report.realisations_not_taken = destination.add_realisations(&taken)?;
        report.realisations = taken.len() - report.realisations_not_taken.len();
    }
    Ok(report)
}

/// Copies until everything is there: somebody may take away what is relied on meanwhile.
fn copy_paths(
    source: &dyn Store,
    destination: &dyn Destination,
    paths: Wanted,
    realisations: &[Realisation],
    sign_with: &[SecretKey],
    progress: &dyn Progress,
) -> Result<CopyReport> {
    let total = paths.len();
    let mut report = CopyReport::default();
    let mut added = HashSet::new();
    let mut offered = paths;
    for _ in 0..ROUNDS {
        let plan = admission::plan(offered, source, sign_with, destination)?;
        let mut plan = plan.with_realisations(realisations);
        plan.follow(source);
        progress.begin(destination.activity(), plan.infos().len() as u64, plan.nar_size());
        let outcome = transfer(source, destination, &plan, progress);
        progress.end();
        outcome?;
        let lost = destination.lost(&plan)?;
        report.kept.extend_from_slice(plan.kept());
        if added.is_empty() && lost.is_empty() {
            report.added = plan.infos().len();
            report.present = plan.present();
            report.nar_size = plan.nar_size();
            return Ok(report);
        }
        for info in plan.infos() {
            if added.insert(info.path.clone()) {
                report.nar_size = report.nar_size.saturating_add(info.nar_size);
            }
        }
        if lost.is_empty() {
            report.added = added.len();
            report.present = total.saturating_sub(report.added);
            return Ok(report);
        }
        tracing::debug!(paths = lost.len(), "taken away meanwhile");
        offered = Wanted::closure(source, &lost)?.split(|path| !destination.awaits(path)).0;
    }
    Err(Error::TakenAway { store: destination.describe() })
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
    let is_shared = matches!(destination.signature_check(), SignatureCheck::NotNeeded);
    let store_dir = destination.store_dir().clone();
    let mut checks = Checks::new(store_dir, plan, known, |path: &StorePath| {
        let text = match destination.awaits(path) {
            true => source.derivation_text(path),
            false => destination.derivation_text(path),
        };
        let text = match text {
            // Others bring what needs something that is yet to come from here, and others take
            // things away. Nothing becomes valid by this.
            Err(_) if is_shared => source.derivation_text(path),
            text => text,
        };
        text.map_err(|error| error.to_string())
    })
    .with_derivations_of(destination.derivations());
    let mut writer = destination.writer(plan)?;
    let mut transfer = |infos: &[PathInfo]| {
        source
            .read_nars(infos, &mut |info, nar| writer.add(checks.admit(&info.path, nar, progress)?))
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
