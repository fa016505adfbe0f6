//! A binary cache as a store.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ferry_formats::build_trace::Realisation;
use ferry_formats::narinfo::{self, CacheInfo, Narinfo};
use ferry_formats::{NarHash, NixHash, PathInfo, StoreDir, StorePath};
use ferry_store::admission::Plan;
use ferry_store::http::HttpOptions;
use ferry_store::message::harmless;
use ferry_store::parallel::in_parallel;
use ferry_store::realisations::NotTaken;
use ferry_store::{Destination, NarVisitor, Result, SignatureCheck, Store, StoreWriter, Wanted};

use crate::compression::Compression;
use crate::directory::Staging;
use crate::others::Others;
use crate::place::{CACHE_INFO, Place};
use crate::publish::Publisher;
use crate::writer::{CacheWriter, WriteSettings};
use crate::{CacheAddress, CacheError, CacheFacts, logs, reader, realisations, walk};

/// So many narinfos are kept in memory, about a kilobyte each.
const KEPT: usize = 1 << 15;

/// A binary cache. It is not looked at before it is asked something.
pub struct BinaryCache {
    pub(crate) place: Arc<Place>,
    pub(crate) store_dir: StoreDir,
    settings: WriteSettings,
    pub(crate) scratch: PathBuf,
    /// Set once its `nix-cache-info` was looked at.
    /// Its `nix-cache-info`, once that was read and found to be of this store.
    pub(crate) checked: OnceLock<Vec<u8>>,
    /// Made when something is written that is not a path.
    staging: OnceLock<Staging>,
    /// Where the NARs of the paths are that it was asked about.
    files: Mutex<HashMap<StorePath, NarFile>>,
    /// What it has said when it was asked for facts, until it is asked for the path infos: what is
    /// copied is worked out before.
    said: Mutex<HashMap<StorePath, Narinfo>>,
    /// Paths that others bring.
    awaited: HashSet<StorePath>,
    /// What writing found out about others who work on it; nothing before.
    pub(crate) others: Mutex<Option<Others>>,
}

/// Where the NAR of a path is, as its narinfo says.
#[derive(Clone)]
pub(crate) struct NarFile {
    pub(crate) url: String,
    pub(crate) compression: Compression,
    pub(crate) hash: Option<NixHash>,
    pub(crate) size: Option<u64>,
}

impl BinaryCache {
    /// The cache at an address, of paths below `store_dir`.
    ///
    /// # Errors
    /// When a setting for talking HTTP cannot be used.
    pub fn new(
        address: &CacheAddress,
        store_dir: &StoreDir,
        options: &HttpOptions,
    ) -> std::result::Result<Self, CacheError> {
        Ok(Self {
            place: Arc::new(Place::new(&address.location, options)?),
            store_dir: store_dir.clone(),
            settings: address.settings.clone(),
            scratch: PathBuf::from("/tmp"),
            checked: OnceLock::new(),
            staging: OnceLock::new(),
            files: Mutex::default(),
            said: Mutex::default(),
            awaited: HashSet::new(),
            others: Mutex::default(),
        })
    }

    /// Lets what is written refer to paths that are not there yet, as others bring them: the other
    /// parts of what this one writes a part of. What refers to them waits, unseen, for whoever ends
    /// last ([`waiting`](Self::waiting)).
    #[must_use]
    pub fn awaiting(mut self, paths: HashSet<StorePath>) -> Self {
        self.awaited = paths;
        self
    }

    /// Whether it can tell what is in it, without which nobody can share the work of writing it.
    #[must_use]
    pub fn can_be_listed(&self) -> bool {
        !matches!(self.place.as_ref(), Place::Web { .. })
    }

    /// Where temporary files go that are on their way to the web; `/tmp` unless said.
    #[must_use]
    pub fn with_scratch_directory(mut self, directory: PathBuf) -> Self {
        self.scratch = directory;
        self
    }

