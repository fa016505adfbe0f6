//! The volumes of one bundle, found from any of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::header::{DIGEST, HEADER, Header, Layout, MARK, MOST_VOLUMES, leaf_digest};
use super::names::Names;
use super::parity::{self, Shard};
use crate::{BundleError, Result};

/// So many bytes may be cut off from volumes that are there.
const CUT_OFF: u64 = 1 << 30;

/// The volumes of one bundle: those that are there.
#[derive(Clone)]
pub struct Volumes {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// That of one of them.
    header: Header,
    names: Names,
    /// One for each number.
    files: Vec<Found>,
    /// How many leaves of each were computed from the others.
    recovered: Mutex<BTreeMap<u32, u64>>,
}

/// What there is of one volume.
struct Found {
    path: PathBuf,
    file: Option<File>,
    /// The root in its header, if that is whole.
    root: Option<[u8; DIGEST]>,
    condition: Condition,
}

/// How a volume was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// It is there, and nothing wrong was found.
    Whole,
    /// There is no such file.
    Missing,
    /// Under its name there is something else, or it cannot be read.
    Unusable(String),
    /// It is there, but not as it was written: why, and how many of its pieces are affected.
    Damaged {
        /// The first thing wrong.
        reason: String,
        /// How many pieces (of 64 KiB, in volumes written by this program) are not whole.
        pieces: u64,
    },
}

/// One volume, as it was found.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Its number, from 1.
    pub number: u32,
    /// Whether it holds parity, and no part of the bundle.
    pub parity: bool,
    /// Where it is, or ought to be.
    pub file: PathBuf,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// How it was found.
    pub condition: Condition,
}

/// What a file may be.
enum Beginning {
    Volume(Header),
    Damaged(String),
    /// In one piece, or nothing that volumes are looked for beside.
    Bundle,
    Other,
    Missing,
}

fn beginning(path: &Path) -> std::io::Result<(Option<File>, Beginning)> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((None, Beginning::Missing)),
        // What is read from a pipe is gone.
        Ok(metadata) if !metadata.is_file() => return Ok((None, Beginning::Bundle)),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    (&mut file).take(HEADER as u64).read_to_end(&mut start)?;
    let found = match Header::decode(&start) {
        Ok(header) => Beginning::Volume(header),
        Err(reason) if start.starts_with(MARK) => Beginning::Damaged(reason),
        Err(_) if start.starts_with(&crate::MAGIC) => Beginning::Bundle,
        Err(_) => Beginning::Other,
    };
    Ok((Some(file), found))
}

impl Volumes {
    /// Finds the volumes that belong with `files`: these, and those beside them. `None` if they
    /// are no volumes.
    ///
    /// One whole header of any of them is enough. If a file is named that is not there, such as
    /// the bundle in one piece, its volumes are looked for.
    ///
    /// # Errors
    /// When no header is whole, or one of `files` is a volume of another bundle.
    pub fn find(files: &[PathBuf]) -> Result<Option<Self>> {
        let mut known: Option<(Header, PathBuf)> = None;
        let mut damaged = None;
        for path in files {
            let begins =
                beginning(path).map_err(BundleError::io(format!("open {}", path.display())))?.1;
            let begins = match begins {
                Beginning::Volume(header) => {
                    Beginning::Volume(replacing(&Names::of(path)).unwrap_or(header))
                }
                other => other,
            };
            match (begins, &known) {
                (Beginning::Volume(header), None) => known = Some((header, path.clone())),
                (Beginning::Volume(header), Some((other, file))) if !header.belongs_with(other) => {
                    let reason = format!("{} is not of the same bundle", file.display());
                    return Err(BundleError::Volumes {
                        bundle: path.display().to_string(),
                        reason,
                    });
                }
                (Beginning::Volume(_), Some(_)) => {}
                (Beginning::Damaged(reason), _) => damaged = Some((path, reason)),
                (Beginning::Bundle, _) => return Ok(None),
                (Beginning::Other | Beginning::Missing, _) => {}
            }
        }
        if known.is_none() {
            known = files.iter().find_map(|path| siblings_header(path));
        }
        match (known, damaged) {
            (Some((header, path)), _) => {
                let volumes = Self::collect(header, &path, files);
                volumes.check_claim()?;
                Ok(Some(volumes))
            }
            (None, Some((path, reason))) => Err(BundleError::Damaged {
                bundle: path.display().to_string(),
                offset: 0,
                reason: format!("{reason}, and there is no other volume"),
            }),
            (None, None) => Ok(None),
        }
    }

