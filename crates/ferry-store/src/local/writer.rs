//! Adding paths to a store on disk.
//!
//! An object is unpacked in a directory of our own inside the store directory, checked, and moved
//! to its place under the lock that every Nix process respects; then it is registered. Objects
//! are moved and registered in batches, each batch one transaction, after everything that was
//! unpacked has reached the disk: whatever moment the machine stops at, a path that is valid is
//! whole. A path that is there without being valid is left over from somebody who was
//! interrupted, and is replaced.
//!
//! The garbage collector is kept waiting meanwhile (it takes the lock `gc.lock` exclusively; a
//! writer holds it shared), so that nothing that the new paths refer to goes away.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ferry_formats::{StorePath, nar};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::database::database_error;
use super::layout::Layout;
use super::locks::{PathLock, hold_shared, try_exclusive};
use super::restore::{self, Kind};
use super::schema;
use crate::admission::{Admitted, Verified};
use crate::{Error, Result, StoreWriter};

/// A batch is registered once it has unpacked this many bytes.
const BATCH_BYTES: u64 = 512 << 20;
/// ... or holds this many paths, each of which costs an open lock file.
const BATCH_PATHS: usize = 4096;
/// Open files that a batch leaves for everything else.
const SPARE_FILES: u64 = 256;

const STAGING_PREFIX: &str = "tmp-ferry-";

pub(super) struct LocalWriter<'a> {
    layout: &'a Layout,
    connection: Connection,
    staging: Staging,
    ids: HashMap<StorePath, i64>,
    batch: Vec<Staged>,
    batch_bytes: u64,
    batch_paths: usize,
    _collector: File,
    _schema: File,
}

/// An object that is unpacked and checked, and not yet in its place.
struct Staged {
    place: PathBuf,
    kind: Kind,
    verified: Verified,
}

/// A directory of our own in the store directory, locked while we live.
struct Staging {
    path: PathBuf,
    handle: File,
    next: u64,
}

impl<'a> LocalWriter<'a> {
    pub(super) fn new(layout: &'a Layout) -> Result<Self> {
        schema::create_directories(layout)?;
        let collector = hold_shared(&layout.state_dir.join("gc.lock"))?;
        let schema = hold_shared(&layout.state_dir.join("db/big-lock"))?;
        let connection = schema::open_for_writing(layout)?;
        let staging = Staging::new(&layout.real_store_dir)?;
        Ok(Self {
            layout,
            connection,
            staging,
            ids: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_paths: batch_paths(),
            _collector: collector,
            _schema: schema,
        })
    }

    /// Moves the batch into place and registers it.
    fn commit(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let file = self.layout.database();
        let sql = |error: rusqlite::Error| database_error(&file, &error);
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        rustix::fs::syncfs(&self.staging.handle)
            .map_err(Error::os(format!("flush {} to disk", self.layout.describe())))?;

        // Sorted, as Nix does it: two writers never wait for each other in a circle.
        let mut places: Vec<PathBuf> = batch
            .iter()
            .map(|staged| self.layout.real_path(&staged.verified.info().path))
            .collect();
        places.sort();
        let locks =
            places.iter().map(|place| PathLock::acquire(place)).collect::<Result<Vec<_>>>()?;

        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql)?;
        let mut registration =
            Registration { layout: self.layout, connection: &transaction, ids: &mut self.ids };
        for staged in &batch {
            if !registration.is_valid(&staged.verified.info().path).map_err(sql)? {
                move_into_place(self.layout, staged)?;
                registration.insert(&staged.verified).map_err(sql)?;
            }
        }
        transaction.commit().map_err(sql)?;
        drop(locks);
        Ok(())
    }
}

impl StoreWriter for LocalWriter<'_> {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let path = self.layout.store_dir.render_path(&admitted.info().path);
        let (name, place) = self.staging.next_place();
        let mut kind = Kind::Other;
        let parent = self.staging.handle.as_fd();
        let verified = admitted.verify(|nar| {
            kind = restore::restore(nar, parent, &name)
                .map_err(|error| restore_error(&path, &place, error))?;
            Ok(())
        })?;
        self.batch_bytes += verified.info().nar_size;
        self.batch.push(Staged { place, kind, verified });
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= self.batch_paths {
            self.commit()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.commit()?;
        // So that the database is one file, which can be put on a medium that is only read. It
        // waits for no reader, and loses nothing where one is in the way.
        let checkpoint = self
            .connection
            .query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, i64>(0));
        tracing::debug!(?checkpoint, "the write-ahead log was written back");
        Ok(())
    }
}

