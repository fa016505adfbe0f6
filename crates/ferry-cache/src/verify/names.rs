//! Which files a cache has.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ferry_formats::StorePath;
use ferry_formats::narinfo;

use crate::layout::FileKind;
use crate::place::Listed;
use crate::{BinaryCache, CacheError};

/// The files of a cache that can be listed; a server is asked for each.
pub(super) enum Names {
    Listed(HashMap<String, Entry>),
    Asked,
}

/// A file that was listed.
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    /// Whether a narinfo names it.
    is_named: AtomicBool,
}

impl Names {
    /// Lists all files of a cache, if it can be listed.
    pub(super) fn of(cache: &BinaryCache) -> Result<Self, CacheError> {
        let mut listed = HashMap::new();
        let outcome = cache.place.list("", &mut |Listed { name, size, modified }| {
            listed.insert(name, Entry { size, modified, is_named: AtomicBool::new(false) });
            Ok(())
        });
        match outcome {
            Ok(()) => Ok(Self::Listed(listed)),
            Err(CacheError::NoListing { .. }) => Ok(Self::Asked),
            Err(error) => Err(error),
        }
    }

    fn get(&self, name: &str) -> Option<&Entry> {
        match self {
            Self::Listed(listed) => listed.get(name),
            Self::Asked => None,
        }
    }

    /// Whether there is a file of this name, in a cache that was listed.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Those of a kind, with the names.
    pub(super) fn like(&self, kind: FileKind) -> Vec<(&str, &Entry)> {
        let Self::Listed(listed) = self else { return Vec::new() };
        let like = listed.iter().filter(|(name, _)| FileKind::of(name) == kind);
        let mut like: Vec<_> = like.map(|(name, entry)| (name.as_str(), entry)).collect();
        like.sort_unstable_by_key(|(name, _)| *name);
        like
    }

    /// Whether there is a narinfo of this path. What was not there when the cache was listed may
    /// have come since, before what refers to it: so the cache has the last word.
    pub(super) fn has_narinfo(
        &self,
        cache: &BinaryCache,
        path: &StorePath,
    ) -> Result<bool, CacheError> {
        let name = narinfo::file_name(path);
        match self {
            // Whoever walks along the references finds out.
            Self::Asked => Ok(true),
            Self::Listed(_) => Ok(self.lists(&name) || cache.place.get(&name)?.is_some()),
        }
    }

    /// The size of a NAR, as far as it is known, if it is there. It has a name from here on.
    pub(super) fn nar(
        &self,
        cache: &BinaryCache,
        url: &str,
    ) -> Result<Option<Option<u64>>, CacheError> {
        if let Some(entry) = self.get(url) {
            entry.is_named.store(true, Ordering::Relaxed);
            return Ok(Some(Some(entry.size)));
        }
        let is_there = match self {
            Self::Asked if !url.contains("://") => cache.place.has(url, 0)?,
            _ => cache.place.open(url, None)?.is_some(),
        };
        Ok(is_there.then_some(None))
    }

    /// The size of a file that was listed, and when it was last written.
    pub(super) fn file(&self, name: &str) -> Option<(u64, Option<SystemTime>)> {
        self.get(name).map(|entry| (entry.size, entry.modified))
    }
}

impl Entry {
    pub(super) fn is_named(&self) -> bool {
        self.is_named.load(Ordering::Relaxed)
    }
}
