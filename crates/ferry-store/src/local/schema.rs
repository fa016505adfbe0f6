//! The shape of a store on disk: directories, schema version, tables.
//!
//! The tables are those of Nix's `schema.sql` at schema version 10, which every Nix since 2.0
//! reads and writes; newer versions add what else they want when they first open the store.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;

use super::database::database_error;
use super::layout::Layout;
use crate::whole_file::write_whole;
use crate::{Error, Result};

/// The only schema version that is written.
pub(super) const SCHEMA_VERSION: u32 = 10;

const TABLES: &str = "
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer,
    ultimate         integer,
    sigs             text,
    ca               text
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null,
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
";

/// Makes the directories of a store that are not there yet.
pub(super) fn create_directories(layout: &Layout) -> Result<()> {
    let state = &layout.state_dir;
    let directories = [
        layout.real_store_dir.clone(),
        layout.real_store_dir.join(".links"),
        state.join("db"),
        state.join("temproots"),
        state.join("gcroots/per-user"),
        state.join("profiles/per-user"),
    ];
    for directory in directories {
        fs::create_dir_all(&directory)
            .map_err(Error::io(format!("make the directory {}", directory.display())))?;
    }
    Ok(())
}

/// Opens a store's database for writing, and makes it where there is none.
pub(super) fn open_for_writing(layout: &Layout) -> Result<Connection> {
    if !has_schema(layout)? {
        // SQLite waits for nobody while a database becomes one with a write-ahead log.
        let directory = layout.state_dir.join("db");
        let locking = || format!("lock the directory {}", directory.display());
        let lock = fs::File::open(&directory).map_err(Error::io(locking()))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(Error::os(locking()))?;
        // Another process may have made it meanwhile.
        if !has_schema(layout)? {
            create(layout)?;
        }
    }
    let file = layout.database();
    connect(&file).map_err(|error| database_error(&file, &error))
}

/// Whether there is a database, which has to be one that is understood.
fn has_schema(layout: &Layout) -> Result<bool> {
    let schema_file = layout.schema_file();
    let found = match fs::read_to_string(&schema_file) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(Error::io(format!("read {}", schema_file.display()))(error));
        }
    };
    if found == SCHEMA_VERSION.to_string() {
        return Ok(true);
    }
    Err(Error::SchemaVersion { store: layout.describe(), found, known: SCHEMA_VERSION })
}

/// Makes the database.
fn create(layout: &Layout) -> Result<()> {
    let file = layout.database();
    // On the disk before the file that says that they are there: with it the store is one.
    connect(&file)
        .and_then(|connection| {
            connection.execute_batch(TABLES)?;
            connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))
        })
        .map_err(|error| database_error(&file, &error))?;
    let schema_file = layout.schema_file();
    write_whole(&schema_file, 0o644, |file| write!(file, "{SCHEMA_VERSION}"))
        .map_err(Error::io(format!("write {}", schema_file.display())))
}

/// As Nix connects, with room for the pages that one batch touches: in SQLite's usual 2 MB they
/// are written and read again many times over.
fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(3600))?;
    connection.execute_batch(
        "pragma synchronous = normal;
         pragma main.journal_mode = wal;
         pragma wal_autocheckpoint = 40000;
         pragma cache_size = -32768;
         pragma foreign_keys = 1;",
    )?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_make_one_store() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::chroot(directory.path());
            create_directories(&layout).unwrap();
            std::thread::scope(|scope| {
                let opening = [(); 4].map(|()| scope.spawn(|| open_for_writing(&layout).map(drop)));
                for opened in opening {
                    opened.join().unwrap().unwrap();
                }
            });
            assert_eq!(fs::read_to_string(layout.schema_file()).unwrap(), "10");
        }
    }
}
