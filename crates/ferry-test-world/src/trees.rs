//! Store paths with generated contents.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::Machine;

/// Pseudo-random bytes that do not compress; the same for the same seed.
#[derive(Clone, Debug)]
pub struct Noise(u64);

impl Noise {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Writes the next `bytes` bytes.
    pub fn write(&mut self, to: &mut impl Write, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            let count = left.min(8) as usize;
            to.write_all(&word[..count])?;
            left -= count as u64;
        }
        Ok(())
    }
}

/// Adds a file of `bytes` pseudo-random bytes to the store, and returns its store path.
pub fn add_large_file(machine: &Machine, bytes: u64) -> String {
    add(machine, &format!("large-{bytes}"), |path| write_noise(path, &mut Noise::new(bytes), bytes))
}

/// Adds a directory of `count` files with `bytes` pseudo-random bytes each, a hundred to a
/// subdirectory, every tenth executable, and returns its store path.
pub fn add_many_files(machine: &Machine, count: u32, bytes: u64) -> String {
    add(machine, &format!("many-{count}-{bytes}"), |path| {
        let mut noise = Noise::new(u64::from(count) ^ bytes);
        for number in 0..count {
            let directory = path.join(format!("dir-{}", number / 100));
            fs::create_dir_all(&directory)?;
            let file = directory.join(format!("file-{number}"));
            write_noise(&file, &mut noise, bytes)?;
            if number % 10 == 0 {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(())
    })
}

/// Makes `name` with `make` and adds it to the store with `nix-store --add`.
pub fn add(machine: &Machine, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> String {
    let inside = format!("/data/to-add/{name}");
    let path = machine.path(&inside);
    fs::create_dir_all(machine.path("/data/to-add"))
        .and_then(|()| make(&path))
        .unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    let added = machine.command("nix-store").args(["--add", &inside]).ok();
    fs::remove_dir_all(machine.path("/data/to-add"))
        .unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
    added
}

fn write_noise(path: &Path, noise: &mut Noise, bytes: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    noise.write(&mut file, bytes)?;
    file.flush()
}
