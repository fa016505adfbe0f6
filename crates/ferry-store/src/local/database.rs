//! Reading a store's SQLite database, whoever else is using it.
//!
//! Nix keeps the database in write-ahead mode, which needs a shared-memory file beside it even to
//! read. Three situations, tried in this order:
//!
//! 1. The files can be used as they are: an ordinary read-only connection, which sees a
//!    consistent state while others write.
//! 2. They cannot (a read-only mount, a user who may not write there), and there is no
//!    write-ahead log with anything in it: the database file is all there is, and is read as
//!    immutable. Should it change meanwhile after all, the query is made again.
//! 3. They cannot, and there is a log, whose contents belong to the database: both are copied
//!    into a temporary directory and read there.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ferry_formats::StoreDir;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, Result};

/// How long to wait for a writer that holds the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a query is made again when the file under it changed.
const MAX_RETRIES: u32 = 100;

/// A store's database, open for reading.
pub(crate) struct Database {
    file: PathBuf,
    pub(super) store_dir: StoreDir,
    /// Where a copy goes if one has to be made.
    scratch: PathBuf,
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    mode: Mode,
    /// How many connections there were before this one.
    generation: u64,
}

enum Mode {
    /// SQLite's own locking takes care of writers.
    Shared,
    /// Read without locks; this was the file when it was opened.
    Immutable(Fingerprint),
    /// A private copy, which lives as long as the connection.
    Copy { _directory: tempfile::TempDir },
}

/// What changes when a file is written to.
#[derive(PartialEq)]
struct Fingerprint(Vec<Option<(SystemTime, u64)>>);