    fn collect(header: Header, path: &Path, files: &[PathBuf]) -> Self {
        let names = Names::of(path);
        let found = |number: u32| {
            let beside = names.volume(number);
            // A copy under any name counts, as long as its header is whole.
            let given = files.iter().map(|path| examine(path, number, &header));
            let own = [beside.clone(), names.waiting(number)];
            let mut all = given.chain(own.iter().map(|path| examine(path, number, &header)));
            let best = all.find(|found| found.condition == Condition::Whole);
            let named = || {
                let called = |path: &&PathBuf| {
                    Names::of_volume(path).is_some_and(|(_, called)| called == number)
                };
                files.iter().find(called).map(|path| examine(path, number, &header))
            };
            let usable = |found: &Found| found.file.is_some();
            best.or_else(|| named().filter(usable))
                .unwrap_or_else(|| examine(&beside, number, &header))
        };
        let files = (1..=header.layout.all()).map(found).collect();
        let recovered = Mutex::new(BTreeMap::new());
        Self { inner: Arc::new(Inner { header, names, files, recovered }) }
    }

    /// Refuses a size of the bundle that the files cannot come near, however many are missing:
    /// whoever reads all of it would be at it for ever.
    fn check_claim(&self) -> Result<()> {
        let files = self.inner.files.iter().filter_map(|found| found.file.as_ref());
        let there: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        let most = there.saturating_mul(MOST_VOLUMES.into()).saturating_add(CUT_OFF);
        if self.bundle_size() <= most {
            return Ok(());
        }
        let reason = format!(
            "their headers say that it has {} bytes, and the files there have {there} together",
            self.bundle_size()
        );
        Err(BundleError::Volumes { bundle: self.name(), reason })
    }

    /// What to call all of them together.
    #[must_use]
    pub fn name(&self) -> String {
        self.inner.names.together()
    }

    /// Moves those to their places that wait beside them, because whoever wrote them was stopped.
    pub(super) fn put_in_place(&self) -> std::io::Result<()> {
        let Inner { names, files, .. } = &*self.inner;
        for (found, number) in files.iter().zip(1..) {
            if found.path == names.waiting(number) {
                fs::rename(&found.path, names.volume(number))?;
            }
        }
        File::open(names.directory())?.sync_all()
    }

    /// Size of the bundle in them, in bytes.
    #[must_use]
    pub fn bundle_size(&self) -> u64 {
        self.inner.header.layout.size
    }

    /// SHA-256 of the bundle in them.
    #[must_use]
    pub fn bundle_digest(&self) -> [u8; 32] {
        self.inner.header.bundle
    }

    /// All of them, as their headers tell.
    #[must_use]
    pub fn list(&self) -> Vec<Volume> {
        let volumes = self.inner.files.iter().zip(1..);
        volumes.map(|(found, number)| self.volume(number, found, found.condition.clone())).collect()
    }

    /// All of them, each read to its end and checked alone.
    #[must_use]
    pub fn check(&self) -> Vec<Volume> {
        let volumes = self.inner.files.iter().zip(1..);
        volumes
            .map(|(found, number)| self.volume(number, found, self.inner.check(number, found)))
            .collect()
    }

    fn volume(&self, number: u32, found: &Found, condition: Condition) -> Volume {
        let layout = &self.inner.header.layout;
        Volume {
            number,
            parity: !layout.is_data(number),
            file: found.path.clone(),
            size: layout.file_size(number),
            condition,
        }
    }

