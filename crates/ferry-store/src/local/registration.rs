//! The statements by which paths become valid, inside one transaction.

use std::time::SystemTime;

use ferry_formats::{StoreDir, StorePath};
use hashbrown::HashMap;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Result, Statement, ToSql};

use super::layout::Layout;
use crate::admission::Verified;

/// How many rows go into a table at a time. Most of what a row costs is to begin and end a
/// statement, and to find the places where the one before it went.
const ROWS: usize = 64;

/// The ids of valid paths, as far as they are known.
#[derive(Default)]
pub(super) struct Ids {
    known: HashMap<StorePath, i64>,
    /// Whether these are all there are.
    all: bool,
}

impl Ids {
    /// Those of a database in which nothing was looked for yet.
    pub(super) fn of(connection: &Connection) -> Result<Self> {
        let some = "select exists (select 1 from ValidPaths)";
        let some: bool = connection.query_row(some, [], |row| row.get(0))?;
        Ok(Self { known: HashMap::new(), all: !some })
    }
}

/// What registers paths.
pub(super) struct Registration<'a> {
    store_dir: &'a StoreDir,
    connection: &'a Connection,
    ids: &'a mut Ids,
    find: CachedStatement<'a>,
    /// The id of the next path; found out when there is one.
    next: Option<i64>,
}

impl<'a> Registration<'a> {
    pub(super) fn new(
        layout: &'a Layout,
        connection: &'a Connection,
        ids: &'a mut Ids,
    ) -> Result<Self> {
        let find = connection.prepare_cached("select id from ValidPaths where path = ?")?;
        Ok(Self { store_dir: &layout.store_dir, connection, ids, find, next: None })
    }

    /// Whether a path is valid, or was announced.
    pub(super) fn is_valid(&mut self, path: &StorePath) -> Result<bool> {
        Ok(self.id(path)?.is_some())
    }

    fn id(&mut self, path: &StorePath) -> Result<Option<i64>> {
        if let Some(id) = self.ids.known.get(path) {
            return Ok(Some(*id));
        }
        if self.ids.all {
            return Ok(None);
        }
        let path_text = self.store_dir.render_path(path);
        let id = self.find.query_row([path_text], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            self.ids.known.insert(path.clone(), id);
        }
        Ok(id)
    }

    /// Gives a path that is not valid its id.
    pub(super) fn announce(&mut self, path: &StorePath) -> Result<()> {
        let id = match self.next {
            Some(id) => id,
            // One that no path ever had, as SQLite itself would choose it.
            None => self.connection.query_row(
                "select 1 + max(\
                 (select coalesce(max(id), 0) from ValidPaths), \
                 (select coalesce(max(seq), 0) from sqlite_sequence where name = 'ValidPaths'))",
                [],
                |row| row.get(0),
            )?,
        };
        self.next = id.checked_add(1);
        self.ids.known.insert(path.clone(), id);
        Ok(())
    }

    /// Registers what was announced, in that order.
    pub(super) fn insert(
        &mut self,
        announced: &[&Verified],
    ) -> std::result::Result<(), Unregistered> {
        let store_dir = self.store_dir;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(0);
        let (mut paths, mut references) = (Vec::with_capacity(announced.len()), Vec::new());
        let mut outputs = Vec::new();
        for verified in announced {
            let info = verified.info();
            let id_of = |registration: &mut Self, path: &StorePath| {
                registration.id(path)?.ok_or_else(|| Unregistered::Reference(path.clone()))
            };
            let id = id_of(self, &info.path)?;
            paths.push((id, *verified));
            let first = references.len();
            for reference in info.references.iter() {
                references.push((id, id_of(self, reference)?));
            }
            // In the order of the index, to which they then go as they come.
            if let Some(own) = references.get_mut(first..) {
                own.sort_unstable();
            }
            outputs.extend(verified.outputs().iter().map(|(name, path)| (id, name, path)));
        }
        // What is named twice counts once.
        references.dedup();
        let columns =
            ["id", "path", "hash", "registrationTime", "deriver", "narSize", "sigs", "ca"];
        insert(self.connection, "ValidPaths", columns, &paths, |row, (id, verified)| {
            let info = verified.info();
            let signatures: Vec<String> = info.signatures.iter().map(ToString::to_string).collect();
            row.put(id)?;
            row.put(store_dir.render_path(&info.path))?;
            row.put(format!("sha256:{}", info.nar_hash.to_base16()))?;
            row.put(now)?;
            row.put(info.deriver.as_ref().map(|path| store_dir.render_path(path)))?;
            row.put(i64::try_from(info.nar_size).unwrap_or(i64::MAX))?;
            row.put((!signatures.is_empty()).then(|| signatures.join(" ")))?;
            row.put(info.ca.as_ref().map(ToString::to_string))
        })?;
        // The id of a path that becomes valid is new, so nothing is there to be replaced.
        insert(self.connection, "Refs", ["referrer", "reference"], &references, |row, pair| {
            row.put(pair.0)?;
            row.put(pair.1)
        })?;
        let columns = ["drv", "id", "path"];
        insert(self.connection, "DerivationOutputs", columns, &outputs, |row, output| {
            row.put(output.0)?;
            row.put(output.1)?;
            row.put(store_dir.render_path(output.2))
        })?;
        Ok(())
    }
}

/// Why a path was not registered.
pub(super) enum Unregistered {
    Sql(rusqlite::Error),
    /// It refers to this, which is not valid.
    Reference(StorePath),
}

impl From<rusqlite::Error> for Unregistered {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The values of a statement, one after the other.
struct Row<'a, 'b> {
    statement: &'a mut Statement<'b>,
    place: usize,
}

impl Row<'_, '_> {
    fn put(&mut self, value: impl ToSql) -> Result<()> {
        self.place += 1;
        self.statement.raw_bind_parameter(self.place, value)
    }
}

/// Inserts a row for each of `items`, of which `put` gives the values of `columns`.
fn insert<T, const N: usize>(
    connection: &Connection,
    table: &str,
    columns: [&str; N],
    items: &[T],
    put: impl Fn(&mut Row<'_, '_>, &T) -> Result<()>,
) -> Result<()> {
    let names = columns.join(", ");
    let places = format!("({})", ["?"; N].join(", "));
    let prepare = |rows: usize| {
        let places = vec![places.as_str(); rows].join(", ");
        // What fails is undone with the whole transaction. SQLite would put aside every page, to
        // undo it by itself.
        let insert = "insert or fail into";
        connection.prepare_cached(&format!("{insert} {table} ({names}) values {places}"))
    };
    let (many, rest) = items.as_chunks::<ROWS>();
    for (items, rows) in [(many.as_flattened(), ROWS), (rest, 1)] {
        if items.is_empty() {
            continue;
        }
        let mut statement = prepare(rows)?;
        for items in items.chunks(rows) {
            let mut row = Row { statement: &mut statement, place: 0 };
            items.iter().try_for_each(|item| put(&mut row, item))?;
            statement.raw_execute()?;
        }
    }
    Ok(())
}
