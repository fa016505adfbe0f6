//! One isolated computer.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::namespaces::{Bind, Namespaces};
use crate::world::repository;
use crate::{Daemon, MachineCommand, NixVersion, World};

/// Where a machine looks for programs.
pub(crate) const PATH: &str = "/opt/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The machine's own directories, and what each is mounted over. The first that is a prefix
/// of a path inside decides.
const OWN: [(&str, &str, u32); 7] = [
    ("nix", "nix", 0o755),
    ("home", "root", 0o700),
    ("data", "data", 0o755),
    ("tmp", "tmp", 0o1777),
    ("tmp", "var/tmp", 0o1777),
    ("bin", "opt/bin", 0o755),
    ("etc-nix", "etc/nix", 0o755),
];

/// Builds without a sandbox and as root, and knows no cache.
const NIX_CONF: &str = "\
sandbox = false
build-users-group =
experimental-features = nix-command flakes
substituters =
";

/// An isolated computer with a real Nix: an empty store, home and `/data` of its own.
///
/// A clone is another handle to the same machine. It goes away, files and all, with its last
/// handle; with `FERRY_TEST_KEEP` set, its files stay.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    version: NixVersion,
    root: PathBuf,
    // Before the directory, so that nothing is mounted when that goes.
    namespaces: Namespaces,
    dir: TempDir,
}

impl Machine {
    /// A new machine with an empty `/nix`.
    pub fn new(world: &World, version: NixVersion) -> Self {
        let root = world.root(version);
        let mut dir = tempfile::Builder::new()
            .prefix(&format!("ferry-machine-{version}-"))
            .tempdir()
            .unwrap_or_else(|error| panic!("cannot make a directory for a machine: {error}"));
        dir.disable_cleanup(std::env::var_os("FERRY_TEST_KEEP").is_some());
        let mut binds = Vec::new();
        for (own, over, mode) in OWN {
            let from = dir.path().join(own);
            fs::create_dir_all(&from)
                .and_then(|()| fs::set_permissions(&from, Permissions::from_mode(mode)))
                .unwrap_or_else(|error| panic!("cannot make {}: {error}", from.display()));
            binds.push(Bind { from, over });
        }
        let namespaces = Namespaces::make(&root, &binds).unwrap_or_else(|error| {
            panic!("cannot make the namespaces of a machine on {}: {error}", root.display())
        });
        let machine = Self(Arc::new(Inner { version, root, namespaces, dir }));
        machine.write("/etc/nix/nix.conf", NIX_CONF);
        machine
    }

    /// The Nix version that it runs.
    pub fn version(&self) -> NixVersion {
        self.0.version
    }

    /// A command on this machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> MachineCommand {
        MachineCommand::new(self, program.as_ref())
    }

    /// Starts the machine's `nix-daemon`, offline.
    pub fn daemon(&self) -> Daemon {
        Daemon::start(self, self.command("nix-daemon"))
    }

    /// Starts the machine's `nix-daemon` with the host's network.
    pub fn daemon_online(&self) -> Daemon {
        Daemon::start(self, self.command("nix-daemon").online())
    }

    /// Appends a line to nix.conf; the last line for a setting is the one that counts. A
    /// daemon that already runs does not see it.
    pub fn configure(&self, line: &str) {
        let path = self.path("/etc/nix/nix.conf");
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .unwrap_or_else(|error| panic!("cannot append to {}: {error}", path.display()));
    }

    /// Puts a program of the host into the machine's `PATH`, under `name`.
    ///
    /// A hard link where that is possible. The program must get by with the machine's C
    /// library: one built on bookworm does, on all three roots.
    pub fn install(&self, program: impl AsRef<Path>, name: &str) {
        let program = program.as_ref();
        let to = self.path("/opt/bin").join(name);
        let _ = fs::remove_file(&to);
        fs::hard_link(program, &to).or_else(|_| fs::copy(program, &to).map(drop)).unwrap_or_else(
            |error| panic!("cannot install {} as {}: {error}", program.display(), to.display()),
        );
    }

    /// Where on the host a path inside the machine is.
    ///
    /// # Panics
    ///
    /// When it is not in a directory of the machine's own, but in the root that all share.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let plain = inside
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        OWN.iter()
            .filter(|_| plain)
            .find_map(|(own, over, _)| {
                let rest = inside.strip_prefix(Path::new("/").join(over)).ok()?;
                // Joining an empty path would add a slash at the end.
                let dir = self.0.dir.path().join(own);
                Some(if rest.as_os_str().is_empty() { dir } else { dir.join(rest) })
            })
            .unwrap_or_else(|| panic!("{} is not in a machine's own directories", inside.display()))
    }

    /// Writes a file inside, with the directories above it.
    pub fn write(&self, inside: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        let path = self.path(inside);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, contents))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Reads a file inside.
    pub fn read(&self, inside: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(inside);
        fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Copies a file or a directory of the host inside, with its permissions.
    pub fn copy_in(&self, host: impl AsRef<Path>, inside: impl AsRef<Path>) {
        let (from, to) = (host.as_ref(), self.path(inside));
        let status = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| {
            std::process::Command::new("cp").args(["-a", "-T", "--"]).arg(from).arg(&to).status()
        });
        match status {
            Ok(status) if status.success() => {}
            other => panic!("cannot copy {} to {}: {other:?}", from.display(), to.display()),
        }
    }

    /// Puts the Nix expressions of `tests/nix` into `/data/nix`, once; returns where `name` is.
    pub fn expression(&self, name: &str) -> String {
        if !self.path("/data/nix").exists() {
            self.copy_in(repository().join("tests/nix"), "/data/nix");
        }
        let inside = format!("/data/nix/{name}");
        assert!(self.path(&inside).exists(), "there is no tests/nix/{name}");
        inside
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0.root
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.0.namespaces
    }
}
