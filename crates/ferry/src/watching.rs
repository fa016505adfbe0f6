//! Commands whose files are watched: what of them is of no interest, and how they are run.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ferry_trace::watch::{Interest, Watch, is_nix};

use crate::recording::Recorder;

/// The command of this program's that becomes what is watched.
pub(crate) const COMMAND: &str = "become-watched";

/// Where the kernel keeps this program.
const ITSELF: &str = "/proc/self/exe";

/// What of a home belongs to Nix, and to what it runs.
const OF_HOME: [&str; 12] = [
    ".cache/nix",
    ".config/git",
    ".config/nix",
    ".gitconfig",
    ".local/share/nix",
    ".local/state/nix",
    ".netrc",
    ".nix-channels",
    ".nix-defexpr",
    ".nix-profile",
    ".profile",
    ".ssh",
];

/// Variables that name files and directories of Nix's own.
const OF_NIX: [&str; 10] = [
    "NIX_CONF_DIR",
    "NIX_LOCALSTATE_DIR",
    "NIX_LOG_DIR",
    "NIX_SSL_CERT_FILE",
    "NIX_STATE_DIR",
    "NIX_USER_CONF_FILES",
    "SSL_CERT_FILE",
    "NIX_CONFIG_HOME",
    "NIX_STATE_HOME",
    "NIX_DATA_HOME",
];

/// How commands are watched for a recorder that listens in `socket` and keeps what is fetched in
/// `cache`.
pub(crate) fn watch(recorder: &Recorder<'_>, socket: &Path, cache: &Path) -> Watch {
    let own = ["/proc", "/sys", "/dev", "/nix/var"].map(PathBuf::from);
    let named = OF_NIX.iter().filter_map(env::var_os).filter(|value| !value.is_empty());
    let named = named.flat_map(|value| env::split_paths(&value).collect::<Vec<_>>());
    let xdg = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"].iter();
    let xdg = xdg.filter_map(env::var_os).map(|place| PathBuf::from(place).join("nix"));
    let home = env::home_dir().unwrap_or_default();
    let of_home = OF_HOME.iter().map(|name| home.join(name));
    let mut ignored: Vec<PathBuf> =
        own.into_iter().chain(named).chain(xdg).chain(of_home).collect();
    ignored.extend([socket.to_owned(), cache.to_owned()]);
    if let Some(layout) = &recorder.layout {
        ignored.extend([layout.state_dir.clone()]);
        if layout.real_store_dir != Path::new(recorder.store_dir.as_str()) {
            ignored.push(layout.real_store_dir.clone());
        }
    }
    ignored.retain(|place| place.is_absolute());
    Watch {
        launcher: [ITSELF, COMMAND, "--"].map(OsString::from).to_vec(),
        interest: Interest {
            store_dir: PathBuf::from(recorder.store_dir.as_str()),
            ignored,
            is_evaluator: is_nix,
        },
    }
}
