//! Options of the commands that make one thing out of another.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::SignWith;
use super::pack::Level;

pub(super) const EXAMPLES: &str = "\
Examples:
  For a machine that has Nix and no ferry:
    ferry convert hello.ferry -o hello.export
    nix-store --import <hello.export      # there
  From a machine that has Nix and no ferry:
    nix-store --export $(nix-store --query --requisites x.drv) | ferry convert - -o x.ferry
  The derivations in a bundle, as files:
    ferry convert hello.ferry -o drvs/
  For an unmodified Nix to substitute from:
    ferry convert hello.ferry --to cache -o /srv/cache";

/// What there is to convert from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A bundle
    Bundle,
    /// The stream of `nix-store --export`
    Export,
    /// A directory with `.drv` files
    Drvs,
    /// A binary cache: a directory, or its address
    Cache,
}

impl Format {
    /// What to call one in a message.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Bundle => "a bundle",
            Self::Export => "an export stream",
            Self::Drvs => "a directory of derivations",
            Self::Cache => "a binary cache",
        }
    }
}

#[derive(Args)]
pub(crate) struct Convert {
    /// What to convert: a file, a directory, the address of a binary cache; `-` is standard input
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) from: PathBuf,
    /// Where to put it: a file, a directory, the address of a binary cache (with its parameters, as
    /// for `ferry copy`); `-` is standard output
    #[arg(short, long, value_name = "TO", value_hint = ValueHint::AnyPath)]
    pub(crate) output: PathBuf,
    /// What it is (default: told from its contents)
    #[arg(long = "from", value_name = "FORMAT")]
    pub(crate) from_format: Option<Format>,
    /// What it is to become (default: told from the name: `.ferry` is a bundle, `.export` and
    /// `.closure` are export streams, `file://…` and what has a `nix-cache-info` are binary caches,
    /// and any other directory, or a name with a `/` at its end, is one of derivations)
    #[arg(long = "to", value_name = "FORMAT")]
    pub(crate) to_format: Option<Format>,
    /// What the bundle says was packed, in place of what nothing else in it refers to
    #[arg(long, value_name = "STORE-PATH")]
    pub(crate) root: Vec<String>,
    /// What the bundle says its set is, where what is converted does not say (default:
    /// `recipe` for derivations, `runtime` where there are none)
    #[arg(long, value_name = "SET")]
    pub(crate) set: Option<String>,
    #[command(flatten)]
    pub(crate) sign: SignWith,
    /// How much time to spend on making a bundle small
    #[arg(long, default_value = "default")]
    pub(crate) level: Level,
}
