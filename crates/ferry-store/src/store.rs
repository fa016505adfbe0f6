//! What a store is, and what takes paths in.

use std::collections::BTreeMap;
use std::io::Read;

use ferry_formats::build_trace::Realisation;
use ferry_formats::derivation::OutputPaths;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};

use crate::admission::{Admitted, Plan};
use crate::realisations::NotTaken;
use crate::trust::TrustPolicy;
use crate::{Error, Result, Wanted};

/// Called once for each NAR, with a reader of it.
pub type NarVisitor<'a> = dyn FnMut(&PathInfo, &mut dyn Read) -> Result<()> + 'a;

/// Something that can be asked for path infos and NARs.
pub trait Store {
    /// The logical directory that its paths begin with, usually `/nix/store`.
    fn store_dir(&self) -> &StoreDir;

    /// What to call it in a message, such as ``local store `/nix` ``.
    fn describe(&self) -> String;

    /// What it records about a path, or `None` where the path is not valid in it.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>>;

    /// What it records about several paths, in the same order.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        paths.iter().map(|path| self.path_info(path)).collect()
    }

    /// Everything that is valid in it, or `None` where it cannot list that.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        Ok(None)
    }

    /// The NAR hashes of all that `roots` reach by references, roots included; of all that is valid,
    /// where no roots are named. A store answers where that takes a small part of what path infos
    /// of it take.
    ///
    /// # Errors
    /// [`Error::NotValid`] for a root that the store does not have, and when it cannot be asked.
    fn closure_hashes(
        &self,
        _roots: Option<&[StorePath]>,
    ) -> Result<Option<BTreeMap<StorePath, NarHash>>> {
        Ok(None)
    }

    /// The valid derivations that have `path` as an output.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>>;

    /// Reads the NARs of `wanted`, each once, references before their referrers provided that
    /// `wanted` is in such an order. A store that can only be read from front to back keeps its
    /// [own order](Store::in_own_order), which is one too.
    ///
    /// # Errors
    /// When a NAR cannot be read, and whatever `visit` fails with.
    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()>;

    /// Sorts paths that are in it by the order in which it reads them, if that is always the same
    /// one. A copy follows it.
    fn in_own_order(&self, _infos: &mut [PathInfo]) {}

    /// What it knows of outputs of derivations that became one of `paths`. A store that keeps no
    /// such thing knows nothing.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn realisations(&self, _paths: &Wanted) -> Result<Vec<Realisation>> {
        Ok(Vec::new())
    }

    /// Which of its paths hold the files of recorded evaluations, as far as it says so.
    fn evaluations(&self) -> Vec<StorePath> {
        Vec::new()
    }

    /// What the build of a derivation has printed, if the store has that.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn build_log(&self, _derivation: &StorePath) -> Result<Option<Box<dyn Read + Send>>> {
        Ok(None)
    }

    /// Keeps `paths` from the garbage collector for as long as the answer lives. Stores that
    /// nothing collects have nothing to do.
    ///
    /// # Errors
    /// When the store has a collector and cannot be told.
    fn protect(&self, _paths: &[StorePath]) -> Result<Protection> {
        Ok(Protection::default())
    }

    /// What it records about a path that has to be there.
    ///
    /// # Errors
    /// [`Error::NotValid`] when it is not, or when the store cannot be asked.
    fn require(&self, path: &StorePath) -> Result<PathInfo> {
        self.path_info(path)?.ok_or_else(|| Error::NotValid {
            path: self.store_dir().render_path(path),
            store: self.describe(),
        })
    }

    /// The text of a derivation that has to be there.
    ///
    /// # Errors
    /// When it is not valid or cannot be read.
    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        let info = self.require(path)?;
        let mut text = Vec::new();
        self.read_nars(std::slice::from_ref(&info), &mut |info, nar| {
            text = crate::admission::read_single_file(self.store_dir(), info, nar)?;
            Ok(())
        })?;
        Ok(text)
    }
}

/// Holds paths alive; dropping it lets go.
#[derive(Default)]
pub struct Protection {
    _held: Option<Box<dyn std::any::Any>>,
}

impl Protection {
    /// Protection that lasts as long as `held` does.
    pub(crate) fn by(held: impl std::any::Any) -> Self {
        Self { _held: Some(Box::new(held)) }
    }
}

