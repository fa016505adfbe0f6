//! What a store's database says about paths that are named.

use ferry_formats::keys::parse_signature;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath};
use hashbrown::HashMap;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::bulk::{self, Valid};
use super::database::{Database, ReadError};
use super::tables::{self, Lookup, NOT_REGISTERED, parse_path};
use crate::Result;

type ReadResult<T> = std::result::Result<T, ReadError>;

impl Database {
    /// What it says about each of `paths`.
    pub(super) fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        self.query(|connection| {
            if paths.len() > tables::fair_share(connection)?
                && let Some(found) = bulk::path_infos(connection, &self.store_dir, paths)?
            {
                return Ok(found);
            }
            let mut references = References::new(&self.store_dir, connection)?;
            let mut statement = connection.prepare_cached(&format!("{ROW} where path = ?"))?;
            let mut read = |path: &StorePath| {
                let rendered = self.store_dir.render_path(path);
                let mut rows = statement.query([&rendered])?;
                let Some(row) = rows.next()? else { return Ok(None) };
                let mut info = read_row(&self.store_dir, path, row)?;
                info.references = references.of(row.get(0)?, &rendered)?.into();
                Ok(Some(info))
            };
            paths.iter().map(&mut read).collect()
        })
    }

    /// The NAR hashes of those of `paths` that are valid.
    pub(super) fn nar_hashes(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        self.query(|connection| {
            if paths.len() > tables::fair_share(connection)? {
                return Valid::read(connection, &self.store_dir)?.hashes_of(paths);
            }
            let query = "select hash from ValidPaths where path = ?";
            let mut statement = connection.prepare_cached(query)?;
            let mut read = |path: &StorePath| {
                let rendered = self.store_dir.render_path(path);
                let hash: Option<String> =
                    statement.query_row([rendered], |row| row.get(0)).optional()?;
                hash.map(|hash| parse_hash(&self.store_dir, path, &hash)).transpose()
            };
            paths.iter().map(&mut read).collect()
        })
    }

    /// The first of `paths` that is not valid.
    pub(super) fn first_invalid<'p>(
        &self,
        paths: &'p [StorePath],
    ) -> Result<Option<&'p StorePath>> {
        self.query(|connection| {
            if paths.len() > tables::fair_share(connection)? {
                return bulk::first_invalid(connection, &self.store_dir, paths);
            }
            let mut lookup = Lookup::new(connection)?;
            for path in paths {
                if !lookup.is_valid(&self.store_dir.render_path(path))? {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        })
    }

    /// Everything that is valid.
    pub(super) fn all_paths(&self) -> Result<Vec<StorePath>> {
        self.query(|connection| {
            let mut paths = Vec::new();
            tables::each_valid_path(connection, |path| {
                paths.push(parse_path(&self.store_dir, path)?);
                Ok(())
            })?;
            Ok(paths)
        })
    }

    /// The valid derivations that have `output` as an output, in order.
    pub(super) fn derivers(&self, output: &StorePath) -> Result<Vec<StorePath>> {
        self.query(|connection| {
            let mut found = Vec::new();
            Lookup::new(connection)?.derivers(&self.store_dir.render_path(output), |path| {
                found.push(parse_path(&self.store_dir, path)?);
                Ok(())
            })?;
            Ok(found)
        })
    }
}

pub(super) fn parse_hash(
    store_dir: &StoreDir,
    path: &StorePath,
    text: &str,
) -> ReadResult<NarHash> {
    NarHash::parse(text).map_err(|error| {
        let path = store_dir.render_path(path);
        ReadError::Contents(format!("hash of {path}: {error}"))
    })
}

/// References, the same paths again and again.
struct References<'c> {
    store_dir: &'c StoreDir,
    lookup: Lookup<'c>,
    known: HashMap<i64, StorePath>,
    ids: Vec<i64>,
}

impl<'c> References<'c> {
    fn new(store_dir: &'c StoreDir, connection: &'c Connection) -> ReadResult<Self> {
        let lookup = Lookup::new(connection)?;
        Ok(Self { store_dir, lookup, known: HashMap::new(), ids: Vec::new() })
    }

    /// What the path with this id refers to, in order.
    fn of(&mut self, id: i64, referrer: &str) -> ReadResult<Vec<StorePath>> {
        let Self { store_dir, lookup, known, ids } = self;
        lookup.references(id, ids)?;
        let mut found = Vec::with_capacity(ids.len());
        for &id in &*ids {
            if let Some(path) = known.get(&id) {
                found.push(path.clone());
                continue;
            }
            let path = lookup.path_of(id, |text| parse_path(store_dir, text))?;
            // Without its name, what the path refers to would be left behind in silence.
            let path = path.ok_or_else(|| {
                ReadError::Contents(format!("a reference of {referrer}: {NOT_REGISTERED}"))
            })?;
            known.insert(id, path.clone());
            found.push(path);
        }
        found.sort();
        Ok(found)
    }
}

/// What there is to know of a path but for its references; [`read_row`] reads it.
pub(super) const ROW: &str = "select id, path, hash, deriver, narSize, sigs, ca from ValidPaths";

/// What a row says about a path, without references.
pub(super) fn read_row(
    store_dir: &StoreDir,
    path: &StorePath,
    row: &Row<'_>,
) -> ReadResult<PathInfo> {
    let bad = |what: &str, reason: String| {
        let path = store_dir.render_path(path);
        ReadError::Contents(format!("{what} of {path}: {reason}"))
    };
    let text = |column: usize| -> ReadResult<Option<&str>> {
        let text = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    let nar_size = row.get::<_, Option<i64>>(4)?.unwrap_or(0);
    let mut signatures = text(5)?
        .unwrap_or_default()
        .split_whitespace()
        .map(|text| parse_signature(text).map_err(|error| bad("sigs", error.to_string())))
        .collect::<ReadResult<Vec<_>>>()?;
    signatures.sort();
    let ca = text(6)?.map(ContentAddress::parse).transpose();
    let deriver = text(3)?.map(|text| parse_path(store_dir, text.as_bytes())).transpose()?;
    Ok(PathInfo {
        path: path.clone(),
        nar_hash: parse_hash(store_dir, path, text(2)?.unwrap_or_default())?,
        nar_size: u64::try_from(nar_size).map_err(|error| bad("narSize", error.to_string()))?,
        references: [].into(),
        deriver,
        ca: ca.map_err(|error| bad("ca", error.to_string()))?,
        signatures,
    })
}
