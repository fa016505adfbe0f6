//! The NAR, Nix's archive format.
//!
//! Encoding and decoding are [`nix-archive`](nix_archive)'s, whose streaming decoder caps every
//! length, depth and name, and refuses names that are empty, `.`, `..`, hold a `/` or a NUL, or
//! are out of order. On top of it stand the few shapes of NAR that are built in memory.

use std::io::{Read, Write};
use std::path::Path;

pub use nix_archive::nar::{Encoder, Error, Event, FileContents, ReadEvent};

use nix_archive::nar::CaseHack;

/// Visits the events of a NAR as it is read. The NAR must be all that is left on the reader.
///
/// # Errors
/// On a malformed archive, on what follows one, and where the visitor fails.
pub fn decode<R: Read + ?Sized>(
    reader: &mut R,
    visitor: impl FnMut(ReadEvent<'_, R>) -> Result<(), Error>,
) -> Result<(), Error> {
    nix_archive::nar::decode_events_reader(reader, visitor)
}

/// Writes the NAR of a file tree. Names and contents go out as they are on disk; of the mode
/// only whether the owner may execute counts.
///
/// # Errors
/// When the tree cannot be read, changes meanwhile, or holds something that a NAR cannot.
pub fn dump(path: &Path, writer: &mut impl Write) -> Result<(), Error> {
    nix_archive::nar::encode_path(writer, path, CaseHack::Disabled)
}

/// The NAR of one plain file: that of every `.drv`.
#[must_use]
pub fn of_file(contents: &[u8]) -> Vec<u8> {
    let mut nar = Vec::with_capacity(contents.len() + 128);
    // Writing to memory fails for no reason of its own.
    let written = nix_archive::nar::encode_regular(&mut nar, contents, false);
    debug_assert!(written.is_ok());
    nar
}

/// The contents of the one plain file that a NAR in memory holds, or `None` where it holds
/// something else or is malformed.
#[must_use]
pub fn file_contents(nar: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    nix_archive::nar::decode_events(nar, |event| {
        if let Event::Regular { name: None, contents, .. } = event {
            found = Some(contents);
        }
        Ok(())
    })
    .ok()?;
    found
}
