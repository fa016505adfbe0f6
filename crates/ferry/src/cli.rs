//! The command line's words. Help, man pages and completions all come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use ferry_graph::Kind;
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
    /// List what a query of the dependency graph answers
    #[command(after_help = QUERY_EXAMPLES)]
    Query(Query),
    /// List what something needs: to run, to be built, to be evaluated
    Deps(Deps),
    /// Tell why one thing needs another
    Why(Why),
    /// Tell how large things are, what they share counted once
    Size(Size),
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

const QUERY_EXAMPLES: &str = "\
Examples:
  What a package's build reads:
    ferry query 'build(./hello.drv)'
  The downloads behind a system:
    ferry query 'fods(closure(build, /run/current-system))'
  What is missing here for building it from source:
    ferry query 'let s = set(sources, ./x.drv); s - valid(auto, s)'
  Who refers to a library:
    ferry query 'rdeps(run, all(), /nix/store/…-openssl-3.0.14, 1)'
The language is described in docs/query.md; --sets and --functions list what it has.";

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
    /// What of it to take: a named set (`recipe`, to build it; `runtime`, to run it; `rebuild`,
    /// `sources`, `sources+fragments`, `build`, `total`: see `ferry query --sets`), or any query,
    /// in which `x` is what is packed
    #[arg(long, default_value = "recipe")]
    pub(crate) set: String,
    /// A query file that defines more sets
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) query_file: Vec<PathBuf>,
    /// A recorded evaluation, for what had to be there before the derivations could exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) trace: Vec<PathBuf>,
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

/// Where the facts of the dependency graph come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// A store to ask: one as for `ferry pack`, a bundle, or a binary cache (`https://…`,
    /// `file://…`). Several are asked in this order, and where they disagree the first is believed
    #[arg(long, env = "NIX_REMOTE", value_name = "STORE")]
    pub(crate) store: Vec<String>,
    /// What `exportReferencesGraph` or `closureInfo` wrote; instead of a store, unless one is
    /// named as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) references_graph: Vec<PathBuf>,
    /// A recorded evaluation
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) trace: Vec<PathBuf>,
    /// Answer as far as the facts go, and say which are missing
    #[arg(long)]
    pub(crate) partial: bool,
}

#[derive(Args)]
pub(crate) struct Query {
    /// The query
    #[arg(required_unless_present_any = ["file", "sets", "functions"], value_name = "EXPR")]
    pub(crate) expression: Option<String>,
    /// Read definitions from this file, and the query itself if none is given
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Put everything behind what it refers to, instead of in the order of store paths
    #[arg(long)]
    pub(crate) topological: bool,
    /// Show NAR sizes
    #[arg(short, long, conflicts_with_all = ["null", "dot"])]
    pub(crate) long: bool,
    /// End each path with a NUL byte
    #[arg(short = '0', long, conflicts_with_all = ["json", "dot"])]
    pub(crate) null: bool,
    /// Print the answer and the edges in it as a Graphviz graph
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
    /// Print the definitions of the named sets
    #[arg(long, conflicts_with_all = ["expression", "functions"])]
    pub(crate) sets: bool,
    /// Print what functions there are
    #[arg(long, conflicts_with = "expression")]
    pub(crate) functions: bool,
}

#[derive(Args)]
pub(crate) struct Deps {
    /// One kind of dependency (`run`, `build`, `eval`; all three if none is named), and what
    /// needs them
    #[arg(required = true, value_names = ["KIND", "INSTALLABLE"], num_args = 1..)]
    pub(crate) arguments: Vec<String>,
    /// Also what they need, and so on
    #[arg(long)]
    pub(crate) closure: bool,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// End each path with a NUL byte
    #[arg(short = '0', long, conflicts_with_all = ["json", "dot"])]
    pub(crate) null: bool,
    /// Print a Graphviz graph
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
}

#[derive(Args)]
pub(crate) struct Why {
    /// What needs
    pub(crate) from: String,
    /// What it needs
    pub(crate) to: String,
    /// Follow only these kinds of dependency
    #[arg(long, value_name = "KIND", value_delimiter = '+', value_parser = parse_kind)]
    pub(crate) kind: Vec<Kind>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Print a Graphviz graph
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
}

#[derive(Args)]
pub(crate) struct Size {
    /// A query: an installable, or any other set
    #[arg(value_name = "SET")]
    pub(crate) expression: String,
    /// Read definitions from this file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<PathBuf>,
    /// What to sort by, largest first
    #[arg(long, default_value = "closure")]
    pub(crate) sort: SizeKind,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// A column of `ferry size`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SizeKind {
    /// The object's own NAR
    Nar,
    /// The object and everything it refers to
    Closure,
    /// What only this member of the set brings along
    Added,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| "the kinds are `run`, `build` and `eval`".to_owned())
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
