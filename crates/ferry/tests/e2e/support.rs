//! What the tests have in common.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub(crate) use ferry_test_world::files;
use ferry_test_world::{Machine, MachineCommand, NixVersion, World, crossing};

/// Somebody without rights.
pub(crate) const NOBODY: u32 = 65534;

/// A machine with `ferry` on it.
pub(crate) fn machine(world: &World, version: NixVersion) -> Machine {
    let machine = Machine::new(world, version);
    machine.install(env!("CARGO_BIN_EXE_ferry"), "ferry");
    machine
}

/// Runs a test on a machine with each Nix version.
pub(crate) fn on_each(test: impl Fn(&World, Machine)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        test(&world, machine(&world, version));
    }
}

/// `ferry` on a machine.
pub(crate) fn ferry<S: AsRef<std::ffi::OsStr>>(
    machine: &Machine,
    args: impl IntoIterator<Item = S>,
) -> MachineCommand {
    machine.command("ferry").args(args)
}

/// Packs the closure of a path into `file`.
pub(crate) fn pack_runtime(machine: &Machine, path: &str, file: &str) -> MachineCommand {
    ferry(machine, ["pack", path, "--set", "runtime", "-o", file])
}

/// `ferry` on the host, where there is no Nix, with nothing in its environment but a home.
pub(crate) fn ferry_without_nix(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
    command.env_clear().env("HOME", home).current_dir(home);
    command
}

/// A shell script on a machine.
pub(crate) fn shell(machine: &Machine, script: &str) -> MachineCommand {
    machine.command("bash").args(["-euc", script])
}

/// Carries a file from one machine's disk to another's, as a stick would.
pub(crate) fn carry(from: &Machine, to: &Machine, file: &str) {
    to.write(file, from.read(file));
}

/// A machine on which all of `crossing.nix` was built, with a network that is gone now.
pub(crate) struct Built {
    pub(crate) machine: Machine,
    /// The derivation at the top.
    pub(crate) derivation: String,
    /// Its output.
    pub(crate) top: String,
    /// The output of the download.
    pub(crate) fod: String,
}

impl Built {
    /// Builds it.
    pub(crate) fn new(world: &World, version: NixVersion) -> Self {
        let machine = machine(world, version);
        let mut origin = crossing::origin();
        let url = origin.url();
        let build = |attribute: &str| {
            crossing::command(&machine, "nix-build", attribute, &url).arg("--no-out-link")
        };
        let top = build("c").online().ok();
        // Already there: offline.
        let fod = build("fod").ok();
        origin.stop();
        let derivation = query(&machine, &["--deriver", &top]).concat();
        Self { machine, derivation, top, fod }
    }

    /// Every output of every derivation below the top, with its NAR hash.
    pub(crate) fn outputs(&self) -> Vec<Object> {
        outputs(&self.machine, &self.derivation)
    }

    /// The output of one of the derivations, by its name.
    pub(crate) fn output(&self, name: &str) -> String {
        let found = self.outputs().into_iter().find(|object| object.path.ends_with(name));
        found.unwrap_or_else(|| panic!("nothing was built that is called {name}")).path
    }
}

/// Runs a test on a machine with each Nix version, on which everything is built.
pub(crate) fn on_each_built(test: impl Fn(&World, &Built)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        test(&world, &Built::new(&world, version));
    }
}

/// A valid path, and its hash as Nix tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Object {
    pub(crate) path: String,
    pub(crate) hash: String,
}

/// The lines that `nix-store --query` answers, sorted.
pub(crate) fn query(machine: &Machine, args: &[&str]) -> Vec<String> {
    sorted(machine.command("nix-store").arg("--query").args(args).ok().lines())
}

/// Lines, sorted.
pub(crate) fn sorted<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// These paths and their NAR hashes, as Nix knows them.
pub(crate) fn objects(machine: &Machine, mut paths: Vec<String>) -> Vec<Object> {
    paths.sort();
    let hashes = machine.command("nix-store").args(["--query", "--hash"]).args(&paths).ok();
    let hashes: Vec<&str> = hashes.lines().collect();
    assert_eq!(hashes.len(), paths.len(), "{paths:?}");
    let objects = paths.into_iter().zip(hashes);
    objects.map(|(path, hash)| Object { path, hash: hash.to_owned() }).collect()
}

