//! Where the parts of a store on this machine's disk are.

use std::path::{Path, PathBuf};

use ferry_formats::{StoreDir, StorePath};

/// The places of one store. Nix knows them as the store settings `store`, `real` and `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The directory that its paths begin with, as programs in it see it.
    pub store_dir: StoreDir,
    /// Where that directory really is.
    pub real_store_dir: PathBuf,
    /// Where the database, roots and locks are.
    pub state_dir: PathBuf,
    /// The directory that stands in for `/`, if the store is a chroot store.
    pub root: Option<PathBuf>,
}

impl Layout {
    /// The usual store of a machine, below `/nix`.
    #[must_use]
    pub fn system() -> Self {
        Self::below(None, StoreDir::default())
    }

    /// A chroot store: as if `root` were `/`.
    #[must_use]
    pub fn chroot(root: &Path) -> Self {
        Self::below(Some(root.to_owned()), StoreDir::default())
    }

    /// A store with another logical directory, perhaps in a chroot.
    #[must_use]
    pub fn below(root: Option<PathBuf>, store_dir: StoreDir) -> Self {
        // In a chroot Nix always keeps the files in `nix/store`, whatever the paths begin with.
        let (real_store_dir, state_dir) = match &root {
            None => (PathBuf::from(store_dir.as_str()), PathBuf::from("/nix/var/nix")),
            Some(root) => (root.join("nix/store"), root.join("nix/var/nix")),
        };
        Self { store_dir, real_store_dir, state_dir, root }
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("db/db.sqlite")
    }

    /// The file that says which schema the database has. Written last when a store is made: until
    /// it is there, there is no store.
    #[must_use]
    pub fn schema_file(&self) -> PathBuf {
        self.state_dir.join("db/schema")
    }

    /// Where build logs are: beside the state, as long as nobody tells Nix otherwise.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.state_dir.parent().unwrap_or(&self.state_dir).join("log/nix")
    }

    /// Where the files of a store path really are.
    #[must_use]
    pub fn real_path(&self, path: &StorePath) -> PathBuf {
        self.real_store_dir.join(path.to_basename())
    }

    /// The socket of the daemon that serves this store, if one runs.
    #[must_use]
    pub fn daemon_socket(&self) -> PathBuf {
        self.state_dir.join("daemon-socket/socket")
    }

    /// Where named roots are: a directory for each name, and in it links, which keep what they
    /// point to from the garbage collector.
    #[must_use]
    pub fn named_roots(&self) -> PathBuf {
        self.state_dir.join("gcroots/ferry")
    }

    /// What to call the store in a message.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("local store `{}`", self.real_store_dir.display())
    }
}
