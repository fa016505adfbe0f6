//! A bundle as a store to copy from.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ferry_formats::build_trace::Realisation;
use ferry_formats::derivation::OutputPaths;
use ferry_formats::keys::{PublicKey, Signature};
use ferry_formats::{PathInfo, StoreDir, StorePath, derivation};
use ferry_store::{Error, NarRanges, NarVisitor, Store, Wanted};
use hashbrown::HashMap;

use crate::head::{self, Head};
use crate::order::Place;
use crate::payload::{Bases, Input, Payload, Reading, Scan};
use crate::writer::TEMPORARY;
use crate::{BundleError, HeadDigest, Manifest, Prerequisite, Result, Volumes};

type Stream = BufReader<Box<dyn Read + Send>>;

/// How many bytes of derivations are written at a time, and how many times that ahead.
const BATCH: u64 = 128 << 10;
const AHEAD: usize = 2;

/// An open bundle whose head was read and found whole.
pub struct Bundle {
    name: String,
    head: Head,
    numbers: HashMap<StorePath, usize>,
    /// The derivations of each output, once somebody has asked for one.
    derivers: OnceLock<HashMap<StorePath, Vec<StorePath>>>,
    /// The stream behind the head, until it is read.
    payload: Mutex<Option<Input<Stream>>>,
    /// Where to open it again, unless it is a stream.
    source: Option<Source>,
    bases: Arc<Bases>,
    temporary: PathBuf,
}

