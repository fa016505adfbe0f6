//! Writing a bundle in one pass: the derivations come first and go into the head; then the other
//! NARs as they come.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_formats::derivation::OutputPaths;
use ferry_formats::keys::SecretKey;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};
use ferry_store::admission::{Admitted, Plan};
use ferry_store::{Destination, Error, NarRanges, Result, SignatureCheck, StoreWriter};
use sha2::{Digest as _, Sha256};

use crate::against::Against;
use crate::arrange;
use crate::derivations::{Amounts, Checked, Coded, Coder, Encoder};
use crate::head;
use crate::payload::{Bases, HashedOutput, Origin, PayloadWriter, Writing, reach};
use crate::replaced::Replaced;
use crate::{BundleError, DerivationBase, Manifest, Prerequisite, Prerequisites};

/// Where temporary files are made unless another place is named: large ones belong on a disk.
pub(crate) const TEMPORARY: &str = "/var/tmp";

/// How to write a bundle. Unless anything else is said: of no name, complete and not signed.
#[derive(Default)]
pub struct PackOptions {
    /// The named set that is packed, for the manifest.
    pub set: String,
    /// What was asked for.
    pub roots: Vec<StorePath>,
    /// What of it holds the files of recorded evaluations.
    pub evaluations: Vec<StorePath>,
    /// zstd's compression level, 1 to 22; 0 is zstd's own default.
    pub level: i32,
    /// Keys to sign the bundle with.
    pub sign_with: Vec<SecretKey>,
    /// What is left out because the other side has it, and what the derivations are coded against.
    pub prerequisites: Prerequisites,
}

/// A bundle to be written to `W`, as a destination for one copy.
pub struct BundleWriter<W> {
    store_dir: StoreDir,
    name: String,
    options: PackOptions,
    against: Option<Against>,
    origin: Option<Arc<dyn NarRanges>>,
    temporary: PathBuf,
    sink: Mutex<Option<W>>,
}

impl<W: Write + Send + 'static> BundleWriter<W> {
    /// A bundle of paths in `store_dir`; `name` is what to call it in messages.
    pub fn new(sink: W, name: String, store_dir: StoreDir, options: PackOptions) -> Self {
        let temporary = PathBuf::from(TEMPORARY);
        let sink = Mutex::new(Some(sink));
        Self { store_dir, name, options, against: None, origin: None, temporary, sink }
    }

    /// Packs what is similar against content that the other side has. The bases become
    /// prerequisites.
    #[must_use]
    pub fn against(mut self, against: Against) -> Self {
        for (base, _) in &against.bases {
            self.options.prerequisites.add_content_base(base);
        }
        self.against = Some(against);
        self
    }

    /// Says where the NARs that are packed can be read at any position, to look back at them.
    /// Otherwise they are put aside in a temporary file.
    #[must_use]
    pub fn reading_again_from(mut self, nars: Arc<dyn NarRanges>) -> Self {
        self.origin = Some(nars);
        self
    }

    /// Where temporary files are made (default: `/var/tmp`). They hold up to all of the payload.
    #[must_use]
    pub fn temporary_files_in(mut self, directory: PathBuf) -> Self {
        self.temporary = directory;
        self
    }
}

impl<W: Write + Send + 'static> Destination for BundleWriter<W> {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        format!("bundle {}", self.name)
    }

    fn activity(&self) -> &'static str {
        "packing"
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        let list = self.options.prerequisites.list();
        let known: HashMap<&StorePath, NarHash> =
            list.iter().map(|one| (&one.path, one.known_content())).collect();
        let base = self.options.prerequisites.base();
        let in_base = |path| base?.is_known(path).then_some(NarHash([0; 32]));
        Ok(paths.iter().map(|path| known.get(path).copied().or_else(|| in_base(path))).collect())
    }

    fn output_paths(&self) -> OutputPaths {
        let mut known = self.options.prerequisites.known().clone();
        for (path, hash) in
            self.options.prerequisites.base().into_iter().flat_map(DerivationBase::hashes)
        {
            known.know(path, *hash);
        }
        known
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        // A bundle gets every input before its dependents, or knows what stands for it.
        Err(Error::NotValid { path: self.store_dir.render_path(path), store: self.describe() })
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::NotNeeded
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(sink) = sink else {
            return Err(BundleError::StreamUsedUp { bundle: self.name.clone() }.into());
        };
        let failed = BundleError::io(format!("write {}", self.name));
        let realisations = Manifest::form_of_realisations(plan.realisations())
            .map_err(|error| failed(error.into()))?;
        let manifest = Manifest {
            store_dir: self.store_dir.to_string(),
            set: self.options.set.clone(),
            roots: self.options.roots.iter().map(StorePath::to_basename).collect(),
            paths: plan.infos().len() as u64,
            nar_size: plan.nar_size(),
            prerequisites: self.options.prerequisites.list().len() as u64,
            reach: 0,
            evaluations: self.options.evaluations.iter().map(StorePath::to_basename).collect(),
            realisations,
        };
        let infos = plan.infos();
        Ok(Box::new(PartsWriter {
            bundle: self,
            infos,
            manifest,
            places: infos.iter().zip(0..).map(|(info, place)| (&info.path, place)).collect(),
            beginning: Some((
                sink,
                Coder::start(Encoder::new(
                    &self.store_dir,
                    infos,
                    &self.options.prerequisites,
                    self.options.prerequisites.base(),
                )),
            )),
            kept: BTreeMap::new(),
            next: 0,
            payload: None,
        }))
    }

    fn derivations_first(&self) -> bool {
        true
    }

    fn takes_realisations(&self) -> bool {
        true
    }

    fn arrange(&self, infos: Vec<PathInfo>) -> Vec<PathInfo> {
        arrange::like_with_like(infos)
    }
}

