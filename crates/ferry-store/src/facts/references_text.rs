//! The text forms of a references graph: `makeValidityRegistration` in Nix's `store-api.cc`.

use ferry_formats::{NarHash, StoreDir, StorePath};

use super::references_graph::{ReferencesGraphEntry, ReferencesGraphError};
use crate::message::beginning;

/// No store path, hash or number is longer.
const MAX_LINE: usize = 8 << 10;

/// The lines of a file, each with the newline that it has to end with: a file that was cut short
/// may end within a path, and what is left of one can be a path as well.
struct Lines<'a> {
    file: &'a str,
    rest: &'a [u8],
    /// The number of the line that was read last.
    number: usize,
}

impl<'a> Lines<'a> {
    fn error(&self, reason: impl Into<String>) -> ReferencesGraphError {
        ReferencesGraphError::Line {
            file: self.file.to_owned(),
            line: self.number,
            reason: reason.into(),
        }
    }

    /// The next line, which should be `what`.
    fn next(&mut self, what: &str) -> Result<&'a [u8], ReferencesGraphError> {
        self.number += 1;
        let end = self.rest.iter().take(MAX_LINE + 1).position(|byte| *byte == b'\n');
        let Some((line, rest)) = end.and_then(|end| self.rest.split_at_checked(end)) else {
            let short = self.rest.len() <= MAX_LINE;
            return Err(self.error(if short {
                format!("the file ends where {what} should be")
            } else {
                format!("{what} should be here, and not {}", beginning(self.rest))
            }));
        };
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(line)
    }

    fn text(&mut self, what: &str) -> Result<&'a str, ReferencesGraphError> {
        let line = self.next(what)?;
        std::str::from_utf8(line).map_err(|_| self.unexpected(line, what))
    }

    fn unexpected(&self, line: &[u8], what: &str) -> ReferencesGraphError {
        self.error(format!("{what} should be here, and not {}", beginning(line)))
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, ReferencesGraphError> {
        let line = self.text(what)?;
        line.parse().map_err(|_| self.unexpected(line.as_bytes(), what))
    }

    fn path(
        &mut self,
        store_dir: &StoreDir,
        what: &str,
    ) -> Result<StorePath, ReferencesGraphError> {
        let line = self.next(what)?;
        store_dir.parse_path(line).map_err(|source| {
            self.error(format!("{what} should be here, and not {}: {source}", beginning(line)))
        })
    }
}

/// Reads both text forms: whether there are hashes shows in the second line.
pub(super) fn parse(
    file: &str,
    bytes: &[u8],
    store_dir: &StoreDir,
) -> Result<Vec<ReferencesGraphEntry>, ReferencesGraphError> {
    let mut lines = Lines { file, rest: bytes, number: 0 };
    let second = bytes.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
    let with_hashes = !second.is_empty() && !second.starts_with(b"/");
    let mut entries = Vec::new();
    while !lines.rest.is_empty() {
        let path = lines.path(store_dir, "a store path")?;
        let (mut nar_hash, mut nar_size) = (None, None);
        if with_hashes {
            let hash = lines.text("a NAR hash")?;
            let parsed = NarHash::parse(hash);
            nar_hash = Some(parsed.map_err(|_| lines.unexpected(hash.as_bytes(), "a NAR hash"))?);
            nar_size = Some(lines.number("a NAR size")?);
        }
        let deriver = if lines.rest.starts_with(b"\n") {
            lines.next("an empty line")?;
            None
        } else {
            Some(lines.path(store_dir, "a deriver or an empty line")?)
        };
        let count: usize = lines.number("a number of references")?;
        let mut references = Vec::new();
        for _ in 0..count {
            references.push(lines.path(store_dir, "a reference")?);
        }
        entries.push(ReferencesGraphEntry {
            path,
            references,
            nar_hash,
            nar_size,
            deriver,
            content_addressed: None,
            ca: None,
        });
    }
    Ok(entries)
}
