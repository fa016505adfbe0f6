//! Options of the command that makes inventories.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  On the isolated side, what its store has, to be sent across:
    ferry inventory -o island.inv
  On the connected side, what of a system is already there:
    ferry query 'closure(run, /run/current-system) - have(island.txt)'
  A list of paths, for people and other programs:
    ferry query 'all()' > island.txt";

#[derive(Args)]
pub(crate) struct Inventory {
    /// The store: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, a bundle, or the
    /// root directory of a chroot store
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
}
