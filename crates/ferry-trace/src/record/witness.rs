//! The evaluator's own log, the second witness: which files it evaluated, and what it copied.
//!
//! Nix says so with `-vv`, and says it in JSON with `--log-format internal-json` (`logging.cc`).
//! Its messages of 2.8, 2.26 and 2.34 are known here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

/// How much Nix says by default: `lvlInfo`.
const USUAL_LEVEL: u64 = 3;
/// A download: `actFileTransfer`.
const DOWNLOAD: u64 = 101;
/// A line of a build's log, and one of a post-build hook (`logging.hh`).
const BUILD_LOG_LINES: [u64; 2] = [101, 107];
/// How messages begin that a daemon sends without their level, and not unless asked to say more.
const OF_THE_DAEMON: [&str; 8] = [
    "deleting unused link ",
    "executing builder ",
    "executing pre-build hook ",
    "linking ",
    "loaded ",
    "setting up chroot environment in ",
    "substitution of path ",
    "using builder args ",
];
/// Longer lines are not looked at, in bytes.
const LONGEST_LINE: usize = 1 << 20;

/// Where something was copied from, as the evaluator has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file or directory.
    File(PathBuf),
    /// Something in one of the evaluator's caches.
    Cached(String),
}

/// What the log said.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    /// Files that were evaluated, as far as they are on a disk.
    pub(super) evaluated: BTreeSet<PathBuf>,
    /// What was copied into the store, in that order, where the evaluator says so every time.
    pub(super) copies: Vec<Origin>,
    /// What was copied, and the store path that it got.
    pub(super) copied: Vec<(PathBuf, String)>,
    /// Directories that fetchers copied; versions of Nix that do not say so every time.
    pub(super) directories: Vec<PathBuf>,
    /// Addresses that were downloaded, in that order, each once.
    pub(super) downloads: Vec<String>,
    /// Whether there was anything to be understood.
    pub(super) has_spoken: bool,
}

/// What of the log a person would have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// This text.
    Text(String),
}

/// How much of a log a person wants to see.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// How much more than usual.
    pub more: u64,
    /// What builders say, too.
    pub build_logs: bool,
}

impl Witness {
    /// A log of which nothing was read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a line, without its end, and tells what of it is for people.
    pub fn line(&mut self, line: &[u8], verbosity: Verbosity) -> Shown {
        let Verbosity { more, build_logs } = verbosity;
        let Some(json) = line.strip_prefix(b"@nix ").filter(|json| json.len() <= LONGEST_LINE)
        else {
            return Shown::Text(String::from_utf8_lossy(line).into_owned());
        };
        let Ok(message) = serde_json::from_slice::<Value>(json) else {
            return Shown::Text(String::from_utf8_lossy(line).into_owned());
        };
        self.has_spoken = true;
        let level = message.get("level").and_then(Value::as_u64).unwrap_or_default();
        let kind = message.get("type").and_then(Value::as_u64).unwrap_or_default();
        let is_shown = level <= USUAL_LEVEL + more;
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
        match text("action") {
            "msg" => {
                let plain = without_colours(text("msg"));
                self.message(&plain);
                let is_chatter = OF_THE_DAEMON.iter().any(|start| plain.starts_with(start));
                show(is_shown && (more > 1 || !is_chatter), text("msg"), "")
            }
            "start" => {
                self.activity(&without_colours(text("text")));
                let field = message.get("fields").and_then(|fields| fields.get(0)?.as_str());
                if let Some(url) = field.filter(|_| kind == DOWNLOAD) {
                    self.download(url);
                }
                show(is_shown, text("text"), "...")
            }
            "result" if build_logs || more > 0 => {
                let line = message.get("fields").and_then(|fields| fields.get(0)?.as_str());
                show(BUILD_LOG_LINES.contains(&kind), line.unwrap_or_default(), "")
            }
            _ => Shown::Nothing,
        }
    }

