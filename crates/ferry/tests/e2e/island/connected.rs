//! The connected side: a project that uses everything, and what it fetches.

use ferry_test_world::{Machine, MachineCommand, NixVersion, Origin, World};
use serde_json::json;

use crate::support::{machine, shell};

/// The directory that the project and a flake beside it are in.
pub(super) const WORK: &str = "/data/work";
/// The project.
pub(super) const PROJECT: &str = "/data/work/project";

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

    /// A command in the project, with the network.
    pub(super) fn command(&self, words: &[&str]) -> MachineCommand {
        let (program, arguments) = words.split_first().expect("a command has a word");
        self.machine.command(program).args(arguments).online().current_dir(PROJECT)
    }

    /// From now on there is no network.
    pub(super) fn cut_off(mut self) -> Machine {
        self.origin.stop();
        self.machine
    }
}
