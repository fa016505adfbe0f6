//! The connected side: a project that uses everything, and what it fetches.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferry_test_world::{Machine, MachineCommand, NixVersion, Origin, World};
use serde_json::{Value, json};

use crate::support::{machine, shell, sorted};

/// The directory that the project and a flake beside it are in.
pub(super) const WORK: &str = "/data/work";
/// The project.
pub(super) const PROJECT: &str = "/data/work/project";
/// Where evaluations keep what they have fetched.
pub(super) const CACHE: &str = "/data/cache";

/// Git repositories that are the same whenever they are made.
const GIT: &str = "git -c user.name=nobody -c user.email=nobody@example.org";

/// The machine of somebody who has a network.
pub(super) struct Connected {
    pub(super) machine: Machine,
    origin: Origin,
}

impl Connected {
    /// A machine on which the project lies, and an origin that serves what it fetches.
    pub(super) fn new(world: &World, version: NixVersion) -> Self {
        let machine = machine(world, version);
        let origin = Origin::start();
        let fixtures = machine.expression("island");
        let script = format!(
            "
            cp -r {fixtures} {WORK}
            cd {WORK}
            tar --sort=name --mtime=@1 --owner=0 --group=0 -czf pinned.tar.gz pinned
            {GIT} init --quiet --initial-branch main library
            {GIT} -C library add .
            export GIT_AUTHOR_DATE='@1 +0000' GIT_COMMITTER_DATE='@1 +0000'
            {GIT} -C library commit --quiet --message one
            {GIT} clone --quiet --bare library library.git
            {GIT} -C library.git update-server-info
            echo downloaded > download
            echo shared > shared.txt
            nix-store --add shared.txt
            {GIT} -C library rev-parse HEAD
            nix-hash --type sha256 --base32 pinned
            nix-hash --type sha256 --base32 --flat download
            "
        );
        let said = shell(&machine, &script).ok();
        let [shared, rev, pinned, download] = said.lines().collect::<Vec<_>>()[..] else {
            panic!("not four lines: {said}");
        };
        for file in ["pinned.tar.gz", "download"] {
            origin.serve(&format!("/{file}"), machine.read(format!("{WORK}/{file}")));
        }
        for (name, bytes) in ferry_test_world::files(&machine.path(format!("{WORK}/library.git"))) {
            // What a client that knows a better protocol asks for first.
            if name == "info/refs" {
                origin.serve("/library.git/info/refs?service=git-upload-pack", bytes.clone());
            }
            origin.serve(&format!("/library.git/{name}"), bytes);
        }
        let url = origin.url();
        let system = format!("{}-linux", std::env::consts::ARCH);
        let pins = json!({
            "system": system,
            "shared": shared,
            "download": { "url": format!("{url}/download"), "sha256": download },
            "tarball": { "url": format!("{url}/pinned.tar.gz"), "sha256": pinned },
            "git": { "url": format!("{url}/library.git"), "rev": rev },
        });
        machine.write(format!("{PROJECT}/pins.json"), pins.to_string());
        let flake = machine.read(format!("{PROJECT}/flake.nix"));
        let flake = String::from_utf8_lossy(&flake).replace("@origin@", &url);
        machine.write(format!("{PROJECT}/flake.nix"), flake.replace("@system@", &system));
        // Nothing of this is on the other side.
        let rest = "library library.git pinned pinned.tar.gz download shared.txt";
        shell(&machine, &format!("cd {WORK}; rm -rf {rest} /data/nix")).ok();
        Self { machine, origin }
    }

    /// A command in the project, with the network and a cache of its own.
    pub(super) fn command(&self, words: &[&str]) -> MachineCommand {
        let (program, arguments) = words.split_first().expect("a command has a word");
        let command = self.machine.command(program).args(arguments).online();
        command.current_dir(PROJECT).env("XDG_CACHE_HOME", CACHE)
    }

    /// From now on there is no network.
    pub(super) fn cut_off(mut self) -> Machine {
        self.origin.stop();
        self.machine
    }

    /// The one path in the store whose name ends so.
    pub(super) fn path(&self, end: &str) -> String {
        let all = self.machine.command("nix").args(["path-info", "--all"]).ok();
        let found = sorted(all.lines().filter(|path| path.ends_with(end)));
        assert_eq!(found.len(), 1, "{end}: {found:?}");
        found.concat()
    }

    /// The store path of a source that has this file in it, and no flake.
    pub(super) fn source_with(&self, file: &str) -> String {
        let all = self.machine.command("nix").args(["path-info", "--all"]).ok();
        let has = |path: &str| {
            let path: PathBuf = self.machine.path(path);
            path.join(file).exists()
        };
        let found = sorted(all.lines().filter(|path| path.ends_with("-source") && has(path)));
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        found.concat()
    }
}

/// A trace, written by hand.
pub(super) struct HandWritten {
    pub(super) header: BTreeMap<&'static str, Value>,
    pub(super) lines: Vec<Value>,
}

impl HandWritten {
    pub(super) fn new(command: &[&str]) -> Self {
        let header = BTreeMap::from([
            ("ferryTrace", json!(1)),
            ("storeDir", json!("/nix/store")),
            ("command", json!(command)),
            ("workingDirectory", json!(PROJECT)),
            ("environment", json!({})),
        ]);
        Self { header, lines: Vec::new() }
    }

    pub(super) fn need(&mut self, path: &str, why: &str) {
        self.lines.push(json!({ "need": path, "why": why }));
    }

    pub(super) fn output(&mut self, path: &str, derivation: &str) {
        let of = format!("{derivation}^out");
        self.lines.push(json!({ "need": path, "why": "import-from-derivation", "outputOf": of }));
    }

    pub(super) fn outside(&mut self, what: &str, why: &str) {
        self.lines.push(json!({ "outside": what, "why": why }));
    }

    pub(super) fn root(&mut self, path: &str) {
        self.lines.push(json!({ "root": path }));
    }

    pub(super) fn write(&self, machine: &Machine, file: &str) {
        let mut lines = vec![json!(self.header)];
        lines.extend(self.lines.iter().cloned());
        lines.push(json!({ "end": true, "complete": true }));
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        machine.write(file, lines.join("\n") + "\n");
    }
}
