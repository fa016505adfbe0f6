//! Options of the command that takes things out of binary caches.

use std::time::Duration;

use clap::Args;
use ferry_store::shard::Shard;

pub(super) const EXAMPLES: &str = "\
Examples:
  What two systems need stays, and so does what was added during the last week:
    ferry cache prune /srv/cache --keep ./system-1 --keep ./system-2 --older-than 7d
  What a list names stays; look first:
    ferry cache prune /srv/cache --keep wanted.txt --dry-run
  Everything older than a month goes, but for what younger things refer to:
    ferry cache prune /srv/cache --older-than 30d";

#[derive(Args)]
pub(crate) struct CachePrune {
    /// The cache: a directory, or its address
    pub(crate) cache: String,
    /// Keep this and everything that it refers to: a store path, any other installable, an inventory,
    /// a file with a list of store paths, or a bundle
    #[arg(long, value_name = "INSTALLABLE|FILE")]
    pub(crate) keep: Vec<String>,
    /// Keep this set of every installable named, as --store knows it: a named set (see `ferry query
    /// --sets`), or any query, in which `x` is what is named
    #[arg(long)]
    pub(crate) set: Option<String>,
    /// The store that knows what installables and sets mean; store paths need none
    #[arg(long, env = "NIX_REMOTE", default_value = "auto", value_name = "STORE")]
    pub(crate) store: String,
    /// Keep what was added to the cache later than so long ago, and everything that it refers to:
    /// 90m, 12h, 30d [default: 1d]
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// For so long after its narinfo a NAR stays, as somebody may have read that and come for the
    /// NAR; a later run removes it
    #[arg(long, value_name = "AGE", default_value = "1d", value_parser = age)]
    pub(crate) grace: Duration,
    /// Wait for the time of grace to pass, and remove those NARs then
    #[arg(long)]
    pub(crate) wait: bool,
    /// Remove nothing, and tell what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look at one part of the NARs only, `0/4` to `3/4`; the first part does all the rest
    #[arg(long, value_name = "INDEX/COUNT")]
    pub(crate) shard: Option<Shard>,
}

/// `90m`, `12h`, `30d`.
fn age(text: &str) -> Result<Duration, String> {
    let said = || format!("`{text}` is no age: it is written 90s, 90m, 12h, 30d or 4w");
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| said())?;
    let seconds = match unit {
        "" if number == 0 => 0,
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return Err(said()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        for (text, seconds) in
            [("0", 0), ("90s", 90), ("2m", 120), ("12h", 43_200), ("1w", 604_800)]
        {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)));
        }
        for text in
            ["", "d", "7", "7 d", "-1d", "1y", "99999999999999999999d", "9999999999999999999d"]
        {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
