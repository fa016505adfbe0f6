//! A store on this machine's disk, read and written without any Nix.

mod database;
mod layout;
mod locks;
mod reader;
mod restore;
mod roots;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ferry_formats::{PathInfo, StoreDir, StorePath};

pub use layout::Layout;
pub use roots::replace_symlink;

use crate::admission::Plan;
use crate::store::NarVisitor;
use crate::trust::TrustPolicy;
use crate::{Destination, Error, Protection, Result, SignatureCheck, Store, StoreWriter};
use database::Database;
use roots::TemporaryRoots;
use writer::LocalWriter;

/// A store on disk. It need not exist before the first path is added.
pub struct LocalStore {
    layout: Layout,
    trust: TrustPolicy,
    database: OnceLock<Database>,
}

impl LocalStore {
    /// The store at `layout`; `trust` decides what may be added to it. Opens nothing yet.
    #[must_use]
    pub fn new(layout: Layout, trust: TrustPolicy) -> Self {
        Self { layout, trust, database: OnceLock::new() }
    }

    /// Where its parts are.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn database(&self) -> Result<&Database> {
        if let Some(open) = self.database.get() {
            return Ok(open);
        }
        let opened = Database::open(&self.layout.database(), &self.layout.store_dir)?;
        Ok(self.database.get_or_init(|| opened))
    }

    /// Keeps `paths` from the garbage collector until somebody removes the links made below
    /// `gcroots/ferry/NAME`, whose places are returned.
    ///
    /// # Errors
    /// When the links cannot be made.
    pub fn add_named_roots(&self, name: &str, paths: &[StorePath]) -> Result<Vec<PathBuf>> {
        roots::add_named_roots(&self.layout, name, paths)
    }

    /// Registers a link outside the store that points into it as a root.
    ///
    /// # Errors
    /// When the registration cannot be written.
    pub fn add_indirect_root(&self, link: &Path) -> Result<()> {
        roots::add_indirect_root(&self.layout, link)
    }
}

impl Store for LocalStore {
    fn store_dir(&self) -> &StoreDir {
        &self.layout.store_dir
    }

    fn describe(&self) -> String {
        self.layout.describe()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        self.database()?.path_info(path)
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.database()?.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        reader::read_nars(&self.layout, wanted, visit)
    }

    fn protect(&self, paths: &[StorePath]) -> Result<Protection> {
        let roots = TemporaryRoots::new(&self.layout, paths)?;
        // What went away before the roots stood is noticed here.
        for path in paths {
            self.require(path)?;
        }
        Ok(Protection::by(roots))
    }
}

impl Destination for LocalStore {
    fn store_dir(&self) -> &StoreDir {
        &self.layout.store_dir
    }

    fn describe(&self) -> String {
        self.layout.describe()
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        // A store that is yet to be made has nothing.
        let exists = self
            .layout
            .database()
            .try_exists()
            .map_err(Error::io(format!("look for {}", self.layout.database().display())))?;
        if !exists {
            return Ok(vec![None; paths.len()]);
        }
        let database = self.database()?;
        paths.iter().map(|path| database.path_info(path)).collect()
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        Store::derivation_text(self, path)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::Here(&self.trust)
    }

    fn writer<'a>(&'a self, _plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        Ok(Box::new(LocalWriter::new(&self.layout)?))
    }
}
