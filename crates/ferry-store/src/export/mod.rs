//! The stream that `nix-store --export` writes and `nix-store --import` reads.
//!
//! For each store object, references before their referrers: the number 1, its NAR, a magic
//! number, its path, its references, its deriver (or nothing) and the number 0, where old
//! versions of Nix had a signature. A number 0 ends the stream. Numbers and strings are those of
//! the worker protocol (`export-import.cc` in Nix).
//!
//! There is no place in it for signatures, content addresses, hashes or sizes. So a stream is
//! read once from front to back before it can be asked for anything, its NARs hashed on the way.
//! A content address is claimed again where the path follows from one, because then the claim is
//! true whoever makes it; it is proved, like any, when the NAR is read to be copied.

mod entry;
mod reader;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests;
mod writer;

pub use reader::{ExportStream, is_export};
pub use writer::ExportWriter;

/// What stands behind every NAR: `NIXE`, as the bytes of a little-endian number.
const MAGIC: u64 = 0x4558_494e;
/// In front of every object.
const OBJECT: u64 = 1;
/// Behind the last one, and where there is no signature.
const NOTHING: u64 = 0;
