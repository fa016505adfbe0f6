//! Something to carry from one machine to another, and the ways to do it.

use std::fs;
use std::path::Path;

use ferry_test_world::{Machine, MachineCommand};

/// The bundle, on both machines.
pub(crate) const BUNDLE: &str = "/data/default.ferry";
/// The compressed export, on both machines.
pub(crate) const EXPORT: &str = "/data/export.zst";
/// The flat binary cache, on both machines.
pub(crate) const CACHE: &str = "/data/cache-zstd";

/// Store paths on one machine, and a machine that is to have them.
pub(crate) struct Freight {
    /// What it is, for people.
    pub(crate) name: String,
    /// Where the paths are.
    pub(crate) here: Machine,
    /// Where they are to go.
    pub(crate) there: Machine,
    /// The roots of it.
    pub(crate) roots: Vec<String>,
    /// Whether it is many files rather than a large one.
    pub(crate) many_files: bool,
}

impl Freight {
    /// Whether it is derivations.
    pub(crate) fn is_recipe(&self) -> bool {
        self.roots.iter().all(|root| root.ends_with(".drv"))
    }

    /// What of the roots is carried, as `--set` has it.
    pub(crate) fn set(&self) -> &'static str {
        if self.is_recipe() { "recipe" } else { "runtime" }
    }

    /// What makes `nix copy` carry the same.
    fn nix_kind(&self) -> &'static str {
        if self.is_recipe() { "--derivation" } else { "" }
    }

    /// `ferry pack`, into a file named by the level.
    pub(crate) fn pack(&self, level: &str) -> MachineCommand {
        let set = self.set();
        let file = format!("/data/{level}.ferry");
        self.here
            .command("ferry")
            .args(["pack", "--quiet", "--set", set, "--level", level, "-o", &file])
            .args(&self.roots)
    }

    /// The size of what [`pack`](Self::pack) has written.
    pub(crate) fn packed(&self, level: &str) -> u64 {
        size_of(&self.here.path(format!("/data/{level}.ferry")))
    }

    /// `nix-store --export` of the closure, compressed, into a file.
    pub(crate) fn export(&self, zstd: &str, file: &str) -> MachineCommand {
        let roots = self.roots.join(" ");
        // The paths of a large closure are more than an argument list may otherwise hold.
        shell(
            &self.here,
            &format!(
                "ulimit -s 65536; \
                 nix-store --export $(nix-store -qR {roots}) | zstd -q -f {zstd} -o {file}"
            ),
        )
    }

    /// `nix copy` into a binary cache.
    pub(crate) fn nix_copy_out(&self, address: &str) -> MachineCommand {
        self.nix_copy(&self.here, &["--to", address])
    }

    /// `nix copy` out of a binary cache, on the other side.
    pub(crate) fn nix_copy_in(&self, address: &str) -> MachineCommand {
        self.nix_copy(&self.there, &["--no-check-sigs", "--from", address])
    }

    fn nix_copy(&self, machine: &Machine, options: &[&str]) -> MachineCommand {
        let kind = Some(self.nix_kind()).filter(|kind| !kind.is_empty());
        machine.command("nix").arg("copy").args(kind).args(options).args(&self.roots)
    }

    /// `nix copy` into a new flat binary cache, and that as one file `DIRECTORY.tar.gz`.
    pub(crate) fn copy_out(&self, compression: &str, directory: &str) -> MachineCommand {
        let (kind, roots) = (self.nix_kind(), self.roots.join(" "));
        shell(
            &self.here,
            &format!(
                "nix copy {kind} --to 'file://{directory}?compression={compression}' {roots} \
                 && tar -C {directory} -czf {directory}.tar.gz ."
            ),
        )
    }

    /// Brings a bundle across, made if need be: [`BUNDLE`].
    pub(crate) fn bring_bundle(&self) {
        self.carry(BUNDLE, || drop(self.pack("default").ok()));
    }

    /// Brings a compressed export across, likewise: [`EXPORT`].
    pub(crate) fn bring_export(&self) {
        self.carry(EXPORT, || drop(self.export("-3", EXPORT).ok()));
    }

    /// Brings a flat binary cache across, likewise: [`CACHE`].
    pub(crate) fn bring_cache(&self) {
        self.carry(CACHE, || {
            let address = format!("file://{CACHE}?compression=zstd");
            drop(self.nix_copy_out(&address).ok());
        });
    }

    /// Brings all three across.
    pub(crate) fn bring_all(&self) {
        self.bring_bundle();
        self.bring_export();
        self.bring_cache();
    }

    fn carry(&self, file: &str, make: impl FnOnce()) {
        let (from, to) = (self.here.path(file), self.there.path(file));
        if !from.exists() {
            make();
        }
        remove(&to);
        let linked = std::process::Command::new("cp").args(["-al"]).arg(&from).arg(&to).status();
        match linked {
            Ok(status) if status.success() => {}
            other => panic!("cannot link {} to {}: {other:?}", from.display(), to.display()),
        }
    }

    /// `ferry load` of the bundle on the other side.
    pub(crate) fn load(&self, store: &[&str]) -> MachineCommand {
        self.there.command("ferry").args(["load", "--quiet", BUNDLE]).args(store)
    }

    /// `nix-store --import` of the export on the other side.
    pub(crate) fn import(&self) -> MachineCommand {
        shell(&self.there, &format!("zstd -q -d -c {EXPORT} | nix-store --import"))
    }

    /// Takes the other side's store and caches away.
    pub(crate) fn empty(&self) {
        for directory in ["/nix", "/root", "/data/island"] {
            let Ok(entries) = fs::read_dir(self.there.path(directory)) else { continue };
            for entry in entries.flatten() {
                self.clear(&self.there, &entry.path());
            }
        }
    }

    /// Takes something out of the way. Trees of many files are kept elsewhere until the end:
    /// for some minutes after they are deleted, ext4 makes new files more slowly.
    pub(crate) fn clear(&self, machine: &Machine, path: &Path) {
        if !self.many_files {
            return remove(path);
        }
        let attic = machine.path("/data/attic");
        let number = fs::read_dir(&attic).map_or(0, Iterator::count);
        let moved = fs::create_dir_all(&attic)
            .and_then(|()| fs::rename(path, attic.join(number.to_string())));
        match moved {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("cannot move {} away: {error}", path.display())
            }
            _ => {}
        }
    }
}

/// A pipeline, which fails when one of its commands does.
pub(crate) fn shell(machine: &Machine, script: &str) -> MachineCommand {
    machine.command("bash").args(["-euo", "pipefail", "-c", script])
}

/// Removes a file or a tree, if it is there.
pub(crate) fn remove(path: &Path) {
    // As root, who may write to directories that are read-only.
    let removed = match fs::symlink_metadata(path) {
        Err(_) => return,
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
}

/// The size of a file.
pub(crate) fn size_of(path: &Path) -> u64 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("cannot look at {}: {error}", path.display()))
        .len()
}

/// The size of all files below a directory, in bytes.
pub(crate) fn tree_size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", directory.display()));
    let size = |path: &Path| if path.is_dir() { tree_size(path) } else { size_of(path) };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}
