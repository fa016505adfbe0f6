//! The command line's words. Help, man pages and completions all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use ferry_store::selection::NamedSet;
use tracing_subscriber::EnvFilter;

/// Carries Nix software across a gap in the network.
///
/// On the connected side, `pack` puts what a derivation needs into one file. On the isolated
/// side, `verify` checks it and `load` adds it to a Nix store; then unmodified Nix builds or
/// runs it with no network.
#[derive(Parser)]
#[command(name = "ferry", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args)]
pub(crate) struct Global {
    /// Print what was done as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Set a Nix setting, as in nix.conf (only those that concern stores are used)
    #[arg(long, global = true, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub(crate) option: Vec<String>,
}

impl Arguments {
    pub(crate) fn log_filter(&self) -> EnvFilter {
        EnvFilter::new(match self.global.verbose {
            0 => "off",
            1 => "ferry_store=debug,ferry_bundle=debug",
            _ => "debug",
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Put what an installable needs into one file
    #[command(after_help = PACK_EXAMPLES)]
    Pack(Pack),
    /// Check everything in a bundle
    Verify(Verify),
    /// List the store paths in a bundle, or the files of one of them
    Ls(Ls),
    /// Tell what a bundle holds and who signed it
    Info(Info),
    /// Add what is in a bundle to a Nix store
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Load),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory, which has to exist
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

const PACK_EXAMPLES: &str = "\
Examples:
  The recipe of a package, to be built on the other side:
    ferry pack nixpkgs#hello -o hello.ferry
  A running system, signed:
    ferry pack /run/current-system --set runtime --sign-key secret.key -o system.ferry
  Through a pipe:
    ferry pack ./result --set runtime -o - | ssh island ferry load -";

const LOAD_EXAMPLES: &str = "\
Examples:
  Into this machine's store:
    ferry load hello.ferry
  Into a store of its own, where no Nix is installed:
    ferry load hello.ferry --to /mnt/island";

#[derive(Args)]
pub(crate) struct Pack {
    /// What to pack: a store path, `x.drv`, `x.drv^out,dev`, `x.drv^*`, a link into the store, or
    /// FLAKE#ATTR. With --file or --expr, attribute paths
    #[arg(required_unless_present_any = ["file", "expr"], value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,
    /// The bundle to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: PathBuf,
    /// What of it to take: `recipe` (derivations and sources, to build it) or `runtime` (the
    /// outputs and what they refer to, to run it)
    #[arg(long, default_value = "recipe")]
    pub(crate) set: NamedSet,
    /// Take this along too, with everything it refers to
    #[arg(long, value_name = "INSTALLABLE")]
    pub(crate) also: Vec<String>,
    /// Evaluate attributes of this Nix file
    #[arg(short, long, value_hint = ValueHint::FilePath, conflicts_with = "expr")]
    pub(crate) file: Option<PathBuf>,
    /// Evaluate attributes of this Nix expression
    #[arg(long)]
    pub(crate) expr: Option<String>,
    /// Sign every path and the bundle with the secret key in this file (made by `nix key
    /// generate-secret`)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_key: Vec<PathBuf>,
    /// How much time to spend on making it small
    #[arg(long, default_value = "default")]
    pub(crate) level: Level,
    /// The store to read from: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, or the
    /// root directory of a chroot store
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
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

/// Which signatures count.
#[derive(Args)]
pub(crate) struct Trust {
    /// Trust these public keys, besides those in nix.conf
    #[arg(long, value_name = "KEY")]
    pub(crate) trusted_public_key: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The bundle; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Fail unless one of the trusted keys has signed the bundle
    #[arg(long)]
    pub(crate) require_signature: bool,
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
}

#[derive(Args)]
pub(crate) struct Info {
    /// The bundle; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

#[derive(Args)]
pub(crate) struct Load {
    /// The bundle; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The store to add to: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, or the
    /// root directory of a chroot store, which is made where there is none
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) to: String,
    /// Do not insist on signatures (a daemon obeys only users whom it trusts)
    #[arg(long)]
    pub(crate) no_check_sigs: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
    /// Fail unless one of the trusted keys has signed the bundle
    #[arg(long)]
    pub(crate) require_signature: bool,
    /// Name of the garbage collector root that keeps what is loaded (default: the name of the
    /// first thing packed)
    #[arg(long, value_name = "NAME", conflicts_with = "no_root")]
    pub(crate) root: Option<String>,
    /// Make no garbage collector root
    #[arg(long)]
    pub(crate) no_root: bool,
}