/// The closure of `root`.
pub(crate) fn closure(machine: &Machine, root: &str) -> Vec<Object> {
    objects(machine, query(machine, &["--requisites", root]))
}

/// Everything that building `derivation` made.
pub(crate) fn outputs(machine: &Machine, derivation: &str) -> Vec<Object> {
    let derivations = query(machine, &["--requisites", derivation]);
    let derivations = derivations.iter().filter(|path| path.ends_with(".drv"));
    let args = ["--query", "--outputs"].into_iter().map(str::to_owned);
    let outputs = machine.command("nix-store").args(args.chain(derivations.cloned())).ok();
    objects(machine, sorted(outputs.lines()))
}

/// Everything that is valid on a machine.
pub(crate) fn all_valid(machine: &Machine) -> Vec<Object> {
    let all = machine.command("nix").args(["path-info", "--all"]).ok();
    objects(machine, sorted(all.lines()))
}

/// Those of `paths` that Nix does not take for valid.
pub(crate) fn invalid(machine: &Machine, paths: &[String]) -> Vec<String> {
    let check = ["--check-validity", "--print-invalid"];
    sorted(machine.command("nix-store").args(check).args(paths).ok().lines())
}

/// Lets Nix read everything in its store, and makes sure that it finds nothing wrong.
pub(crate) fn assert_store_is_whole(machine: &Machine) {
    let verify = machine.command("nix-store").args(["--verify", "--check-contents"]).succeed();
    let unexpected = verify.stderr.lines().find(|line| {
        let expected = [
            "reading the Nix store",
            "checking path existence",
            "checking link hashes",
            "checking store hashes",
        ];
        !expected.iter().any(|start| line.starts_with(start))
    });
    assert_eq!(unexpected, None, "Nix {} finds:\n{}", machine.version(), verify.stderr);
}

/// What `ferry load` says comes next.
pub(crate) fn next_command(stderr: &str) -> String {
    let next = stderr.lines().find_map(|line| line.strip_prefix("ferry: next: "));
    next.unwrap_or_else(|| panic!("ferry does not say what comes next:\n{stderr}")).to_owned()
}

/// A key pair that Nix has made.
pub(crate) struct Key {
    /// Where on the machine the secret key is.
    pub(crate) secret: String,
    /// The public key itself.
    pub(crate) public: String,
}

/// Makes a key with the command that the machine's version has for it.
pub(crate) fn generate_key(machine: &Machine, name: &str) -> Key {
    let secret = format!("/data/{name}.secret");
    let script = match machine.version() {
        NixVersion::V2_8 => {
            format!("nix-store --generate-binary-cache-key {name} {secret} {secret}.pub")
        }
        _ => format!(
            "nix key generate-secret --key-name {name} >{secret}
             nix key convert-secret-to-public <{secret} >{secret}.pub"
        ),
    };
    shell(machine, &script).ok();
    let public = machine.read(format!("{secret}.pub"));
    Key { secret, public: String::from_utf8_lossy(&public).trim().to_owned() }
}

/// A tree with one of everything that can be in a store object.
pub(crate) fn make_motley(path: &Path) -> std::io::Result<()> {
    let file =
        |name: &[u8], contents: &[u8]| fs::write(path.join(OsStr::from_bytes(name)), contents);
    fs::create_dir_all(path.join("deep/deeper/deepest"))?;
    fs::create_dir(path.join("empty directory"))?;
    file(b"empty", b"")?;
    file(b"script", b"#!/bin/sh\necho run\n")?;
    fs::set_permissions(path.join("script"), Permissions::from_mode(0o755))?;
    file(b"deep/deeper/deepest/leaf", b"leaf\n")?;
    file(b"caf\xe9 \xff\xfe", b"a name that is not UTF-8\n")?;
    file("na\u{ef}ve \u{1f6a2}".as_bytes(), b"a name that is\n")?;
    // Names whose order is that of their bytes, not that of anybody's alphabet.
    for name in [&b"a"[..], b"a.b", b"a-b", b"aB", b"B", b"line\nbreak", b"-dash", b"%41", b"~"] {
        file(name, name)?;
    }
    file(b"padded", &[7; 8])?;
    file(b"large", &vec![b'x'; 1 << 20])?;
    symlink("script", path.join("link"))?;
    symlink("/nowhere/at all", path.join("dangling"))?;
    symlink("..", path.join("deep/up"))?;
    symlink(OsStr::from_bytes(b"caf\xe9"), path.join("odd target"))
}
