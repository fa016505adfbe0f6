//! Moving unpacked objects to their places and making them valid, a batch at a time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferry_formats::StorePath;
use rusqlite::{Connection, TransactionBehavior};

use super::database::database_error;
use super::layout::Layout;
use super::locks::{PathLock, StoreLock};
use super::registration::{Ids, Registration, Unregistered};
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
    ids: Ids,
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
        // SQLite would look up both ends of every reference again. Whether they are there is known
        // here (`Registration::insert`), and nothing is ever deleted by this connection.
        connection
            .execute_batch("pragma foreign_keys = 0")
            .map_err(|error| database_error(&layout.database(), &error))?;
        Ok(Self {
            layout,
            connection,
            staging,
            store_lock,
            ids: Ids::default(),
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
    (ids, version): (&mut Ids, &mut i64),
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
        *ids = Ids::of(&transaction).map_err(sql)?;
    }
    let mut moved = Vec::new();
    let inserted =
        Registration::new(layout, &transaction, ids).map_err(sql).and_then(|mut registration| {
            for staged in batch {
                let path = &staged.verified.info().path;
                if !registration.is_valid(path).map_err(sql)? {
                    registration.announce(path).map_err(sql)?;
                    staging.move_into_place(staged)?;
                    moved.push(&staged.verified);
                }
            }
            registration.insert(&moved).map_err(|error| match error {
                Unregistered::Sql(error) => sql(error),
                Unregistered::Reference(reference) => not_valid(layout, &reference),
            })
        });
    let outcome = match inserted {
        Ok(()) => staging.flush().and_then(|()| transaction.commit().map_err(sql)),
        Err(error) => transaction.rollback().map_err(sql).and(Err(error)),
    };
    if outcome.is_err() {
        *ids = Ids::default();
        take_back(layout, connection, &moved);
    }
    outcome
}

/// Removes objects that were moved to their places and could not be registered: on a full disk,
/// they are what there is no room for.
fn take_back(layout: &Layout, connection: &Connection, moved: &[&Verified]) {
    let mut ids = Ids::default();
    let Ok(mut registration) = Registration::new(layout, connection, &mut ids) else { return };
    for path in moved.iter().map(|verified| &verified.info().path) {
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

/// As many paths to a batch as the process may have files open.
fn batch_paths() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES).max(16);
    usize::try_from(files).unwrap_or(BATCH_PATHS).min(BATCH_PATHS)
}
