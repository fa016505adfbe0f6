//! Store addresses, as Nix writes them, and opening what they name.
//!
//! | address | store |
//! |---|---|
//! | `auto` | to read, the local store where its database can be read, and to write, where store and state may be written; else the daemon |
//! | `local`, `local?root=…&store=…&state=…&real=…` | a store on disk |
//! | `/path`, `./path` | a chroot store: as if that directory were `/` |
//! | `daemon`, `unix:///path/to/socket` | the daemon |
//! | `exec:COMMAND` | a command that speaks the daemon protocol, such as `exec:nix-daemon --stdio` |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_formats::{PathInfo, StoreDir};
use ferry_graph::Facts;
use rustix::fs::Access;

use crate::daemon::{Address, DaemonOptions, DaemonStore};
use crate::local::{Layout, LocalNarRanges, LocalStore};
use crate::trust::TrustPolicy;
use crate::{Destination, Error, NarRanges, Result, SpooledNars, Store};

/// What the environment says about the system's store: the variables that Nix reads, handed in.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `NIX_STORE_DIR`, or else `NIX_STORE`.
    pub store_dir: Option<String>,
    /// `NIX_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `NIX_DAEMON_SOCKET_PATH`.
    pub daemon_socket: Option<PathBuf>,
    /// The directory that relative addresses start from.
    pub working_directory: PathBuf,
}

/// What a store is opened for: `auto` depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Paths are read from it.
    Read,
    /// Paths are added to it.
    Write,
}

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUri {
    /// A store on disk.
    Local(Layout),
    /// A daemon, and the logical directory of its store.
    Daemon(Address, StoreDir),
}

/// An opened store of either kind.
pub enum OpenStore {
    /// On disk.
    Local(Box<LocalStore>),
    /// Behind a daemon.
    Daemon(DaemonStore),
}

impl OpenStore {
    /// To read from.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        match self {
            Self::Local(store) => store.as_ref(),
            Self::Daemon(store) => store,
        }
    }

    /// The NARs of the store at any position, where its files can be seen.
    #[must_use]
    pub fn files(&self) -> Option<Arc<dyn NarRanges>> {
        match self {
            Self::Local(store) => Some(Arc::new(LocalNarRanges::new(store.layout().clone()))),
            Self::Daemon(_) => None,
        }
    }

    /// The NARs of `wanted` at any position: out of the files where they can be seen, else kept
    /// in a file without a name in `directory`.
    ///
    /// # Errors
    /// When the store cannot be read or the file cannot be written.
    pub fn nar_ranges(&self, wanted: &[PathInfo], directory: &Path) -> Result<Arc<dyn NarRanges>> {
        match self.files() {
            Some(files) => Ok(files),
            None => Ok(Arc::new(SpooledNars::new(self.store(), wanted, directory)?)),
        }
    }

    /// What it knows, for one graph.
    #[must_use]
    pub fn facts(&self) -> Box<dyn Facts + '_> {
        match self {
            Self::Local(store) => Box::new(store.facts()),
            Self::Daemon(store) => Box::new(store.facts()),
        }
    }

    /// To write to.
    #[must_use]
    pub fn destination(&self) -> &dyn Destination {
        match self {
            Self::Local(store) => store.as_ref(),
            Self::Daemon(store) => store,
        }
    }
}

impl StoreUri {
    /// Parses an address; `auto` is decided here, by what exists and may be read or written.
    ///
    /// # Errors
    /// [`Error::BadUri`].
    pub fn parse(text: &str, purpose: Purpose, surroundings: &Surroundings) -> Result<Self> {
        let bad = |reason: &str| Error::BadUri { uri: text.to_owned(), reason: reason.to_owned() };
        let system = system_layout(surroundings).map_err(|reason| bad(&reason))?;
        let socket =
            || surroundings.daemon_socket.clone().unwrap_or_else(|| system.daemon_socket());
        if let Some(command) = text.strip_prefix("exec:") {
            let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            if command.is_empty() {
                return Err(bad("it names no command"));
            }
            return Ok(Self::Daemon(Address::Command(command), system.store_dir));
        }
        let (place, parameters) = text.split_once('?').unwrap_or((text, ""));
        let parameters: Vec<(String, String)> =
            form_urlencoded::parse(parameters.replace('+', "%2B").as_bytes())
                .into_owned()
                .collect();
        match place {
            "" | "auto" => {
                let usable = match purpose {
                    Purpose::Read => may(Access::READ_OK, &system.database()),
                    // A store may be mounted read-only for everybody but the daemon.
                    Purpose::Write => [&system.state_dir, &system.real_store_dir]
                        .into_iter()
                        .all(|directory| may(Access::READ_OK | Access::WRITE_OK, directory)),
                };
                if !usable && socket().exists() {
                    return Ok(Self::Daemon(Address::Socket(socket()), system.store_dir));
                }
                local(system, &parameters).map_err(|reason| bad(&reason))
            }
            "local" => local(system, &parameters).map_err(|reason| bad(&reason)),
            "daemon" if parameters.is_empty() => {
                Ok(Self::Daemon(Address::Socket(socket()), system.store_dir))
            }
            place => {
                if let Some(path) = place.strip_prefix("unix://") {
                    // The same parameters as for a local store, as seen from the daemon's side.
                    let layout = match local(system, &parameters).map_err(|reason| bad(&reason))? {
                        Self::Local(layout) => layout,
                        Self::Daemon(..) => return Err(bad("it names two stores")),
                    };
                    let socket =
                        if path.is_empty() { layout.daemon_socket() } else { PathBuf::from(path) };
                    return Ok(Self::Daemon(Address::Socket(socket), layout.store_dir));
                }
                let path = place.strip_prefix("local://").unwrap_or(place);
                if path.starts_with('/')
                    || path.starts_with("./")
                    || path == "."
                    || path.starts_with("../")
                {
                    let root = surroundings.working_directory.join(path);
                    let chroot = Layout::below(Some(root), system.store_dir);
                    return local(chroot, &parameters).map_err(|reason| bad(&reason));
                }
                Err(bad(
                    "known are `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, and a \
                     directory written with a `/` or `./` in front",
                ))
            }
        }
    }