fn restore_error(path: &str, place: &Path, error: nar::Error) -> Error {
    match error {
        nar::Error::Io(source) => {
            Error::reading(format!("unpack {path} at {}", place.display()))(source)
        }
        other => Error::MalformedNar { path: path.to_owned(), reason: other.to_string() },
    }
}

fn move_into_place(layout: &Layout, staged: &Staged) -> Result<()> {
    let place = layout.real_path(&staged.verified.info().path);
    match fs::symlink_metadata(&place) {
        Ok(_) => remove(&place)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io(format!("look at {}", place.display()))(error)),
    }
    fs::rename(&staged.place, &place)
        .map_err(Error::io(format!("move an object to {}", place.display())))?;
    if staged.kind == Kind::Directory {
        fs::set_permissions(&place, fs::Permissions::from_mode(0o555))
            .map_err(Error::io(format!("make {} read-only", place.display())))?;
    }
    Ok(())
}

/// Removes a tree whose directories may be read-only.
pub(super) fn remove(path: &Path) -> Result<()> {
    let failed = || Error::io(format!("remove {}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(failed())?;
    if !metadata.is_dir() {
        return fs::remove_file(path).map_err(failed());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed())?;
    for entry in fs::read_dir(path).map_err(failed())? {
        remove(&entry.map_err(failed())?.path())?;
    }
    fs::remove_dir(path).map_err(failed())
}

impl Staging {
    fn new(real_store_dir: &Path) -> Result<Self> {
        Self::sweep(real_store_dir)?;
        let path = tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .tempdir_in(real_store_dir)
            .map_err(Error::io(format!("make a directory in {}", real_store_dir.display())))?
            .keep();
        let handle = File::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
        let locked = try_exclusive(&handle);
        debug_assert!(locked, "nobody else knows this directory");
        Ok(Self { path, handle, next: 0 })
    }

    /// Removes what writers that are no longer alive left behind.
    fn sweep(real_store_dir: &Path) -> Result<()> {
        let listing = fs::read_dir(real_store_dir)
            .map_err(Error::io(format!("list {}", real_store_dir.display())))?;
        for entry in listing {
            let entry = entry.map_err(Error::io(format!("list {}", real_store_dir.display())))?;
            if !entry.file_name().to_string_lossy().starts_with(STAGING_PREFIX) {
                continue;
            }
            // Gone meanwhile, or not ours to open: then not ours to remove.
            let Ok(handle) = File::open(entry.path()) else { continue };
            if try_exclusive(&handle) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn next_place(&mut self) -> (String, PathBuf) {
        let name = self.next.to_string();
        self.next += 1;
        let place = self.path.join(&name);
        (name, place)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "staging directory left behind");
        }
    }
}

/// The statements by which paths become valid, inside one transaction.
struct Registration<'a> {
    layout: &'a Layout,
    connection: &'a Connection,
    ids: &'a mut HashMap<StorePath, i64>,
}

impl Registration<'_> {
    fn is_valid(&mut self, path: &StorePath) -> rusqlite::Result<bool> {
        Ok(self.id(path)?.is_some())
    }

    fn id(&mut self, path: &StorePath) -> rusqlite::Result<Option<i64>> {
        if let Some(id) = self.ids.get(path) {
            return Ok(Some(*id));
        }
        let id = self
            .connection
            .prepare_cached("select id from ValidPaths where path = ?")?
            .query_row([self.layout.store_dir.render_path(path)], |row| row.get(0))
            .optional()?;
        if let Some(id) = id {
            self.ids.insert(path.clone(), id);
        }
        Ok(id)
    }

    fn insert(&mut self, verified: &Verified) -> rusqlite::Result<()> {
        let info = verified.info();
        let store_dir = &self.layout.store_dir;
        let signatures: Vec<String> = info.signatures.iter().map(ToString::to_string).collect();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.connection
            .prepare_cached(
                "insert into ValidPaths \
                 (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) \
                 values (?, ?, ?, ?, ?, null, ?, ?)",
            )?
            .execute(params![
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
        for reference in &info.references {
            // Admission has seen to it that it is there; the foreign key would refuse it anyway.
            let reference = self.id(reference)?.unwrap_or(-1);
            self.connection
                .prepare_cached("insert or replace into Refs (referrer, reference) values (?, ?)")?
                .execute(params![id, reference])?;
        }
        for (name, path) in verified.outputs() {
            self.connection
                .prepare_cached(
                    "insert or replace into DerivationOutputs (drv, id, path) values (?, ?, ?)",
                )?
                .execute(params![id, name, self.layout.store_dir.render_path(path)])?;
        }
        Ok(())
    }
}

/// As many paths to a batch as the process may have files open.
fn batch_paths() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = limit.current.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES).max(16);
    usize::try_from(files).unwrap_or(BATCH_PATHS).min(BATCH_PATHS)
}
