//! What a store's database says about paths that are named.

use ferry_formats::keys::parse_signature;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath};
use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _};

use super::database::{Database, ReadError};
use super::tables::{self, Lookup, NOT_REGISTERED, parse_path};
use crate::Result;

type ReadResult<T> = std::result::Result<T, ReadError>;

impl Database {
    /// What it says about each of `paths`.
    pub(super) fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        self.query(|connection| {
            let mut references = References::new(&self.store_dir, connection)?;
            let mut statement = connection.prepare_cached(ROW)?;
            let mut read = |path: &StorePath| {
                let row = read_row(&mut statement, &self.store_dir.render_path(path))?;
                row.map(|row| self.parse_row(path, &row, &mut references)).transpose()
            };
            paths.iter().map(&mut read).collect()
        })
    }

    /// The NAR hashes of those of `paths` that are valid.
    pub(super) fn nar_hashes(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        self.query(|connection| {
            let query = "select hash from ValidPaths where path = ?";
            let mut statement = connection.prepare_cached(query)?;
            let mut read = |path: &StorePath| {
                let path = self.store_dir.render_path(path);
                let hash: Option<String> =
                    statement.query_row([&path], |row| row.get(0)).optional()?;
                hash.map(|hash| parse_hash(&path, &hash)).transpose()
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

    fn parse_row(
        &self,
        path: &StorePath,
        row: &Row,
        references: &mut References<'_>,
    ) -> ReadResult<PathInfo> {
        let rendered = self.store_dir.render_path(path);
        let bad = |what: &str, reason: String| {
            ReadError::Contents(format!("{what} of {rendered}: {reason}"))
        };
        let nar_size =
            u64::try_from(row.nar_size.unwrap_or(0)).map_err(|e| bad("narSize", e.to_string()))?;
        let ca = match row.ca.as_deref() {
            None | Some("") => None,
            Some(text) => Some(ContentAddress::parse(text).map_err(|e| bad("ca", e.to_string()))?),
        };
        let mut signatures = row
            .sigs
            .as_deref()
            .unwrap_or_default()
            .split_whitespace()
            .map(|text| parse_signature(text).map_err(|e| bad("sigs", e.to_string())))
            .collect::<ReadResult<Vec<_>>>()?;
        signatures.sort();
        let deriver = match row.deriver.as_deref() {
            None | Some("") => None,
            Some(text) => Some(parse_path(&self.store_dir, text.as_bytes())?),
        };
        Ok(PathInfo {
            path: path.clone(),
            nar_hash: parse_hash(&rendered, &row.hash)?,
            nar_size,
            references: references.of(row.id, &rendered)?.into(),
            deriver,
            ca,
            signatures,
        })
    }
}

fn parse_hash(path: &str, text: &str) -> ReadResult<NarHash> {
    let parsed = NarHash::parse(text);
    parsed.map_err(|error| ReadError::Contents(format!("hash of {path}: {error}")))
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

struct Row {
    id: i64,
    hash: String,
    deriver: Option<String>,
    nar_size: Option<i64>,
    sigs: Option<String>,
    ca: Option<String>,
}

const ROW: &str = "select id, hash, deriver, narSize, sigs, ca from ValidPaths where path = ?";

fn read_row(statement: &mut CachedStatement<'_>, path: &str) -> ReadResult<Option<Row>> {
    let found = statement.query_row([path], |row| {
        Ok(Row {
            id: row.get(0)?,
            hash: row.get(1)?,
            deriver: row.get(2)?,
            nar_size: row.get(3)?,
            sigs: row.get(4)?,
            ca: row.get(5)?,
        })
    });
    Ok(found.optional()?)
}
