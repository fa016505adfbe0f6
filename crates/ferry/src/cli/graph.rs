//! Options of the commands that ask the dependency graph.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use ferry_graph::Kind;

use super::Evaluated;

pub(super) const EXAMPLES: &str = "\
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

/// Where the facts of the dependency graph come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// A store to ask: one as for `ferry pack`, a bundle, or a binary cache (`https://…`,
    /// `s3://…`, `file://…`). Several are asked in this order, and where they disagree the first is
    /// believed
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
    #[arg(required_unless_present_any = ["query_file", "sets", "functions"], value_name = "EXPR")]
    pub(crate) expression: Option<String>,
    /// Read definitions from this file, and the query itself if none is given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) query_file: Vec<PathBuf>,
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
    /// needs them. With --file or --expr, attribute paths
    #[arg(
        required_unless_present_any = ["file", "expr"],
        value_names = ["KIND", "INSTALLABLE"],
        num_args = 1..
    )]
    pub(crate) arguments: Vec<String>,
    #[command(flatten)]
    pub(crate) evaluated: Evaluated,
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
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) query_file: Vec<PathBuf>,
    /// What to sort by, largest first
    #[arg(long, value_name = "ORDER", default_value = "closure-size")]
    pub(crate) sort: SizeKind,
    #[command(flatten)]
    pub(crate) sources: Sources,
}

/// A column of `ferry size`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SizeKind {
    /// The object's own NAR
    #[value(name = "nar-size", alias = "nar")]
    Nar,
    /// The object and everything it refers to
    #[value(name = "closure-size", alias = "closure")]
    Closure,
    /// What only this member of the set brings along
    #[value(name = "added-size", alias = "added")]
    Added,
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| "the kinds are `run`, `build` and `eval`".to_owned())
}