    /// What it knows, for one graph. `answers` is a directory in which to keep what a cache on
    /// the web has answered, and to look first.
    #[must_use]
    pub fn facts(&self, answers: Option<&Path>) -> CacheFacts<'_> {
        CacheFacts::new(self, answers)
    }

    /// What it says about each of `paths`; nothing where it does not have it. Several are asked
    /// for at a time.
    ///
    /// # Errors
    /// When it cannot be asked, is of another store, or what it answers is not a narinfo of the
    /// path asked about.
    pub fn narinfos(
        &self,
        paths: &[StorePath],
    ) -> std::result::Result<Vec<Option<Narinfo>>, CacheError> {
        self.fetch_all(paths, |_, _| ())
    }

    /// The same; `keep` is handed the name and the text of each.
    pub(crate) fn fetch_all(
        &self,
        paths: &[StorePath],
        keep: impl Fn(&str, &[u8]) + Sync,
    ) -> std::result::Result<Vec<Option<Narinfo>>, CacheError> {
        self.each_text(paths, |path, name, text| {
            let narinfo = self.parse(path, name, text)?;
            keep(name, text);
            Ok(narinfo)
        })
    }

    /// The NAR hashes that it states of those of `paths` that it has.
    fn nar_hashes(
        &self,
        paths: &[StorePath],
    ) -> std::result::Result<Vec<Option<NarHash>>, CacheError> {
        self.each_text(paths, |path, name, text| {
            match narinfo::nar_hash_of(&self.store_dir, path, text) {
                Some(hash) => Ok(hash),
                None => Ok(self.parse(path, name, text)?.info.nar_hash),
            }
        })
    }

    /// Gets the narinfos of those of `paths` that it has, several at a time, and has each read, with
    /// its name and its text.
    fn each_text<T: Send>(
        &self,
        paths: &[StorePath],
        read: impl Fn(&StorePath, &str, &[u8]) -> std::result::Result<T, CacheError> + Sync,
    ) -> std::result::Result<Vec<Option<T>>, CacheError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.check()?;
        in_parallel(paths, self.place.connections(), |path| {
            let name = narinfo::file_name(path);
            let text = self.place.get(&name)?;
            text.map(|text| read(path, &name, &text)).transpose()
        })
    }

    /// Keeps what it has said until it is asked for the path info.
    pub(crate) fn keep(&self, narinfo: Narinfo) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < KEPT {
            said.insert(narinfo.info.path.clone(), narinfo);
        }
    }

    /// Looks at its `nix-cache-info`, once.
    pub(crate) fn check(&self) -> std::result::Result<(), CacheError> {
        if self.checked.get().is_some() || self.check_info()? {
            return Ok(());
        }
        Err(CacheError::NotACache { cache: self.place.shown() })
    }

    /// Whether there is a cache. One of another store is an error.
    fn check_info(&self) -> std::result::Result<bool, CacheError> {
        let Some(info) = self.place.get(CACHE_INFO)? else { return Ok(false) };
        match CacheInfo::parse(&info).store_dir {
            Some(found) if found != self.store_dir.as_str() => Err(CacheError::OtherStore {
                cache: self.place.shown(),
                found: harmless(&found),
                expected: self.store_dir.as_str().to_owned(),
            }),
            _ => {
                self.checked.get_or_init(|| info);
                Ok(true)
            }
        }
    }

    pub(crate) fn parse(
        &self,
        path: &StorePath,
        name: &str,
        text: &[u8],
    ) -> std::result::Result<Narinfo, CacheError> {
        let narinfo = self.parse_any(name, text)?;
        if narinfo.info.path != *path {
            return Err(CacheError::OtherPath {
                url: self.place.shown_file(name),
                found: self.store_dir.render_path(&narinfo.info.path),
                expected: self.store_dir.render_path(path),
            });
        }
        Ok(narinfo)
    }

    /// Reads a narinfo of whatever path it is about.
    pub(crate) fn parse_any(
        &self,
        name: &str,
        text: &[u8],
    ) -> std::result::Result<Narinfo, CacheError> {
        narinfo::parse(&self.store_dir, text)
            .map_err(|error| CacheError::bad_narinfo(&self.place, name, &error, text))
    }

    /// Notes where a NAR is, unless it can be nowhere.
    pub(crate) fn note(&self, narinfo: &Narinfo) -> std::result::Result<(), CacheError> {
        let path = &narinfo.info.path;
        self.place.check_url(&narinfo.url).map_err(|reason| CacheError::BadUrl {
            path: self.store_dir.render_path(path),
            url: harmless(&narinfo.url),
            reason,
        })?;
        let method = narinfo.compression.as_str();
        let compression = Compression::parse(method).ok_or_else(|| {
            let path = self.store_dir.render_path(path);
            CacheError::UnknownCompression { path, method: harmless(method) }
        })?;
        let file = NarFile {
            url: narinfo.url.clone(),
            compression,
            hash: narinfo.file_hash.clone(),
            size: narinfo.file_size.filter(|size| *size > 0),
        };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), file);
        Ok(())
    }

    /// Where the NARs of `paths` are.
    pub(crate) fn nar_files(&self, wanted: &[PathInfo]) -> Result<Vec<NarFile>> {
        let known =
            |path| self.files.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let open: Vec<StorePath> = wanted
            .iter()
            .filter(|info| known(&info.path).is_none())
            .map(|info| info.path.clone())
            .collect();
        self.path_infos(&open)?;
        wanted
            .iter()
            .map(|info| {
                known(&info.path).ok_or_else(|| ferry_store::Error::NotValid {
                    path: self.store_dir.render_path(&info.path),
                    store: Store::describe(self),
                })
            })
            .collect()
    }
}

