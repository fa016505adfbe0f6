//! Options of the commands that read bundles.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  Into this machine's store:
    ferry load hello.ferry
  Into a store of its own, where no Nix is installed:
    ferry load hello.ferry --to /mnt/island";

/// Which signatures count.
#[derive(Args)]
pub(crate) struct Trust {
    /// Trust these public keys, besides those in nix.conf: `NAME:BASE64`, or a file with such keys
    #[arg(long, value_name = "KEY")]
    pub(crate) trusted_public_key: Vec<String>,
}

/// Which keys have to have signed a bundle.
#[derive(Args)]
pub(crate) struct BundleKeys {
    /// Fail, before anything else is done, unless the bundle itself is signed by this public key,
    /// or by another one that is given so: `NAME:BASE64`, or a file with such keys. It does not
    /// concern the signatures of the paths in it
    #[arg(long, value_name = "KEY")]
    pub(crate) require_bundle_key: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The bundle, or any volumes of it: those beside them are found; `-` is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Make sure that this store has what the bundle leaves to it, too: `auto`, `local`, `daemon`,
    /// `unix://SOCKET`, `exec:COMMAND`, or the root directory of a chroot store
    #[arg(long, value_name = "STORE")]
    pub(crate) against: Option<String>,
    /// Fail where `ferry load` would refuse a path, because no trusted key has signed it
    #[arg(long)]
    pub(crate) require_sigs: bool,
    #[command(flatten)]
    pub(crate) keys: BundleKeys,
}

#[derive(Args)]
pub(crate) struct Ls {
    /// The bundle; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// A store path in it, or a file below one
    pub(crate) path: Option<String>,
    /// Show kinds and sizes
    #[arg(short, long)]
    pub(crate) long: bool,
    /// List what is in directories too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// The store that has what the bundle was packed against, for one packed with --base
    #[arg(long, value_name = "STORE")]
    pub(crate) against: Option<String>,
}

#[derive(Args)]
pub(crate) struct Info {
    /// The bundle, or any volumes of it: those beside them are found; `-` is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// The store that has what the bundle was packed against, for one packed with --base
    #[arg(long, value_name = "STORE")]
    pub(crate) against: Option<String>,
}

#[derive(Args)]
pub(crate) struct Repair {
    /// Any volumes of the bundle: those beside them are found
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Load {
    /// The bundle, or any volumes of it: those beside them are found; `-` is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// The store to add to: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, or the
    /// root directory of a chroot store, which is made where there is none
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) to: String,
    /// Do not insist on signatures (a daemon obeys only users whom it trusts)
    #[arg(long)]
    pub(crate) no_check_sigs: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    #[command(flatten)]
    pub(crate) keys: BundleKeys,
    /// Name of the garbage collector root that keeps what is loaded (default: the name of the
    /// first thing packed)
    #[arg(long, value_name = "NAME", conflicts_with = "no_root")]
    pub(crate) root: Option<String>,
    /// Make no garbage collector root
    #[arg(long)]
    pub(crate) no_root: bool,
    /// Where to lay out the files of a recorded evaluation that was packed too (default: below
    /// $XDG_DATA_HOME/ferry/evaluations). What is there already stays as it is
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(crate) eval_dir: Option<PathBuf>,
    /// Lay out no recorded evaluation
    #[arg(long, conflicts_with = "eval_dir")]
    pub(crate) no_eval: bool,
}
