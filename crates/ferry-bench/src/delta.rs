//! An update of one store path, of which the other side has the version before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ferry_test_world::Machine;
use ferry_test_world::trees::Noise;

use crate::freight::{remove, shell, size_of};
use crate::measure::{Case, Section, section};
use crate::report::size;

/// How many bytes lie between two store paths in a file, about.
const APART: u64 = 16 << 10;
/// How many other store paths are mentioned.
const OTHERS: u64 = 200;
/// Of so many files one is changed in an update.
const CHANGED: u64 = 20;

/// A tree in two versions, with a list of what the other side has.
pub(crate) struct Delta {
    here: Machine,
    /// What is different in the new version.
    what: &'static str,
    new: String,
}

/// What the other side has.
pub(crate) const LIST: &str = "/data/island.txt";
const OUT: &str = "/data/update.ferry";
const PATCH: &str = "/data/patch.zst";
const NARS: [&str; 2] = ["/data/old.nar", "/data/new.nar"];

impl Delta {
    /// Copies the `/usr` of a system, up to `bytes` bytes of it, with store paths in it: the update
    /// has other hashes everywhere, and one file in 20 has other content.
    pub(crate) fn of_hashes(here: Machine, root: &Path, bytes: u64) -> Self {
        let from = root.join("usr");
        let trees = [0, 1].map(|version| (from.clone(), Copy { bytes, ..Copy::of(version) }));
        Self::new(here, "all hashes and one file in 20 changed", trees)
    }

    /// `/usr` of two releases of Debian, up to `bytes` bytes of each.
    pub(crate) fn of_systems(here: Machine, roots: [PathBuf; 2], bytes: u64) -> Self {
        let mut version = 0..;
        let trees = roots.map(|root| {
            let copy = Copy { bytes, plain: true, ..Copy::of(version.next().unwrap_or(0)) };
            (root.join("usr"), copy)
        });
        Self::new(here, "`/usr` of Debian 12 to 13", trees)
    }

    fn new(here: Machine, what: &'static str, trees: [(PathBuf, Copy); 2]) -> Self {
        eprintln!("ferry-bench: making an update: {what}");
        let paths = trees.map(|(from, mut copy)| {
            let inside = format!("/data/to-add/tree-1.{}", copy.version);
            copy.tree(&from, &here.path(&inside))
                .unwrap_or_else(|error| panic!("cannot make {inside}: {error}"));
            here.command("nix-store").args(["--add", &inside]).ok()
        });
        remove(&here.path("/data/to-add"));
        for (path, nar) in paths.iter().zip(NARS) {
            let script = format!("nix-store --dump {path} > {nar}");
            here.command("bash").args(["-euc", &script]).ok();
        }
        here.write(LIST, format!("{}\n", paths[0]));
        let [_, new] = paths;
        Self { here, what, new }
    }

    /// Packs the update, by each way.
    pub(crate) fn section(&self, runs: u32) -> Section {
        let machine = &self.here;
        let [old, new] = NARS.map(|nar| size(size_of(&machine.path(nar))));
        let title = format!("An update: {new} of NAR on {old}, {}", self.what);
        let cases = vec![
            pack(machine, "runtime", "fast", &self.new),
            pack(machine, "runtime", "default", &self.new),
            pack(machine, "runtime", "max", &self.new),
            patch(machine, "-3 --long=31", NARS),
            patch(machine, "-9 --long=31", NARS),
        ];
        section(title, "bytes", runs, cases)
    }
}

/// `ferry pack` of what is new, against what stands in the list.
pub(crate) fn pack<'a>(
    machine: &'a Machine,
    set: &'static str,
    level: &'static str,
    new: &'a str,
) -> Case<'a> {
    let pack = ["pack", "--quiet", "--set", set, "--level", level, "--base", LIST, "-o", OUT, new];
    Case::ferry(&format!("ferry pack --base --level {level}"), move || {
        machine.command("ferry").args(pack).measure()
    })
    .bytes(|| size_of(&machine.path(OUT)))
}

/// What zstd makes of the difference between two files.
pub(crate) fn patch<'a>(
    machine: &'a Machine,
    options: &'static str,
    [old, new]: [&'static str; 2],
) -> Case<'a> {
    let what = format!("zstd {options} --patch-from");
    Case::peer(&what, "ferry pack --base --level default", move || {
        let script = format!("zstd -q -f {options} --patch-from={old} {new} -o {PATCH}");
        shell(machine, &script).measure()
    })
    .bytes(|| size_of(&machine.path(PATCH)))
}

/// Copies a tree.
struct Copy {
    version: u64,
    /// How much is left to copy, in bytes.
    bytes: u64,
    files: u64,
    /// As it is, without store paths in it.
    plain: bool,
}

impl Copy {
    fn of(version: u64) -> Self {
        Self { version, bytes: 0, files: 0, plain: false }
    }

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
                let target = match self.plain {
                    true => target,
                    false => Path::new(&self.store_path(self.files)).join(target),
                };
                symlink(target, &to)?;
            } else if kind.is_file() && self.bytes > 0 {
                self.file(&from, &to)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.files += 1;
        let mut from = File::open(from)?;
        if self.plain {
            let copied = io::copy(&mut from, &mut File::create(to)?)?;
            self.bytes = self.bytes.saturating_sub(copied);
            return Ok(());
        }
        let mut to = BufWriter::new(File::create(to)?);
        let mut piece = Vec::new();
        let mut number = self.files;
        while (&mut from).take(APART - number % 4096).read_to_end(&mut piece)? > 0 {
            self.bytes = self.bytes.saturating_sub(piece.len() as u64);
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
