//! Options of the command that signs what is in a binary cache.

use std::path::PathBuf;

use clap::{Args, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  All that is in a cache:
    ferry cache sign /srv/cache --all --sign-key secret.key
  A key is replaced by another:
    ferry cache sign /srv/cache --all --remove-key harbour-1 --sign-key harbour-2.secret";

#[derive(Args)]
pub(crate) struct CacheSign {
    /// The cache: a directory, `file://…`, `https://…`
    #[arg(value_name = "CACHE")]
    pub(crate) cache: String,
    /// The store paths to sign
    #[arg(value_name = "PATH", required_unless_present = "all")]
    pub(crate) paths: Vec<String>,
    /// Sign all that is in the cache
    #[arg(long, conflicts_with_all = ["paths", "recursive"])]
    pub(crate) all: bool,
    /// Sign all that the paths refer to as well
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// A file with a secret key (made by `nix key generate-secret`)
    #[arg(short = 'k', long, visible_alias = "key-file", value_name = "FILE",
          value_hint = ValueHint::FilePath, required_unless_present = "remove_key")]
    pub(crate) sign_key: Vec<PathBuf>,
    /// Take away what a key of this name has signed
    #[arg(long, value_name = "NAME")]
    pub(crate) remove_key: Vec<String>,
}