impl Bundle {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, is not a bundle, or its head is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_against(path, None)
    }

    /// Opens a file. If its derivations are coded against others, these are read from `store`.
    ///
    /// # Errors
    /// As for [`Bundle::open`], and when the store does not have them.
    pub fn open_against(path: &Path, store: Option<&dyn Store>) -> Result<Self> {
        Self::open_files(&[path.to_owned()], store)
    }

    /// Opens a file, or the volumes that belong with any of `files`, as [`Bundle::open_against`]
    /// does.
    ///
    /// # Errors
    /// As for [`Bundle::open_against`], and when there are too few volumes.
    pub fn open_files(files: &[PathBuf], store: Option<&dyn Store>) -> Result<Self> {
        let source = match (Volumes::find(files)?, files) {
            (Some(volumes), _) => Source::Volumes(volumes),
            (None, [file]) => Source::File(file.clone()),
            (None, _) => {
                let name = |file: &PathBuf| file.display().to_string();
                return Err(BundleError::Volumes {
                    bundle: files.iter().map(name).collect::<Vec<_>>().join(", "),
                    reason: "several files are one bundle only if they are its volumes".to_owned(),
                });
            }
        };
        Self::read(source.open()?, source.name(), Some(source), store)
    }

    /// The volumes that it is read from, if it is.
    #[must_use]
    pub fn volumes(&self) -> Option<&Volumes> {
        match &self.source {
            Some(Source::Volumes(volumes)) => Some(volumes),
            _ => None,
        }
    }

    /// Reads a bundle from a stream, which can be read once; `name` is what to call it.
    ///
    /// # Errors
    /// As for [`Bundle::open`].
    pub fn from_stream(stream: impl Read + Send + 'static, name: &str) -> Result<Self> {
        Self::from_stream_against(stream, name, None)
    }

    /// Reads a bundle from a stream. If its derivations are coded against others, these are read
    /// from `store`.
    ///
    /// # Errors
    /// As for [`Bundle::open_against`].
    pub fn from_stream_against(
        stream: impl Read + Send + 'static,
        name: &str,
        store: Option<&dyn Store>,
    ) -> Result<Self> {
        Self::read(Box::new(stream), name.to_owned(), None, store)
    }

    fn read(
        stream: Box<dyn Read + Send>,
        name: String,
        source: Option<Source>,
        store: Option<&dyn Store>,
    ) -> Result<Self> {
        let mut input = Input::new(BufReader::with_capacity(256 << 10, stream), name.clone());
        let head = head::read(&mut input, store)?;
        let numbers =
            head.infos.iter().zip(0..).map(|(info, number)| (info.path.clone(), number)).collect();
        let payload = Mutex::new(Some(input));
        let (derivers, temporary) = (OnceLock::new(), PathBuf::from(TEMPORARY));
        let Head { store_dir, prerequisites, replaced, .. } = &head;
        let bases = Arc::new(Bases::of(store_dir, prerequisites, replaced, None));
        Ok(Self { name, head, numbers, derivers, payload, source, bases, temporary })
    }

    /// Says where the content is read that the bundle is packed against: the store it goes to.
    pub fn read_bases_from(&mut self, nars: Arc<dyn NarRanges>) {
        let Head { store_dir, prerequisites, replaced, .. } = &self.head;
        self.bases = Arc::new(Bases::of(store_dir, prerequisites, replaced, Some(nars)));
    }

    /// Says where temporary files are made (default: `/var/tmp`). They hold up to all of the
    /// payload.
    pub fn temporary_files_in(&mut self, directory: PathBuf) {
        self.temporary = directory;
    }

    /// What to call it: its file, or the name of its volumes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the bundle says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.head.manifest
    }

    /// Everything in it, references before their referrers.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.head.infos
    }

    /// What is not in it, and has to be in the store that receives it.
    #[must_use]
    pub fn prerequisites(&self) -> &[Prerequisite] {
        &self.head.prerequisites
    }

    /// Whether its derivations are coded against this path, or against one that it is a source of:
    /// then the store that receives it has it.
    pub(crate) fn is_in_base(&self, path: &StorePath) -> bool {
        self.head.base.contains(path)
    }

    /// What stands for derivations among the prerequisites in those that are in it, by its word.
    pub(crate) fn output_paths(&self) -> OutputPaths {
        let mut known = OutputPaths::default();
        for (path, hash) in self.head.derivations.given() {
            known.know(path, hash);
        }
        known
    }

    /// The version of its format.
    #[must_use]
    pub fn format_version(&self) -> u32 {
        self.head.version
    }

    /// The digest that its signatures sign.
    #[must_use]
    pub fn head_digest(&self) -> HeadDigest {
        self.head.digest
    }

    /// The signatures of the bundle as a whole.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.head.signatures
    }

    /// Makes sure that one of `keys` has signed the bundle.
    ///
    /// # Errors
    /// [`BundleError::NotSigned`].
    pub fn require_signature(&self, keys: &[PublicKey]) -> Result<()> {
        if self.head.is_signed_by_any(keys) {
            return Ok(());
        }
        let signed_by =
            self.head.signatures.iter().map(|signature| signature.key_name.clone()).collect();
        Err(BundleError::NotSigned { bundle: self.name.clone(), signed_by })
    }

    /// The stream behind the head: the one that is open, or the file opened anew.
    fn take_payload(&self) -> Result<Input<Stream>> {
        let open = self.payload.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            return Ok(open);
        }
        let Some(source) = &self.source else {
            return Err(BundleError::StreamUsedUp { bundle: self.name.clone() });
        };
        let stream = BufReader::with_capacity(256 << 10, source.open()?);
        let mut again = Input::new(stream, self.name.clone());
        if head::read_raw(&mut again)?.digest != self.head.digest {
            return Err(BundleError::Damaged {
                bundle: self.name.clone(),
                offset: 0,
                reason: "another bundle has taken its place meanwhile".to_owned(),
            });
        }
        Ok(again)
    }

    /// The outputs of all derivations in it. They are in the derivations, and nowhere else.
    fn read_derivers(&self) -> ferry_store::Result<HashMap<StorePath, Vec<StorePath>>> {
        let mut found: HashMap<StorePath, Vec<StorePath>> = HashMap::new();
        let mut derivations: Vec<PathInfo> = Vec::new();
        for (info, place) in self.head.infos.iter().zip(&self.head.places) {
            match place {
                Place::Index(_) if info.path.is_derivation() => derivations.push(info.clone()),
                Place::Index(_) => {}
                Place::Derivation(number) => {
                    for output in self.head.derivations.outputs(*number) {
                        let output = self.store_dir().parse_path(output.as_bytes());
                        let output = output.map_err(Error::other)?;
                        found.entry(output).or_default().push(info.path.clone());
                    }
                }
            }
        }
        if derivations.is_empty() {
            return Ok(found);
        }
        self.read_nars(&derivations, &mut |info, nar| {
            let text = ferry_store::admission::read_single_file(self.store_dir(), info, nar)?;
            let parsed = derivation::parse(self.store_dir(), &info.path, &text)?;
            for output in derivation::outputs(&parsed)?.into_iter().filter_map(|(_, path)| path) {
                found.entry(output).or_default().push(info.path.clone());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// A derivation that was written, or why it could not be: which cannot be, as all were.
    fn derivation(&self, written: Option<std::result::Result<Vec<u8>, String>>) -> Result<Vec<u8>> {
        let reason = match written {
            Some(Ok(nar)) => return Ok(nar),
            Some(Err(reason)) => reason,
            None => "a thread ended".to_owned(),
        };
        let action = format!("write a derivation of {}", self.name);
        Err(BundleError::Io { action, source: std::io::Error::other(reason) })
    }

    fn reading(&self, input: &Input<Stream>, wanted: Vec<std::ops::Range<u64>>) -> Reading {
        let (size, reach) = (self.head.payload_size(), self.head.manifest.reach);
        let sizes = self.bases.sizes();
        let at = input.offset();
        let scan = match &self.source {
            Some(source) if reach > 0 => match source {
                Source::File(path) => File::open(path)
                    .ok()
                    .and_then(|mut file| Scan::new(&mut file, at, size, reach, &sizes, &wanted)),
                Source::Volumes(volumes) => volumes
                    .open()
                    .ok()
                    .and_then(|mut file| Scan::new(&mut file, at, size, reach, &sizes, &wanted)),
            },
            _ => None,
        };
        Reading {
            size,
            wanted,
            ranged: self.head.version > 0,
            reach,
            bases: Arc::clone(&self.bases),
            scan,
            directory: self.temporary.clone(),
        }
    }

    fn wanted_ranges(&self, wanted: &HashMap<&StorePath, &PathInfo>) -> Vec<std::ops::Range<u64>> {
        let mut position = 0;
        let mut ranges = Vec::new();
        for (info, place) in self.head.infos.iter().zip(&self.head.places) {
            if matches!(place, Place::Derivation(_)) {
                continue;
            }
            let end = position + info.nar_size;
            if wanted.contains_key(&info.path) {
                ranges.push(position..end);
            }
            position = end;
        }
        ranges
    }
}

/// Where a bundle can be read as often as one likes.
enum Source {
    File(PathBuf),
    Volumes(Volumes),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Volumes(volumes) => volumes.name(),
        }
    }

    fn open(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Self::File(path) => {
                let file = File::open(path);
                Ok(Box::new(file.map_err(BundleError::io(format!("open {}", path.display())))?))
            }
            Self::Volumes(volumes) => Ok(Box::new(volumes.open()?)),
        }
    }
}

