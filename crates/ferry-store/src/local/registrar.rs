//! Moving unpacked objects to their places and making them valid, a batch at a time.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_formats::{StoreDir, StorePath};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, TransactionBehavior, params};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::database::database_error;
use super::layout::Layout;
use super::locks::{PathLock, StoreLock};
use super::restore::Kind;
use super::staging::{Staged, Staging, remove};
use crate::admission::Verified;
use crate::{Error, Result};

/// A batch is registered once it has unpacked this many bytes.
const BATCH_BYTES: u64 = 512 << 20;
/// ... or holds this many paths, each of which may cost an open lock file.
const BATCH_PATHS: usize = 4096;
/// Open files that a batch leaves for everything else.
const SPARE_FILES: u64 = 256;

pub(super) struct Registrar {
    layout: Layout,
    connection: Connection,
    staging: Arc<Staging>,
    store_lock: StoreLock,
    ids: HashMap<StorePath, i64>,
    /// Changes when somebody else has written to the database; the ids are of this version.
    version: i64,
    batch: Vec<Staged>,
    batch_bytes: u64,
    batch_paths: usize,
}

impl Registrar {
    pub(super) fn new(
        layout: Layout,
        connection: Connection,
        staging: Arc<Staging>,
        store_lock: StoreLock,
    ) -> Result<Self> {
        // SQLite would look up both ends of every reference again, and would put aside the pages
        // of each statement, in case that it has to undo it. Whether references are there is known
        // here (`Registration::insert`), and nothing is ever deleted by this connection.
        connection
            .execute_batch("pragma foreign_keys = 0")
            .map_err(|error| database_error(&layout.database(), &error))?;
        Ok(Self {
            layout,
            connection,
            staging,
            store_lock,
            ids: HashMap::new(),
            version: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_paths: batch_paths(),
        })
    }

    /// Makes sure that what the plan relies on is still there, now that it is held.
    pub(super) fn require(&mut self, paths: &[StorePath]) -> Result<()> {
        let Self { layout, connection, ids, .. } = self;
        let file = layout.database();
        let sql = |error: rusqlite::Error| database_error(&file, &error);
        let mut registration = Registration::new(layout, connection, ids).map_err(sql)?;
        for path in paths {
            if !registration.is_valid(path).map_err(sql)? {
                return Err(not_valid(layout, path));
            }
        }
        Ok(())
    }

    /// Takes in an object, after everything that it refers to.
    pub(super) fn add(&mut self, staged: Staged) -> Result<()> {
        self.batch_bytes += staged.verified.info().nar_size;
        self.batch.push(staged);
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= self.batch_paths {
            self.commit()?;
        }
        Ok(())
    }

    /// Registers what is left.
    pub(super) fn finish(mut self) -> Result<()> {
        self.commit()?;
        // So that the database is one file, which can be put on a medium that is only read. Where
        // a reader is in the way, it is left to whoever comes next.
        let checkpoint = self.connection.busy_timeout(Duration::ZERO).and_then(|()| {
            let checkpoint = "pragma wal_checkpoint(truncate)";
            self.connection.query_row(checkpoint, [], |row| row.get::<_, i64>(0))
        });
        tracing::debug!(?checkpoint, "the write-ahead log was written back");
        Ok(())
    }

    /// Moves the batch into place and registers it.
    fn commit(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let Self { layout, connection, staging, store_lock, ids, version, .. } = self;
        store_lock.alone_if_possible(|alone| {
            // With nobody else there, nobody else works on one of these paths.
            let locks = if alone { Vec::new() } else { lock_paths(layout, &batch)? };
            register(layout, connection, staging, (ids, version), &batch)?;
            drop(locks);
            Ok(())
        })
    }
}

fn lock_paths(layout: &Layout, batch: &[Staged]) -> Result<Vec<PathLock>> {
    let place = |staged: &Staged| layout.real_path(&staged.verified.info().path);
    let mut places: Vec<PathBuf> = batch.iter().map(place).collect();
    // Sorted, as Nix does it: two writers never wait for each other in a circle.
    places.sort();
    places.iter().map(|place| PathLock::acquire(place)).collect()
}