    fn message(&mut self, text: &str) {
        if let Some(file) = between(text, "evaluating file '", "'") {
            if file.starts_with('/') {
                self.evaluated.insert(PathBuf::from(file));
            }
        } else if let Some(rest) = between(text, "copied source '", "'")
            && let Some((from, to)) = rest.split_once("' -> '")
            && from.starts_with('/')
        {
            self.copied.push((PathBuf::from(from), to.to_owned()));
        }
    }

    fn download(&mut self, url: &str) {
        // Binary caches are asked for these.
        let is_of_cache = url.ends_with(".narinfo")
            || url.ends_with("/nix-cache-info")
            || url.contains("/nar/")
            || url.contains("/realisations/");
        if !is_of_cache && !self.downloads.iter().any(|known| known == url) {
            self.downloads.push(url.to_owned());
        }
    }

    fn activity(&mut self, text: &str) {
        if let Some(what) = between(text, "copying ", " to the store") {
            // Quoted in one way, in another, or in both.
            let what = what.trim_matches(['\'', '"']);
            self.copies.push(match what.starts_with('/') {
                true => Origin::File(tidy(what)),
                false => Origin::Cached(what.to_owned()),
            });
        } else if let Some(what) = between(text, "copying '", "'")
            && what.starts_with('/')
        {
            self.directories.push(tidy(what));
        }
    }
}

fn show(is_shown: bool, text: &str, end: &str) -> Shown {
    match is_shown && !text.is_empty() {
        true => Shown::Text(format!("{text}{end}")),
        false => Shown::Nothing,
    }
}

/// A path without a slash at its end.
fn tidy(path: &str) -> PathBuf {
    let short = path.trim_end_matches('/');
    PathBuf::from(if short.is_empty() { "/" } else { short })
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// A text without the escapes that colour it.
#[must_use]
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, coloured)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = coloured.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_json_tells_what_was_read_and_a_person_sees_what_is_usual() {
        let mut witness = Witness::new();
        let mut say = |line: &str| witness.line(line.as_bytes(), Verbosity::default());
        assert_eq!(say("plain"), Shown::Text("plain".to_owned()));
        let evaluating = r#"@nix {"action":"msg","level":4,"msg":"evaluating file '/a b/x.nix'"}"#;
        assert_eq!(say(evaluating), Shown::Nothing);
        say(r#"@nix {"action":"msg","level":4,"msg":"evaluating file '«nix-internal»/x.nix'"}"#);
        say(r#"@nix {"action":"msg","level":5,"msg":"copied source '/s/' -> '/nix/store/x'"}"#);
        say(r#"@nix {"action":"start","level":5,"text":"copying '\"/f\"' to the store"}"#);
        say(r#"@nix {"action":"start","level":5,"text":"copying \"/h\" to the store"}"#);
        say(r#"@nix {"action":"start","level":5,"text":"copying '«git+x»/' to the store"}"#);
        say(r#"@nix {"action":"start","level":4,"text":"copying '/g'"}"#);
        for url in ["https://a/b.tar", "https://a/b.tar", "https://a/b.narinfo"] {
            say(&format!(
                r#"@nix {{"action":"start","level":4,"text":"","type":101,"fields":["{url}"]}}"#
            ));
        }
        let error =
            "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\\u001b[31merror:\\u001b[0m no\"}";
        assert_eq!(say(error), Shown::Text("\u{1b}[31merror:\u{1b}[0m no".to_owned()));
        assert_eq!(witness.evaluated.iter().collect::<Vec<_>>(), [&PathBuf::from("/a b/x.nix")]);
        assert_eq!(
            witness.copies,
            [
                Origin::File("/f".into()),
                Origin::File("/h".into()),
                Origin::Cached("«git+x»/".to_owned())
            ]
        );
        assert_eq!(witness.copied, [(PathBuf::from("/s/"), "/nix/store/x".to_owned())]);
        assert_eq!(witness.downloads, ["https://a/b.tar"]);
        assert_eq!(witness.directories, [PathBuf::from("/g")]);
    }
}
