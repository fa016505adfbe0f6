//! Giving files their places in a cache on disk.
//!
//! Whatever moment the machine stops at: a narinfo that is there is whole, its NAR is there and
//! whole, and so are the narinfos of all that it refers to. So files are made elsewhere, brought to
//! the disk many at a time (a flush for each would take longer than all the rest), and then moved,
//! NARs before their narinfos, references before their referrers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_formats::{PathInfo, StorePath};

use crate::CacheError;
use crate::directory::Staging;

/// After how many paths, or how many bytes, those that are made are given their places. What is
/// made and has no place yet is lost when the program is killed.
const BATCH: usize = 1000;
const BATCH_BYTES: u64 = 32 << 20;

/// What there is to be put into the cache for one path.
pub(crate) struct Made {
    /// Each with its name in the cache, in the order in which they are to appear.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Their sizes in bytes.
    pub(crate) size: u64,
}

/// Gives files their places.
pub(crate) struct Publisher {
    directory: PathBuf,
    staging: Arc<Staging>,
    /// For each path of the plan, what it refers to, as numbers.
    references: Vec<Vec<usize>>,
    numbers: HashMap<StorePath, usize>,
    published: Vec<bool>,
    waiting: BTreeMap<usize, Made>,
    /// Paths and bytes since the last time.
    paths: usize,
    bytes: u64,
}

impl Publisher {
    pub(crate) fn new(directory: &Path, staging: Arc<Staging>, infos: &[PathInfo]) -> Self {
        let numbers: HashMap<StorePath, usize> =
            infos.iter().enumerate().map(|(number, info)| (info.path.clone(), number)).collect();
        let references = infos
            .iter()
            .map(|info| info.other_references().filter_map(|path| numbers.get(path).copied()))
            .map(Iterator::collect)
            .collect();
        Self {
            directory: directory.to_owned(),
            staging,
            references,
            numbers,
            published: vec![false; infos.len()],
            waiting: BTreeMap::new(),
            paths: 0,
            bytes: 0,
        }
    }

    /// Takes what was made for a path, and gives places to all there is if that is enough by now.
    pub(crate) fn take(&mut self, path: &StorePath, made: Made) -> Result<(), CacheError> {
        let Some(number) = self.numbers.get(path) else { return Ok(()) };
        self.paths += 1;
        self.bytes = self.bytes.saturating_add(made.size);
        self.waiting.insert(*number, made);
        if self.paths >= BATCH || self.bytes >= BATCH_BYTES { self.publish() } else { Ok(()) }
    }

    /// Gives a place to everything that may have one.
    pub(crate) fn publish(&mut self) -> Result<(), CacheError> {
        (self.paths, self.bytes) = (0, 0);
        self.staging.flush()?;
        // In the order of the plan references stand before their referrers.
        let numbers: Vec<usize> = self.waiting.keys().copied().collect();
        for number in numbers {
            let references = self.references.get(number).map(Vec::as_slice).unwrap_or_default();
            let may_be_there =
                |reference: &usize| self.published.get(*reference).copied().unwrap_or(true);
            if !references.iter().all(may_be_there) {
                continue;
            }
            let Some(made) = self.waiting.remove(&number) else { continue };
            for (file, name) in made.files {
                let place = self.directory.join(name);
                fs::rename(&file, &place).map_err(CacheError::io("write", place.display()))?;
            }
            if let Some(published) = self.published.get_mut(number) {
                *published = true;
            }
        }
        Ok(())
    }

    /// Gives a place to the last of them, and sees to it that they keep it.
    pub(crate) fn finish(&mut self) -> Result<(), CacheError> {
        self.publish()?;
        self.staging.flush()
    }
}
