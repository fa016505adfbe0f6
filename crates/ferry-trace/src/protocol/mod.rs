//! The worker protocol, which Nix speaks with its daemon, as seen from between the two.
//!
//! Versions 1.34 (Nix 2.8) to 1.39. Described from Nix's sources: `worker-protocol.hh`,
//! `worker-protocol.cc`, `worker-protocol-connection.cc`, `daemon.cc` and `remote-store.cc` of
//! 2.8, 2.26, 2.34 and 2.35.
//!
//! All of it is made of two things: numbers of 64 bits, little-endian, and strings, which are a
//! number of bytes, the bytes, and zeros up to a multiple of eight. What a message consists of
//! stands in a table ([`operations`]), in a small [`grammar`]; a [`Reader`] follows it as bytes
//! come, and keeps what is small. A [`Conversation`] follows both directions of a connection.

pub mod conversation;
pub mod grammar;
mod lost_track;
mod message;
mod nar;
pub mod operations;
mod passed;
pub mod reader;

pub use conversation::{Conversation, Event, Outcome};
pub use lost_track::LostTrack;
pub use operations::Operation;
pub use reader::{Reader, Value};

/// The protocol that both sides have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The number behind `1.`.
    pub minor: u8,
    /// Whether realisations are named by the paths of derivations, and not by hashes of them.
    pub realisations_by_path: bool,
}

/// The newest version that is understood.
pub const NEWEST: u8 = 39;
/// The oldest one.
pub const OLDEST: u8 = 34;

/// What a client says first.
pub(crate) const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// What a daemon says first.
pub(crate) const DAEMON_MAGIC: u64 = 0x6478_696f;
/// The feature of [`Version::realisations_by_path`].
pub(crate) const BY_PATH: &[u8] = b"realisation-with-path-not-hash";
