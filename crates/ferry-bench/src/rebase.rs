//! A recipe whose bottom has changed, so that nearly every derivation has another hash, of which
//! the other side has the one before.

use ferry_test_world::{BigGraph, Machine};

use crate::delta::{LIST, pack, patch};
use crate::freight::{shell, size_of};
use crate::measure::{Case, Section, section};
use crate::report::size;

const EXPORTS: [&str; 2] = ["/data/old.export", "/data/new.export"];
const EXPORT: &str = "/data/new.export.zst";
const WHOLE: &str = "/data/whole.ferry";

/// A large graph before and after another source of its `stdenv`.
pub(crate) struct Rebase {
    here: Machine,
    n: u32,
    new: String,
}

impl Rebase {
    /// Two graphs of `n` derivations.
    pub(crate) fn new(here: Machine, n: u32) -> Self {
        eprintln!("ferry-bench: making two recipes of {n} derivations");
        let [old, new] = ["0", "1"].map(|stdenv_source| {
            let stdenv_source = stdenv_source.to_owned();
            BigGraph { stdenv_source, ..BigGraph::new(n) }.command(&here).ok()
        });
        for (root, export) in [&old, &new].into_iter().zip(EXPORTS) {
            // The paths of a large closure are more than an argument list may otherwise hold.
            let script = format!(
                "ulimit -s 65536; nix-store --export $(nix-store -qR {root}) > {export}; \
                 nix-store -qR {old} > {LIST}"
            );
            shell(&here, &script).ok();
        }
        Self { here, n, new }
    }

    /// Packs the new recipe, by each way.
    pub(crate) fn section(&self, runs: u32) -> Section {
        let machine = &self.here;
        let against = "ferry pack --base --level default";
        let whole = ["pack", "--quiet", "--set", "recipe", "-o", WHOLE, &self.new];
        let export = format!("zstd -q -f -19 --long=27 {} -o {EXPORT}", EXPORTS[1]);
        let cases = vec![
            pack(machine, "recipe", "fast", &self.new),
            pack(machine, "recipe", "default", &self.new),
            pack(machine, "recipe", "max", &self.new),
            Case::peer("ferry pack (all of it)", against, move || {
                machine.command("ferry").args(whole).measure()
            })
            .bytes(|| size_of(&machine.path(WHOLE))),
            patch(machine, "-3 --long=27", EXPORTS),
            Case::peer("zstd -19 --long=27 of an export", against, move || {
                shell(machine, &export).measure()
            })
            .bytes(|| size_of(&machine.path(EXPORT))),
        ];
        let title = format!(
            "Another source of `stdenv`: a recipe of {} derivations ({} as an export)",
            self.n,
            size(size_of(&machine.path(EXPORTS[1])))
        );
        section(title, "bytes", runs, cases)
    }
}