/// Takes in the derivations, which are part of the head, and then the payload.
struct PartsWriter<'a, W> {
    bundle: &'a BundleWriter<W>,
    infos: &'a [PathInfo],
    manifest: Manifest,
    /// Where each path stands in `infos`.
    places: HashMap<&'a StorePath, usize>,
    /// Until the head is written.
    beginning: Option<(W, Coder)>,
    /// NARs of derivations that cannot be coded, until it is their turn in the payload.
    kept: BTreeMap<usize, Vec<u8>>,
    /// The first place in `infos` that the next NAR may have.
    next: usize,
    payload: Option<PayloadWriter>,
}

impl<W: Write + Send + 'static> PartsWriter<'_, W> {
    /// Hands a derivation over to be coded.
    fn add_derivation(coder: &mut Coder, place: usize, admitted: Admitted<'_>) -> Result<()> {
        let (nar, verified) = admitted.read_whole()?;
        coder.add(Checked { place, info: verified.into_info(), nar });
        Ok(())
    }

    /// Writes the head, if it is not written yet; then come NARs.
    fn payload(&mut self) -> Result<&mut PayloadWriter> {
        if let Some((sink, coder)) = self.beginning.take() {
            let Coded { mut encoder, kept } = coder.finish();
            self.kept = kept;
            let PackOptions { level, sign_with, .. } = &self.bundle.options;
            let name = &self.bundle.name;
            let failed = || BundleError::io(format!("write {name}"));
            let more = self.more_prerequisites();
            encoder.add_prerequisites(more.len());
            let list = [self.bundle.options.prerequisites.list(), &more].concat();
            self.manifest.prerequisites = list.len() as u64;
            let base = Amounts::of_base(encoder.base());
            let (section, coded) = encoder.finish(self.infos, *level).map_err(failed())?;
            let derivations = (section.as_slice(), coded.as_slice(), base);
            let of_coded = coded.iter().filter_map(|place| self.infos.get(*place));
            let of_coded: u64 = of_coded.map(|info| info.nar_size).sum();
            let size = self.manifest.nar_size.saturating_sub(of_coded);
            self.manifest.reach = reach(size);
            let against = self.bundle.against.as_ref();
            let bases = list.iter().filter(|one| one.content.is_some()).count();
            let replaced =
                against.map_or_else(|| Replaced::none(bases), |against| against.replaced(&list));
            let store_dir = &self.bundle.store_dir;
            let head = head::encode(
                &self.manifest,
                store_dir,
                (&list, &replaced),
                self.infos,
                derivations,
                *level,
                sign_with,
            )?;
            let mut output = HashedOutput { sink, digest: Sha256::new() };
            output.put(&head).map_err(failed())?;
            let nars = against.map(|against| against.nars.clone());
            let bases = Bases::of(store_dir, &list, &replaced, nars);
            let origin = self.bundle.origin.clone().map(|nars| {
                let coded: HashSet<usize> = coded.iter().copied().collect();
                let others = self.infos.iter().zip(0..).filter(|(_, place)| !coded.contains(place));
                Origin::new(nars, others.map(|(info, _)| (info.path.clone(), info.nar_size)))
            });
            let writing = Writing {
                name: name.clone(),
                level: *level,
                size,
                bases,
                origin,
                directory: self.bundle.temporary.clone(),
            };
            self.payload = Some(PayloadWriter::start(output, writing)?);
        }
        self.payload
            .as_mut()
            .ok_or_else(|| BundleError::StreamUsedUp { bundle: self.bundle.name.clone() }.into())
    }

    /// What derivations that are not coded refer to, and what is only in the base so far: in the
    /// index it needs a number.
    fn more_prerequisites(&self) -> Vec<Prerequisite> {
        let Some(base) = self.bundle.options.prerequisites.base() else { return Vec::new() };
        let list = self.bundle.options.prerequisites.list();
        let listed: HashSet<&StorePath> = list.iter().map(|one| &one.path).collect();
        let kept = self.kept.keys().filter_map(|place| self.infos.get(*place));
        let more: BTreeSet<&StorePath> = kept
            .flat_map(PathInfo::other_references)
            .filter(|path| base.is_known(path) && !listed.contains(path))
            .collect();
        more.into_iter().map(|path| Prerequisite { path: path.clone(), content: None }).collect()
    }

    /// Adds the NARs of derivations that stand before a place in the payload.
    fn add_kept(&mut self, before: usize) -> Result<()> {
        while let Some(entry) = self.kept.first_entry().filter(|entry| *entry.key() < before) {
            let nar = entry.remove();
            self.payload()?.take_in(&mut nar.as_slice())?;
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> StoreWriter for PartsWriter<'_, W> {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let path = &admitted.info().path;
        let place = self.places.get(path).copied().unwrap_or_default();
        if path.is_derivation()
            && let Some((_, coder)) = &mut self.beginning
        {
            return Self::add_derivation(coder, place, admitted);
        }
        self.payload()?;
        self.add_kept(place)?;
        if place < std::mem::replace(&mut self.next, place + 1) {
            let path = self.bundle.store_dir.render_path(path);
            return Err(BundleError::OutOfOrder { bundle: self.bundle.name.clone(), path }.into());
        }
        let payload = self.payload()?;
        admitted.verify(|nar| payload.take_in(nar)).map(drop)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.payload()?;
        self.add_kept(usize::MAX)?;
        self.payload.take().map_or(Ok(()), PayloadWriter::finish)
    }
}
