//! Options of the command that evaluates again where there is no network.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  What was evaluated on the other side, again:
    ferry load hello.ferry
    ferry shell --offline hello.ferry -- nix-instantiate default.nix
  With what was edited since, and built:
    ferry shell --offline ~/.local/share/ferry/evaluations/*-hello-evaluation -- nix-build";

#[derive(Args)]
pub(crate) struct Shell {
    /// A bundle that was packed with --with-eval and loaded here, the evaluation in it as a store
    /// path, or the directory into which `ferry load` has laid it out
    #[arg(value_name = "BUNDLE|PATH|DIRECTORY", value_hint = ValueHint::AnyPath)]
    pub(crate) evaluation: PathBuf,
    /// Let Nix use only what is here: no substituters, no registry, no search for anything newer
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// The store to evaluate in, as Nix names it (default: what Nix uses anyway)
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,
    /// The command, run where the evaluation was run; without one, ferry tells which one it was
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}
