//! Checking a binary cache.
//!
//! First its structure: what can be told from the names and sizes of files and from the narinfos.
//! Then, if that is wanted, every NAR, or a sample of them, is read. A fault ends nothing: all
//! that can be found is found.

mod fault;
mod leftovers;
mod names;
mod nar;
pub(crate) mod narinfo;
mod sample;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferry_formats::StorePath;
use ferry_formats::narinfo::{self as format, Narinfo};
use ferry_store::message::harmless;
use ferry_store::progress::Progress;
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;

pub use fault::{Fault, FaultKind};
pub use sample::{BadPercentage, Percentage, Sample};
pub use state::VerifyState;

use self::names::Names;
use self::narinfo::{Look, Looked, listing_name};
use self::state::Record;
use crate::compression::Compression;
use crate::layout::FileKind;
use crate::place::Listed;
use crate::{BinaryCache, CacheError};

/// What of the NARs is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadData {
    /// None.
    #[default]
    Nothing,
    /// Those of some paths.
    Sample(Sample),
    /// All.
    Everything,
}

/// What to check.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// These paths and all that they refer to; all that is there, where none is named (which a
    /// cache on the web only knows by an index that is kept in it).
    pub roots: Vec<StorePath>,
    /// Only the paths of this part.
    pub shard: Shard,
    /// Which signatures count, and whether there has to be one.
    pub trust: TrustPolicy,
    /// What of the NARs is read.
    pub data: ReadData,
    /// Reads a NAR again that was found right so long ago.
    pub again_after: Option<Duration>,
}

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Narinfos looked at.
    pub paths: u64,
    /// Sum of the sizes of their NARs, in bytes.
    pub nar_size: u64,
    /// Sum of the sizes of the files that they name, each counted once, in bytes.
    pub file_size: u64,
    /// Paths that a trusted key has signed.
    pub signed_by_trusted: u64,
    /// NARs that were read.
    pub nars_read: u64,
    /// Sum of their sizes, in bytes.
    pub nar_size_read: u64,
    /// NARs that were to be read, and were read by an earlier run.
    pub nars_read_before: u64,
    /// Whether files that nothing names were looked for.
    pub looked_for_orphans: bool,
    /// Everything that is wrong, in order.
    pub faults: Vec<Fault>,
}

impl VerifyReport {
    /// Whether nothing is wrong but what is [harmless](FaultKind::is_harmless).
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.iter().all(|fault| fault.kind.is_harmless())
    }
}

/// What threads say: only the first of them has the report.
struct Run<'a> {
    cache: &'a BinaryCache,
    options: &'a VerifyOptions,
    state: Option<&'a VerifyState>,
    progress: &'a dyn Progress,
    names: Names,
    report: VerifyReport,
    /// The URLs that were counted.
    files: BTreeSet<String>,
    /// The narinfos whose NARs are to be read, and their sizes.
    to_read: Vec<(String, u64)>,
}

impl BinaryCache {
    /// Checks the cache. With a `state`, what an earlier run has read is not read again, and what
    /// this one reads is noted.
    ///
    /// # Errors
    /// When it is no cache, of another store, cannot be listed and no path is named, or when a
    /// server cannot be asked. What is wrong with the cache is no error.
    pub fn verify(
        &self,
        options: &VerifyOptions,
        state: Option<&VerifyState>,
        progress: &dyn Progress,
    ) -> Result<VerifyReport, CacheError> {
        self.check()?;
        let names = Names::of(self)?;
        let mut options = options.clone();
        if options.roots.is_empty() && matches!(names, Names::Asked) {
            let no_listing = || CacheError::NoListing { cache: self.place.shown() };
            let index = self.kept_index()?.ok_or_else(no_listing)?;
            options.roots = index.entries().iter().map(|entry| entry.path.clone()).collect();
        }
        let options = &options;
        let mut run = Run {
            cache: self,
            options,
            state,
            progress,
            names,
            report: VerifyReport::default(),
            files: BTreeSet::new(),
            to_read: Vec::new(),
        };
        run.report.faults.extend(leftovers::cache_info(self));
        if options.roots.is_empty() && matches!(run.names, Names::Listed(_)) {
            run.everything()?;
        } else {
            run.below_roots()?;
        }
        run.data()?;
        let mut report = run.report;
        // What the structure has shown already is found again where the data is read.
        report.faults.sort();
        report.faults.dedup_by(|a, b| (a.kind, &a.file, &a.path) == (b.kind, &b.file, &b.path));
        Ok(report)
    }
}

