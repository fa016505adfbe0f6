//! The project, evaluated on the connected side, and what `ferry trace` says that that needed.

use serde_json::Value;

use super::connected::{Connected, PROJECT};
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

    /// What it is for ferry.
    pub(super) fn installable(self) -> &'static [&'static str] {
        match self {
            Self::File => &["--file", "default.nix"],
            Self::Flake => &["path:.#default"],
            Self::FlakeInGit => &[".#default"],
        }
    }
}

/// What came of it.
pub(super) struct Evaluated {
    pub(super) derivation: String,
    pub(super) output: String,
    /// The lines of the trace.
    pub(super) trace: Vec<Value>,
}

impl Evaluated {
    /// The lines that have this member, and what it is.
    pub(super) fn lines<'a>(
        &'a self,
        member: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.trace.iter().filter_map(move |line| Some((line[member].as_str()?, line)))
    }

    /// The recorded command.
    pub(super) fn command(&self) -> Vec<&str> {
        let words = self.trace[0]["command"].as_array().expect("a list");
        words.iter().map(|word| word.as_str().expect("a word")).collect()
    }
}

/// Makes the project what it is to be evaluated as.
pub(super) fn prepare(connected: &Connected, kind: Kind) {
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
}

/// Evaluates and builds the project, and leaves what that needed in [`TRACE`].
pub(super) fn record(connected: &Connected, kind: Kind) -> Evaluated {
    prepare(connected, kind);
    let trace = ["ferry", "trace", "--output", TRACE];
    connected.command(&[&trace[..], kind.installable()].concat()).ok();
    let text = String::from_utf8(connected.machine.read(TRACE)).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let mut evaluated =
        Evaluated { derivation: String::new(), output: String::new(), trace: lines.collect() };
    let roots: Vec<&str> = evaluated.lines("root").map(|(root, _)| root).collect();
    evaluated.derivation = roots.concat();
    let realise = ["nix-store", "--realise", &evaluated.derivation];
    evaluated.output = connected.command(&realise).ok();
    evaluated
}
