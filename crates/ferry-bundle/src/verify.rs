//! Checking a bundle without keeping anything of it.
//!
//! A copy to nowhere: what is checked is what a load would check.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::derivation::OutputPaths;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath, nar};
use ferry_store::admission::{Admitted, Plan};
use ferry_store::progress::Progress;
use ferry_store::trust::TrustPolicy;
use ferry_store::{
    CopyReport, Destination, Error, Result, SignatureCheck, Store, StoreWriter, copy,
};

use crate::Bundle;

/// What a whole bundle was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Paths and bytes checked.
    pub copied: CopyReport,
    /// Paths whose content address proves them.
    pub content_addressed: usize,
    /// Paths signed by a key that is trusted.
    pub signed_by_trusted: usize,
    /// The names of all keys that signed a path.
    pub signed_by: BTreeSet<String>,
    /// Paths that a store with the given policy would refuse.
    pub untrusted: Vec<StorePath>,
}

/// Reads a bundle to its end and checks everything in it: digests, NAR hashes, content addresses,
/// the form of the NARs, and the output paths of the derivations. Signatures are counted by
/// `trust`, not insisted on.
///
/// # Errors
/// With the first thing that is wrong.
pub fn verify(
    bundle: &Bundle,
    trust: &TrustPolicy,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    verify_as(bundle, None, trust, progress)
}

/// The same for a store that has the prerequisites: derivations are checked against those that it
/// has, and not against what the bundle says about them.
///
/// # Errors
/// With the first thing that is wrong, and where `destination` lacks a prerequisite that is needed.
pub fn verify_against(
    bundle: &Bundle,
    destination: &dyn Destination,
    trust: &TrustPolicy,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    verify_as(bundle, Some(destination), trust, progress)
}

fn verify_as(
    bundle: &Bundle,
    against: Option<&dyn Destination>,
    trust: &TrustPolicy,
    progress: &dyn Progress,
) -> Result<VerifyReport> {
    let infos = bundle.path_infos();
    let store_dir = bundle.store_dir();
    let offered: BTreeMap<StorePath, PathInfo> =
        infos.iter().map(|info| (info.path.clone(), info.clone())).collect();
    let copied = copy(bundle, &Nowhere { bundle, against }, offered, &[], progress)?;
    let count = |holds: &dyn Fn(&PathInfo) -> bool| infos.iter().filter(|info| holds(info)).count();
    Ok(VerifyReport {
        copied,
        content_addressed: count(&|info| info.is_content_addressed(store_dir)),
        signed_by_trusted: count(&|info| {
            info.is_signed_by_any(store_dir, &trust.trusted_public_keys)
        }),
        signed_by: infos
            .iter()
            .flat_map(|info| &info.signatures)
            .map(|signature| signature.key_name.clone())
            .collect(),
        untrusted: infos
            .iter()
            .filter(|info| trust.check(store_dir, info).is_err())
            .map(|info| info.path.clone())
            .collect(),
    })
}

/// A destination that keeps nothing.
struct Nowhere<'a> {
    bundle: &'a Bundle,
    /// Where the prerequisites are, if that is known.
    against: Option<&'a dyn Destination>,
}

impl Destination for Nowhere<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.bundle.store_dir()
    }

    fn describe(&self) -> String {
        self.bundle.describe()
    }

    fn activity(&self) -> &'static str {
        "verifying"
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        let list = self.bundle.prerequisites();
        let known: BTreeMap<&StorePath, NarHash> =
            list.iter().map(|one| (&one.path, one.known_content())).collect();
        let in_base = |path| self.bundle.is_in_base(path).then_some(NarHash([0; 32]));
        Ok(paths.iter().map(|path| known.get(path).copied().or_else(|| in_base(path))).collect())
    }

    fn output_paths(&self) -> OutputPaths {
        match self.against {
            Some(destination) => destination.output_paths(),
            None => self.bundle.output_paths(),
        }
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        if let Some(destination) = self.against {
            return destination.derivation_text(path);
        }
        Err(Error::NotValid { path: self.store_dir().render_path(path), store: self.describe() })
    }

    fn derivations(&self) -> Option<&dyn Store> {
        self.against.and_then(Destination::derivations)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::NotNeeded
    }

    fn writer<'a>(&'a self, _plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        Ok(Box::new(Discard { store_dir: self.store_dir() }))
    }
}

struct Discard<'a> {
    store_dir: &'a StoreDir,
}

impl StoreWriter for Discard<'_> {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let path = self.store_dir.render_path(&admitted.info().path);
        admitted
            .verify(|nar| {
                let mut nar = std::io::BufReader::with_capacity(64 << 10, nar);
                nar::decode(&mut nar, |_| Ok(())).map_err(|error| match error {
                    nar::Error::Io(source) => Error::reading(format!("read {path}"))(source),
                    other => Error::MalformedNar { path, reason: other.to_string() },
                })
            })
            .map(drop)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
