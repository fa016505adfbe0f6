//! NARs that no narinfo names any more, and since when: `.ferry-prune/condemned-…`, text files.
//!
//! A file is a line with the form, a line with the time in seconds since 1970, and a line for each
//! name. It is never longer than what is read of a small file. Where one NAR is in several, the
//! latest time counts: that makes two who prune at once harmless.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use ferry_store::shard::Shard;

use crate::CacheError;
use crate::directory::Staging;
use crate::place::{MAX_SIZE, Place};

/// How their names begin.
const PREFIX: &str = ".ferry-prune/condemned-";
const FORM: &str = "ferry condemned 1";

/// The NARs in one file.
struct Batch {
    since: u64,
    names: Vec<String>,
    /// It is not like this in the cache.
    changed: bool,
}

/// All of them.
pub(super) struct Condemned {
    batches: BTreeMap<String, Batch>,
    since: HashMap<String, u64>,
}

impl Condemned {
    pub(super) fn read(place: &Place) -> Result<Self, CacheError> {
        let mut files = Vec::new();
        place.list(PREFIX, &mut |file| {
            files.push(file.name);
            Ok(())
        })?;
        let mut read = Self { batches: BTreeMap::new(), since: HashMap::new() };
        for file in files {
            let Some(text) = place.get(&file)? else { continue };
            // What is none of these grants no time, and takes none: its NARs are condemned anew.
            let Some(batch) = Batch::parse(&text) else { continue };
            for name in &batch.names {
                let since = read.since.entry(name.clone()).or_default();
                *since = batch.since.max(*since);
            }
            read.batches.insert(file, batch);
        }
        Ok(read)
    }

    /// Since when a NAR is condemned.
    pub(super) fn since(&self, name: &str) -> Option<SystemTime> {
        let seconds = *self.since.get(name)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// Forgets all but those that stay, and takes in those that are new.
    pub(super) fn update(
        &mut self,
        stays: impl Fn(&str) -> bool,
        new: Vec<String>,
        now: SystemTime,
        shard: &Shard,
    ) {
        for batch in self.batches.values_mut() {
            let before = batch.names.len();
            batch.names.retain(|name| stays(name));
            batch.changed |= batch.names.len() != before;
        }
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let of = shard.to_string().replace('/', "-");
        let mut names = new.into_iter().peekable();
        for number in 0_u32.. {
            if names.peek().is_none() {
                break;
            }
            let mut size = 0;
            let mut batch = Batch { since: now.as_secs(), names: Vec::new(), changed: true };
            while let Some(name) = names.next_if(|_| size < MAX_SIZE / 2) {
                size += name.len() as u64 + 1;
                batch.names.push(name);
            }
            let file = format!("{PREFIX}{}-{of}-{number}", now.as_nanos());
            self.batches.insert(file, batch);
        }
    }

    pub(super) fn write(&self, place: &Place, staging: &Staging) -> Result<(), CacheError> {
        let changed = || self.batches.iter().filter(|(_, batch)| batch.changed);
        let mut files = Vec::new();
        for (name, batch) in changed().filter(|(_, batch)| !batch.names.is_empty()) {
            files.push((staging.write(batch.render().as_bytes())?, name));
        }
        staging.flush()?;
        for (file, name) in files {
            place.put(&file, name)?;
        }
        let mut empty = changed().filter(|(_, batch)| batch.names.is_empty());
        empty.try_for_each(|(name, _)| place.remove(name))
    }
}

impl Batch {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.lines();
        let form = lines.next()?;
        let since = lines.next()?.parse().ok()?;
        let names = lines.map(str::to_owned).collect();
        (form == FORM).then_some(Self { since, names, changed: false })
    }

    fn render(&self) -> String {
        let mut text = format!("{FORM}\n{}\n", self.since);
        for name in &self.names {
            text.push_str(name);
            text.push('\n');
        }
        text
    }
}
