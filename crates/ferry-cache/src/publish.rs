//! Giving files their places in a cache.
//!
//! Whatever moment the machine stops at: a narinfo that is there is whole, its NAR is there and
//! whole, and so are the narinfos of all that it refers to. So files are made elsewhere, brought to
//! the disk many at a time (a flush for each would take longer than all the rest), and then moved,
//! NARs before their narinfos, references before their referrers.
//! On the web every file is put by itself, whole or not at all, in the same order.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use ferry_formats::{PathInfo, StorePath};
use ferry_store::parallel::in_parallel;

use crate::CacheError;
use crate::directory::Staging;
use crate::place::Place;

/// After how many paths, or how many bytes, those that are made are given their places. What is
/// made and has no place yet is lost when the program is killed.
const BATCH: usize = 1000;
const BATCH_BYTES: u64 = 32 << 20;
/// The same on the web, where nothing has to be flushed.
const WEB_BATCH: usize = 50;

/// What there is to be put into the cache for one path.
pub(crate) struct Made {
    /// Each with its name in the cache, in the order in which they are to appear.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Their sizes in bytes.
    pub(crate) size: u64,
}

/// Gives files their places.
pub(crate) struct Publisher {
    place: Arc<Place>,
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
    pub(crate) fn new(place: Arc<Place>, staging: Arc<Staging>, infos: &[PathInfo]) -> Self {
        let numbers: HashMap<StorePath, usize> =
            infos.iter().enumerate().map(|(number, info)| (info.path.clone(), number)).collect();
        let references = infos
            .iter()
            .map(|info| info.other_references().filter_map(|path| numbers.get(path).copied()))
            .map(Iterator::collect)
            .collect();
        Self {
            place,
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
        let batch = if self.place.is_remote() { WEB_BATCH } else { BATCH };
        let is_enough = self.paths >= batch || self.bytes >= BATCH_BYTES;
        if is_enough { self.publish() } else { Ok(()) }
    }

    /// Gives a place to everything that may have one.
    pub(crate) fn publish(&mut self) -> Result<(), CacheError> {
        (self.paths, self.bytes) = (0, 0);
        if self.place.is_remote() {
            return self.put_in_waves();
        }
        self.staging.flush()?;
        // In the order of the plan references stand before their referrers.
        let numbers: Vec<usize> = self.waiting.keys().copied().collect();
        for number in numbers {
            if !self.may_be_there(number) {
                continue;
            }
            let Some(made) = self.waiting.remove(&number) else { continue };
            for (file, name) in made.files {
                self.place.put(&file, &name)?;
            }
            self.is_there(number);
        }
        Ok(())
    }

    /// Puts everything that may be there, several at a time, and then what refers to that.
    fn put_in_waves(&mut self) -> Result<(), CacheError> {
        loop {
            let numbers: Vec<usize> =
                self.waiting.keys().copied().filter(|number| self.may_be_there(*number)).collect();
            let wave: Vec<&Made> =
                numbers.iter().filter_map(|number| self.waiting.get(number)).collect();
            if wave.is_empty() {
                return Ok(());
            }
            in_parallel(&wave, self.place.puts_at_a_time(), |made| {
                made.files.iter().try_for_each(|(file, name)| self.place.put(file, name))
            })?;
            for number in numbers {
                self.waiting.remove(&number);
                self.is_there(number);
            }
        }
    }

    /// Whether everything is there that a path refers to.
    fn may_be_there(&self, number: usize) -> bool {
        let references = self.references.get(number).map(Vec::as_slice).unwrap_or_default();
        references.iter().all(|reference| self.published.get(*reference).copied().unwrap_or(true))
    }

    fn is_there(&mut self, number: usize) {
        if let Some(published) = self.published.get_mut(number) {
            *published = true;
        }
    }

    /// Gives a place to the last of them, and sees to it that they keep it.
    pub(crate) fn finish(&mut self) -> Result<(), CacheError> {
        self.publish()?;
        if self.place.is_remote() { Ok(()) } else { self.staging.flush() }
    }
}
