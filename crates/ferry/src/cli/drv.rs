//! Options of the commands for derivations as JSON.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::Evaluated;
use super::pack::Level;

pub(super) const EXAMPLES: &str = "\
Examples:
  What a bundle is the recipe of:
    ferry drv show hello.ferry
  All derivations behind a package, and from there into a bundle:
    ferry drv show --recursive ./hello.drv | ferry drv add -o hello.ferry";

#[derive(Subcommand)]
pub(crate) enum Drv {
    /// Print derivations as JSON, as `nix derivation show` of Nix 2.34 does
    Show(DrvShow),
    /// Add derivations given as JSON to a store, or write them into a bundle
    Add(DrvAdd),
}

#[derive(Args)]
pub(crate) struct DrvShow {
    /// A bundle, of which what was packed is shown, or an installable. With --file or --expr,
    /// attribute paths
    #[arg(required_unless_present_any = ["file", "expr"], value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,
    #[command(flatten)]
    pub(crate) evaluated: Evaluated,
    /// Show what they depend on too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// The store to read from, or a bundle
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
}

#[derive(Args)]
pub(crate) struct DrvAdd {
    /// One or many derivations, as `nix derivation show` of any version prints them; `-` is
    /// standard input
    #[arg(default_value = "-", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The store to add to; with --output, the store that has what is not among them
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
    /// Write a bundle with everything they need, instead of adding to a store; `-` is standard
    /// output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Check them and print their paths, and add nothing
    #[arg(long, conflicts_with = "output")]
    pub(crate) dry_run: bool,
    /// How much time to spend on making the bundle small
    #[arg(long, default_value = "default", requires = "output")]
    pub(crate) level: Level,
}
