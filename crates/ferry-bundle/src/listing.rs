//! What is inside a NAR, without unpacking it.

use std::io::{BufReader, Read};

use ferry_formats::nar::{self, Event};

/// A file, directory or link in a NAR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place below the store path, without a leading `/`; empty for the object itself. Bytes,
    /// because file names are.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file of so many bytes.
    Regular {
        /// Its size in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
}

/// Shows each entry of a NAR to `visit`, directories before what is in them.
///
/// # Errors
/// When it is malformed or cannot be read.
pub fn list_nar(nar: &mut dyn Read, visit: &mut dyn FnMut(Entry)) -> Result<(), nar::Error> {
    let mut nar = BufReader::with_capacity(64 << 10, nar);
    let mut directory: Vec<Vec<u8>> = Vec::new();
    nar::decode(&mut nar, |event| {
        let place = |directory: &[Vec<u8>], name: Option<&[u8]>| match (directory.last(), name) {
            (Some(parent), Some(name)) if !parent.is_empty() => [parent, &b"/"[..], name].concat(),
            (_, name) => name.unwrap_or_default().to_vec(),
        };
        match event {
            Event::DirectoryStart { name } => {
                let path = place(&directory, name);
                visit(Entry { path: path.clone(), kind: EntryKind::Directory });
                directory.push(path);
            }
            Event::DirectoryEnd { .. } => drop(directory.pop()),
            Event::Regular { name, executable, contents } => visit(Entry {
                path: place(&directory, name),
                kind: EntryKind::Regular { size: contents.size(), executable },
            }),
            Event::Symlink { name, target } => visit(Entry {
                path: place(&directory, name),
                kind: EntryKind::Symlink { target: target.to_vec() },
            }),
        }
        Ok(())
    })
}
