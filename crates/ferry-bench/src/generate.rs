//! Data to carry: large files, some of which compress, mixed trees, and many small store paths.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use ferry_formats::{StoreDir, StorePath, nar};
use ferry_test_world::Machine;
use ferry_test_world::trees::{self, Noise};
use sha2::{Digest as _, Sha256};

use crate::freight::shell;

/// How many store paths the mixed trees are.
const TREES: u64 = 200;
/// How many small files are in each of them.
const SMALL_FILES: u64 = 100;
/// How many larger files are in each of them.
const LARGER_FILES: u64 = 4;

/// Adds a file of text-like data to the store, and returns its store path.
pub(crate) fn add_text_file(machine: &Machine, bytes: u64) -> String {
    trees::add(machine, &format!("text-{bytes}"), |path| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Text::new(bytes).write(&mut file, bytes)?;
        file.flush()
    })
}

/// Adds a file half of which is text, and the other half noise, to the store, and returns its path.
pub(crate) fn add_mixed_file(machine: &Machine, seed: u64, bytes: u64) -> String {
    trees::add(machine, &format!("mixed-{seed}-{bytes}"), |path| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        write_mixed(&mut file, &mut Text::new(seed), seed, bytes)?;
        file.flush()
    })
}

/// As much text as noise, as programs are.
fn write_mixed(out: &mut impl Write, text: &mut Text, seed: u64, bytes: u64) -> io::Result<()> {
    let mut noise = Noise::new(seed);
    for _ in 0..bytes / 512 {
        noise.write(out, 256)?;
        text.write(out, 256)?;
    }
    Ok(())
}

/// Adds `count` paths of a file with a few lines each to the store, and returns the path of the one
/// that reaches all others: each refers to two that come later.
pub(crate) fn add_small_paths(machine: &Machine, count: u32) -> String {
    let path = |number: u32| {
        let digest = Sha256::digest(format!("small path {number}"));
        let digest = digest.first_chunk().expect("it is longer");
        let path = StorePath::from_parts(*digest, &format!("small-{number}-1.0"));
        StoreDir::default().render_path(&path.expect("a name that is allowed"))
    };
    let mut registration = String::new();
    for number in 0..count {
        let own = path(number);
        let later = [2 * number + 1, 2 * number + 2];
        let references: Vec<String> =
            later.into_iter().filter(|other| *other < count).map(path).collect();
        let contents = format!("{own}\n{}\n", references.join("\n"));
        machine.write(&own, &contents);
        let nar = nar::of_file(contents.as_bytes());
        let hash = Sha256::digest(&nar);
        // Path, hash and size of the NAR, deriver, references, as `nix-store --dump-db` has them.
        writeln!(registration, "{own}\n{hash:x}\n{}\n\n{}", nar.len(), references.len())
            .expect("a string takes everything");
        references.iter().for_each(|other| {
            registration.push_str(other);
            registration.push('\n');
        });
    }
    machine.write("/data/registration", registration);
    shell(machine, "nix-store --load-db < /data/registration").ok();
    path(0)
}

/// Adds about `bytes` bytes in 200 trees to the store, and returns their paths. Each has 100
/// small files of 0 to 8 kB of text, some of them executable, links to some, and 4 larger
/// ones: two of text, two half of noise, as programs are.
pub(crate) fn add_mixed_trees(machine: &Machine, bytes: u64) -> Vec<String> {
    let larger = (bytes / TREES).saturating_sub(SMALL_FILES * 4000) / LARGER_FILES;
    let name = |tree| format!("tree-{tree}-1.0");
    for tree in 0..TREES {
        let path = machine.path("/data/to-add").join(name(tree));
        make_tree(&path, tree, larger)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    }
    let inside = (0..TREES).map(|tree| format!("/data/to-add/{}", name(tree)));
    let added = machine.command("nix-store").arg("--add").args(inside).ok();
    fs::remove_dir_all(machine.path("/data/to-add"))
        .unwrap_or_else(|error| panic!("cannot remove what was added: {error}"));
    added.lines().map(str::to_owned).collect()
}

/// Adds what is in `/usr/bin`, `/usr/lib` and so on to the store, each as a path of its own, and
/// returns the paths: real programs and their data, small files and large ones.
pub(crate) fn add_real_trees(machine: &Machine) -> Vec<String> {
    // Links lead elsewhere, and not every name is one of a store path.
    let find = "find /usr/*/ -mindepth 1 -maxdepth 1 ! -type l -regex '.*/[a-zA-Z0-9+._?=-]+'";
    let add = format!("{find} ! -name '.*' | LC_ALL=C sort | xargs nix-store --add");
    machine.command("sh").args(["-euc", &add]).ok().lines().map(str::to_owned).collect()
}

fn make_tree(path: &Path, tree: u64, larger: u64) -> io::Result<()> {
    let mut text = Text::new(tree);
    for number in 0..SMALL_FILES {
        let directory =
            path.join(["bin", "lib", "share/doc", "share/man/man1"][number as usize % 4]);
        fs::create_dir_all(&directory)?;
        let file = directory.join(format!("file-{number}"));
        let size = text.below(8000);
        text.write(&mut File::create(&file)?, size)?;
        if number % 4 == 0 {
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        if number % 10 == 1 {
            symlink(format!("file-{number}"), directory.join(format!("link-{number}")))?;
        }
    }
    for number in 0..LARGER_FILES {
        let mut file = BufWriter::new(File::create(path.join(format!("lib/large-{number}")))?);
        // Sizes differ, and their mean is `larger`.
        let size = larger / 2 + larger * (tree % 11) / 10;
        if number % 2 == 0 {
            text.write(&mut file, size)?;
        } else {
            write_mixed(&mut file, &mut text, tree << 8 | number, size)?;
        }
        file.flush()?;
    }
    Ok(())
}

/// Words in lines, the same for the same seed. zstd makes a quarter to a third of it.
struct Text {
    words: Vec<String>,
    state: u64,
    line: usize,
    left_over: Vec<u8>,
}

impl Text {
    fn new(seed: u64) -> Self {
        let mut text = Self {
            words: Vec::new(),
            // All have the same words.
            state: 1,
            line: 0,
            left_over: Vec::new(),
        };
        for _ in 0..4096 {
            let length = 2 + text.below(9);
            let word = (0..length).map(|_| char::from(b'a' + (text.below(26) as u8))).collect();
            text.words.push(word);
        }
        text.state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        text
    }

    /// A pseudo-random number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let word = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(word) * u128::from(limit)) >> 64) as u64
    }

    /// Writes the next `bytes` bytes.
    fn write(&mut self, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let mut left = bytes as usize;
        while left > 0 {
            if self.left_over.is_empty() {
                for _ in 0..64 {
                    // Some words are used much more than others.
                    let rank = self.below(4096) * self.below(4096) / 4096;
                    let word = &self.words[rank as usize];
                    self.left_over.extend_from_slice(word.as_bytes());
                    self.line += word.len() + 1;
                    self.left_over.push(if self.line > 72 { b'\n' } else { b' ' });
                    self.line = if self.line > 72 { 0 } else { self.line };
                }
            }
            let count = left.min(self.left_over.len());
            to.write_all(&self.left_over[..count])?;
            self.left_over.drain(..count);
            left -= count;
        }
        Ok(())
    }
}
