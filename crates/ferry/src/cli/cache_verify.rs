//! Options of the command that checks binary caches.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use ferry_cache::Percentage;
use ferry_store::shard::Shard;

use super::Trust;

pub(super) const EXAMPLES: &str = "\
Examples:
  Is everything there, and signed?
    ferry cache verify /srv/cache --trusted-public-key harbour-1:…
  Read all of it, and go on there when stopped:
    ferry cache verify /srv/cache --read-data --state /var/lib/ferry/verified
  Another twentieth of it every night:
    ferry cache verify /srv/cache --sample 5%
  What a path needs of a cache on the web:
    ferry cache verify https://cache.example.org /nix/store/…-hello-2.12";

#[derive(Args)]
pub(crate) struct CacheVerify {
    /// The cache: a directory, `file://…`, `https://…`
    #[arg(value_name = "CACHE")]
    pub(crate) cache: String,
    /// Check only these store paths and all that they refer to. A cache that cannot be listed, as
    /// on the web, takes them
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<String>,
    /// Read every NAR too, and check its hashes, its form, its content address and its listing
    #[arg(long, group = "data")]
    pub(crate) read_data: bool,
    /// Read so many of the NARs, at random, such as `5%`
    #[arg(long, value_name = "PERCENT", group = "data")]
    pub(crate) sample: Option<Percentage>,
    /// The number that decides which ones (the run says which it has chosen)
    #[arg(long, value_name = "NUMBER", requires = "sample")]
    pub(crate) seed: Option<u64>,
    /// Note in this file which NARs were read and found right, and do not read them again. A run
    /// that was stopped goes on so
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "data")]
    pub(crate) state: Option<PathBuf>,
    /// Read again what was read so many days ago
    #[arg(long, value_name = "DAYS", requires = "state")]
    pub(crate) again_after: Option<u64>,
    /// Check one part of several: `0/4` to `3/4` are the four parts of four
    #[arg(long, value_name = "PART", default_value = "0/1")]
    pub(crate) shard: Shard,
    /// Do not insist on signatures; those that are there are checked
    #[arg(long)]
    pub(crate) no_check_sigs: bool,
    #[command(flatten)]
    pub(crate) trust: Trust,
}
