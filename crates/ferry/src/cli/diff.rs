//! Options of the command that compares.

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  What is new in this month's bundle:
    ferry diff march.ferry april.ferry
  What was changed in the derivations, and not only below them:
    ferry diff --derivations march.ferry april.ferry
  What an update of a system brings:
    ferry diff /nix/var/nix/profiles/system-41-link /run/current-system";

#[derive(Args)]
pub(crate) struct Diff {
    /// A bundle or an export stream, or an installable, which stands for all that it refers to
    pub(crate) before: String,
    /// What to compare it with
    pub(crate) after: String,
    /// List the paths that only one of them has
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Tell what differs in the derivations, apart from hashes
    #[arg(short, long)]
    pub(crate) derivations: bool,
    /// The store that installables are in
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
}
