//! The tables of a store's database, row by row, for whoever reads many of them.
//!
//! Rows are lent and not copied, and paths stay numbers for as long as they can: a store has ten
//! times as many references as paths.

use ferry_formats::{StoreDir, StorePath};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, Row};

use super::database::ReadError;

type Result<T> = std::result::Result<T, ReadError>;

/// A row of `ValidPaths`.
pub(crate) struct PathRow<'a> {
    pub(crate) id: i64,
    /// With the store directory in front.
    pub(crate) path: &'a [u8],
    pub(crate) nar_size: Option<i64>,
    pub(crate) deriver: Option<&'a [u8]>,
    pub(crate) content_addressed: bool,
}

const PATH_ROW: &str = "select id, path, narSize, deriver, ca is not null and ca <> '' \
                        from ValidPaths";

impl<'a> PathRow<'a> {
    fn of(row: &'a Row<'_>) -> Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            path: bytes(row, 1)?.unwrap_or_default(),
            nar_size: row.get(2)?,
            deriver: bytes(row, 3)?.filter(|text| !text.is_empty()),
            content_addressed: row.get(4)?,
        })
    }
}

fn bytes<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a [u8]>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes)),
        other => Err(ReadError::Contents(format!(
            "a {} where a store path should be",
            other.data_type()
        ))),
    }
}

/// Parses a path as the database writes it.
pub(crate) fn parse_path(store_dir: &StoreDir, text: &[u8]) -> Result<StorePath> {
    store_dir.parse_path(text).map_err(|source| {
        ReadError::Contents(format!("`{}`: {source}", String::from_utf8_lossy(text)))
    })
}

/// What is wrong with a reference that leads nowhere.
pub(crate) const NOT_REGISTERED: &str = "it is to something that is not registered";

/// Like [`Row::get`], with less to do for each of very many rows.
fn integer(row: &Row<'_>, column: usize) -> Result<i64> {
    match row.get_ref(column)? {
        ValueRef::Integer(number) => Ok(number),
        other => {
            let what = format!("a {} where an id should be", other.data_type());
            Err(ReadError::Contents(what))
        }
    }
}

/// Once there is a row looked up for so many pages of the database, all of it is read. (To read a
/// page in order costs a sixth as much; what was looked up in vain must cost little, too.)
const PAGES_TO_A_ROW: usize = 2;

/// How many rows are a fair share of the database: to look more of them up costs more than to read
/// whole tables.
pub(crate) fn fair_share(connection: &Connection) -> Result<usize> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    Ok(usize::try_from(pages).unwrap_or_default() / PAGES_TO_A_ROW)
}

/// Visits all of `ValidPaths`, in the order of the ids.
pub(crate) fn each_path(
    connection: &Connection,
    mut visit: impl FnMut(PathRow<'_>) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare(&format!("{PATH_ROW} order by id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(PathRow::of(row)?)?;
    }
    Ok(())
}

/// Visits all of `Refs`, referrer and reference, in the order of the referrers' ids.
pub(crate) fn each_reference(
    connection: &Connection,
    mut visit: impl FnMut(i64, i64),
) -> Result<()> {
    // The primary key is an index with both columns in it: nothing else is read.
    let mut statement =
        connection.prepare("select referrer, reference from Refs order by referrer")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(integer(row, 0)?, integer(row, 1)?);
    }
    Ok(())
}

/// Visits the paths of `ValidPaths`, and nothing else of them: all that is read is an index.
pub(crate) fn each_valid_path(
    connection: &Connection,
    mut visit: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare("select path from ValidPaths")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(bytes(row, 0)?.unwrap_or_default())?;
    }
    Ok(())
}

/// Visits all of `ValidPaths`, in the order of the ids: the id, the path and its NAR hash.
pub(crate) fn each_hash(
    connection: &Connection,
    mut visit: impl FnMut(i64, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare("select id, path, hash from ValidPaths order by id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let path = bytes(row, 1)?.unwrap_or_default();
        visit(integer(row, 0)?, path, bytes(row, 2)?.unwrap_or_default())?;
    }
    Ok(())
}

/// Visits all outputs of valid derivations: the derivation's path, and the output's.
pub(crate) fn each_output(
    connection: &Connection,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare(
        "select v.path, d.path from DerivationOutputs d join ValidPaths v on v.id = d.drv",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(bytes(row, 0)?.unwrap_or_default(), bytes(row, 1)?.unwrap_or_default())?;
    }
    Ok(())
}

/// Finds single rows.
pub(crate) struct Lookup<'c> {
    row: CachedStatement<'c>,
    row_of: CachedStatement<'c>,
    valid: CachedStatement<'c>,
    path_of: CachedStatement<'c>,
    references: CachedStatement<'c>,
    derivers: CachedStatement<'c>,
}

impl<'c> Lookup<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Result<Self> {
        let prepare = |sql: &str| connection.prepare_cached(sql);
        Ok(Self {
            row: prepare(&format!("{PATH_ROW} where path = ?"))?,
            row_of: prepare(&format!("{PATH_ROW} where id = ?"))?,
            valid: prepare("select exists (select 1 from ValidPaths where path = ?)")?,
            path_of: prepare("select path from ValidPaths where id = ?")?,
            references: prepare("select reference from Refs where referrer = ?")?,
            derivers: prepare(
                "select v.path from DerivationOutputs d join ValidPaths v on v.id = d.drv \
                 where d.path = ? order by v.path",
            )?,
        })
    }

    /// The row of a path, if it is valid.
    pub(crate) fn row<T>(
        &mut self,
        path: &str,
        read: impl FnOnce(PathRow<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut rows = self.row.query([path])?;
        rows.next()?.map(|row| read(PathRow::of(row)?)).transpose()
    }

    /// The row with this id.
    pub(crate) fn row_of<T>(
        &mut self,
        id: i64,
        read: impl FnOnce(PathRow<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut rows = self.row_of.query([id])?;
        rows.next()?.map(|row| read(PathRow::of(row)?)).transpose()
    }

    /// Whether a path is valid.
    pub(crate) fn is_valid(&mut self, path: &str) -> Result<bool> {
        Ok(self.valid.query_row([path], |row| row.get(0))?)
    }

    /// The path with this id.
    pub(crate) fn path_of<T>(
        &mut self,
        id: i64,
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut rows = self.path_of.query([id])?;
        rows.next()?.map(|row| read(bytes(row, 0)?.unwrap_or_default())).transpose()
    }

    /// The ids of what a path refers to, in place of what is in `ids`.
    pub(crate) fn references(&mut self, referrer: i64, ids: &mut Vec<i64>) -> Result<()> {
        ids.clear();
        let mut rows = self.references.query([referrer])?;
        while let Some(row) = rows.next()? {
            ids.push(row.get(0)?);
        }
        Ok(())
    }

    /// Visits the valid derivations that have a path as an output.
    pub(crate) fn derivers(
        &mut self,
        output: &str,
        mut visit: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut rows = self.derivers.query([output])?;
        while let Some(row) = rows.next()? {
            visit(bytes(row, 0)?.unwrap_or_default())?;
        }
        Ok(())
    }
}
