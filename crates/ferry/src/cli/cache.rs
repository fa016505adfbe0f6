//! Options of the commands that copy between stores, and that make binary caches.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use ferry_store::shard::Shard;

use super::cache_index::{self, CacheIndex};
use super::cache_prune::{self, CachePrune};
use super::cache_sign::{self, CacheSign};
use super::cache_verify::{self, CacheVerify};
use super::{SignWith, Trust, What};

pub(super) const COPY_EXAMPLES: &str = "\
Examples:
  A package and all it refers to into a binary cache on a disk:
    ferry copy ./result --to 'file:///mnt/disk/cache?compression=zstd' --sign-key secret.key
  From a binary cache on the web into the store of this machine:
    ferry copy /nix/store/…-hello-2.12 --from https://cache.example.org
  Everything in a bundle into a binary cache:
    ferry copy --all --from hello.ferry --to file:///srv/cache";

pub(super) const CACHE_EXAMPLES: &str = "\
Examples:
  A running system, signed, for others to substitute from:
    ferry cache create /run/current-system --to /mnt/disk/cache --sign-key secret.key
  Inside a Nix build, from what `closureInfo` wrote:
    ferry cache create --references-graph ${closureInfo}/registration --to $out";

#[derive(Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) sign: SignWith,
    /// Everything that is in the store read from
    #[arg(long, conflicts_with_all = ["installables", "set", "query_file", "also", "trace", "file", "expr"])]
    pub(crate) all: bool,
    /// The store to read from: `auto`, `local`, `daemon`, `unix://SOCKET`, `exec:COMMAND`, the root
    /// directory of a chroot store, a bundle, or a binary cache (`https://…`, `s3://…`, `file://…`)
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) from: String,
    /// The store to copy to: one of the same, a bundle if the name ends in `.ferry`. Parameters of
    /// a binary cache are Nix's: `compression`, `compression-level`, `write-nar-listing`,
    /// `secret-key`
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) to: String,
    /// Copy the build logs of the derivations, too, which `nix log` shows
    #[arg(long)]
    pub(crate) with_logs: bool,
    /// Copy only one part of it, `0/4` to `3/4`, and let other machines copy the others: into the same
    /// binary cache, at any time
    #[arg(long, value_name = "INDEX/COUNT")]
    pub(crate) shard: Option<Shard>,
    /// Do not insist on signatures (a daemon obeys only users whom it trusts)
    #[arg(long)]
    pub(crate) no_check_sigs: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}

#[derive(Subcommand)]
pub(crate) enum Cache {
    /// Make a binary cache, or add to one
    #[command(after_help = CACHE_EXAMPLES)]
    Create(CacheCreate),
    /// Check a binary cache; the exit code is 1 if something is wrong
    #[command(after_help = cache_verify::EXAMPLES)]
    Verify(CacheVerify),
    /// Sign what is in a binary cache, or take signatures away
    #[command(after_help = cache_sign::EXAMPLES)]
    Sign(CacheSign),
    /// List what is in a binary cache: names and sizes
    #[command(after_help = cache_index::EXAMPLES)]
    Index(CacheIndex),
    /// Take out of a binary cache what nobody wants any more
    #[command(after_help = cache_prune::EXAMPLES)]
    Prune(CachePrune),
}

#[derive(Args)]
pub(crate) struct CacheCreate {
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) sign: SignWith,
    /// The cache: a directory, or `file://DIRECTORY` with parameters
    #[arg(long, value_name = "CACHE")]
    pub(crate) to: String,
    /// The store to read from, as for `ferry copy`; none with --references-graph
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) from: String,
    /// Take what this file lists, and read it from the files below /nix/store: what
    /// `exportReferencesGraph` or `closureInfo` wrote. No database is asked
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["set", "query_file", "also", "trace", "file", "expr"]
    )]
    pub(crate) references_graph: Vec<PathBuf>,
    /// Write only one part of it, `0/4` to `3/4`, and let other machines write the others: into the same
    /// binary cache, at any time
    #[arg(long, value_name = "INDEX/COUNT")]
    pub(crate) shard: Option<Shard>,
    /// How to compress: `none`, `xz` (the default), `zstd`, `gzip` or `bzip2`
    #[arg(long, value_name = "METHOD")]
    pub(crate) compression: Option<String>,
    /// How hard
    #[arg(long, value_name = "LEVEL")]
    pub(crate) compression_level: Option<u32>,
    /// Write a list of the files in each NAR as well
    #[arg(long)]
    pub(crate) write_nar_listing: bool,
    /// Copy the build logs of the derivations, too, which `nix log` shows
    #[arg(long)]
    pub(crate) with_logs: bool,
    /// Among several caches, Nix asks the one with the least number first
    #[arg(long, value_name = "NUMBER")]
    pub(crate) priority: Option<u32>,
    /// Allow Nix to ask the cache for very many paths at a time
    #[arg(long)]
    pub(crate) want_mass_query: bool,
}
