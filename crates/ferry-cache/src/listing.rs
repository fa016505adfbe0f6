//! `.ls` files: what is inside a NAR, as JSON. Nix writes them with `write-nar-listing`.
//!
//! The text is Nix's, to the byte: no spaces, the members of an object in order
//! (`nar-listing.cc`, versions from 2.26 on; older ones put the same members in another order).

use std::cell::Cell;
use std::io::{self, BufReader, Read};
use std::rc::Rc;

use ferry_formats::nar::{self, Event};

const BUFFER: usize = 64 << 10;

/// Reads a NAR to its end, and lists it. `None` where a name in it is not UTF-8: JSON has no way
/// to write it.
pub(crate) fn list(nar: impl Read) -> Result<Option<Vec<u8>>, nar::Error> {
    let position = Rc::new(Cell::new(0));
    let mut reader =
        Counting { inner: BufReader::with_capacity(BUFFER, nar), position: Rc::clone(&position) };
    let mut text = Text { bytes: br#"{"root":"#.to_vec(), is_first: true, is_unicode: true };
    nar::decode(&mut reader, |event| {
        match event {
            Event::DirectoryStart { name } => {
                text.begin(name);
                text.push(r#"{"entries":{"#);
                text.is_first = true;
            }
            Event::DirectoryEnd { .. } => {
                text.push(r#"},"type":"directory"}"#);
                text.is_first = false;
            }
            Event::Regular { name, executable, contents } => {
                text.begin(name);
                let executable = if executable { r#""executable":true,"# } else { "" };
                let (offset, size) = (position.get(), contents.size());
                text.push(&format!(
                    r#"{{{executable}"narOffset":{offset},"size":{size},"type":"regular"}}"#
                ));
            }
            Event::Symlink { name, target } => {
                text.begin(name);
                text.push(r#"{"target":"#);
                text.string(target);
                text.push(r#","type":"symlink"}"#);
            }
        }
        Ok(())
    })?;
    text.push(r#","version":1}"#);
    Ok(text.is_unicode.then_some(text.bytes))
}

/// JSON being written.
struct Text {
    bytes: Vec<u8>,
    /// Whether what comes next is the first member of its object.
    is_first: bool,
    is_unicode: bool,
}

impl Text {
    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The name of a member; the root has none.
    fn begin(&mut self, name: Option<&[u8]>) {
        let Some(name) = name else { return };
        if !std::mem::take(&mut self.is_first) {
            self.push(",");
        }
        self.string(name);
        self.push(":");
    }

    fn string(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).ok();
        match text.map(|text| serde_json::to_writer(&mut self.bytes, text)) {
            Some(Ok(())) => {}
            _ => self.is_unicode = false,
        }
    }
}

/// Counts what the decoder has taken.
struct Counting<R> {
    inner: R,
    position: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn listed(path: &std::path::Path) -> (Vec<u8>, Option<serde_json::Value>) {
        let mut nar = Vec::new();
        nar::dump(path, &mut nar).unwrap();
        let listing = list(nar.as_slice()).unwrap();
        (nar, listing.map(|listing| serde_json::from_slice(&listing).unwrap()))
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn every_file_is_where_the_listing_says() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("bin/empty")).unwrap();
        fs::write(top.join("bin/tool"), "contents of the tool").unwrap();
        fs::set_permissions(top.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(top.join("a \"quoted\"\n name"), "").unwrap();
        symlink("bin/tool", top.join("link")).unwrap();
        let (nar, listing) = listed(&top);
        let listing = listing.unwrap();
        let tool = &listing["root"]["entries"]["bin"]["entries"]["tool"];
        let offset = usize::try_from(tool["narOffset"].as_u64().unwrap()).unwrap();
        assert_eq!(&nar[offset..offset + 20], b"contents of the tool");
        assert_eq!((&tool["size"], &tool["executable"]), (&20.into(), &true.into()));
        let entries = &listing["root"]["entries"];
        assert_eq!(entries["a \"quoted\"\n name"]["size"], 0);
        assert_eq!(entries["link"]["target"], "bin/tool");
        assert_eq!(entries["bin"]["entries"]["empty"]["entries"], serde_json::json!({}));
        assert_eq!(listing["version"], 1);

        let (_, listing) = listed(&top.join("link"));
        assert_eq!(listing.unwrap()["root"]["type"], "symlink");

        fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        assert_eq!(listed(&top).1, None);
    }
}