/// Writing what is not a path.
impl BinaryCache {
    /// A place to make files in before they go to the cache.
    fn staging(&self) -> std::result::Result<&Staging, CacheError> {
        if let Some(made) = self.staging.get() {
            return Ok(made);
        }
        let made = self.new_staging()?;
        Ok(self.staging.get_or_init(|| made))
    }

    /// Writes a file.
    pub(crate) fn write(
        &self,
        name: &str,
        contents: &mut dyn Read,
    ) -> std::result::Result<(), CacheError> {
        let file = self.staging()?.new_file();
        let written = File::create_new(&file).and_then(|mut written| {
            std::io::copy(contents, &mut written)?;
            written.sync_all()
        });
        written.map_err(CacheError::io("write", file.display()))?;
        self.place.put(&file, name)
    }
}

impl Store for BinaryCache {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        format!("binary cache `{}`", self.place.shown())
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        Ok(self.path_infos(std::slice::from_ref(path))?.pop().flatten())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Option<Narinfo>> = paths.iter().map(|path| said.remove(path)).collect();
        drop(said);
        let is_open =
            |(path, found): (&StorePath, &Option<Narinfo>)| found.is_none().then(|| path.clone());
        let open: Vec<StorePath> = paths.iter().zip(&found).filter_map(is_open).collect();
        let asked = self.narinfos(&open)?;
        let places = found.iter_mut().filter(|found| found.is_none());
        places.zip(asked).for_each(|(place, narinfo)| *place = narinfo);
        found.iter().flatten().try_for_each(|narinfo| self.note(narinfo))?;
        Ok(found.into_iter().map(|narinfo| Some(narinfo?.info)).collect())
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        self.check()?;
        let files = match walk::narinfo_files(&self.place) {
            Err(CacheError::NoListing { .. }) => return Ok(None),
            files => files?,
        };
        let mut paths = Vec::with_capacity(files.len());
        // The name of a file has no more than the hash part of a path.
        self.for_each_narinfo(
            &files,
            |_, found| Ok(found?.narinfo.info.path),
            |path| {
                paths.push(path);
                Ok(())
            },
        )?;
        paths.sort();
        Ok(Some(paths))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        let Some(deriver) = self.path_info(path)?.and_then(|info| info.deriver) else {
            return Ok(Vec::new());
        };
        Ok(self.path_info(&deriver)?.map(|info| info.path).into_iter().collect())
    }

    fn realisations(&self, paths: &Wanted) -> Result<Vec<Realisation>> {
        realisations::of_paths(self, paths)
    }

    fn build_log(&self, derivation: &StorePath) -> Result<Option<Box<dyn Read + Send>>> {
        logs::open(self, derivation)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        reader::read_nars(self, wanted, visit)
    }
}

impl Destination for BinaryCache {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        Store::describe(self)
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        // A cache that is yet to be made has nothing.
        if self.checked.get().is_none() && !self.check_info()? {
            return Ok(vec![None; paths.len()]);
        }
        self.look_at_others()?;
        Ok(self.corrected(paths, self.nar_hashes(paths)?))
    }

    fn awaits(&self, path: &StorePath) -> bool {
        self.awaited.contains(path) || self.is_waiting(path)
    }

    fn lost(&self, plan: &Plan) -> Result<Vec<StorePath>> {
        Ok(self.lost_of(plan)?)
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        Store::derivation_text(self, path)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        // Nothing becomes valid by standing in a cache: whoever takes it from there looks.
        SignatureCheck::NotNeeded
    }

    fn takes_realisations(&self) -> bool {
        true
    }

    fn add_realisations(&self, offered: &[Realisation]) -> Result<NotTaken> {
        realisations::add(self, offered)
    }

    fn has_build_log(&self, derivation: &StorePath) -> Result<Option<bool>> {
        logs::is_there(self, derivation).map(Some)
    }

    fn add_build_log(&self, derivation: &StorePath, log: &mut dyn Read) -> Result<()> {
        logs::add(self, derivation, log)
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        let staging = Arc::new(self.new_staging()?);
        self.look_at_others()?;
        let there: HashSet<&StorePath> = match self.awaited.is_empty() {
            true => HashSet::new(),
            false => plan.relied_on().iter().collect(),
        };
        let is_to_come = |path: &StorePath| {
            self.is_waiting(path) || self.awaited.contains(path) && !there.contains(path)
        };
        let place = Arc::clone(&self.place);
        let publisher =
            Publisher::new(place, Arc::clone(&staging), plan.infos(), self.token(), is_to_come);
        let (store_dir, settings) = (&self.store_dir, &self.settings);
        Ok(Box::new(CacheWriter::new(&self.place, staging, store_dir, settings, publisher)?))
    }
}