impl Fingerprint {
    fn of(database: &Path) -> Self {
        let stat = |file: &Path| {
            let metadata = fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self(vec![stat(database), stat(&beside(database, "-wal"))])
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl Database {
    /// Opens the database `file` of a store whose paths are below `store_dir`. If it has to be
    /// copied to be read, the copy goes into a directory of its own in `scratch`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not a store's database.
    pub(super) fn open(file: &Path, store_dir: &StoreDir, scratch: &Path) -> Result<Self> {
        let state = open(file, scratch)?;
        Ok(Self {
            file: file.to_owned(),
            store_dir: store_dir.clone(),
            scratch: scratch.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// Runs a query in one transaction, and once more if the file changed while it was read
    /// without locks: `run` must not keep anything of an attempt that was given up.
    pub(crate) fn query<T>(
        &self,
        mut run: impl FnMut(&Connection) -> std::result::Result<T, ReadError>,
    ) -> Result<T> {
        self.query_generation(|connection, _| run(connection))
    }

    /// Like [`query`](Self::query), for queries that remember ids: those of another generation
    /// may be another database's. (Within one an id is never given again, whatever is deleted.)
    pub(crate) fn query_generation<T>(
        &self,
        mut run: impl FnMut(&Connection, u64) -> std::result::Result<T, ReadError>,
    ) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..MAX_RETRIES {
            let generation = state.generation;
            let outcome =
                in_one_transaction(&state.connection, |connection| run(connection, generation));
            if let Mode::Immutable(opened) = &state.mode
                && *opened != Fingerprint::of(&self.file)
            {
                *state = open(&self.file, &self.scratch)?;
                state.generation = generation + 1;
                continue;
            }
            return outcome.map_err(|error| self.error(error));
        }
        Err(keeps_changing(&self.file))
    }

    fn error(&self, error: ReadError) -> Error {
        match error {
            ReadError::Sql(error) => database_error(&self.file, &error),
            ReadError::Contents(reason) => self.damaged(reason),
        }
    }

    /// The error for contents that cannot be right.
    pub(crate) fn damaged(&self, reason: String) -> Error {
        Error::Database { database: self.file.display().to_string(), reason }
    }
}

/// Why a query has no answer.
pub(crate) enum ReadError {
    /// SQLite says so.
    Sql(rusqlite::Error),
    /// The database holds something that cannot be right.
    Contents(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The statements of one query see one state of the database.
fn in_one_transaction<T>(
    connection: &Connection,
    run: impl FnOnce(&Connection) -> std::result::Result<T, ReadError>,
) -> std::result::Result<T, ReadError> {
    let transaction = connection.unchecked_transaction()?;
    let result = run(&transaction)?;
    transaction.finish()?;
    Ok(result)
}

fn open(file: &Path, scratch: &Path) -> Result<State> {
    if let Err(source) = fs::metadata(file) {
        return Err(Error::Io {
            action: format!("open the store database {}", file.display()),
            source,
        });
    }
    match connect(file, "") {
        Ok(connection) => return Ok(State { connection, mode: Mode::Shared, generation: 0 }),
        Err(error) if needs_to_write(&error) => {
            tracing::debug!(%error, database = %file.display(), "not usable in place");
        }
        Err(error) => return Err(database_error(file, &error)),
    }
    let fingerprint = Fingerprint::of(file);
    let log_size = fs::metadata(beside(file, "-wal")).map_or(0, |metadata| metadata.len());
    if log_size == 0 {
        let connection =
            connect(file, "?immutable=1").map_err(|error| database_error(file, &error))?;
        return Ok(State { connection, mode: Mode::Immutable(fingerprint), generation: 0 });
    }
    open_copy(file, scratch)
}

fn open_copy(file: &Path, scratch: &Path) -> Result<State> {
    let directory = tempfile::Builder::new()
        .prefix("ferry-database-")
        .tempdir_in(scratch)
        .map_err(Error::io("make a temporary directory for a copy of the store database"))?;
    let copy = directory.path().join("db.sqlite");
    for _ in 0..MAX_RETRIES {
        let before = Fingerprint::of(file);
        for suffix in ["", "-wal"] {
            let from = beside(file, suffix);
            match fs::copy(&from, beside(&copy, suffix)) {
                // The log goes away when its last user does: noticed below.
                Err(error) if error.kind() == ErrorKind::NotFound && !suffix.is_empty() => {}
                outcome => drop(outcome.map_err(Error::io(format!("copy {}", from.display())))?),
            }
        }
        // Unless somebody has written meanwhile, the two belong together.
        if before == Fingerprint::of(file) {
            let connection = connect(&copy, "").map_err(|error| database_error(file, &error))?;
            return Ok(State {
                connection,
                mode: Mode::Copy { _directory: directory },
                generation: 0,
            });
        }
    }
    Err(keeps_changing(file))
}

/// Whether SQLite wants to write beside a database before it reads it, and may not.
fn needs_to_write(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied)
    )
}

/// Connects read-only and makes sure that the database can really be read that way.
fn connect(file: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(file, parameters), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(16);
    // Whoever asks about many paths comes by most pages again and again.
    connection.execute_batch("pragma cache_size = -8192")?;
    connection.query_row("select count(*) from (select 1 from ValidPaths limit 1)", [], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(connection)
}

/// A `file:` URI, in which SQLite wants `?`, `#` and `%` escaped.
fn uri(file: &Path, parameters: &str) -> String {
    let mut text = String::from("file:");
    for character in file.to_string_lossy().chars() {
        match character {
            '%' => text.push_str("%25"),
            '?' => text.push_str("%3f"),
            '#' => text.push_str("%23"),
            other => text.push(other),
        }
    }
    text.push_str(parameters);
    text
}

fn keeps_changing(file: &Path) -> Error {
    Error::Database {
        database: file.display().to_string(),
        reason: "it keeps changing while it is read without locks; ask the daemon instead \
                 (`--store daemon`) or read it as a user who may write beside it"
            .to_owned(),
    }
}

pub(super) fn database_error(file: &Path, error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
        let action = format!("write the store database {}", file.display());
        return Error::Io { action, source: ErrorKind::StorageFull.into() };
    }
    Error::Database { database: file.display().to_string(), reason: error.to_string() }
}
