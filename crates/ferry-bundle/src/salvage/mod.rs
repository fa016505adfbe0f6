//! What can be taken out of a bundle that is damaged or ends too early.
//!
//! As long as the head is whole it says the hash of everything, and what is still there proves
//! itself. A head that is damaged may say anything, so then only this is kept: what a trusted key
//! has signed, and what the roots prove, as their paths are digests of all that is below them.

mod blocks;
mod payload;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Seek as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use ferry_formats::keys::PublicKey;
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::progress::Progress;
use ferry_store::{Error, NarRanges, NarVisitor, Store};

use self::blocks::Wreck;
use self::payload::{Rescue, Rest};
use crate::head::{self, Head};
use crate::order::Place;
use crate::payload::{Bases, Input};
use crate::writer::TEMPORARY;
use crate::{BundleError, Manifest, Prerequisite, Prerequisites, Result};

/// Why something cannot be taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// Its NAR is damaged or missing.
    Damaged,
    /// It is whole, and refers to something that is lost.
    RefersTo(StorePath),
    /// The head of the bundle is damaged, and nothing else proves it.
    Unproved,
}

/// A bundle of which something may be damaged or missing, with a head that can be read.
pub struct DamagedBundle {
    name: String,
    file: File,
    head: Head,
    head_is_whole: bool,
    /// Where the payload begins in the file.
    payload: u64,
    nars: Option<Arc<dyn NarRanges>>,
    temporary: PathBuf,
}

impl DamagedBundle {
    /// Reads the head of `file`, which is called `name` in messages. If its derivations are coded
    /// against others, these are read from `store`.
    ///
    /// # Errors
    /// When the file cannot be read, is not a bundle, or its head is too damaged to be read.
    pub fn open(mut file: File, name: String, store: Option<&dyn Store>) -> Result<Self> {
        let failed = || BundleError::io(format!("read {name}"));
        file.rewind().map_err(failed())?;
        let reading = file.try_clone().map_err(failed())?;
        let mut input = Input::new(BufReader::new(reading), name.clone());
        let (head, head_is_whole) = head::read_even_damaged(&mut input, store)?;
        let payload = input.offset();
        let temporary = PathBuf::from(TEMPORARY);
        Ok(Self { name, file, head, head_is_whole, payload, nars: None, temporary })
    }

    /// What is not in it, and has to be in the store that receives it.
    #[must_use]
    pub fn prerequisites(&self) -> &[Prerequisite] {
        &self.head.prerequisites
    }

    /// Says where the content is read that the bundle is packed against.
    pub fn read_bases_from(&mut self, nars: Arc<dyn NarRanges>) {
        self.nars = Some(nars);
    }

    /// Says where a temporary file is made (default: `/var/tmp`), which holds all that is left of
    /// the payload.
    pub fn temporary_files_in(&mut self, directory: PathBuf) {
        self.temporary = directory;
    }

    /// Reads all that can be read. `keys` are those that are trusted, should the head be damaged.
    ///
    /// # Errors
    /// When the file cannot be read, and when it is packed against content that is not there or
    /// not the same.
    pub fn salvage(self, keys: &[PublicKey], progress: &dyn Progress) -> Result<Salvage> {
        let Self { name, file, head, head_is_whole, payload, nars: of_bases, temporary } = self;
        let base = head.prerequisites.iter().find(|one| one.content.is_some());
        if let (Some(base), None) = (base, &of_bases) {
            return Err(BundleError::NoBases { base: head.store_dir.render_path(&base.path) });
        }
        let (store_dir, replaced) = (&head.store_dir, &head.replaced);
        let bases = Bases::of(store_dir, &head.prerequisites, replaced, of_bases);
        let nars = nars(&head);
        let size = nars.last().map_or(0, |(range, _)| range.end);
        let wreck = Wreck { file, ranged: head.version > 0, bases: bases.sizes() };
        let wreck = (wreck, name.clone());
        let rescue = Rescue::new(wreck, Arc::new(bases), &nars, size, (&temporary, progress))?;
        progress.begin("decompressing", 0, size);
        let rest = rescue.run(payload);
        progress.end();
        let rest = rest?;

        progress.begin("checking", nars.len() as u64, size);
        let mut damaged = HashSet::new();
        for (range, info) in &nars {
            let hash = rest.hash(range.clone());
            let hash = hash.map_err(BundleError::io(format!("read what is left of {name}")))?;
            progress.bytes(info.nar_size);
            match hash == Some(info.nar_hash) {
                true => progress.path(&info.path),
                false => drop(damaged.insert(info.path.clone())),
            }
        }
        progress.end();

        let proved = (!head_is_whole).then(|| proved(&head, keys));
        let (kept, lost) = divide(&head, &damaged, proved.as_ref());
        let numbers = kept.iter().zip(0..).map(|(info, number)| (info.path.clone(), number));
        let numbers = numbers.collect();
        let ranges = nars.into_iter().map(|(range, info)| (info.path, range)).collect();
        Ok(Salvage { name, head, head_is_whole, kept, lost, numbers, ranges, rest })
    }
}

/// What is left of a bundle, as a store to copy from.
pub struct Salvage {
    name: String,
    head: Head,
    head_is_whole: bool,
    /// What is left and has its references, references first.
    kept: Vec<PathInfo>,
    lost: Vec<(StorePath, Loss)>,
    numbers: HashMap<StorePath, usize>,
    ranges: HashMap<StorePath, Range<u64>>,
    rest: Rest,
}

