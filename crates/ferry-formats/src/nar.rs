//! The NAR, Nix's archive format.
//!
//! Encoding and decoding are [`nix-archive`](nix_archive)'s, whose streaming decoder caps every
//! length, depth and name, and refuses names that are empty, `.`, `..`, hold a `/` or a NUL, or
//! are out of order. On top of it stand the few shapes of NAR that are built in memory.

use std::io::{self, Read, Write};
use std::path::Path;

pub use nix_archive::nar::{Encoder, Error, Event, FileContents, ReadEvent};

use nix_archive::nar::CaseHack;

use crate::NarHash;
use crate::hash::NarHasher;

/// Longest name that a directory can hold, in bytes (`NAME_MAX`).
const MAX_NAME: usize = 255;
/// Longest target that a link can have, in bytes (`PATH_MAX`, less the NUL at its end).
const MAX_TARGET: usize = 4095;

/// Visits the events of a NAR as it is read. The NAR must be all that is left on the reader.
///
/// # Errors
/// On a malformed archive, on names and link targets that no file system can hold, on what
/// follows the archive, and where the visitor fails.
pub fn decode<R: Read + ?Sized>(
    reader: &mut R,
    mut visitor: impl FnMut(ReadEvent<'_, R>) -> Result<(), Error>,
) -> Result<(), Error> {
    nix_archive::nar::decode_events_reader(reader, |event| {
        check_event(&event)?;
        visitor(event)
    })
}

fn check_event<C>(event: &Event<'_, C>) -> Result<(), Error> {
    let (Event::DirectoryStart { name }
    | Event::DirectoryEnd { name }
    | Event::Regular { name, .. }
    | Event::Symlink { name, .. }) = event;
    let invalid = |what: &str, bytes: &[u8]| {
        let shown = bytes.get(..64).unwrap_or(bytes);
        Err(Error::InvalidName(format!("{what} {}", shown.escape_ascii())))
    };
    match (name, event) {
        (Some(name), _) if name.len() > MAX_NAME => invalid("too long:", name),
        (_, Event::Symlink { target, .. }) if target.is_empty() || target.contains(&0) => {
            invalid("link target", target)
        }
        (_, Event::Symlink { target, .. }) if target.len() > MAX_TARGET => {
            invalid("link target too long:", target)
        }
        _ => Ok(()),
    }
}

/// Writes the NAR of a file tree. Names and contents go out as they are on disk; of the mode
/// only whether the owner may execute counts.
///
/// # Errors
/// When the tree cannot be read, changes meanwhile, or holds something that a NAR cannot.
pub fn dump(path: &Path, writer: &mut impl Write) -> Result<(), Error> {
    nix_archive::nar::encode_path(writer, path, CaseHack::Disabled)
}

/// Hash and size of the NAR of a file tree, which may have `longest` bytes.
///
/// # Errors
/// As [`dump`], and when it is longer.
pub fn hash(path: &Path, longest: u64) -> Result<(NarHash, u64), Error> {
    let mut hashing = Hashing { hasher: NarHasher::default(), longest };
    dump(path, &mut hashing)?;
    let size = hashing.hasher.size();
    Ok((hashing.hasher.finish(), size))
}

struct Hashing {
    hasher: NarHasher,
    longest: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        if self.hasher.size() > self.longest {
            return Err(io::Error::other(format!("its NAR is longer than {} bytes", self.longest)));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

/// The hash of [`of_file`], without writing it.
#[must_use]
pub fn hash_of_file(contents: &[u8]) -> NarHash {
    NarHash(nix_archive::nar::hash_regular(contents, false).sha256)
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