/// Who looks at the signatures of what arrives.
#[derive(Clone, Copy, Debug)]
pub enum SignatureCheck<'a> {
    /// The copy does, by this policy, before it writes anything.
    Here(&'a TrustPolicy),
    /// The destination does, by settings of its own (a daemon).
    ByDestination,
    /// Nobody: nothing becomes valid by being written there (a bundle).
    NotNeeded,
}

/// Something that takes store paths in.
pub trait Destination {
    /// The logical directory that its paths begin with.
    fn store_dir(&self) -> &StoreDir;

    /// What to call it in a message.
    fn describe(&self) -> String;

    /// What to call a copy to it while it goes on.
    fn activity(&self) -> &'static str {
        "copying"
    }

    /// The NAR hashes of those of `paths` that it already has, in the same order.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>>;

    /// The text of a derivation that it has.
    ///
    /// # Errors
    /// When it does not have it, or cannot be asked.
    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>>;

    /// Where the derivations that it has are read many at a time, if they can be.
    fn derivations(&self) -> Option<&dyn Store> {
        None
    }

    /// What it knows to stand for derivations that it has, in those that are to come. What it does
    /// not know is computed from the texts.
    fn output_paths(&self) -> OutputPaths {
        OutputPaths::default()
    }

    /// Who checks signatures.
    fn signature_check(&self) -> SignatureCheck<'_>;

    /// Whether it wants all derivations before anything else, each part in the order of the plan.
    fn derivations_first(&self) -> bool {
        false
    }

    /// Puts what is to be added into the order that suits it. References stand first, and have to
    /// afterwards.
    fn arrange(&self, infos: Vec<PathInfo>) -> Vec<PathInfo> {
        infos
    }

    /// Whether it keeps what became of the outputs of derivations.
    fn takes_realisations(&self) -> bool {
        false
    }

    /// Whose signatures of what became of outputs count, if that is looked at before they come
    /// here: a destination that checks those of paths does not check these.
    fn realisation_trust(&self) -> Option<&TrustPolicy> {
        match self.signature_check() {
            SignatureCheck::Here(policy) => Some(policy),
            SignatureCheck::ByDestination | SignatureCheck::NotNeeded => None,
        }
    }

    /// Keeps what became of outputs; their paths are valid in it. What it has stays: it answers
    /// the outputs that have another path there, and those that it could not be told about.
    /// Whoever writes all of it at once has them from the [`Plan`] already.
    ///
    /// # Errors
    /// When it cannot be written to.
    fn add_realisations(&self, _realisations: &[Realisation]) -> Result<NotTaken> {
        Ok(NotTaken::default())
    }

    /// Whether it has what the build of a derivation has printed; nothing where it keeps no such
    /// thing.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn has_build_log(&self, _derivation: &StorePath) -> Result<Option<bool>> {
        Ok(None)
    }

    /// Keeps what the build of a derivation has printed.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn add_build_log(&self, _derivation: &StorePath, _log: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    /// Whether a path that is not there yet is brought by somebody else, so that what refers to it
    /// may come already. Whoever says so sees to it that nothing is valid before its references.
    fn awaits(&self, _path: &StorePath) -> bool {
        false
    }

    /// What of a plan that was carried out is not there, though it was added or relied on: somebody
    /// has taken it away meanwhile. It is copied again then.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn lost(&self, _plan: &Plan) -> Result<Vec<StorePath>> {
        Ok(Vec::new())
    }

    /// Begins to take in what the plan lists, in its order.
    ///
    /// # Errors
    /// When it cannot be written to.
    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>>;
}

/// Takes in the paths of one plan. Dropped before [`finish`](StoreWriter::finish), it leaves
/// behind only whole, valid paths, or nothing.
pub trait StoreWriter {
    /// Reads one NAR to its end and keeps the object. The proof of
    /// [`Admitted::verify`](crate::admission::Admitted::verify) is what lets it become valid.
    ///
    /// # Errors
    /// When the NAR is not what was promised or cannot be kept.
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()>;

    /// Makes everything taken in valid, for good.
    ///
    /// # Errors
    /// When that cannot be done.
    fn finish(self: Box<Self>) -> Result<()>;
}
