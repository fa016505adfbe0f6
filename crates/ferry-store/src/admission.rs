//! The one place that decides whether a path may become valid.
//!
//! Two steps. Before anything is written, [`plan`] looks at the path infos: what is already there
//! must be the same object, every reference must be there or coming, and signatures must satisfy
//! the policy. Then each NAR goes through an [`Admitted`], which hashes it as it is read; only a
//! NAR with the promised size, hash and content address, and for a derivation the output paths
//! that follow from its text, yields a [`Verified`], and only with a [`Verified`] does a store
//! register a path. Neither type can be made elsewhere.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ferry_formats::build_trace::{DrvOutput, Realisation};
use ferry_formats::content_address::ContentAddressHasher;
use ferry_formats::derivation::OutputPaths;
use ferry_formats::hash::NarHasher;
use ferry_formats::keys::SecretKey;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath, nar};
use hashbrown::{HashMap, HashSet};
use rayon::prelude::*;

use crate::closure::references_first;
use crate::progress::Progress;
pub use crate::single_file::{MAX_DERIVATION_NAR, read_single_file};
use crate::{Destination, Error, Result, SignatureCheck, Store, Wanted, input_hashes};

/// What will be added to a destination, references first.
pub struct Plan {
    infos: Vec<PathInfo>,
    present: usize,
    kept: Vec<StorePath>,
    relied_on: Vec<StorePath>,
    realisations: Vec<Realisation>,
}

impl Plan {
    /// The paths to add, each after its references.
    #[must_use]
    pub fn infos(&self) -> &[PathInfo] {
        &self.infos
    }

    /// Follows the order in which `source` reads, if it has one of its own.
    pub(crate) fn follow(&mut self, source: &dyn Store) {
        source.in_own_order(&mut self.infos);
    }

    /// What became of the outputs of derivations, which comes with them.
    #[must_use]
    pub fn realisations(&self) -> &[Realisation] {
        &self.realisations
    }

    pub(crate) fn with_realisations(mut self, realisations: &[Realisation]) -> Self {
        self.realisations = realisations.to_vec();
        self
    }

    /// How many of the paths asked for the destination has already.
    #[must_use]
    pub fn present(&self) -> usize {
        self.present
    }

    /// Those of them that it has with another content, which stays.
    #[must_use]
    pub fn kept(&self) -> &[StorePath] {
        &self.kept
    }

    /// What the destination has already and has to keep meanwhile: paths that were asked for, and
    /// paths that the ones to come refer to.
    #[must_use]
    pub fn relied_on(&self) -> &[StorePath] {
        &self.relied_on
    }

    /// Sum of the NAR sizes to come, in bytes.
    #[must_use]
    pub fn nar_size(&self) -> u64 {
        self.infos.iter().fold(0, |sum, info| sum.saturating_add(info.nar_size))
    }
}

/// Decides which of `wanted`, paths of `source`, to add, and refuses the whole where something does
/// not fit. What is added gets a signature by each of `sign_with`.
///
/// What the destination has stays as it is, as with Nix, whatever is offered: two builds of one
/// derivation may well differ, and each is as good as the other. Only where the path follows from
/// the content can one of two contents not be right, and that is an error.
///
/// # Errors
/// [`Error::Conflict`], [`Error::MissingReference`] or [`Error::MissingPaths`] (with every absent
/// reference), [`Error::WrongContentAddress`], [`Error::Untrusted`], [`Error::ReferenceCycle`],
/// [`Error::NotValid`] for what the source has no more, or when one of the two cannot be asked.
pub fn plan(
    wanted: Wanted,
    source: &dyn Store,
    sign_with: &[SecretKey],
    destination: &dyn Destination,
) -> Result<Plan> {
    let store_dir = destination.store_dir().clone();
    let Compared { absent, mut relied_on, different, there } = match wanted {
        Wanted::Hashes(hashes) => Compared::of(hashes, |hash| *hash, destination)?,
        Wanted::Infos(infos) => Compared::of(infos, |info| info.nar_hash, destination)?,
    };
    let mut kept = Vec::new();
    for (info, there) in different.infos(source)?.into_values().zip(there) {
        if info.path.is_derivation() || info.is_content_addressed(&store_dir) {
            return Err(Error::Conflict {
                path: store_dir.render_path(&info.path),
                store: destination.describe(),
                present: there.to_string(),
                offered: info.nar_hash.to_string(),
            });
        }
        kept.push(info.path.clone());
        relied_on.push(info.path);
    }
    let mut to_add = absent.infos(source)?;
    to_add.par_iter_mut().for_each(|(_, info)| {
        sign_with.iter().for_each(|key| info.sign(&store_dir, key));
    });
    let present = relied_on.len();
    relied_on.extend(check_references(&to_add, &relied_on, destination)?);
    let policy = match destination.signature_check() {
        SignatureCheck::Here(policy) => Some(policy),
        SignatureCheck::ByDestination | SignatureCheck::NotNeeded => None,
    };
    let check = |info: &PathInfo| {
        check_claims(&store_dir, info)?;
        policy.map_or(Ok(()), |policy| policy.check(&store_dir, info))
    };
    // Hashes and signatures of everything, on all cores; the first failure in order is the one.
    let checked: Vec<Result<()>> = to_add.par_iter().map(|(_, info)| check(info)).collect();
    checked.into_iter().collect::<Result<()>>()?;
    let infos = destination.arrange(references_first(&store_dir, to_add.into_values())?);
    Ok(Plan { infos, present, kept, relied_on, realisations: Vec::new() })
}

