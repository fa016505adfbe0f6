//! Options of the command that records evaluations.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::Evaluated;

pub(super) const EXAMPLES: &str = "\
Examples:
  What has to be there to evaluate a package of a flake again:
    ferry trace .#hello
  An attribute of a file, and what its sources and its evaluation take:
    ferry trace --file release.nix hello
    ferry query 'set(sources, ./result)'
  Whatever a command of your own evaluates:
    ferry trace -- nix-build release.nix -A hello
A recording is kept in ~/.local/state/ferry/traces, where queries and sets find it, unless --output
says otherwise.";

#[derive(Args)]
pub(crate) struct Trace {
    /// What to evaluate: FLAKE#ATTR. With --file or --expr, attribute paths
    #[arg(value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,
    /// Run this command instead, and record what it evaluates
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["installables", "file", "expr"])]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) evaluated: Evaluated,
    /// The store to evaluate for: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, or
    /// the root directory of a chroot store
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
    /// Write the recording into this file, and what was fetched beside it
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}
