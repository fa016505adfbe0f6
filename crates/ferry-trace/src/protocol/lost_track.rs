//! Why a connection is no longer understood.

use thiserror::Error;

use super::reader::Malformed;

/// No list of features is longer, in bytes.
pub(super) const LONGEST_GREETING: usize = 64 << 10;
/// Nix asks for one thing after the other.
pub(super) const MOST_UNANSWERED: usize = 1000;

/// Why a connection is no longer understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LostTrack {
    /// The client does not greet as Nix does.
    #[error("the client does not speak Nix's worker protocol")]
    Client,
    /// The daemon does not greet as Nix does.
    #[error("the daemon does not speak Nix's worker protocol")]
    Daemon,
    /// A version too old, or of another kind.
    #[error("version {}.{} of the protocol is not understood", .0 >> 8, .0 & 0xff)]
    Version(u64),
    /// An operation that is not known.
    #[error("operation {0} is not known")]
    Operation(u64),
    /// A message of the daemon of a kind that is not known.
    #[error("the daemon sent a message of an unknown kind, {0:#x}")]
    Message(u64),
    /// Features without an end, which are kept until they are whole.
    #[error("the greeting is longer than {LONGEST_GREETING} bytes")]
    Greeting,
    /// Requests that are kept until they are answered.
    #[error("more than {MOST_UNANSWERED} requests are not answered")]
    Unanswered,
    /// The daemon says something, and was asked nothing.
    #[error("the daemon answered what it was not asked")]
    Unasked,
    /// Something in a message.
    #[error("{side}, {what}: {source}")]
    Malformed {
        /// Whose message it is.
        side: &'static str,
        /// What is being said.
        what: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
}