/// What is wanted, by what a destination has of it.
struct Compared {
    absent: Wanted,
    /// What is there with the same content.
    relied_on: Vec<StorePath>,
    /// What is there with another content.
    different: Wanted,
    /// The hashes that those have there.
    there: Vec<NarHash>,
}

impl Compared {
    fn of<T>(
        wanted: BTreeMap<StorePath, T>,
        hash: impl Fn(&T) -> NarHash,
        destination: &dyn Destination,
    ) -> Result<Self>
    where
        Wanted: From<BTreeMap<StorePath, T>>,
    {
        let paths: Vec<StorePath> = wanted.keys().cloned().collect();
        let present = destination.present(&paths)?;
        let (mut absent, mut different) = (BTreeMap::new(), BTreeMap::new());
        let (mut relied_on, mut hashes) = (Vec::new(), Vec::new());
        for ((path, known), there) in wanted.into_iter().zip(present) {
            match there {
                None => drop(absent.insert(path, known)),
                Some(there) if there == hash(&known) => relied_on.push(path),
                Some(there) => {
                    hashes.push(there);
                    different.insert(path, known);
                }
            }
        }
        Ok(Self { absent: absent.into(), relied_on, different: different.into(), there: hashes })
    }
}

/// Those of `offered` that a destination may take in, and the others, which lack a signature by a
/// key that it trusts: Nix asks for one of every realisation, as none proves itself.
#[must_use]
pub fn realisations(
    offered: Vec<Realisation>,
    destination: &dyn Destination,
) -> (Vec<Realisation>, Vec<DrvOutput>) {
    let Some(policy) = destination.realisation_trust() else {
        return (offered, Vec::new());
    };
    let (taken, refused): (Vec<_>, Vec<_>) = offered.into_iter().partition(|realisation| {
        !policy.require_signatures || realisation.is_signed_by_any(&policy.trusted_public_keys)
    });
    (taken, refused.into_iter().map(|realisation| realisation.id).collect())
}

/// What can be told to be wrong without the content, whoever signed it.
fn check_claims(store_dir: &StoreDir, info: &PathInfo) -> Result<()> {
    let path = || store_dir.render_path(&info.path);
    if let Some(ca) = &info.ca
        && !info.is_content_addressed(store_dir)
    {
        let reason = format!("the content address {ca} does not give this path");
        return Err(Error::WrongContentAddress { path: path(), reason });
    }
    if info.path.is_derivation() && info.nar_size > MAX_DERIVATION_NAR {
        let reason = format!("{} bytes is too large for a derivation", info.nar_size);
        return Err(Error::MalformedNar { path: path(), reason });
    }
    Ok(())
}

/// Every reference must be among the paths to add, or in the destination, as those of `there` are.
/// Returns the others in the destination.
///
/// What the destination has said to have it is not asked about again: should somebody take that
/// away meanwhile, [`Destination::lost`] finds out, and it is copied, as it was offered.
fn check_references(
    to_add: &BTreeMap<StorePath, PathInfo>,
    there: &[StorePath],
    destination: &dyn Destination,
) -> Result<Vec<StorePath>> {
    // Each path is asked about as often as something refers to it.
    let known: HashSet<&StorePath> = there.iter().chain(to_add.keys()).collect();
    let references = to_add.par_iter().flat_map_iter(|(_, info)| info.other_references());
    let mut outside: Vec<&StorePath> = references.filter(|path| !known.contains(path)).collect();
    outside.sort_unstable();
    outside.dedup();
    let outside: Vec<StorePath> = outside.into_iter().cloned().collect();
    let present = destination.present(&outside)?;
    let store_dir = destination.store_dir();
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    for (path, hash) in outside.into_iter().zip(&present) {
        match hash {
            Some(_) => there.push(path),
            None if destination.awaits(&path) => {}
            None => absent.push(path),
        }
    }
    match absent.as_slice() {
        [] => Ok(there),
        [only] => {
            let referrer = to_add.values().find(|info| info.references.contains(only));
            Err(Error::MissingReference {
                path: referrer.map(|info| store_dir.render_path(&info.path)).unwrap_or_default(),
                reference: store_dir.render_path(only),
                store: destination.describe(),
            })
        }
        several => Err(Error::MissingPaths {
            paths: several.iter().map(|path| store_dir.render_path(path)).collect(),
            store: destination.describe(),
        }),
    }
}