impl Run<'_> {
    /// Looks at every narinfo that is there.
    fn everything(&mut self) -> Result<(), CacheError> {
        let shard = self.options.shard;
        let is_mine = |name: &str| {
            // One whose hash is none is nobody's, so everybody looks at it.
            let path = StorePath::from_basename(name.replace(".narinfo", "-x").as_bytes());
            path.map_or(true, |path| shard.holds(&path))
        };
        let files: Vec<Listed> = self
            .names
            .like(FileKind::Narinfo)
            .into_iter()
            .filter(|(name, _)| is_mine(name))
            .map(|(name, entry)| Listed {
                name: name.to_owned(),
                size: entry.size,
                modified: entry.modified,
            })
            .collect();
        self.look(&files, &mut |_, _| {})?;
        if shard.is_whole() {
            self.report.looked_for_orphans = true;
            self.report.faults.extend(leftovers::orphans(self.cache, &self.names)?);
            self.report.faults.extend(leftovers::realisations(self.cache, &self.names)?);
        }
        Ok(())
    }

    /// Looks at what the roots reach, a wave at a time.
    fn below_roots(&mut self) -> Result<(), CacheError> {
        // Each path with one that refers to it.
        let mut wave: BTreeMap<StorePath, Option<StorePath>> =
            self.options.roots.iter().map(|root| (root.clone(), None)).collect();
        let mut seen: BTreeSet<StorePath> = wave.keys().cloned().collect();
        while !wave.is_empty() {
            let file = |path| Listed { name: format::file_name(path), size: 0, modified: None };
            let files: Vec<Listed> = wave.keys().map(file).collect();
            let mut next = BTreeMap::new();
            let mut found = BTreeSet::new();
            self.look(&files, &mut |name, narinfo| {
                found.insert(name.to_owned());
                let Some(narinfo) = narinfo else { return };
                for reference in narinfo.info.other_references() {
                    if seen.insert(reference.clone()) {
                        next.insert(reference.clone(), Some(narinfo.info.path.clone()));
                    }
                }
            })?;
            let is_asked = matches!(self.names, Names::Asked);
            for (path, referrer) in wave {
                if !found.contains(&format::file_name(&path)) {
                    self.missing(&path, referrer, is_asked);
                }
            }
            wave = next;
        }
        Ok(())
    }

    /// Notes that a path has no narinfo.
    fn missing(&mut self, path: &StorePath, referrer: Option<StorePath>, is_asked: bool) {
        let store_dir = &self.cache.store_dir;
        let fault = match referrer {
            None => Fault {
                kind: FaultKind::MissingPath,
                file: format::file_name(path),
                path: Some(path.clone()),
                message: "it is not there".to_owned(),
                size: None,
            },
            // Where the cache was listed, whoever refers to it has said so.
            Some(referrer) if is_asked => Fault {
                kind: FaultKind::MissingReference,
                file: format::file_name(&referrer),
                message: format!("it refers to {}", store_dir.render_path(path)),
                path: Some(referrer),
                size: None,
            },
            Some(_) => return,
        };
        if fault.path.as_ref().is_some_and(|path| self.options.shard.holds(path)) {
            self.report.faults.push(fault);
        }
    }

    /// Looks at these narinfos, and tells what each of them says.
    fn look(
        &mut self,
        files: &[Listed],
        each: &mut dyn FnMut(&str, Option<&Narinfo>),
    ) -> Result<(), CacheError> {
        let Self { cache, options, state, progress, names, report, files: counted, to_read } = self;
        let size = files.iter().map(|file| file.size).sum();
        progress.begin("checking", files.len() as u64, size);
        let look = Look { cache, names, trust: &options.trust };
        let outcome = cache.for_each_narinfo(
            files,
            |file, found| {
                let looked = look.at(&file.name, found)?;
                progress.bytes(file.size);
                if let Some(narinfo) = &looked.narinfo {
                    progress.path(&narinfo.info.path);
                }
                Ok(looked)
            },
            |looked| {
                let Looked { name, narinfo, faults, is_signed, has_nar } = looked;
                each(&name, narinfo.as_ref());
                let is_ours = |narinfo: &Narinfo| options.shard.holds(&narinfo.info.path);
                if !narinfo.as_ref().is_none_or(is_ours) {
                    return Ok(());
                }
                report.paths += 1;
                report.faults.extend(faults);
                report.signed_by_trusted += u64::from(is_signed);
                let Some(narinfo) = narinfo else { return Ok(()) };
                let size = narinfo.info.nar_size;
                report.nar_size = report.nar_size.saturating_add(size);
                if has_nar && options.data.holds(&narinfo.info.path) {
                    let record = Record::new(&name, &narinfo, names.file(&narinfo.url));
                    match state.is_some_and(|state| state.has(&record, options.again_after)) {
                        true => report.nars_read_before += 1,
                        false => to_read.push((name, size)),
                    }
                }
                let file = names.file(&narinfo.url).map(|(size, _)| size).or(narinfo.file_size);
                if counted.insert(narinfo.url) {
                    report.file_size = report.file_size.saturating_add(file.unwrap_or_default());
                }
                Ok(())
            },
        );
        progress.end();
        outcome
    }

    /// Reads NARs.
    fn data(&mut self) -> Result<(), CacheError> {
        let (cache, progress, state) = (self.cache, self.progress, self.state);
        let total = self.to_read.iter().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        let files: Vec<Listed> = std::mem::take(&mut self.to_read)
            .into_iter()
            .map(|(name, size)| Listed { name, size, modified: None })
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        progress.begin("reading", files.len() as u64, total);
        let names = &self.names;
        let report = &mut self.report;
        let outcome = cache.for_each_narinfo(
            &files,
            |file, found| {
                // What has changed meanwhile is not what was looked at.
                let Ok(found) = found else { return Ok(None) };
                let narinfo = found.narinfo;
                let record = Record::new(&file.name, &narinfo, names.file(&narinfo.url));
                let faults = read(cache, names, &narinfo, progress)?;
                progress.path(&narinfo.info.path);
                Ok(Some((record, narinfo.info.nar_size, faults)))
            },
            |outcome| {
                let Some((record, size, faults)) = outcome else { return Ok(()) };
                report.nars_read += 1;
                report.nar_size_read = report.nar_size_read.saturating_add(size);
                if let (true, Some(state)) = (faults.is_empty(), state) {
                    state.add(&record)?;
                }
                report.faults.extend(faults);
                Ok(())
            },
        );
        progress.end();
        outcome
    }
}

