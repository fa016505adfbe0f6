//! Options of the command that lists what is in a binary cache.

use clap::{Args, ValueEnum};
use regex::Regex;

pub(super) const EXAMPLES: &str = "\
Examples:
  Which compilers are in there, the largest first?
    ferry cache index /srv/cache '^(gcc|llvm)-' --sort nar-size
  Keep the answer in the cache, for the next time, and for those who have it on the web:
    ferry cache index /srv/cache --write
    ferry cache index https://cache.example.org '^linux-'";

/// What comes first.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// By name, and then by hash
    Name,
    /// The largest NAR first
    NarSize,
    /// The largest file first
    FileSize,
    /// What is largest with all that it refers to first
    ClosureSize,
}

#[derive(Args)]
pub(crate) struct CacheIndex {
    /// The cache: a directory, `file://…`, or `https://…` if an index is kept there
    #[arg(value_name = "CACHE")]
    pub(crate) cache: String,
    /// List what has a name (without the hash) in which this regular expression is found; of
    /// several, all of them
    #[arg(value_name = "REGEX")]
    pub(crate) names: Vec<Regex>,
    /// In which order
    #[arg(long, value_name = "ORDER", default_value = "name")]
    pub(crate) sort: SortBy,
    /// Show how large each is with all that it refers to
    #[arg(short = 'S', long)]
    pub(crate) closure_size: bool,
    /// Keep an index in the cache (`ferry-index.jsonl.zst`), for the next time
    #[arg(long)]
    pub(crate) write: bool,
    /// Read every narinfo, whatever an index that is kept there says
    #[arg(long)]
    pub(crate) anew: bool,
}
