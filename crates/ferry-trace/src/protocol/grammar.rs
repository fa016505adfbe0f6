//! What messages consist of.

use super::Version;

/// A piece of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A number.
    Number,
    /// A string.
    Text,
    /// One after the other.
    All(&'static [Item]),
    /// A number, and that many times what is inside.
    Repeat(&'static [Item]),
    /// A number, and then what stands at that place.
    Choice(&'static [&'static [Item]]),
    /// What is there only from this minor version on.
    Since(u8, &'static [Item]),
    /// What is there only if realisations are named by paths; else the other.
    ByPath(&'static [Item], &'static [Item]),
    /// Pieces of any size, each behind its number of bytes, until there comes an empty one.
    Frames,
    /// A NAR as it is.
    Nar,
}

impl Item {
    /// What stands for it in this version, if that is something else.
    pub(super) fn expansion(self, version: Version) -> Option<&'static [Self]> {
        match self {
            Self::All(items) => Some(items),
            Self::Since(minor, items) => Some(if version.minor >= minor { items } else { &[] }),
            Self::ByPath(yes, no) => Some(if version.realisations_by_path { yes } else { no }),
            _ => None,
        }
    }
}

use Item::{ByPath, Choice, Number, Repeat, Since, Text};

/// A list of strings, or a set of them.
pub(super) const TEXTS: Item = Repeat(&[Text]);
/// A map of strings.
pub(super) const PAIRS: Item = Repeat(&[Text, Text]);
/// Something that may not be there.
const OPTIONAL_NUMBER: Item = Choice(&[&[], &[Number]]);

/// What a store knows of a path, the path itself left out: deriver, NAR hash, references,
/// registration time, NAR size, whether built here, signatures, content address.
pub(super) const PATH_INFO: &[Item] = &[Text, Text, TEXTS, Number, Number, Number, TEXTS, Text];

/// The outcome of a build: status, message, times built, whether it differed, start, end,
/// processor times, outputs.
pub(super) const BUILD_RESULT: &[Item] = &[
    Number,
    Text,
    Number,
    Number,
    Number,
    Number,
    Since(37, &[OPTIONAL_NUMBER, OPTIONAL_NUMBER]),
    ByPath(&[Repeat(&[Text, Text, TEXTS])], &[PAIRS]),
];

/// A derivation without its inputs' derivations: outputs, sources, system, builder, arguments,
/// environment.
pub(super) const DERIVATION: &[Item] =
    &[Repeat(&[Text, Text, Text, Text]), TEXTS, Text, Text, TEXTS, PAIRS];

/// Fields of a log message: a kind, and a number or a string.
pub(super) const FIELDS: Item = Repeat(&[Choice(&[&[Number], &[Text]])]);
