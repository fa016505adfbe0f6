//! What of that which is wanted is to be added, and whether it may be.

use std::collections::BTreeMap;

use ferry_formats::build_trace::{DrvOutput, Realisation};
use ferry_formats::keys::SecretKey;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};
use hashbrown::HashSet;
use rayon::prelude::*;

use crate::closure::references_first;
use crate::single_file::MAX_DERIVATION_NAR;
use crate::{Destination, Error, Result, SignatureCheck, Store, Wanted};

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
