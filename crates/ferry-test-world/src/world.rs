//! Where the Debian roots are, and how they come to be.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::NixVersion;

/// What every machine mounts its own directories over; make-roots.sh creates them.
pub(crate) const MOUNT_POINTS: [&str; 10] =
    ["nix", "data", "opt/bin", "etc/nix", "root", "tmp", "var/tmp", "run", "proc", "dev"];

/// The Debian roots, whole and ready to run.
#[derive(Clone, Debug)]
pub struct World {
    dir: PathBuf,
}

impl World {
    /// Finds the roots, and makes those that are not whole (some minutes, once).
    ///
    /// They live in `$FERRY_TEST_WORLD`, by default `ferry-test-world` in the user's cache.
    ///
    /// Returns `None` where they cannot be had, so that a test may skip; says why on stderr.
    ///
    /// # Panics
    ///
    /// In CI (`CI=true`) rather than return `None`: there a test that skips is a failure.
    pub fn open() -> Option<Self> {
        match Self::find_or_make(directory()) {
            Ok(world) => Some(world),
            Err(why) => skip("test world", &why, "against real Nix"),
        }
    }

    fn find_or_make(dir: PathBuf) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("machines of the test world need root".to_owned());
        }
        let world = Self { dir };
        if !world.is_whole() {
            let script = repository().join("tests/world/make-roots.sh");
            let status = Command::new("bash")
                .arg(&script)
                .env("FERRY_TEST_WORLD", &world.dir)
                .status()
                .map_err(|error| format!("cannot run {}: {error}", script.display()))?;
            if !status.success() {
                return Err(format!("{} failed: {status}", script.display()));
            }
            if !world.is_whole() {
                return Err(format!("{} left a root unfinished", script.display()));
            }
        }
        Ok(world)
    }

    fn is_whole(&self) -> bool {
        NixVersion::ALL.into_iter().all(|version| {
            let root = self.root(version);
            root.join(".whole").exists() && MOUNT_POINTS.iter().all(|dir| root.join(dir).is_dir())
        })
    }

    /// The root that holds `version`. Shared by all machines, which mount it read-only.
    pub fn root(&self, version: NixVersion) -> PathBuf {
        self.dir.join("roots").join(version.suite())
    }
}

/// Says on stderr what is not there, and which tests are skipped therefore; in CI, panics.
pub(crate) fn skip<T>(what: &str, why: &str, tests: &str) -> Option<T> {
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        panic!("no {what}, and this is CI: {why}");
    }
    eprintln!("\n*** NO {}: {why}\n*** Tests {tests} are SKIPPED.\n", what.to_uppercase());
    None
}

/// The top of the source tree.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn directory() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(dir) = set("FERRY_TEST_WORLD") {
        return PathBuf::from(dir);
    }
    set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(|| panic!("no place for the test world: HOME is not set"))
        .join("ferry-test-world")
}
