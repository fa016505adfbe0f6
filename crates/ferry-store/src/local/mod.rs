//! A store on this machine's disk, read and written without any Nix.

mod build_logs;
mod bulk;
pub(crate) mod database;
mod layout;
mod locks;
mod queries;
mod ranges;
mod reader;
pub(crate) mod realisations;
mod registrar;
mod registration;
pub(crate) mod restore;
mod roots;
mod schema;
mod staging;
pub(crate) mod tables;
mod unregistered;
mod writer;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::OnceLock;

use ferry_formats::build_trace::Realisation;
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};

pub use layout::Layout;
pub use ranges::LocalNarRanges;
pub use roots::replace_symlink;
pub use unregistered::UnregisteredStore;
pub(crate) use unregistered::hash_tree;

use crate::admission::Plan;
use crate::daemon::{Address, DaemonOptions, DaemonStore};
use crate::facts::LocalFacts;
use crate::realisations::NotTaken;
use crate::store::NarVisitor;
use crate::trust::TrustPolicy;
use crate::{Destination, Error, Protection, Result, SignatureCheck, Store, StoreWriter, Wanted};
use database::Database;
use roots::TemporaryRoots;
use writer::LocalWriter;

/// A store on disk. It need not exist before the first path is added.
pub struct LocalStore {
    layout: Layout,
    trust: TrustPolicy,
    scratch: PathBuf,
    database: OnceLock<Database>,
}

impl LocalStore {
    /// The store at `layout`; `trust` decides what may be added to it. Opens nothing yet.
    #[must_use]
    pub fn new(layout: Layout, trust: TrustPolicy) -> Self {
        Self { layout, trust, scratch: PathBuf::from("/tmp"), database: OnceLock::new() }
    }

    /// Where temporary copies of the database go, if one has to be made; `/tmp` unless said.
    #[must_use]
    pub fn with_scratch_directory(mut self, directory: PathBuf) -> Self {
        self.scratch = directory;
        self
    }

    /// Where its parts are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What its database and its `.drv` files say, for one graph.
    #[must_use]
    pub fn facts(&self) -> LocalFacts<'_> {
        LocalFacts::new(self)
    }

    pub(crate) fn database(&self) -> Result<&Database> {
        if let Some(open) = self.database.get() {
            return Ok(open);
        }
        let opened =
            Database::open(&self.layout.database(), &self.layout.store_dir, &self.scratch)?;
        Ok(self.database.get_or_init(|| opened))
    }
}

/// Makes the database of a new store.
#[cfg(test)]
pub(crate) fn new_database(layout: &Layout) -> Result<rusqlite::Connection> {
    schema::create_directories(layout)?;
    schema::open_for_writing(layout)
}

impl Store for LocalStore {
    fn store_dir(&self) -> &StoreDir {
        &self.layout.store_dir
    }

    fn describe(&self) -> String {
        self.layout.describe()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        let infos = self.database()?.path_infos(std::slice::from_ref(path))?;
        Ok(infos.into_iter().next().flatten())
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        self.database()?.path_infos(paths)
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        self.database()?.all_paths().map(Some)
    }

    fn closure_hashes(
        &self,
        roots: Option<&[StorePath]>,
    ) -> Result<Option<BTreeMap<StorePath, NarHash>>> {
        let found = self.database()?.closure_hashes(roots)?;
        found.transpose().map_err(|path| Error::NotValid {
            path: self.layout.store_dir.render_path(&path),
            store: self.layout.describe(),
        })
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.database()?.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        reader::read_nars(&self.layout, wanted, visit)
    }

    fn realisations(&self, paths: &Wanted) -> Result<Vec<Realisation>> {
        let store_dir = &self.layout.store_dir;
        let wanted = |path: &StorePath| paths.contains(path);
        self.database()?.query(|connection| realisations::of_paths(connection, store_dir, &wanted))
    }

    fn build_log(&self, derivation: &StorePath) -> Result<Option<Box<dyn Read + Send>>> {
        build_logs::open(&self.layout, derivation)
    }

    fn protect(&self, paths: &[StorePath]) -> Result<Protection> {
        let protection = match TemporaryRoots::new(&self.layout, paths) {
            Ok(roots) => Protection::by(roots),
            // Nothing is collected where nothing can be written, or where no collector has ever
            // had its files.
            Err(Error::Io { source, .. })
                if matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound) =>
            {
                Protection::default()
            }
            // Who may not write there can still ask the one who may.
            Err(Error::Io { source, .. })
                if source.kind() == ErrorKind::PermissionDenied
                    && self.layout.daemon_socket().exists() =>
            {
                let address = Address::Socket(self.layout.daemon_socket());
                let store_dir = self.layout.store_dir.clone();
                DaemonStore::new(address, store_dir, DaemonOptions::default()).protect(paths)?
            }
            Err(error) => return Err(error),
        };
        // What went away before it was protected is noticed here.
        match self.database()?.first_invalid(paths)? {
            Some(path) => Err(Error::NotValid {
                path: self.layout.store_dir.render_path(path),
                store: self.layout.describe(),
            }),
            None => Ok(protection),
        }
    }
}

impl Destination for LocalStore {
    fn store_dir(&self) -> &StoreDir {
        &self.layout.store_dir
    }

    fn describe(&self) -> String {
        self.layout.describe()
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        // A store that is yet to be made, or was being made when somebody stopped it, has nothing.
        let schema = self.layout.schema_file();
        let exists =
            schema.try_exists().map_err(Error::io(format!("look for {}", schema.display())))?;
        if !exists {
            return Ok(vec![None; paths.len()]);
        }
        self.database()?.nar_hashes(paths)
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        Store::derivation_text(self, path)
    }

    fn derivations(&self) -> Option<&dyn Store> {
        Some(self)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::Here(&self.trust)
    }

    fn takes_realisations(&self) -> bool {
        true
    }

    fn add_realisations(&self, offered: &[Realisation]) -> Result<NotTaken> {
        let other = realisations::add(&self.layout, offered)?;
        Ok(NotTaken { other, ..NotTaken::default() })
    }

    fn has_build_log(&self, derivation: &StorePath) -> Result<Option<bool>> {
        Ok(Some(build_logs::is_there(&self.layout, derivation)))
    }

    fn add_build_log(&self, derivation: &StorePath, log: &mut dyn Read) -> Result<()> {
        build_logs::add(&self.layout, derivation, log)
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        Ok(Box::new(LocalWriter::new(&self.layout, plan)?))
    }
}
