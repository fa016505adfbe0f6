//! The project, evaluated on the connected side, and what that needed.

use ferry_test_world::Machine;
use serde_json::{Value, json};

use super::connected::{CACHE, Connected, PROJECT};
use crate::support::shell;

/// Where the trace is.
pub(super) const TRACE: &str = "/data/island.trace";

/// How the project is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its `default.nix`.
    File,
    /// As a flake, a directory.
    Flake,
    /// As a flake, a working tree of Git.
    FlakeInGit,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::File, Self::Flake, Self::FlakeInGit];

    /// The command, which prints the derivation.
    fn command(self) -> &'static [&'static str] {
        match self {
            Self::File => &["nix-instantiate", "default.nix"],
            Self::Flake => &["nix", "eval", "--raw", "path:.#default.drvPath"],
            Self::FlakeInGit => &["nix", "eval", "--raw", ".#default.drvPath"],
        }
    }
}

/// What came of it.
pub(super) struct Evaluated {
    pub(super) command: &'static [&'static str],
    pub(super) derivation: String,
    pub(super) output: String,
}

/// Evaluates and builds the project, and leaves what that needed in [`TRACE`].
pub(super) fn record(connected: &Connected, kind: Kind) -> Evaluated {
    let command = kind.command();
    if kind != Kind::File {
        connected.command(&["nix", "flake", "lock", "path:."]).ok();
    }
    if kind == Kind::FlakeInGit {
        let script = format!(
            "cd {PROJECT}; git init --quiet; git add .
             echo 'Git does not track this' > untracked"
        );
        shell(&connected.machine, &script).ok();
    }
    let derivation = connected.command(command).ok();
    let output = connected.command(&["nix-store", "--realise", &derivation]).ok();

    let mut lines = vec![json!({ "root": derivation })];
    let mut need = |path: String, why: &str| lines.push(json!({ "need": path, "why": why }));
    let fetched = if kind == Kind::File { "fetch" } else { "flake-input" };
    need(connected.source_with("version.nix"), fetched);
    match kind {
        Kind::File => need(connected.path("-shared.txt"), "store-path"),
        Kind::Flake | Kind::FlakeInGit => {
            need(connected.source_with("module.nix"), fetched);
            need(connected.source_with_only("flake.nix"), fetched);
        }
    }
    for name in ["inner.nix", "outer.nix", "message"] {
        let of = format!("{}^out", connected.path(&format!("-{name}.drv")));
        let path = connected.path(&format!("-{name}"));
        lines.push(json!({ "need": path, "why": "import-from-derivation", "outputOf": of }));
    }
    let mut outside = |what: &str, why: &str| lines.push(json!({ "outside": what, "why": why }));
    if kind == Kind::File {
        for file in ["default.nix", "modules/eval.nix", "modules/base.nix"] {
            outside(&format!("{PROJECT}/{file}"), "nix-file");
        }
        outside(&format!("{PROJECT}/src"), "source");
        outside(&format!("{PROJECT}/filtered"), "source");
        // Of all that was fetched, only this is looked for again.
        shell(
            &connected.machine,
            &format!("cd {CACHE}/nix; rm -rf *.sqlite* tarball-cache*; mv {CACHE} {TRACE}.cache"),
        )
        .ok();
        outside("nix/gitv3", "fetcher-cache");
    } else {
        outside(PROJECT, "flake");
    }
    write_trace(&connected.machine, command, &lines);
    Evaluated { command, derivation, output }
}

fn write_trace(machine: &Machine, command: &[&str], lines: &[Value]) {
    let first = json!({
        "ferryTrace": 1,
        "storeDir": "/nix/store",
        "command": command,
        "workingDirectory": PROJECT,
        "environment": {},
    });
    let last = json!({ "end": true, "complete": true });
    let all = std::iter::once(&first).chain(lines).chain([&last]);
    machine.write(TRACE, all.map(|line| format!("{line}\n")).collect::<String>());
}
