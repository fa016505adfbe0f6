//! The derivations of a real system, whose sources are not at hand.

use std::collections::BTreeSet;
use std::path::Path;

use ferry_test_world::{Machine, derivations_in, real_derivations};

use crate::freight::{shell, size_of};
use crate::measure::{Case, Section, section};

const DIRECTORY: &str = "/data/drvs";
const SOURCES: &str = "/data/sources.txt";
const OUT: &str = "/data/drvs.ferry";
const ARCHIVE: &str = "/data/drvs.tar.zst";
const EXPORT: &str = "/data/drvs.export.zst";

/// Derivations in a machine's store, with a stand-in for each of their sources.
pub(crate) struct Derivations {
    here: Machine,
    count: usize,
    /// Those that no other one refers to.
    roots: Vec<String>,
}

impl Derivations {
    /// Those of an archive, or those that the tests use; `None` where they are not there.
    pub(crate) fn new(here: Machine, archive: Option<&Path>) -> Option<Self> {
        let texts = archive.map_or_else(real_derivations, derivations_in)?;
        eprintln!("ferry-bench: making a store with {} derivations", texts.len());
        let mut referred = BTreeSet::new();
        let mut registration = String::new();
        for (name, text) in &texts {
            let path = format!("/nix/store/{name}");
            let references = references(&String::from_utf8_lossy(text));
            register(&mut registration, &path, &references);
            here.write(&path, text);
            here.write(format!("{DIRECTORY}/{name}"), text);
            referred.extend(references);
        }
        let of_store = |path: &String| format!("/nix/store/{path}");
        let all: BTreeSet<String> = texts.keys().map(of_store).collect();
        let roots = all.difference(&referred).cloned().collect();
        let sources: Vec<&String> = referred.difference(&all).collect();
        for source in &sources {
            here.write(source, source.as_bytes());
            register(&mut registration, source, &BTreeSet::new());
        }
        here.write(SOURCES, sources.iter().map(|path| format!("{path}\n")).collect::<String>());
        here.write("/data/registration", registration);
        shell(&here, "nix-store --register-validity < /data/registration").ok();
        Some(Self { here, count: texts.len(), roots })
    }

    /// Packs them, by each way. The sources are left out.
    pub(crate) fn section(&self, runs: u32) -> Section {
        let machine = &self.here;
        let ferry = |level: &'static str| {
            let pack = ["pack", "--quiet", "--set", "recipe", "--have", SOURCES];
            Case::ferry(&format!("ferry pack --have --level {level}"), move || {
                let command =
                    machine.command("ferry").args(pack).args(["--level", level, "-o", OUT]);
                command.args(&self.roots).measure()
            })
            .bytes(|| size_of(&machine.path(OUT)))
        };
        let peer = |what: &str, script: String, out: &'static str| {
            Case::peer(what, "ferry pack --have --level max", move || {
                shell(machine, &script).measure()
            })
            .bytes(move || size_of(&machine.path(out)))
        };
        let zstd = "zstd -q -f -19 --long=27 -o";
        let cases = vec![
            ferry("fast"),
            ferry("default"),
            ferry("max"),
            peer(
                "tar \\| zstd -19 --long=27",
                format!("tar -C {DIRECTORY} --sort=name -c . | {zstd} {ARCHIVE}"),
                ARCHIVE,
            ),
            peer(
                "nix-store --export \\| zstd -19 --long=27",
                format!("nix-store --export /nix/store/*.drv | {zstd} {EXPORT}"),
                EXPORT,
            ),
        ];
        let title = format!("{} derivations of a real system, without their sources", self.count);
        section(title, "bytes", runs, cases)
    }
}

/// The store paths that are inputs of a derivation, `Derive([outputs],[derivations],[sources],"…`.
fn references(text: &str) -> BTreeSet<String> {
    let behind_outputs = text.split_once("],[").map_or("", |(_, behind)| behind);
    let inputs = behind_outputs.split_once("],\"").map_or("", |(inputs, _)| inputs);
    let strings = inputs.split('"').skip(1).step_by(2);
    strings.filter(|string| string.starts_with("/nix/store/")).map(str::to_owned).collect()
}

/// Adds a path to what `nix-store --register-validity` reads.
fn register(registration: &mut String, path: &str, references: &BTreeSet<String>) {
    let count = references.len().to_string();
    let lines = [path, "", &count].into_iter().chain(references.iter().map(String::as_str));
    lines.for_each(|line| registration.extend([line, "\n"]));
}