/// Gives the text of a derivation, or says why it cannot.
pub type DerivationLookup<'a> = dyn FnMut(&StorePath) -> std::result::Result<Vec<u8>, String> + 'a;

/// Finds out what stands for derivations, as far as that can be had for many at a time.
type Learn<'a> = dyn FnMut(&mut OutputPaths, &[StorePath]) + 'a;

/// What the checks of one copy remember from path to path.
pub struct Checks<'a> {
    store_dir: StoreDir,
    planned: HashMap<&'a StorePath, &'a PathInfo>,
    output_paths: OutputPaths,
    lookup: Box<DerivationLookup<'a>>,
    learn: Box<Learn<'a>>,
}

impl<'a> Checks<'a> {
    /// Checks for a store with this directory, of what is in a plan. `known` is what stands for
    /// derivations that do not go by, and `lookup` gives the text of the others.
    pub fn new(
        store_dir: StoreDir,
        plan: &'a Plan,
        known: OutputPaths,
        lookup: impl FnMut(&StorePath) -> std::result::Result<Vec<u8>, String> + 'a,
    ) -> Self {
        let planned = plan.infos.iter().map(|info| (&info.path, info)).collect();
        Self {
            store_dir,
            planned,
            output_paths: known,
            lookup: Box::new(lookup),
            learn: Box::new(|_, _| {}),
        }
    }

    /// Reads the texts of derivations that do not go by from a store, with all that they are made
    /// of, and looks up only what is not to be had there.
    #[must_use]
    pub fn with_derivations_of(self, store: Option<&'a dyn Store>) -> Self {
        let mut left = store;
        let learn = move |known: &mut OutputPaths, inputs: &[StorePath]| {
            let learnt = left.map(|store| input_hashes::learn(store, inputs, known, |_, _, _| {}));
            if let Some(Err(error)) = learnt {
                // One that is needed is looked up by itself, and is an error only then.
                tracing::debug!(%error, "derivations are looked up one at a time");
                left = None;
            }
        };
        Self { learn: Box::new(learn), ..self }
    }

    /// Wraps the NAR of a path, which has to prove what the plan says of it. References have to go
    /// by before their referrers.
    ///
    /// # Errors
    /// When the path is not in the plan.
    pub fn admit<'b>(
        &'b mut self,
        path: &StorePath,
        nar: &'b mut dyn Read,
        progress: &'b dyn Progress,
    ) -> Result<Admitted<'b>>
    where
        'a: 'b,
    {
        let Self { store_dir, planned, output_paths, lookup, learn } = self;
        let Some(info) = planned.get(path) else {
            let action = format!("take in {}", store_dir.render_path(path));
            return Err(Error::io(action)(io::Error::other("nobody has asked for it")));
        };
        Ok(Admitted { info, nar, progress, store_dir, output_paths, lookup, learn })
    }
}

/// A path that may be read in, and has still to prove itself.
pub struct Admitted<'a> {
    info: &'a PathInfo,
    nar: &'a mut dyn Read,
    progress: &'a dyn Progress,
    store_dir: &'a StoreDir,
    output_paths: &'a mut OutputPaths,
    lookup: &'a mut DerivationLookup<'a>,
    learn: &'a mut Learn<'a>,
}

/// Proof that a path's NAR was read whole and is what its path info says.
pub struct Verified {
    info: PathInfo,
    outputs: Vec<(String, StorePath)>,
}

impl Verified {
    /// The path info that was proved.
    #[must_use]
    pub fn info(&self) -> &PathInfo {
        &self.info
    }

    /// The path info alone.
    #[must_use]
    pub fn into_info(self) -> PathInfo {
        self.info
    }

    /// For a derivation: its outputs with a path known before building.
    #[must_use]
    pub fn outputs(&self) -> &[(String, StorePath)] {
        &self.outputs
    }
}

