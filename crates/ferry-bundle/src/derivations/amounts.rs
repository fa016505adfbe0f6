//! How much a section of coded derivations may hold.

use crate::format;
use crate::format::limit;

/// What takes more room in memory, or more time, than in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amounts {
    derivations: u64,
    references: u64,
    signatures: u64,
    /// Bytes of NAR.
    text: u64,
}

impl Amounts {
    /// So many paths with their references and signatures, and so many bytes of NAR.
    pub(crate) fn new(paths: format::Amounts, text: u64) -> Self {
        let format::Amounts { entries, references, signatures } = paths;
        Self { derivations: entries, references, signatures, text }
    }

    /// What a section of so many bytes should not hold, if anything.
    pub(crate) fn excess(self, section: u64) -> Option<String> {
        let most = |ratio: u64, slack: u64| section.saturating_mul(ratio).saturating_add(slack);
        [
            (self.derivations, section / 4 + limit::DERIVATIONS_SLACK, "derivations"),
            (self.references, most(8, limit::REFERENCES_SLACK), "references"),
            (self.signatures, section / 32 + 1024, "signatures of derivations"),
            (self.text, most(limit::TEXT_RATIO, limit::TEXT_SLACK), "bytes of derivations"),
        ]
        .into_iter()
        .find(|(found, most, _)| found > most)
        .map(|(_, most, what)| format!("more than {most} {what}"))
    }
}
