//! Options of the command that makes bundles.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{SignWith, What};

pub(super) const EXAMPLES: &str = "\
Examples:
  The recipe of a package, to be built on the other side:
    ferry pack nixpkgs#hello -o hello.ferry
  A running system, signed:
    ferry pack /run/current-system --set runtime --sign-key secret.key -o system.ferry
  Only what the other side does not have yet:
    ferry pack /run/current-system --set runtime --have island.txt -o update.ferry
  Only what is different from what it has:
    ferry pack nixpkgs#hello --base first.ferry -o update.ferry
  Onto disks with FAT32, so that any one of them can be lost:
    ferry pack /run/current-system --set runtime --volume-size 4G --parity 1 -o system.ferry
  With what it takes to evaluate it again there:
    ferry pack --with-eval .#hello --set sources -o hello.ferry
  Through a pipe:
    ferry pack ./result --set runtime -o - | ssh island ferry load -";

#[derive(Args)]
#[command(mut_arg("set", |set| set.default_value("recipe")))]
pub(crate) struct Pack {
    #[command(flatten)]
    pub(crate) what: What,
    /// The bundle to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// Write volumes smaller than this, `NAME.001.ferry` and so on, instead of one file: bytes, or
    /// K, M, G, T (powers of 1024; 4G fits FAT32)
    #[arg(long, value_name = "SIZE", value_parser = volume_size)]
    pub(crate) volume_size: Option<u64>,
    /// Add this many volumes of parity: as many volumes, whichever, can be lost or damaged
    #[arg(long, value_name = "N", default_value_t = 0, requires = "volume_size")]
    pub(crate) parity: u32,
    /// Leave out what the other side has: an inventory (`ferry inventory`), a list of store paths
    /// (as `nix-store --query --requisites` prints it), a bundle that it has loaded, or the address
    /// of its store
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::FilePath)]
    pub(crate) have: Vec<String>,
    /// Pack what is different from earlier versions that the other side has: an inventory, a list of
    /// its store paths, a bundle that it has loaded, or the address of its store. All of that is left out, as
    /// with --have. What a list or a bundle names is read from --store
    #[arg(long, value_name = "PLACE", value_hint = ValueHint::FilePath)]
    pub(crate) base: Option<String>,
    /// Take along what evaluating again takes: the store paths that a recorded evaluation needed,
    /// and one more with the expressions, sources and the part of the fetchers' cache that it read.
    /// The recording is this file, or what --trace names, or the one that is kept of a store path;
    /// else what is named is evaluated and recorded now. Where nothing is named, what was evaluated
    /// is packed
    #[arg(
        long,
        value_name = "TRACE",
        value_hint = ValueHint::FilePath,
        num_args = 0..=1,
        require_equals = true,
        conflicts_with = "references_graph"
    )]
    pub(crate) with_eval: Option<Option<PathBuf>>,
    /// With --with-eval, take no more than this of files that are not in the store: bytes, or K, M,
    /// G, T
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = volume_size)]
    pub(crate) eval_limit: u64,
    #[command(flatten)]
    pub(crate) sign: SignWith,
    /// How much time to spend on making it small
    #[arg(long, default_value = "default")]
    pub(crate) level: Level,
    /// The store to read from: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, or the
    /// root directory of a chroot store
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
    /// Read what this file lists from the files below /nix/store, inside a Nix build: what
    /// `exportReferencesGraph` or `closureInfo` wrote. No database is asked
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["base", "file", "expr"]
    )]
    pub(crate) references_graph: Vec<PathBuf>,
}

/// A size as disks and tar have it: `700M`, `4G`, `4GiB`, `4GB`.
fn volume_size(text: &str) -> Result<u64, String> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        "T" | "TB" | "TIB" => Some(40),
        _ => None,
    };
    let size = |power| digits.parse::<u64>().ok()?.checked_mul(1_u64 << power);
    factor.and_then(size).ok_or_else(|| "a number of bytes, or one with K, M, G or T".to_owned())
}

/// How hard to compress.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// zstd level 1
    Fast,
    /// zstd level 9
    Default,
    /// zstd level 19
    Max,
}

impl Level {
    pub(crate) fn zstd(self) -> i32 {
        match self {
            Self::Fast => 1,
            Self::Default => 9,
            Self::Max => 19,
        }
    }
}
