//! Options of the command that saves what is left.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::bundle::Trust;
use super::pack::Level;

#[derive(Args)]
pub(crate) struct Salvage {
    /// The damaged bundle; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// How much time to spend on making it small
    #[arg(long, default_value = "default")]
    pub(crate) level: Level,
}