    /// Makes sure that there are enough of them to read the bundle.
    ///
    /// # Errors
    /// [`BundleError::MissingVolumes`], with the names of those that are not there.
    pub fn require_enough(&self) -> Result<()> {
        let layout = &self.inner.header.layout;
        let missing: Vec<String> = self
            .list()
            .iter()
            .zip(&self.inner.files)
            .filter(|(_, found)| found.file.is_none())
            .map(|(volume, _)| tell(volume))
            .collect();
        if missing.len() <= layout.parity as usize {
            return Ok(());
        }
        let (bundle, parity) = (self.name(), layout.parity);
        Err(BundleError::MissingVolumes { bundle, volumes: layout.all(), parity, missing })
    }

    /// The files of which something was computed from the others, because it was missing or
    /// damaged, since this was opened; and how many pieces of each.
    #[must_use]
    pub fn recovered(&self) -> Vec<(PathBuf, u64)> {
        let recovered = self.inner.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        let file = |number: &u32| self.inner.files.get(*number as usize - 1);
        recovered
            .iter()
            .filter_map(|(number, pieces)| Some((file(number)?.path.clone(), *pieces)))
            .collect()
    }
}

/// A volume and what is wrong with it, in a line.
fn tell(volume: &Volume) -> String {
    let Volume { number, file, condition, .. } = volume;
    let why = match condition {
        Condition::Whole | Condition::Missing => String::new(),
        Condition::Unusable(reason) | Condition::Damaged { reason, .. } => format!(" ({reason})"),
    };
    format!("volume {number}: {}{why}", file.display())
}

/// The header of any volume beside `path`, which is called like a volume or like the bundle.
fn siblings_header(path: &Path) -> Option<(Header, PathBuf)> {
    if Names::of_volume(path).is_none() && path.exists() {
        return None;
    }
    let names = Names::of(path);
    if let Some(header) = replacing(&names) {
        return Some((header, names.volume(1)));
    }
    (1..=MOST_VOLUMES).map(|number| names.volume(number)).find_map(|sibling| {
        match beginning(&sibling).ok()?.1 {
            Beginning::Volume(header) => Some((header, sibling)),
            _ => None,
        }
    })
}

/// The header of volumes that are taking the places of others, where that was stopped halfway: the
/// first one is in its place, and the last one still waits.
fn replacing(names: &Names) -> Option<Header> {
    let volume = |path: PathBuf| match beginning(&path).ok()?.1 {
        Beginning::Volume(header) => Some(header),
        _ => None,
    };
    let first = volume(names.volume(1))?;
    let last = volume(names.waiting(first.layout.all()))?;
    last.belongs_with(&first).then_some(first)
}

/// What there is of volume `number` at `path`.
fn examine(path: &Path, number: u32, known: &Header) -> Found {
    let found = |file, root, condition| Found { path: path.to_owned(), file, root, condition };
    let unusable = |reason: String| found(None, None, Condition::Unusable(reason));
    match beginning(path) {
        Err(error) => unusable(error.to_string()),
        Ok((_, Beginning::Missing)) => found(None, None, Condition::Missing),
        Ok((_, Beginning::Volume(header))) if !header.belongs_with(known) => {
            unusable("a volume of another bundle".to_owned())
        }
        Ok((_, Beginning::Volume(header))) if header.number != number => {
            unusable(format!("it is volume {}", header.number))
        }
        Ok((file, Beginning::Volume(header))) => found(file, Some(header.root), Condition::Whole),
        // What is left of it may be of use: each piece has a digest.
        Ok((file, Beginning::Damaged(reason))) => {
            found(file, None, Condition::Damaged { reason, pieces: 0 })
        }
        Ok((_, Beginning::Bundle)) => unusable("it is no volume".to_owned()),
        Ok((file, Beginning::Other)) => {
            let reason = "it does not begin like a volume".to_owned();
            found(file, None, Condition::Damaged { reason, pieces: 0 })
        }
    }
}