/// One transaction: what it registers is in its place, and there on the disk, before it is
/// committed.
fn register(
    layout: &Layout,
    connection: &mut Connection,
    staging: &Staging,
    (ids, version): (&mut HashMap<StorePath, i64>, &mut i64),
    batch: &[Staged],
) -> Result<()> {
    let file = layout.database();
    let sql = |error: rusqlite::Error| database_error(&file, &error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let found =
        transaction.pragma_query_value(None, "data_version", |row| row.get(0)).map_err(sql)?;
    if std::mem::replace(version, found) != found {
        // Somebody may have deleted what has these ids.
        ids.clear();
    }
    let mut moved = Vec::new();
    let inserted =
        Registration::new(layout, &transaction, ids).map_err(sql).and_then(|mut registration| {
            batch.iter().try_for_each(|staged| {
                let path = &staged.verified.info().path;
                if registration.is_valid(path).map_err(sql)? {
                    return Ok(());
                }
                move_into_place(layout, staged)?;
                moved.push(path);
                registration.insert(&staged.verified).map_err(|error| match error {
                    Unregistered::Sql(error) => sql(error),
                    Unregistered::Reference(reference) => not_valid(layout, &reference),
                })
            })
        });
    let outcome = match inserted {
        Ok(()) => staging.flush().and_then(|()| transaction.commit().map_err(sql)),
        Err(error) => transaction.rollback().map_err(sql).and(Err(error)),
    };
    if outcome.is_err() {
        ids.clear();
        take_back(layout, connection, &moved);
    }
    outcome
}

/// Removes objects that were moved to their places and could not be registered: on a full disk,
/// they are what there is no room for.
fn take_back(layout: &Layout, connection: &Connection, moved: &[&StorePath]) {
    let mut ids = HashMap::new();
    let Ok(mut registration) = Registration::new(layout, connection, &mut ids) else { return };
    for path in moved {
        // Where that cannot be told, it stays: the next writer replaces it.
        if let Ok(false) = registration.is_valid(path)
            && let Err(error) = remove(&layout.real_path(path))
        {
            tracing::debug!(%error, "object left behind");
        }
    }
}

fn not_valid(layout: &Layout, path: &StorePath) -> Error {
    Error::NotValid { path: layout.store_dir.render_path(path), store: layout.describe() }
}

fn move_into_place(layout: &Layout, staged: &Staged) -> Result<()> {
    let place = layout.real_path(&staged.verified.info().path);
    let failed = || Error::os(format!("move an object to {}", place.display()));
    match rename_to_free(&staged.place, &place) {
        Err(Errno::EXIST) => {
            // Not valid: left behind by somebody who was interrupted.
            remove(&place)?;
            rename_to_free(&staged.place, &place).map_err(failed())?;
        }
        outcome => outcome.map_err(failed())?,
    }
    if staged.kind == Kind::Directory {
        fs::set_permissions(&place, fs::Permissions::from_mode(0o555))
            .map_err(Error::io(format!("make {} read-only", place.display())))?;
    }
    Ok(())
}

/// Renames, and replaces nothing.
fn rename_to_free(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot refuse by itself.
        Err(Errno::INVAL | Errno::NOSYS) => match rustix::fs::lstat(to) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::rename(from, to),
            Err(error) => Err(error),
        },
        outcome => outcome,
    }
}

/// The statements by which paths become valid, inside one transaction.
struct Registration<'a> {
    store_dir: &'a StoreDir,
    connection: &'a Connection,
    ids: &'a mut HashMap<StorePath, i64>,
    find: CachedStatement<'a>,
    add_path: CachedStatement<'a>,
    add_reference: CachedStatement<'a>,
    add_output: CachedStatement<'a>,
}

impl<'a> Registration<'a> {
    fn new(
        layout: &'a Layout,
        connection: &'a Connection,
        ids: &'a mut HashMap<StorePath, i64>,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            store_dir: &layout.store_dir,
            connection,
            ids,
            find: connection.prepare_cached("select id from ValidPaths where path = ?")?,
            add_path: connection.prepare_cached(
                "insert into ValidPaths \
                 (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) \
                 values (?, ?, ?, ?, ?, null, ?, ?)",
            )?,
            // The id of a path that becomes valid is new, so nothing is there to be replaced; what
            // is named twice counts once.
            add_reference: connection
                .prepare_cached("insert or ignore into Refs (referrer, reference) values (?, ?)")?,
            add_output: connection
                .prepare_cached("insert into DerivationOutputs (drv, id, path) values (?, ?, ?)")?,
        })
    }

    fn is_valid(&mut self, path: &StorePath) -> rusqlite::Result<bool> {
        Ok(self.id(path)?.is_some())
    }

    fn id(&mut self, path: &StorePath) -> rusqlite::Result<Option<i64>> {
        if let Some(id) = self.ids.get(path) {
            return Ok(Some(*id));
        }
        let path_text = self.store_dir.render_path(path);
        let id = self.find.query_row([path_text], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            self.ids.insert(path.clone(), id);
        }
        Ok(id)
    }

    fn insert(&mut self, verified: &Verified) -> std::result::Result<(), Unregistered> {
        let info = verified.info();
        let store_dir = self.store_dir;
        let signatures: Vec<String> = info.signatures.iter().map(ToString::to_string).collect();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.add_path.execute(params![
            store_dir.render_path(&info.path),
            format!("sha256:{}", info.nar_hash.to_base16()),
            i64::try_from(now).unwrap_or(0),
            info.deriver.as_ref().map(|path| store_dir.render_path(path)),
            i64::try_from(info.nar_size).unwrap_or(i64::MAX),
            (!signatures.is_empty()).then(|| signatures.join(" ")),
            info.ca.as_ref().map(ToString::to_string),
        ])?;
        let id = self.connection.last_insert_rowid();
        self.ids.insert(info.path.clone(), id);
        for reference in info.references.iter() {
            let Some(reference) = self.id(reference)? else {
                return Err(Unregistered::Reference(reference.clone()));
            };
            self.add_reference.execute([id, reference])?;
        }
        for (name, path) in verified.outputs() {
            self.add_output.execute(params![id, name, store_dir.render_path(path)])?;
        }
        Ok(())
    }
}

/// Why a path was not registered.
enum Unregistered {
    Sql(rusqlite::Error),
    /// It refers to this, which is not valid.
    Reference(StorePath),
}

impl From<rusqlite::Error> for Unregistered {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// As many paths to a batch as the process may have files open.
fn batch_paths() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES).max(16);
    usize::try_from(files).unwrap_or(BATCH_PATHS).min(BATCH_PATHS)
}