impl Store for Bundle {
    fn store_dir(&self) -> &StoreDir {
        &self.head.store_dir
    }

    fn describe(&self) -> String {
        format!("bundle {}", self.name)
    }

    fn path_info(&self, path: &StorePath) -> ferry_store::Result<Option<PathInfo>> {
        Ok(self.numbers.get(path).and_then(|number| self.head.infos.get(*number)).cloned())
    }

    fn all_paths(&self) -> ferry_store::Result<Option<Vec<StorePath>>> {
        Ok(Some(self.head.infos.iter().map(|info| info.path.clone()).collect()))
    }

    fn derivers(&self, path: &StorePath) -> ferry_store::Result<Vec<StorePath>> {
        let derivers = match self.derivers.get() {
            Some(known) => known,
            None => {
                let read = self.read_derivers()?;
                self.derivers.get_or_init(|| read)
            }
        };
        Ok(derivers.get(path).cloned().unwrap_or_default())
    }

    fn realisations(&self, paths: &Wanted) -> ferry_store::Result<Vec<Realisation>> {
        let all = self.head.realisations.iter();
        Ok(all.filter(|one| paths.contains(&one.path)).cloned().collect())
    }

    fn evaluations(&self) -> Vec<StorePath> {
        self.manifest().evaluation_paths()
    }

    fn in_own_order(&self, infos: &mut [PathInfo]) {
        infos.sort_by_cached_key(|info| self.numbers.get(&info.path).copied());
    }

    fn read_nars(
        &self,
        wanted: &[PathInfo],
        visit: &mut NarVisitor<'_>,
    ) -> ferry_store::Result<()> {
        for info in wanted {
            self.require(&info.path)?;
        }
        let wanted: HashMap<&StorePath, &PathInfo> =
            wanted.iter().map(|info| (&info.path, info)).collect();
        let ranges = self.wanted_ranges(&wanted);
        let input = self.take_payload()?;
        let reading = self.reading(&input, ranges);
        let mut payload = Payload::start(input, reading)?;
        let entries = || self.head.infos.iter().zip(&self.head.places);
        // Derivations are written on another thread, a few ahead of whoever reads them.
        let (sender, derivations) = crossbeam_channel::bounded(AHEAD);
        let wanted = &wanted;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let wanted = entries().filter(|(info, _)| wanted.contains_key(&info.path));
                let (mut batch, mut batched) = (Vec::new(), 0);
                for (info, place) in wanted {
                    let Place::Derivation(number) = place else { continue };
                    batch.push(self.head.derivations.nar(*number));
                    batched += info.nar_size;
                    if batched >= BATCH {
                        batched = 0;
                        if sender.send(std::mem::take(&mut batch)).is_err() {
                            return;
                        }
                    }
                }
                // Nobody listening is nobody to tell.
                let _ = sender.send(batch);
            });
            let mut derivations = derivations.into_iter().flatten();
            for (info, place) in entries() {
                match (wanted.get(&info.path), place) {
                    (Some(wanted), Place::Derivation(_)) => {
                        let nar = self.derivation(derivations.next())?;
                        visit(wanted, &mut nar.as_slice())?;
                    }
                    (None, Place::Derivation(_)) => {}
                    (Some(wanted), Place::Index(_)) => {
                        let mut nar = (&mut payload).take(info.nar_size);
                        visit(wanted, &mut nar)?;
                        let unread = nar.limit();
                        payload.skip(unread)?;
                    }
                    (None, Place::Index(_)) => payload.skip(info.nar_size)?,
                }
            }
            Ok::<(), Error>(())
        })?;
        payload.finish().map_err(Error::from)
    }
}
