//! The command line's words. Help, man pages and completions all come from here.

mod bundle;
mod cache;
mod cache_index;
mod cache_prune;
mod cache_sign;
mod cache_verify;
mod convert;
mod diff;
mod drv;
mod graph;
mod inventory;
mod missing;
mod pack;
mod salvage;
mod shell;
mod trace;
mod what;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use tracing_subscriber::EnvFilter;

pub(crate) use self::bundle::{BundleKeys, Info, Load, Ls, Repair, Trust, Verify};
pub(crate) use self::cache::{Cache, CacheCreate, Copy};
pub(crate) use self::cache_index::{CacheIndex, SortBy};
pub(crate) use self::cache_prune::CachePrune;
pub(crate) use self::cache_sign::CacheSign;
pub(crate) use self::cache_verify::CacheVerify;
pub(crate) use self::convert::{Convert, Format};
pub(crate) use self::diff::Diff;
pub(crate) use self::drv::{Drv, DrvAdd, DrvShow};
pub(crate) use self::graph::{Deps, Query, Size, SizeKind, Sources, Why};
pub(crate) use self::inventory::Inventory;
pub(crate) use self::missing::Missing;
pub(crate) use self::pack::Pack;
pub(crate) use self::salvage::Salvage;
pub(crate) use self::shell::Shell;
pub(crate) use self::trace::Trace;
pub(crate) use self::what::{Evaluated, SignWith, What};

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
            1 => "ferry_store=debug,ferry_bundle=debug,ferry_cache=debug",
            _ => "debug",
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Put what an installable needs into one file
    #[command(after_help = pack::EXAMPLES)]
    Pack(Pack),
    /// List what a query of the dependency graph answers
    #[command(after_help = graph::EXAMPLES)]
    Query(Query),
    /// List what something needs: to run, to be built, to be evaluated
    Deps(Deps),
    /// Tell why one thing needs another
    Why(Why),
    /// Tell how large things are, what they share counted once
    Size(Size),
    /// Evaluate, and record what that takes: what has to be there to evaluate it again
    #[command(after_help = trace::EXAMPLES)]
    Trace(Trace),
    /// Check everything in a bundle
    Verify(Verify),
    /// List the store paths in a bundle, or the files of one of them
    Ls(Ls),
    /// Tell what a bundle holds and who signed it
    Info(Info),
    /// Write volumes of a bundle again that are missing or damaged
    Repair(Repair),
    /// Add what is in a bundle to a Nix store
    #[command(after_help = bundle::EXAMPLES)]
    Load(Load),
    /// Run a command with what a recorded evaluation needs, and with no network
    #[command(after_help = shell::EXAMPLES)]
    Shell(Shell),
    /// Write down what a store has, in a small file, for the other side to know
    #[command(after_help = inventory::EXAMPLES)]
    Inventory(Inventory),
    /// Make a bundle out of what others write, or what others read out of a bundle
    #[command(after_help = convert::EXAMPLES)]
    Convert(Convert),
    /// Derivations as JSON
    #[command(subcommand, after_help = drv::EXAMPLES)]
    Drv(Drv),
    /// Take what is intact out of a damaged bundle, and list what is lost
    Salvage(Salvage),
    /// Tell what one bundle has and another has not; the exit code is 1 if they differ
    #[command(after_help = diff::EXAMPLES)]
    Diff(Diff),
    /// Copy from one store to another: local, a daemon's, a bundle, a binary cache
    #[command(after_help = cache::COPY_EXAMPLES)]
    Copy(Copy),
    /// Tell what binary caches lack of what something needs; the exit code is 1 if they do
    #[command(after_help = missing::EXAMPLES)]
    Missing(Missing),
    /// Make binary caches, and look after them
    #[command(subcommand)]
    Cache(Cache),
    /// Become a command that the process which started this one watches
    #[command(hide = true, name = crate::watching::COMMAND)]
    BecomeWatched {
        /// The command
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// The directory, which has to exist
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}
