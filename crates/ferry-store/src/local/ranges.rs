//! The NARs of a store at any position, out of its files.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_formats::StorePath;

use super::layout::Layout;
use crate::{Error, NarRanges, Result};

/// How many objects are remembered: whoever reads one comes back to it.
const REMEMBERED: usize = 64;
/// Directories in directories that are followed, as in a NAR that is read.
const DEEPEST: usize = 64;

/// Reads NARs of a store on disk at any position, without making them.
pub struct LocalNarRanges {
    layout: Layout,
    /// Which parts the NARs read last are made of; the last one comes first.
    known: Mutex<Vec<(StorePath, Arc<Parts>)>>,
}

impl LocalNarRanges {
    /// Of the store with this layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, known: Mutex::default() }
    }

    fn parts(&self, path: &StorePath) -> io::Result<Arc<Parts>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.iter().position(|(of, _)| of == path);
        let found = match place {
            Some(place) => known.remove(place),
            None => (path.clone(), Arc::new(Parts::of(&self.layout.real_path(path))?)),
        };
        let parts = Arc::clone(&found.1);
        known.insert(0, found);
        known.truncate(REMEMBERED);
        Ok(parts)
    }
}

impl NarRanges for LocalNarRanges {
    fn describe(&self) -> String {
        self.layout.describe()
    }

    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let read = self.parts(path).and_then(|parts| parts.read(offset, buffer));
        read.map_err(Error::io(format!(
            "read {} at {}",
            self.layout.store_dir.render_path(path),
            self.layout.real_path(path).display()
        )))
    }
}

/// What a NAR is made of, in order.
#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    size: u64,
}

struct Part {
    /// Where it begins in the NAR.
    start: u64,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

impl Parts {
    fn of(path: &Path) -> io::Result<Self> {
        let mut parts = Self::default();
        parts.string(b"nix-archive-1");
        parts.node(path, 0)?;
        Ok(parts)
    }

    /// A length, the bytes, and zeros up to a multiple of eight.
    fn string(&mut self, bytes: &[u8]) {
        let mut written = (bytes.len() as u64).to_le_bytes().to_vec();
        written.extend_from_slice(bytes);
        self.bytes(&written);
        self.pad(bytes.len() as u64);
    }

    fn pad(&mut self, length: u64) {
        let missing = usize::try_from(length.wrapping_neg() % 8).unwrap_or_default();
        self.bytes([0; 8].get(..missing).unwrap_or_default());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        match self.parts.last_mut() {
            Some(Part { content: Content::Bytes(last), .. }) => last.extend_from_slice(bytes),
            _ => {
                let content = Content::Bytes(bytes.to_vec());
                self.parts.push(Part { start: self.size, content });
            }
        }
        self.size += bytes.len() as u64;
    }

    fn strings(&mut self, strings: &[&[u8]]) {
        strings.iter().for_each(|bytes| self.string(bytes));
    }

    fn node(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let metadata = path.symlink_metadata()?;
        let kind = metadata.file_type();
        self.strings(&[b"(", b"type"]);
        if kind.is_symlink() {
            let target = std::fs::read_link(path)?;
            self.strings(&[b"symlink", b"target", target.as_os_str().as_bytes()]);
        } else if kind.is_dir() && depth < DEEPEST {
            self.string(b"directory");
            let entries = std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().into_vec()));
            let mut names: Vec<Vec<u8>> = entries.collect::<io::Result<_>>()?;
            names.sort_unstable();
            for name in names {
                self.strings(&[b"entry", b"(", b"name", &name, b"node"]);
                self.node(&path.join(OsString::from_vec(name)), depth + 1)?;
                self.string(b")");
            }
        } else if kind.is_file() {
            self.string(b"regular");
            if metadata.permissions().mode() & 0o100 != 0 {
                self.strings(&[b"executable", b""]);
            }
            self.string(b"contents");
            self.bytes(&metadata.len().to_le_bytes());
            self.parts.push(Part { start: self.size, content: Content::File(path.to_owned()) });
            self.size += metadata.len();
            self.pad(metadata.len());
        } else {
            return Err(io::Error::other(format!("no NAR can hold {}", path.display())));
        }
        self.string(b")");
        Ok(())
    }

    fn read(&self, offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        if offset > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut position = offset;
        let first = self.parts.partition_point(|part| part.start <= offset).saturating_sub(1);
        let ends = self.parts.iter().skip(1).map(|part| part.start).chain([self.size]);
        for (part, end) in self.parts.iter().zip(ends).skip(first) {
            if buffer.is_empty() {
                return Ok(());
            }
            let within = position - part.start;
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let (now, rest) = buffer.split_at_mut(buffer.len().min(left));
            match &part.content {
                Content::File(path) => File::open(path)?.read_exact_at(now, within)?,
                Content::Bytes(bytes) => {
                    let start = usize::try_from(within).unwrap_or(usize::MAX);
                    let bytes = bytes.get(start..).and_then(|bytes| bytes.get(..now.len()));
                    now.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
                }
            }
            position += now.len() as u64;
            buffer = rest;
        }
        if buffer.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

#[cfg(test)]
// Tests make temporary directories where the environment says.
#[allow(clippy::disallowed_methods, clippy::unwrap_used)]
mod tests {
    use super::*;
    use ferry_formats::nar;

    #[test]
    fn every_range_is_that_of_the_nar() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("empty")).unwrap();
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/nothing"), "").unwrap();
        std::fs::write(tree.join("a/eight"), "12345678").unwrap();
        std::fs::write(tree.join("a.b"), "stands before `a/` in another order").unwrap();
        std::os::unix::fs::symlink("eight", tree.join("a/link")).unwrap();
        let run = tree.join("run");
        std::fs::write(&run, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755)).unwrap();
        for path in [tree.clone(), run, tree.join("a/link"), tree.join("empty")] {
            let mut whole = Vec::new();
            nar::dump(&path, &mut whole).unwrap();
            let parts = Parts::of(&path).unwrap();
            assert_eq!(parts.size, whole.len() as u64);
            for start in 0..whole.len() {
                for end in [start, start + 1, start + 9, start + 200, whole.len()] {
                    let Some(expected) = whole.get(start..end) else { continue };
                    let mut found = vec![0xff; expected.len()];
                    parts.read(start as u64, &mut found).unwrap();
                    assert_eq!(found, expected, "{start}..{end}");
                }
            }
            assert!(parts.read(whole.len() as u64, &mut [0]).is_err());
            assert!(parts.read(whole.len() as u64 + 9, &mut [0]).is_err());
        }
    }
}
