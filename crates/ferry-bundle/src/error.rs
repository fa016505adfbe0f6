//! What can be wrong with a bundle.

use thiserror::Error;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, BundleError>;

/// A bundle that cannot be read, with the place where that was noticed. Offsets count bytes from
/// the beginning of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be opened, read or written.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not a bundle at all.
    #[error("{bundle} is not a ferry bundle: {reason}")]
    NotABundle {
        /// The file.
        bundle: String,
        /// What stands at its beginning.
        reason: &'static str,
    },
    /// A bundle of a version made after this program.
    #[error("{bundle} has format version {found}; this ferry reads version {known}")]
    UnknownVersion {
        /// The file.
        bundle: String,
        /// Its version.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The file ends too early.
    #[error("{bundle} is truncated: it ends at offset {offset}, in {what}")]
    Truncated {
        /// The file.
        bundle: String,
        /// Where it ends.
        offset: u64,
        /// What was being read.
        what: String,
    },
    /// Something in the file is not as it must be.
    #[error("{bundle} is damaged at offset {offset}: {reason}")]
    Damaged {
        /// The file.
        bundle: String,
        /// Where.
        offset: u64,
        /// What was met.
        reason: String,
    },
    /// No trusted key has signed the bundle.
    #[error(
        "{bundle} is not signed by a key that is required (it is signed by: {})",
        if signed_by.is_empty() { "nobody".to_owned() } else { signed_by.join(", ") }
    )]
    NotSigned {
        /// The file.
        bundle: String,
        /// The keys that did sign it.
        signed_by: Vec<String>,
    },
    /// More than one bundle can hold.
    #[error("one bundle cannot hold {what}; pack it in several")]
    TooMuch {
        /// What there is too much of.
        what: String,
    },
    /// A store gave NARs in another order than the one they were asked for in.
    #[error("cannot write {bundle}: {path} came behind what has to stand behind it")]
    OutOfOrder {
        /// The file.
        bundle: String,
        /// The store path that came too late.
        path: String,
    },
    /// The bundle is packed against content of a store, and none was named.
    #[error("it is packed against {base}, and can be read only together with a store that has it")]
    NoBases {
        /// The path whose content it takes.
        base: String,
    },
    /// Content that the bundle is packed against is not there, or not the same.
    #[error("it is packed against {base}, which cannot be used: {reason}")]
    ContentBase {
        /// The path whose content it takes.
        base: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The derivations of a bundle are coded against others, which only a store has.
    #[error(
        "{bundle} is made for a store that has what it was packed against, and cannot be read \
         without. It has to have\n{}",
        derivations.join("\n")
    )]
    NeedsBase {
        /// The file.
        bundle: String,
        /// What the store has to have, with all derivations that it is made of.
        derivations: Vec<String>,
    },
    /// The derivations that those of a bundle are coded against cannot be had.
    #[error(
        "cannot read what {bundle} was packed against: {source}\nthe store has to have\n{}",
        derivations.join("\n")
    )]
    DerivationBase {
        /// The file.
        bundle: String,
        /// What the store has to have, with all derivations that it is made of.
        derivations: Vec<String>,
        /// What the store says.
        source: Box<ferry_store::Error>,
    },
    /// A bundle in volumes of which too many are missing or damaged.
    #[error(
        "{bundle}: {} of {volumes} volumes are missing or damaged, and parity stands in for {parity}:\n{}",
        missing.len(),
        missing.join("\n")
    )]
    MissingVolumes {
        /// Their name.
        bundle: String,
        /// How many volumes it has, parity included.
        volumes: u32,
        /// How many of them hold parity.
        parity: u32,
        /// Those missing, each with its number and file.
        missing: Vec<String>,
    },
    /// Volumes that cannot be used or made.
    #[error("{bundle}: {reason}")]
    Volumes {
        /// Their name.
        bundle: String,
        /// What is wrong.
        reason: String,
    },
    /// A bundle on a stream can be read once.
    #[error("{bundle} is a stream and has been read already")]
    StreamUsedUp {
        /// The file.
        bundle: String,
    },
}

impl BundleError {
    /// For `map_err`: names what was attempted.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

impl From<BundleError> for ferry_store::Error {
    fn from(error: BundleError) -> Self {
        Self::other(error)
    }
}
