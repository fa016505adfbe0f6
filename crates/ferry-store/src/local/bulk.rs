//! What a store's database says about very many paths: its tables are read from end to end, once,
//! which costs a small part of as many single questions.

use std::collections::BTreeMap;

use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};
use fixedbitset::FixedBitSet;
use hashbrown::{HashMap, HashSet};
use rusqlite::Connection;

use super::database::{Database, ReadError};
use super::queries::{ROW, parse_hash, read_row};
use super::tables::{self, NOT_REGISTERED};
use crate::Result;

type ReadResult<T> = std::result::Result<T, ReadError>;

/// NAR hashes by path, or the path that is not valid.
pub(super) type Hashes = std::result::Result<BTreeMap<StorePath, NarHash>, StorePath>;

impl Database {
    /// The NAR hashes of all that `roots` reach by references, roots included; of all that is
    /// valid, where no roots are named. Nothing where the roots are too few for that to be less
    /// work than looking everything up.
    pub(super) fn closure_hashes(&self, roots: Option<&[StorePath]>) -> Result<Option<Hashes>> {
        self.query(|connection| {
            if let Some(roots) = roots
                && roots.len() <= tables::fair_share(connection)?
            {
                return Ok(None);
            }
            let valid = Valid::read(connection, &self.store_dir)?;
            let reached = match roots {
                Some(roots) => match valid.closure(connection, roots)? {
                    Ok(reached) => Some(reached),
                    Err(path) => return Ok(Some(Err(path))),
                },
                None => None,
            };
            valid.reached(reached.as_ref()).map(|hashes| Some(Ok(hashes)))
        })
    }
}

/// A hash, or the text in its place, which is an error only for who wants it.
type Found = std::result::Result<NarHash, String>;

/// The first of `paths` that is not valid.
pub(super) fn first_invalid<'p>(
    connection: &Connection,
    store_dir: &StoreDir,
    paths: &'p [StorePath],
) -> ReadResult<Option<&'p StorePath>> {
    let mut open: HashSet<&StorePath> = paths.iter().collect();
    tables::each_valid_path(connection, |path| {
        if let Ok(path) = store_dir.parse_path(path) {
            open.remove(&path);
        }
        Ok(())
    })?;
    Ok(paths.iter().find(|path| open.contains(path)))
}

