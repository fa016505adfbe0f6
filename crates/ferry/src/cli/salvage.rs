//! Options of the command that saves what is left.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::bundle::Trust;
use super::pack::Level;

#[derive(Args)]
pub(crate) struct Salvage {
    /// The damaged bundle, or any volumes of it: those beside them are found; `-` is standard input
    #[arg(required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// The store that has what the bundle was packed against, for one packed with --base
    #[arg(long, value_name = "STORE")]
    pub(crate) against: Option<String>,
    /// How much time to spend on making it small
    #[arg(long, default_value = "default")]
    pub(crate) level: Level,
}
