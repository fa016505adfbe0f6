//! What a NAR has to prove while it is read.

use std::io::{self, Read};

use ferry_formats::content_address::ContentAddressHasher;
use ferry_formats::derivation::OutputPaths;
use ferry_formats::hash::NarHasher;
use ferry_formats::{PathInfo, StoreDir, StorePath, nar};
use hashbrown::HashMap;

use super::Plan;
use crate::progress::Progress;
use crate::{Error, Result, Store, input_hashes};

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
        let planned = plan.infos().iter().map(|info| (&info.path, info)).collect();
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