    /// Opens the store. Nothing is read or created yet; `scratch` is a directory for temporary
    /// files.
    #[must_use]
    pub fn open(self, trust: TrustPolicy, options: DaemonOptions, scratch: PathBuf) -> OpenStore {
        match self {
            Self::Local(layout) => {
                let store = LocalStore::new(layout, trust).with_scratch_directory(scratch);
                OpenStore::Local(Box::new(store))
            }
            Self::Daemon(address, store_dir) => {
                OpenStore::Daemon(DaemonStore::new(address, store_dir, options).with_trust(trust))
            }
        }
    }
}

fn system_layout(surroundings: &Surroundings) -> std::result::Result<Layout, String> {
    let mut layout = match &surroundings.store_dir {
        None => Layout::system(),
        Some(directory) => Layout::below(None, parse_store_dir(directory)?),
    };
    if let Some(state_dir) = &surroundings.state_dir {
        layout.state_dir.clone_from(state_dir);
    }
    Ok(layout)
}

fn parse_store_dir(text: &str) -> std::result::Result<StoreDir, String> {
    StoreDir::new(text).map_err(|source| source.to_string())
}

/// Applies the parameters of a `local` address.
fn local(
    mut layout: Layout,
    parameters: &[(String, String)],
) -> std::result::Result<StoreUri, String> {
    let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    if let Some(unknown) = parameters
        .iter()
        .find(|(name, _)| !matches!(name.as_str(), "root" | "store" | "state" | "real"))
    {
        return Err(format!("the parameter `{}` is not known", unknown.0));
    }
    for name in ["root", "state", "real"] {
        if let Some(path) = find(name).filter(|path| !path.starts_with('/')) {
            return Err(format!("`{name}={path}` is not an absolute path"));
        }
    }
    let root = find("root").map(PathBuf::from);
    let store_dir = find("store").map(|text| parse_store_dir(text)).transpose()?;
    if root.is_some() || store_dir.is_some() {
        let state_dir = layout.state_dir;
        layout = Layout::below(root.or(layout.root), store_dir.unwrap_or(layout.store_dir));
        if layout.root.is_none() {
            layout.state_dir = state_dir;
        }
    }
    if let Some(state) = find("state") {
        layout.state_dir = PathBuf::from(state);
    }
    if let Some(real) = find("real") {
        layout.real_store_dir = PathBuf::from(real);
    }
    Ok(StoreUri::Local(layout))
}

fn may(access: Access, path: &Path) -> bool {
    rustix::fs::access(path, access).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreUri> {
        let surroundings =
            Surroundings { working_directory: PathBuf::from("/base"), ..Surroundings::default() };
        StoreUri::parse(text, Purpose::Read, &surroundings)
    }

    fn layout(text: &str) -> Layout {
        match parse(text).unwrap() {
            StoreUri::Local(layout) => layout,
            StoreUri::Daemon(..) => panic!("{text} is a daemon"),
        }
    }

    #[test]
    fn a_chroot_store_keeps_its_logical_directory() {
        for text in ["/island", "local?root=/island", "local?root=%2Fisland"] {
            let layout = layout(text);
            assert_eq!(layout.store_dir, StoreDir::default(), "{text}");
            assert_eq!(layout.real_store_dir, Path::new("/island/nix/store"), "{text}");
            assert_eq!(layout.state_dir, Path::new("/island/nix/var/nix"), "{text}");
        }
        assert_eq!(layout("./a+b").real_store_dir, Path::new("/base/./a+b/nix/store"));
    }

    #[test]
    fn a_chroot_keeps_its_files_in_nix_store_whatever_its_paths_begin_with() {
        for text in ["local?root=/island&store=/gnu/store", "/island?store=/gnu/store"] {
            let layout = layout(text);
            assert_eq!(layout.store_dir.as_str(), "/gnu/store", "{text}");
            assert_eq!(layout.real_store_dir, Path::new("/island/nix/store"), "{text}");
        }
    }

    #[test]
    fn every_place_can_be_set_apart() {
        let layout = layout("local?store=/gnu/store&state=/var/guix&real=/mnt/store");
        assert_eq!(layout.store_dir.as_str(), "/gnu/store");
        assert_eq!(layout.state_dir, Path::new("/var/guix"));
        assert_eq!(layout.real_store_dir, Path::new("/mnt/store"));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let relative = ["local?store=relative", "local?root=x", "local?state=x", "local?real=x"];
        for text in ["ftp://x", "local?rot=/x", "nix", "exec:"].into_iter().chain(relative) {
            assert!(matches!(parse(text), Err(Error::BadUri { .. })), "{text}");
        }
    }
}