/// What the database says about each of `paths`, or nothing where some of them are named twice.
pub(super) fn path_infos(
    connection: &Connection,
    store_dir: &StoreDir,
    paths: &[StorePath],
) -> ReadResult<Option<Vec<Option<PathInfo>>>> {
    let places: HashMap<&StorePath, usize> =
        paths.iter().enumerate().map(|(place, path)| (path, place)).collect();
    if places.len() < paths.len() {
        return Ok(None);
    }
    let mut found: Vec<Option<PathInfo>> = vec![None; paths.len()];
    let (mut ids, mut all, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    let mut statement = connection.prepare(&format!("{ROW} order by id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // A path that nobody can name; what refers to it is damaged, below.
        let text = row.get_ref(1)?.as_bytes().map_err(rusqlite::Error::from)?;
        let Ok(path) = store_dir.parse_path(text) else { continue };
        if let Some(place) = places.get(&path).copied() {
            if let Some(found) = found.get_mut(place) {
                *found = Some(read_row(store_dir, &path, row)?);
            }
            wanted.push((all.len(), place));
        }
        ids.push(row.get(0)?);
        all.push(path);
    }
    let references = References::read(connection, &ids)?;
    let in_order = ranks(&all);
    let mut numbers = Vec::new();
    for (number, place) in wanted {
        numbers.clear();
        for reference in references.of(number) {
            numbers.push(reference.ok_or_else(|| not_registered(store_dir, all.get(number)))?);
        }
        numbers.sort_unstable_by_key(|number| in_order.get(*number));
        let sorted = numbers.iter().filter_map(|number| all.get(*number)).cloned();
        if let Some(Some(info)) = found.get_mut(place) {
            info.references = sorted.collect();
        }
    }
    Ok(Some(found))
}

/// Where each of these stands once they are sorted.
fn ranks(paths: &[StorePath]) -> Vec<usize> {
    let mut sorted: Vec<(&StorePath, usize)> =
        paths.iter().enumerate().map(|(number, path)| (path, number)).collect();
    sorted.sort_unstable();
    let mut ranks = vec![0; paths.len()];
    for (rank, (_, number)) in sorted.into_iter().enumerate() {
        if let Some(place) = ranks.get_mut(number) {
            *place = rank;
        }
    }
    ranks
}

/// The error for a path with a reference that leads nowhere: without the name of that, what the path
/// refers to would be left behind in silence.
fn not_registered(store_dir: &StoreDir, path: Option<&StorePath>) -> ReadError {
    let path = path.map(|path| store_dir.render_path(path)).unwrap_or_default();
    ReadError::Contents(format!("a reference of {path}: {NOT_REGISTERED}"))
}

/// All that is valid, numbered in the order of the ids.
pub(super) struct Valid<'a> {
    store_dir: &'a StoreDir,
    ids: Vec<i64>,
    paths: Vec<StorePath>,
    hashes: Vec<Found>,
}

impl<'a> Valid<'a> {
    pub(super) fn read(connection: &Connection, store_dir: &'a StoreDir) -> ReadResult<Self> {
        let mut valid = Self { store_dir, ids: Vec::new(), paths: Vec::new(), hashes: Vec::new() };
        tables::each_hash(connection, |id, path, hash| {
            // A path that nobody can name; what refers to it is damaged, below.
            let Ok(path) = store_dir.parse_path(path) else { return Ok(()) };
            valid.ids.push(id);
            valid.paths.push(path);
            let hash = String::from_utf8_lossy(hash);
            valid.hashes.push(NarHash::parse(&hash).map_err(|_| hash.into_owned()));
            Ok(())
        })?;
        Ok(valid)
    }

    fn by_path(&self) -> HashMap<&StorePath, usize> {
        self.paths.iter().enumerate().map(|(number, path)| (path, number)).collect()
    }

    /// The hashes of those of `paths` that are valid.
    pub(super) fn hashes_of(&self, paths: &[StorePath]) -> ReadResult<Vec<Option<NarHash>>> {
        let by_path = self.by_path();
        let hash = |path| {
            let found = by_path.get(path).and_then(|number| self.hashes.get(*number));
            found.map(|hash| self.hash(path, hash)).transpose()
        };
        paths.iter().map(hash).collect()
    }

    fn hash(&self, path: &StorePath, hash: &Found) -> ReadResult<NarHash> {
        match hash {
            Ok(hash) => Ok(*hash),
            Err(text) => parse_hash(self.store_dir, path, text),
        }
    }

    /// The numbers of all that `roots` reach, roots included, or the root that is not valid.
    fn closure(
        &self,
        connection: &Connection,
        roots: &[StorePath],
    ) -> ReadResult<std::result::Result<FixedBitSet, StorePath>> {
        let by_path = self.by_path();
        let mut reached = FixedBitSet::with_capacity(self.paths.len());
        for root in roots {
            match by_path.get(root) {
                Some(number) => reached.insert(*number),
                None => return Ok(Err(root.clone())),
            }
        }
        if reached.is_full() {
            return Ok(Ok(reached));
        }
        let references = References::read(connection, &self.ids)?;
        let mut open: Vec<usize> = reached.ones().collect();
        while let Some(number) = open.pop() {
            for reference in references.of(number) {
                let reference = reference
                    .ok_or_else(|| not_registered(self.store_dir, self.paths.get(number)))?;
                if !reached.put(reference) {
                    open.push(reference);
                }
            }
        }
        Ok(Ok(reached))
    }

    /// The hashes of what was reached; of everything, where nothing is said of that.
    fn reached(&self, reached: Option<&FixedBitSet>) -> ReadResult<BTreeMap<StorePath, NarHash>> {
        let all = self.paths.iter().zip(&self.hashes).enumerate();
        all.filter(|(number, _)| reached.is_none_or(|reached| reached.contains(*number)))
            .map(|(_, (path, hash))| Ok((path.clone(), self.hash(path, hash)?)))
            .collect()
    }
}

/// All references between valid paths, as numbers.
struct References {
    /// Where those of each end; they begin where those of the one before it end.
    ends: Vec<usize>,
    /// Nothing stands for what nobody can name.
    targets: Vec<Option<usize>>,
}

impl References {
    /// Those of the paths with these ids, which ascend.
    fn read(connection: &Connection, ids: &[i64]) -> ReadResult<Self> {
        let numbers: HashMap<i64, usize> =
            ids.iter().enumerate().map(|(number, id)| (*id, number)).collect();
        let mut found = Self { ends: Vec::with_capacity(ids.len()), targets: Vec::new() };
        tables::each_reference(connection, |referrer, reference| {
            let Self { ends, targets } = &mut found;
            while ids.get(ends.len()).is_some_and(|id| *id < referrer) {
                ends.push(targets.len());
            }
            if ids.get(ends.len()) == Some(&referrer) {
                targets.push(numbers.get(&reference).copied());
            }
        })?;
        found.ends.resize(ids.len(), found.targets.len());
        Ok(found)
    }

    fn of(&self, number: usize) -> &[Option<usize>] {
        let start = number.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(number).copied().unwrap_or_default();
        self.targets.get(start.copied().unwrap_or_default()..end).unwrap_or_default()
    }
}
