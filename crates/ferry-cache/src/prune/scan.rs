//! One look at everything in a cache.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use ferry_formats::{StorePath, narinfo};
use ferry_store::progress::Progress;

use super::referrers_first;
use crate::layout::FileKind;
use crate::pending::{self, Pending};
use crate::place::Listed;
use crate::{BinaryCache, CacheError};

/// A file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
}

impl Seen {
    fn of(file: &Listed) -> Self {
        Self { size: file.size, modified: file.modified }
    }
}

/// A path that has a narinfo.
pub(super) struct Known {
    pub(super) seen: Seen,
    /// It was not there, or not like this, when the scan before this one was made.
    pub(super) is_new: bool,
    pub(super) path: StorePath,
    pub(super) references: Vec<StorePath>,
    pub(super) deriver: Option<StorePath>,
    pub(super) url: String,
}

impl Known {
    pub(super) fn name(&self) -> String {
        narinfo::file_name(&self.path)
    }
}

/// What is in a cache.
#[derive(Default)]
pub(super) struct Scan {
    /// By the names of their files.
    pub(super) narinfos: HashMap<String, Known>,
    pub(super) waiting: Vec<Pending>,
    pub(super) nars: BTreeMap<String, Seen>,
    pub(super) listings: Vec<(String, Seen)>,
    pub(super) logs: Vec<String>,
    pub(super) realisations: Vec<String>,
    pub(super) debug: Vec<String>,
    is_first: bool,
}

impl BinaryCache {
    /// Looks at everything; what has not changed since `before` is not read again.
    pub(super) fn scan(
        &self,
        mut before: Scan,
        progress: &dyn Progress,
    ) -> Result<Scan, CacheError> {
        let is_first = before.narinfos.is_empty() && !before.is_first;
        let mut scan = Scan { is_first, ..Scan::default() };
        let mut open = Vec::new();
        self.place.list("", &mut |file| {
            let seen = Seen::of(&file);
            match FileKind::of(&file.name) {
                FileKind::Narinfo => {
                    match before.narinfos.remove(&file.name).filter(|known| known.seen == seen) {
                        Some(known) => {
                            scan.narinfos.insert(file.name, Known { is_new: false, ..known });
                        }
                        None => open.push(file),
                    }
                }
                FileKind::Listing => scan.listings.push((file.name, seen)),
                FileKind::Log => scan.logs.push(file.name),
                FileKind::Realisation => scan.realisations.push(file.name),
                FileKind::DebugInfo => scan.debug.push(file.name),
                FileKind::Nar => drop(scan.nars.insert(file.name, seen)),
                FileKind::Other => {}
            }
            Ok(())
        })?;
        progress.begin("reading narinfos", open.len() as u64, 0);
        let read = self.for_each_narinfo(
            &open,
            |file, found| {
                let narinfo = found?.narinfo;
                let info = narinfo.info;
                progress.path(&info.path);
                Ok(Known {
                    seen: Seen::of(file),
                    is_new: !is_first,
                    references: info.other_references().cloned().collect(),
                    path: info.path,
                    deriver: info.deriver,
                    url: narinfo.url,
                })
            },
            |known| {
                scan.narinfos.insert(known.name(), known);
                Ok(())
            },
        );
        progress.end();
        read?;
        // After the narinfos: what has got its place meanwhile is seen there or here.
        scan.waiting = pending::all(&self.place, &self.store_dir)?;
        Ok(scan)
    }
}

impl Scan {
    pub(super) fn get(&self, path: &StorePath) -> Option<&Known> {
        self.narinfos.get(&narinfo::file_name(path)).filter(|known| known.path == *path)
    }

    /// Marks these paths and everything that they refer to, what is not there included.
    pub(super) fn mark<'a>(
        &'a self,
        marked: &mut HashSet<&'a StorePath>,
        from: impl IntoIterator<Item = &'a StorePath>,
    ) {
        let mut open: Vec<&StorePath> = from.into_iter().collect();
        while let Some(path) = open.pop() {
            if marked.insert(path)
                && let Some(known) = self.get(path)
            {
                open.extend(&known.references);
            }
        }
    }

    /// What is marked and not there, and does not wait either.
    pub(super) fn dangling(&self, marked: &HashSet<&StorePath>) -> Vec<StorePath> {
        // What waits refers to what others are yet to bring.
        let excused: HashSet<&StorePath> = self
            .waiting
            .iter()
            .flat_map(|one| one.narinfo.info.references.iter().chain([&one.narinfo.info.path]))
            .collect();
        let absent = marked.iter().filter(|path| self.get(path).is_none());
        let absent = absent.filter(|path| !excused.contains(**path));
        let mut absent: Vec<StorePath> = absent.map(|path| (*path).clone()).collect();
        absent.sort();
        absent
    }

    /// What is not marked, in waves: referrers first.
    pub(super) fn waves(&self, marked: &HashSet<&StorePath>) -> Vec<Vec<&Known>> {
        let goes = |path: &&StorePath| !marked.contains(*path) && self.get(path).is_some();
        let edges: BTreeMap<&StorePath, Vec<&StorePath>> = self
            .narinfos
            .values()
            .filter(|known| goes(&&known.path))
            .map(|known| (&known.path, known.references.iter().filter(goes).collect()))
            .collect();
        let waves = referrers_first(&edges).into_iter();
        waves.map(|wave| wave.iter().filter_map(|path| self.get(path)).collect()).collect()
    }
}

/// The NAR that an entry about debugging information leads to, relative to the cache.
pub(super) fn archive_of(text: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    value.get("archive")?.as_str()?.strip_prefix("../").map(str::to_owned)
}
