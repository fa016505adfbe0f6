//! Lists of store paths, a line each, as channels have them: `store-paths.xz`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use ferry_formats::{StoreDir, StorePath};
use ferry_store::inventory::Inventory;
use ferry_store::{Error, Result};

use crate::compression::{Compression, CompressionSetting};

/// No list is longer, in bytes: that would be three million paths.
const LONGEST_LIST: u64 = 256 << 20;

/// A list that paths are added to. What is in it stays as it is.
pub struct PathList {
    store_dir: StoreDir,
    text: Vec<u8>,
    paths: HashSet<StorePath>,
    compression: CompressionSetting,
}

impl PathList {
    /// Reads the list in a file, of paths below `store_dir`; an empty one if there is no such
    /// file. How it is compressed follows from how its name ends: `.xz`, `.zst`, `.gz`, `.bz2`,
    /// and else not at all.
    ///
    /// # Errors
    /// When it cannot be read, is too long, or a line is not a store path.
    pub fn read(file: &Path, store_dir: &StoreDir) -> Result<Self> {
        let name = file.display().to_string();
        let failed = || Error::io(format!("read {name}"));
        let mut text = match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed()(error)),
            Ok(open) => Self::text(&name, open)?,
        };
        let listed = Inventory::read(&name, text.as_slice(), store_dir)?;
        let Some(paths) = listed.paths().cloned() else {
            return Err(failed()(io::Error::other("it is an inventory, and no list of paths")));
        };
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let compression = CompressionSetting::new(Compression::of_file(&name), None)
            .map_err(|reason| failed()(io::Error::other(reason)))?;
        Ok(Self { store_dir: store_dir.clone(), text, paths, compression })
    }

    /// All of what a list is that is called `name`, decompressed as [`read`](Self::read) has it.
    ///
    /// # Errors
    /// When it cannot be read, or is too long.
    pub fn text(name: &str, file: impl Read) -> Result<Vec<u8>> {
        let failed = || Error::io(format!("read {name}"));
        let method = Compression::of_file(name);
        let decoder = method.decoder(BufReader::new(file)).map_err(failed())?;
        let mut text = Vec::new();
        decoder.take(LONGEST_LIST + 1).read_to_end(&mut text).map_err(failed())?;
        if text.len() as u64 > LONGEST_LIST {
            let reason = format!("a list of more than {LONGEST_LIST} bytes is not read");
            return Err(failed()(io::Error::other(reason)));
        }
        Ok(text)
    }

    /// Adds a path behind the others, and tells whether it is new.
    pub fn add(&mut self, path: &StorePath) -> bool {
        let is_new = self.paths.insert(path.clone());
        if is_new {
            self.text.extend_from_slice(self.store_dir.render_path(path).as_bytes());
            self.text.push(b'\n');
        }
        is_new
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When `file` cannot be written.
    pub fn write(&self, file: impl Write) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut encoder = self.compression.encoder(file, self.text.len() as u64, 1)?;
            encoder.write_all(&self.text)?;
            encoder.finish()?.flush()
        };
        write().map_err(Error::io("write a list of store paths"))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::from_parts([7; 20], name).unwrap()
    }

    #[test]
    fn what_is_in_a_list_stays_and_what_is_new_comes_behind_it_however_it_is_compressed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["store-paths.xz", "x.zst", "x.gz", "x.bz2", "x"] {
            let file = directory.path().join(name);
            for (added, expected) in
                [(vec!["b", "a"], "b a"), (vec!["a", "c"], "b a c"), (vec![], "b a c")]
            {
                let mut list = PathList::read(&file, &StoreDir::default()).unwrap();
                for name in added {
                    let is_new = !list.text.ends_with(b"-a\n") || name != "a";
                    assert_eq!(list.add(&path(name)), is_new);
                }
                let mut written = Vec::new();
                list.write(&mut written).unwrap();
                std::fs::write(&file, written).unwrap();
                let list = PathList::read(&file, &StoreDir::default()).unwrap();
                let text = String::from_utf8(list.text).unwrap();
                let names = text.lines().map(|line| line.rsplit_once('-').unwrap().1);
                assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_file_that_is_no_list_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["store-paths.xz", "paths"] {
            let file = directory.path().join(name);
            std::fs::write(&file, "something else\n").unwrap();
            let error = PathList::read(&file, &StoreDir::default()).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