impl Salvage {
    /// What the bundle said about itself, if its head is whole.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.head_is_whole.then_some(&self.head.manifest)
    }

    /// What can be taken out, references before their referrers.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.kept
    }

    /// What cannot, and why.
    #[must_use]
    pub fn lost(&self) -> &[(StorePath, Loss)] {
        &self.lost
    }

    /// What a bundle of what is left leaves to the store that receives it. Nothing of its payload
    /// needs to build on the content of that store, and where the head is damaged only what is
    /// referred to is named.
    #[must_use]
    pub fn prerequisites(&self) -> Prerequisites {
        let referred: HashSet<&StorePath> =
            self.kept.iter().flat_map(PathInfo::other_references).collect();
        let listed = |one: &&Prerequisite| {
            referred.contains(&one.path) || (self.head_is_whole && one.content.is_none())
        };
        let list = self.head.prerequisites.iter().filter(listed);
        let list = list.map(|one| Prerequisite { path: one.path.clone(), content: None });
        let list: Vec<Prerequisite> = list.collect();
        let paths: HashSet<&StorePath> = list.iter().map(|one| &one.path).collect();
        let given = self.head.derivations.of_given.iter();
        let given = given.filter(|given| paths.contains(&given.path)).cloned().collect();
        let hashes = self.head.derivations.given().map(|(path, hash)| (path.clone(), hash));
        Prerequisites::again(list, given, hashes)
    }

    /// The roots of the derivations that those of the bundle are coded against, which have to
    /// be read from a store again to write a bundle of them; none where there is no base.
    #[must_use]
    pub fn base_roots(&self) -> &[StorePath] {
        &self.head.derivations.base_roots
    }
}

/// Where the NARs of the payload are.
fn nars(head: &Head) -> Vec<(Range<u64>, PathInfo)> {
    let mut position = 0u64;
    let in_payload = head.infos.iter().zip(&head.places);
    let in_payload = in_payload.filter(|(_, place)| matches!(place, Place::Index(_)));
    in_payload
        .map(|(info, _)| {
            let start = position;
            position = position.saturating_add(info.nar_size);
            (start..position, info.clone())
        })
        .collect()
}

/// What is certain even where the head is not.
fn proved(head: &Head, keys: &[PublicKey]) -> HashSet<StorePath> {
    let store_dir = &head.store_dir;
    let infos: BTreeMap<&StorePath, &PathInfo> =
        head.infos.iter().map(|info| (&info.path, info)).collect();
    let mut proved: HashSet<StorePath> = head
        .infos
        .iter()
        .filter(|info| info.is_signed_by_any(store_dir, keys))
        .map(|info| info.path.clone())
        .collect();
    // A path that follows from content and references proves the paths of those.
    let mut pending = head.manifest.root_paths();
    let mut seen = HashSet::new();
    while let Some(path) = pending.pop() {
        let Some(info) = infos.get(&path).filter(|_| seen.insert(path.clone())) else { continue };
        if info.is_content_addressed(store_dir) {
            proved.insert(path);
            pending.extend(info.other_references().cloned());
        }
    }
    proved
}

/// A path is valid with its references only.
fn divide(
    head: &Head,
    damaged: &HashSet<StorePath>,
    proved: Option<&HashSet<StorePath>>,
) -> (Vec<PathInfo>, Vec<(StorePath, Loss)>) {
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    // The store that receives it has these.
    let there = head.prerequisites.iter().map(|one| &one.path).chain(&head.base);
    let mut known: HashSet<&StorePath> = there.collect();
    for info in &head.infos {
        let missing = info.other_references().find(|reference| !known.contains(*reference));
        let loss = if damaged.contains(&info.path) {
            Loss::Damaged
        } else if proved.is_some_and(|proved| !proved.contains(&info.path)) {
            Loss::Unproved
        } else if let Some(missing) = missing {
            Loss::RefersTo(missing.clone())
        } else {
            known.insert(&info.path);
            kept.push(info.clone());
            continue;
        };
        lost.push((info.path.clone(), loss));
    }
    (kept, lost)
}

impl Store for Salvage {
    fn evaluations(&self) -> Vec<StorePath> {
        self.manifest().map(Manifest::evaluation_paths).unwrap_or_default()
    }

    fn store_dir(&self) -> &StoreDir {
        &self.head.store_dir
    }

    fn describe(&self) -> String {
        format!("what is left of bundle {}", self.name)
    }

    fn path_info(&self, path: &StorePath) -> ferry_store::Result<Option<PathInfo>> {
        Ok(self.numbers.get(path).and_then(|number| self.kept.get(*number)).cloned())
    }

    fn all_paths(&self) -> ferry_store::Result<Option<Vec<StorePath>>> {
        Ok(Some(self.kept.iter().map(|info| info.path.clone()).collect()))
    }

    fn derivers(&self, _path: &StorePath) -> ferry_store::Result<Vec<StorePath>> {
        Ok(Vec::new())
    }

    fn read_nars(
        &self,
        wanted: &[PathInfo],
        visit: &mut NarVisitor<'_>,
    ) -> ferry_store::Result<()> {
        let derivations: HashMap<&StorePath, usize> = self
            .head
            .infos
            .iter()
            .zip(&self.head.places)
            .filter_map(|(info, place)| match place {
                Place::Derivation(number) => Some((&info.path, *number)),
                Place::Index(_) => None,
            })
            .collect();
        for info in wanted {
            self.require(&info.path)?;
            if let Some(number) = derivations.get(&info.path) {
                let nar = self.head.derivations.nar(*number);
                let nar = nar.map_err(|reason| {
                    Error::io(format!("write a derivation of {}", self.name))(
                        std::io::Error::other(reason),
                    )
                })?;
                visit(info, &mut nar.as_slice())?;
            } else if let Some(range) = self.ranges.get(&info.path) {
                visit(info, &mut self.rest.read(range.clone()))?;
            }
        }
        Ok(())
    }
}