impl Inner {
    pub(super) fn layout(&self) -> &Layout {
        &self.header.layout
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// A leaf as it is on the disk, or why it is not.
    fn stored(&self, number: u32, stripe: u64) -> std::result::Result<Vec<u8>, String> {
        let length = self.layout().leaf_length(number, stripe);
        if length == 0 {
            return Ok(Vec::new());
        }
        let found = self.files.get(number as usize - 1);
        let file = found.and_then(|found| found.file.as_ref()).ok_or("it is missing")?;
        let at = self.layout().leaf_at(stripe);
        let mut leaf = vec![0; length + DIGEST];
        file.read_exact_at(&mut leaf, at).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => format!("it ends before offset {}", at + leaf.len() as u64),
            _ => format!("it cannot be read at offset {at}: {error}"),
        })?;
        let stated = leaf.split_off(length);
        if leaf_digest(number, stripe, &leaf).as_slice() != stated {
            return Err(format!("it is damaged between offsets {at} and {}", at + length as u64));
        }
        Ok(leaf)
    }

    /// A leaf of data, computed from the others if need be.
    pub(super) fn leaf(&self, number: u32, stripe: u64) -> Result<Vec<u8>> {
        self.stored(number, stripe).or_else(|reason| self.recover(number, stripe, &reason))
    }

    fn recover(&self, number: u32, stripe: u64, reason: &str) -> Result<Vec<u8>> {
        let layout = self.layout();
        let mut shards: Vec<Shard> = Vec::new();
        let mut missing = Vec::new();
        for other in 1..=layout.all() {
            if shards.len() == layout.data as usize {
                break;
            }
            match if other == number { Err(reason.to_owned()) } else { self.stored(other, stripe) }
            {
                Ok(leaf) => shards.push((other, leaf)),
                Err(reason) => missing.push(self.tell(other, reason)),
            }
        }
        if shards.len() < layout.data as usize {
            let (bundle, parity) = (self.names.together(), layout.parity);
            let volumes = layout.all();
            return Err(BundleError::MissingVolumes { bundle, volumes, parity, missing });
        }
        let decoded = parity::decode(layout, layout.shard_length(stripe), shards);
        let failed = |reason| BundleError::Volumes { bundle: self.names.together(), reason };
        let found = decoded.map_err(failed)?.into_iter().find(|(restored, _)| *restored == number);
        let (_, mut leaf) = found.ok_or_else(|| failed("nothing was restored".to_owned()))?;
        leaf.truncate(layout.leaf_length(number, stripe));
        let mut recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner);
        *recovered.entry(number).or_default() += 1;
        Ok(leaf)
    }

    fn tell(&self, number: u32, reason: String) -> String {
        let found = self.files.get(number as usize - 1);
        let condition = match found.map(|found| (&found.condition, &found.file)) {
            Some((condition, None)) => condition.clone(),
            _ => Condition::Unusable(reason),
        };
        tell(&Volume {
            number,
            parity: !self.layout().is_data(number),
            file: found.map(|found| found.path.clone()).unwrap_or_default(),
            size: self.layout().file_size(number),
            condition,
        })
    }

    fn check(&self, number: u32, found: &Found) -> Condition {
        let Some(file) = &found.file else { return found.condition.clone() };
        let (mut pieces, mut first) = (0, None);
        if let Condition::Damaged { reason, .. } = &found.condition {
            first = Some(reason.clone());
        }
        let mut root = Sha256::new();
        let size = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
        let leaves = self.layout().leaves(number);
        // Behind its end there is none.
        let begun = self.layout().leaves_in_file(size).min(leaves);
        for stripe in 0..begun {
            match self.stored(number, stripe) {
                Ok(leaf) => root.update(leaf_digest(number, stripe, &leaf)),
                Err(reason) => {
                    pieces += 1;
                    first.get_or_insert(reason);
                }
            }
        }
        if begun < leaves {
            pieces += leaves - begun;
            first.get_or_insert_with(|| format!("it ends at offset {size}"));
        }
        let root: [u8; DIGEST] = root.finalize().into();
        if first.is_none() && found.root != Some(root) {
            first = Some("its pieces do not have the digest in its header".to_owned());
        }
        if first.is_none() && size != self.layout().file_size(number) {
            first = Some("something follows its end".to_owned());
        }
        first.map_or(Condition::Whole, |reason| Condition::Damaged { reason, pieces })
    }
}
