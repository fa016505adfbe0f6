//! Options of the command that asks caches for what something needs.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use ferry_store::shard::Shard;

use super::{Trust, What};

pub(super) const EXAMPLES: &str = "\
Examples:
  Whether a system can be had from a cache, and else what is to be built and fetched for it:
    ferry missing /run/current-system --in https://cache.nixos.org
  Before the ship leaves: what the disk lacks, and onto it what another cache has of that:
    ferry missing ./system.drv --in file:///mnt/disk --in https://cache.nixos.org \\
      --fetch-into file:///mnt/disk
  Whether every source is there for building it without a network:
    ferry missing ./x.drv --set sources --in file:///mnt/disk";

#[derive(Args)]
#[command(mut_arg("set", |set| set.default_value("outputs(x) + (x - drvs(x))")))]
pub(crate) struct Missing {
    #[command(flatten)]
    pub(crate) what: What,
    /// A cache to ask: `https://…`, `file://…`, a directory with one, or any other store or bundle.
    /// Several are asked in this order: the first that has a path counts
    #[arg(long = "in", value_name = "CACHE", required = true)]
    pub(crate) caches: Vec<String>,
    /// A store to read derivations from: one as for `ferry query`. What it has besides counts for
    /// nothing
    #[arg(long, env = "NIX_REMOTE", value_name = "STORE")]
    pub(crate) store: Vec<String>,
    /// List what is there as well
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Copy what is there into this store, cache or bundle
    #[arg(long, value_name = "STORE")]
    pub(crate) fetch_into: Option<String>,
    /// Add what the first cache lacks to this list of store paths, such as the `store-paths.xz` of
    /// a channel; compressed as its name says (`.xz`, `.zst`, `.gz`, `.bz2`)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) add_to: Option<PathBuf>,
    /// Ask for one part of the set only, `0/4` to `3/4`, and let other machines ask for the others
    #[arg(long, value_name = "INDEX/COUNT", conflicts_with = "fetch_into")]
    pub(crate) shard: Option<Shard>,
    /// Count what nobody has signed, too
    #[arg(long)]
    pub(crate) no_check_sigs: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}
