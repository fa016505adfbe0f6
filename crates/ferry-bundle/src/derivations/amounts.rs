//! How much a section of coded derivations may hold.

use crate::derivations::base::Base;
use crate::format;
use crate::format::limit;

/// What takes more room in memory, or more time, than in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// What the base holds.
    pub(crate) fn of_base(base: &Base) -> Self {
        Self {
            derivations: base.recipes.len() as u64,
            references: base.references,
            signatures: 0,
            text: base.text,
        }
    }

    /// How many bytes of NAR a section of so many bytes may hold with this base.
    pub(crate) fn most_text(section: u64, base: Self) -> u64 {
        let most = section.saturating_mul(limit::TEXT_RATIO).saturating_add(limit::TEXT_SLACK);
        most.saturating_add(base.text.saturating_mul(2))
    }

    /// What a section of so many bytes should not hold with this base, if anything.
    pub(crate) fn excess(self, section: u64, base: Self) -> Option<String> {
        let most = |ratio: u64, slack: u64| section.saturating_mul(ratio).saturating_add(slack);
        let derivations = section / 4 + limit::DERIVATIONS_SLACK + base.derivations;
        let references = most(8, limit::REFERENCES_SLACK) + 2 * base.references;
        let text = Self::most_text(section, base);
        [
            (self.derivations, derivations, "derivations"),
            (self.references, references, "references"),
            (self.signatures, section / 32 + 1024, "signatures of derivations"),
            (self.text, text, "bytes of derivations"),
        ]
        .into_iter()
        .find(|(found, most, _)| found > most)
        .map(|(_, most, what)| format!("more than {most} {what}"))
    }
}