impl ReadData {
    fn holds(&self, path: &StorePath) -> bool {
        match self {
            Self::Nothing => false,
            Self::Sample(sample) => sample.holds(path),
            Self::Everything => true,
        }
    }
}

/// Reads the NAR of a path, and its listing, if there is one.
fn read(
    cache: &BinaryCache,
    names: &Names,
    narinfo: &Narinfo,
    progress: &dyn Progress,
) -> Result<Vec<Fault>, CacheError> {
    let path = &narinfo.info.path;
    let Some(compression) = Compression::parse(narinfo.compression.as_str()) else {
        return Ok(Vec::new());
    };
    let fault = |kind, file: &str, message| {
        let path = Some(path.clone());
        Fault { kind, file: harmless(file), path, message, size: None }
    };
    let listing_file = listing_name(path);
    let has_listing = names.lists(&listing_file);
    let (findings, listed) = nar::check(cache, narinfo, compression, has_listing, progress)?;
    let mut faults: Vec<Fault> =
        findings.into_iter().map(|(kind, message)| fault(kind, &narinfo.url, message)).collect();
    // The listing of what is not right cannot be held against it.
    if let (true, Some(listed)) = (faults.is_empty(), listed)
        && let Some(found) = nar::differs(cache, &listing_file, &listed)?
    {
        faults.push(fault(FaultKind::WrongListing, &listing_file, found));
    }
    Ok(faults)
}
