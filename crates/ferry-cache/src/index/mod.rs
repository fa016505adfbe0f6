//! What is in a cache: names, sizes, and what refers to what.
//!
//! A cache in a directory is read for it: a file for each path. So that this need not be done
//! again each time, and as a cache on the web cannot be listed at all, an index can be kept beside
//! the narinfos, in a file of its own ([`file`]).

mod file;

use std::collections::{BTreeSet, HashMap};
use std::time::UNIX_EPOCH;

use ferry_formats::narinfo::Narinfo;
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, ObjectFacts, Question};
use ferry_store::progress::Progress;

use crate::layout::hash_part;
use crate::place::Listed;
use crate::walk::narinfo_files;
use crate::{BinaryCache, CacheError};

/// What is in a cache.
#[derive(Clone, Debug)]
pub struct CacheIndex {
    store_dir: StoreDir,
    /// When the newest of the narinfos was last written, by the clock of whoever keeps the cache:
    /// nanoseconds since 1970.
    newest: Option<u128>,
    /// Everything in it, and what that refers to.
    paths: Vec<StorePath>,
    /// Where each digest stands in `paths`.
    numbers: HashMap<[u8; 20], u32>,
    /// What is known of each of `paths`; nothing of what is not in the cache.
    objects: Vec<Option<Object>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    nar_size: u64,
    file_size: Option<u64>,
    references: Box<[u32]>,
}

/// A path in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry<'a> {
    /// The path.
    pub path: &'a StorePath,
    /// Size of its NAR, in bytes.
    pub nar_size: u64,
    /// Size of the file with it, in bytes, if its narinfo says so.
    pub file_size: Option<u64>,
}

/// An index, and how it came about.
#[derive(Clone, Debug)]
pub struct Indexed {
    /// What is in the cache.
    pub index: CacheIndex,
    /// How many narinfos were read for it; what else there is was in the index that is kept there.
    pub read: u64,
    /// Whether that index says the same.
    pub is_kept: bool,
    /// Files that should be narinfos, and why they are none.
    pub failed: Vec<(String, String)>,
}

