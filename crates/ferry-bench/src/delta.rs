//! An update of one store path, of which the other side has the version before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use ferry_test_world::Machine;
use ferry_test_world::trees::Noise;

/// How many bytes lie between two store paths in a file, about.
const APART: u64 = 16 << 10;
/// How many other store paths are mentioned.
const OTHERS: u64 = 200;
/// Of so many files one is changed in an update.
const CHANGED: u64 = 20;

/// A tree in two versions, with a list of what the other side has.
pub(crate) struct Delta {
    pub(crate) here: Machine,
    pub(crate) new: String,
}

pub(crate) const LIST: &str = "/data/island.txt";
pub(crate) const OUT: &str = "/data/update.ferry";
pub(crate) const NARS: [&str; 2] = ["/data/old.nar", "/data/new.nar"];

impl Delta {
    /// Copies the machine's `/usr`, up to `bytes` bytes of it, with store paths in it: the update has
    /// other hashes everywhere, and one file in 20 has other content.
    pub(crate) fn new(here: Machine, bytes: u64) -> Self {
        let add = |version: u64| {
            let inside = format!("/data/to-add/tree-1.{version}");
            let mut copy = Copy { version, left: bytes, files: 0 };
            copy.tree(&here.path("/usr"), &here.path(&inside))
                .unwrap_or_else(|error| panic!("cannot make {inside}: {error}"));
            let added = here.command("nix-store").args(["--add", &inside]).ok();
            added.trim().to_owned()
        };
        let paths = [add(0), add(1)];
        for (path, nar) in paths.iter().zip(NARS) {
            let script = format!("nix-store --dump {path} > {nar}");
            here.command("bash").args(["-euc", &script]).ok();
        }
        here.write(LIST, format!("{}\n", paths[0]));
        let [_, new] = paths;
        Self { here, new }
    }
}

struct Copy {
    version: u64,
    left: u64,
    files: u64,
}

impl Copy {
    fn tree(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        let mut entries: Vec<_> = fs::read_dir(from)?.collect::<io::Result<_>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&from, &to)?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&from)?;
                symlink(Path::new(&self.store_path(self.files)).join(target), &to)?;
            } else if kind.is_file() && self.left > 0 {
                self.file(&from, &to)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.files += 1;
        let mut from = File::open(from)?;
        let mut to = BufWriter::new(File::create(to)?);
        let mut piece = Vec::new();
        let mut number = self.files;
        while (&mut from).take(APART - number % 4096).read_to_end(&mut piece)? > 0 {
            self.left = self.left.saturating_sub(piece.len() as u64);
            to.write_all(&piece)?;
            to.write_all(self.store_path(number).as_bytes())?;
            if self.files.is_multiple_of(CHANGED) && self.version > 0 {
                Noise::new(number).write(&mut to, number % 24)?;
            }
            piece.clear();
            number += 1;
        }
        to.flush()
    }

    /// One of the paths that others have taken the place of in the update.
    fn store_path(&self, number: u64) -> String {
        let mut bytes = Vec::new();
        let seed = number % OTHERS + OTHERS * self.version;
        // Writing to memory does not fail.
        let _ = Noise::new(seed + 1).write(&mut bytes, 32);
        let alphabet = b"0123456789abcdfghijklmnpqrsvwxyz";
        let hash: String =
            bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % 32])).collect();
        format!("/nix/store/{hash}-other-{}", number % OTHERS)
    }
}