impl Admitted<'_> {
    /// The path info to be proved.
    #[must_use]
    pub fn info(&self) -> &PathInfo {
        self.info
    }

    /// Reads a small NAR into memory, and checks it.
    ///
    /// # Errors
    /// When it cannot be read, and every way in which it is not what was promised.
    pub fn read_whole(mut self) -> Result<(Vec<u8>, Verified)> {
        let Self { info, store_dir, .. } = self;
        let mut bytes = Vec::with_capacity(usize::try_from(info.nar_size).unwrap_or_default());
        self.check(None, |nar| match nar.read_to_end(&mut bytes) {
            Ok(_) => Ok(()),
            Err(error) => {
                let path = store_dir.render_path(&info.path);
                Err(Error::reading(format!("read the NAR of {path}"))(error))
            }
        })?;
        let verified = self.conclude(&bytes)?;
        Ok((bytes, verified))
    }

    /// Hands the NAR to `consume`, which reads all of it, and checks what went by.
    ///
    /// # Errors
    /// What `consume` fails with, and every way in which the NAR is not what was promised.
    pub fn verify(mut self, consume: impl FnOnce(&mut dyn Read) -> Result<()>) -> Result<Verified> {
        let kept = self.info.path.is_derivation().then(Vec::new);
        let kept = self.check(kept, consume)?;
        self.conclude(&kept.unwrap_or_default())
    }

    /// Checks what goes by, and keeps it where it is to be kept.
    fn check(
        &mut self,
        kept: Option<Vec<u8>>,
        consume: impl FnOnce(&mut dyn Read) -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        let rendered = || self.store_dir.render_path(&self.info.path);
        let mut reader = CheckedNar {
            nar: &mut *self.nar,
            remaining: self.info.nar_size,
            hasher: NarHasher::default(),
            content_address: ContentAddressHasher::new(self.info),
            kept,
            progress: self.progress,
        };
        consume(&mut reader)?;
        let found = reader.hasher.size();
        if reader.remaining > 0 {
            return Err(Error::WrongNarSize {
                path: rendered(),
                expected: self.info.nar_size,
                found,
            });
        }
        let CheckedNar { hasher, content_address, kept, .. } = reader;
        let nar_hash = hasher.finish();
        if nar_hash != self.info.nar_hash {
            return Err(Error::WrongNarHash {
                path: rendered(),
                expected: self.info.nar_hash.to_string(),
                found: nar_hash.to_string(),
            });
        }
        if let Some(content_address) = content_address {
            content_address.finish(nar_hash).map_err(|source| Error::WrongContentAddress {
                path: rendered(),
                reason: source.to_string(),
            })?;
        }
        Ok(kept)
    }

    /// Checks what a derivation says, once its NAR has been found right.
    fn conclude(self, nar: &[u8]) -> Result<Verified> {
        let mut outputs = Vec::new();
        if self.info.path.is_derivation() {
            // Nix takes every object of such a name for a derivation.
            let text = nar::file_contents(nar).ok_or_else(|| Error::MalformedNar {
                path: self.store_dir.render_path(&self.info.path),
                reason: "it is named like a derivation, and is not a plain file".to_owned(),
            })?;
            let (path, known) = (&self.info.path, self.output_paths);
            let mut has_unknown = false;
            let checked = known.check_text(self.store_dir, path, text, &mut |_| {
                has_unknown = true;
                Err("it is not known yet".to_owned())
            });
            let checked = match has_unknown {
                false => checked,
                true => {
                    let inputs = self.info.other_references();
                    let inputs = inputs.filter(|path| path.is_derivation());
                    let unknown = inputs.filter(|path| known.known(path).is_none());
                    (self.learn)(known, &unknown.cloned().collect::<Vec<_>>());
                    known.check_text(self.store_dir, path, text, self.lookup)
                }
            };
            outputs = checked?;
        }
        self.progress.path(&self.info.path);
        Ok(Verified { info: self.info.clone(), outputs })
    }
}

/// Reads at most the promised number of bytes and takes account of them.
struct CheckedNar<'a> {
    nar: &'a mut dyn Read,
    remaining: u64,
    hasher: NarHasher,
    content_address: Option<ContentAddressHasher>,
    kept: Option<Vec<u8>>,
    progress: &'a dyn Progress,
}

impl Read for CheckedNar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..limit).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let count = self.nar.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        self.remaining -= bytes.len() as u64;
        self.hasher.update(bytes);
        if let Some(content_address) = &mut self.content_address {
            content_address.update(bytes);
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        self.progress.bytes(bytes.len() as u64);
        Ok(count)
    }
}