impl CacheIndex {
    fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            newest: None,
            paths: Vec::new(),
            numbers: HashMap::new(),
            objects: Vec::new(),
        }
    }

    /// Everything in the cache, by path.
    #[must_use]
    pub fn entries(&self) -> Vec<IndexEntry<'_>> {
        let known = self.paths.iter().zip(&self.objects);
        let mut entries: Vec<_> = known
            .filter_map(|(path, object)| {
                let Object { nar_size, file_size, .. } = object.as_ref()?;
                Some(IndexEntry { path, nar_size: *nar_size, file_size: *file_size })
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.path);
        entries
    }

    /// What it knows, for a dependency graph.
    #[must_use]
    pub fn facts(&self) -> impl Facts + '_ {
        IndexFacts(self)
    }

    fn number(&mut self, path: &StorePath) -> u32 {
        let Self { paths, numbers, objects, .. } = self;
        *numbers.entry(*path.digest()).or_insert_with(|| {
            paths.push(path.clone());
            objects.push(None);
            // As many paths fill hundreds of gigabytes of memory.
            u32::try_from(paths.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn add<'p>(
        &mut self,
        path: &StorePath,
        nar_size: u64,
        file_size: Option<u64>,
        references: impl Iterator<Item = &'p StorePath>,
    ) {
        let references = references.map(|path| self.number(path)).collect();
        let number = self.number(path) as usize;
        if let Some(place) = self.objects.get_mut(number) {
            *place = Some(Object { nar_size, file_size, references });
        }
    }

    fn add_narinfo(&mut self, narinfo: &Narinfo) {
        let info = &narinfo.info;
        self.add(&info.path, info.nar_size, narinfo.file_size, info.other_references());
    }

    fn object(&self, digest: &[u8; 20]) -> Option<(&StorePath, &Object)> {
        let number = *self.numbers.get(digest)? as usize;
        Some((self.paths.get(number)?, self.objects.get(number)?.as_ref()?))
    }

    /// Whether the other knows the same, in whatever order it has learned it.
    fn says_the_same(&self, other: &Self) -> bool {
        let count = |index: &Self| index.objects.iter().flatten().count();
        let is_known = |(path, object): (&StorePath, &Option<Object>)| {
            let Some(object) = object else { return true };
            other.object(path.digest()).is_some_and(|(there, known)| {
                (there, known.nar_size, known.file_size)
                    == (path, object.nar_size, object.file_size)
                    && self.references(object).collect::<BTreeSet<_>>()
                        == other.references(known).collect()
            })
        };
        (self.newest, count(self)) == (other.newest, count(other))
            && self.paths.iter().zip(&self.objects).all(is_known)
    }

    fn references<'a>(&'a self, object: &'a Object) -> impl Iterator<Item = &'a StorePath> {
        object.references.iter().filter_map(|number| self.paths.get(*number as usize))
    }
}

impl BinaryCache {
    /// What is in the cache. What an index that is kept there says is believed of the narinfos
    /// that are older than it, unless all are to be read `anew`. Of a cache that cannot be listed
    /// it is all there is.
    ///
    /// # Errors
    /// When the cache cannot be read, or when it can neither be listed nor has an index.
    pub fn index(&self, anew: bool, progress: &dyn Progress) -> Result<Indexed, CacheError> {
        self.check()?;
        let files = match narinfo_files(&self.place) {
            Ok(files) => files,
            Err(error @ CacheError::NoListing { .. }) => {
                let index = self.kept_index()?.ok_or(error)?;
                return Ok(Indexed { index, read: 0, is_kept: true, failed: Vec::new() });
            }
            Err(error) => return Err(error),
        };
        let kept = match self.kept_index() {
            // It will be written again.
            Err(error @ CacheError::BadIndex { .. }) => {
                tracing::debug!(%error, "an index is passed over");
                None
            }
            kept => kept?,
        };
        let mut index = CacheIndex::new(self.store_dir.clone());
        index.newest = files.iter().filter_map(modified).max();
        let mut unknown = Vec::new();
        for file in files {
            let known = kept.as_ref().filter(|_| !anew).and_then(|kept| known(kept, &file));
            match (known, &kept) {
                (Some((path, object)), Some(kept)) => {
                    let Object { nar_size, file_size, .. } = *object;
                    index.add(path, nar_size, file_size, kept.references(object));
                }
                _ => unknown.push(file),
            }
        }
        let (mut read, mut failed) = (0, Vec::new());
        let size = unknown.iter().map(|file| file.size).sum();
        progress.begin("indexing", unknown.len() as u64, size);
        let outcome = self.for_each_narinfo(
            &unknown,
            |file, found| {
                progress.bytes(file.size);
                let failed = |error: CacheError| (file.name.clone(), error.to_string());
                let outcome = found.map(|found| found.narinfo).map_err(failed);
                if let Ok(narinfo) = &outcome {
                    progress.path(&narinfo.info.path);
                }
                Ok(outcome)
            },
            |outcome| {
                read += 1;
                match outcome {
                    Ok(narinfo) => index.add_narinfo(&narinfo),
                    Err(error) => failed.push(error),
                }
                Ok(())
            },
        );
        progress.end();
        outcome?;
        failed.sort();
        let is_kept = kept.is_some_and(|kept| kept.says_the_same(&index));
        Ok(Indexed { index, read, is_kept, failed })
    }
}

/// When a file was last written, in nanoseconds since 1970.
fn modified(file: &Listed) -> Option<u128> {
    Some(file.modified?.duration_since(UNIX_EPOCH).ok()?.as_nanos())
}

/// What an index says of the path of a narinfo, if that is older than the newest that was there
/// when the index was made. (What is as old may have been written again since.)
fn known<'i>(index: &'i CacheIndex, file: &Listed) -> Option<(&'i StorePath, &'i Object)> {
    if modified(file)? >= index.newest? {
        return None;
    }
    let hash = hash_part(&file.name, ".narinfo")?;
    let path = StorePath::from_basename(format!("{hash}-x").as_bytes()).ok()?;
    index.object(path.digest())
}

/// An index that is asked for facts.
struct IndexFacts<'i>(&'i CacheIndex);

impl Facts for IndexFacts<'_> {
    fn describe(&self) -> String {
        "an index of a binary cache".to_owned()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        let index = self.0;
        let paths: Vec<StorePath> = match question {
            Question::Objects(nodes) => {
                nodes.iter().filter_map(|node| ledger.path(*node)).collect()
            }
            Question::Everything => index.paths.clone(),
            _ => Vec::new(),
        };
        for path in paths {
            let Some((path, object)) = index.object(path.digest()) else { continue };
            let node = ledger.node(path);
            let references: Vec<NodeId> =
                index.references(object).map(|path| ledger.node(path)).collect();
            let nar_size = Some(object.nar_size);
            let facts = ObjectFacts { references: &references, nar_size, ..ObjectFacts::default() };
            ledger.object(node, &facts);
        }
        Ok(())
    }
}
