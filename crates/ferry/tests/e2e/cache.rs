//! Binary caches from the command line: copying into them and out of them, and making them where
//! there is no database.

use std::collections::BTreeMap;

use ferry_test_world::{Machine, NixVersion, Origin, World};
use serde::Deserialize;

use crate::support::{
    Built, all_valid, assert_store_is_whole, closure, ferry, files, generate_key, machine,
    on_each_built, shell,
};

/// What `--json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Copied {
    version: u32,
    added: u64,
    present: u64,
    nar_size: u64,
    kept: Vec<String>,
    realisations: Realisations,
    logs: Option<Logs>,
}

#[derive(Deserialize, Debug, Default, PartialEq)]
#[serde(deny_unknown_fields)]
struct Realisations {
    added: u64,
    untrusted: Vec<String>,
    other: Vec<String>,
    untold: Vec<String>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Logs {
    added: u64,
    present: u64,
    absent: u64,
}

fn copied(output: &[u8]) -> Copied {
    serde_json::from_slice(output).expect("it is what was promised")
}

/// Copies a directory from one machine's disk to another's.
fn carry_directory(from: &Machine, to: &Machine, directory: &str) {
    to.copy_in(from.path(directory), directory);
}

#[test]
fn a_recipe_is_copied_out_of_a_cache_that_nobody_can_list() {
    on_each_built(|world, sender| {
        let version = sender.machine.version();
        let recipe = ["copy", &sender.derivation, "--set", "recipe"];
        let cache = ["--to", "file:///data/cache?compression=zstd"];
        ferry(&sender.machine, [&recipe[..], &cache].concat()).ok();
        let origin = Origin::start();
        origin.serve_files(&sender.machine.path("/data/cache"));

        let island = machine(world, version);
        let from = ["--from", &origin.url(), "--to", "local"];
        ferry(&island, [&recipe[..], &from].concat()).online().ok();
        assert_eq!(all_valid(&island), closure(&sender.machine, &sender.derivation), "{version}");
        assert_store_is_whole(&island);
    });
}

#[test]
fn what_is_copied_into_a_cache_is_substituted_and_copied_out_again() {
    on_each_built(|world, sender| {
        let version = sender.machine.version();
        let key = generate_key(&sender.machine, "harbour-1");
        let to = format!("file:///data/cache?compression=zstd&secret-key={}", key.secret);
        let copy = ["copy", &sender.top, "--to", &to, "--json"];
        let first = copied(&ferry(&sender.machine, copy).succeed().stdout);
        let wanted = closure(&sender.machine, &sender.top);
        let count = wanted.len() as u64;
        assert_eq!((first.version, first.added, first.present), (1, count, 0));
        assert!(first.nar_size > 0);
        let second = copied(&ferry(&sender.machine, copy).succeed().stdout);
        assert_eq!((second.added, second.present, second.nar_size), (0, count, 0));
        assert_eq!((second.kept, second.logs), (Vec::new(), None));
        assert_eq!(second.realisations, Realisations::default());

        let by_nix = machine(world, version);
        by_nix.configure("substituters = file:///data/cache");
        by_nix.configure(&format!("trusted-public-keys = {}", key.public));
        carry_directory(&sender.machine, &by_nix, "/data/cache");
        by_nix.command("nix-store").args(["--realise", &sender.top]).ok();
        assert_eq!(all_valid(&by_nix), wanted, "Nix {version}");

        let by_ferry = machine(world, version);
        carry_directory(&sender.machine, &by_ferry, "/data/cache");
        let out = ["copy", "--all", "--from", "file:///data/cache", "--to", "local"];
        let refused = ferry(&by_ferry, out).fails();
        assert_eq!(refused.code(), 1);
        assert!(refused.stderr.contains("(it is signed by: harbour-1)"), "{}", refused.stderr);
        ferry(&by_ferry, out).args(["--trusted-public-key", &key.public]).ok();
        assert_eq!(all_valid(&by_ferry), wanted, "Nix {version}");
        assert_store_is_whole(&by_ferry);
        let hello = format!("{}/bin/hello", sender.top);
        assert_eq!(by_ferry.command(&hello).ok(), sender.machine.command(&hello).ok());
    });
}

#[test]
fn a_path_is_copied_between_stores_of_every_kind() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let machine = &sender.machine;
    let wanted = closure(machine, &sender.top);
    let _daemon = machine.daemon();
    let steps = [
        ("daemon", "/data/x.ferry"),
        ("/data/x.ferry", "file:///data/cache?compression=none"),
        ("file:///data/cache", "/data/chroot"),
        ("/data/chroot", "/data/y.ferry"),
        ("/data/y.ferry", "file:///data/other?compression=none"),
    ];
    for (from, to) in steps {
        let copy = ["copy", &sender.top, "--from", from, "--to", to, "--no-check-sigs", "--json"];
        let report = copied(&ferry(machine, copy).succeed().stdout);
        assert_eq!(report.added, wanted.len() as u64, "{from} to {to}");
    }
    assert!(files(&machine.path("/data/cache")) == files(&machine.path("/data/other")));
    let found = machine
        .command("nix-store")
        .args(["--store", "/data/chroot", "--query", "--requisites", &sender.top])
        .ok();
    assert_eq!(found.lines().count(), wanted.len());
}

/// A build that makes a cache of the closure of what was built.
const EXPRESSION: &str = r#"
let top = builtins.storePath (builtins.readFile ./top); in
derivation {
  name = "cache";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" "/opt/bin/ferry cache create --references-graph graph --to $out --compression zstd --write-nar-listing --quiet" ];
  exportReferencesGraph = [ "graph" top ];
}
"#;

#[test]
fn a_cache_is_made_inside_a_nix_build_and_is_the_same_every_time() {
    on_each_built(|world, sender| {
        let machine = &sender.machine;
        machine.write("/data/build/top", &sender.top);
        machine.write("/data/build/default.nix", EXPRESSION);
        let build = ["--no-out-link", "/data/build"];
        let made = machine.command("nix-build").args(build).ok();
        // Nix builds it again and compares.
        machine.command("nix-build").args(build).arg("--check").ok();

        // What a store with a database gives says who built what, besides.
        let to = "file:///data/cache?compression=zstd&write-nar-listing=1";
        ferry(machine, ["copy", &sender.top, "--to", to]).ok();
        let without_deriver = |(name, bytes): (String, Vec<u8>)| {
            let text = String::from_utf8_lossy(&bytes);
            if !name.ends_with(".narinfo") {
                return (name, bytes);
            }
            let lines = text.lines().filter(|line| !line.starts_with("Deriver: "));
            (name, lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes())
        };
        let plain = |directory: &str| -> BTreeMap<String, Vec<u8>> {
            files(&machine.path(directory)).into_iter().map(without_deriver).collect()
        };
        assert!(plain(&made) == plain("/data/cache"), "Nix {}", machine.version());

        let receiver = crate::support::machine(world, machine.version());
        receiver.copy_in(machine.path(&made), "/data/cache");
        receiver.configure("substituters = file:///data/cache");
        receiver.configure("require-sigs = false");
        receiver.command("nix-store").args(["--realise", &sender.top]).ok();
        assert_eq!(all_valid(&receiver), closure(machine, &sender.top));
    });
}

#[test]
fn a_damaged_cache_is_told_with_what_to_do() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_34);
    let machine = &sender.machine;
    ferry(machine, ["cache", "create", &sender.top, "--to", "/data/cache"]).ok();
    shell(machine, "for nar in /data/cache/nar/*; do echo broken >$nar; done").ok();
    let copy = ["copy", &sender.top, "--from", "file:///data/cache", "--to", "/data/new"];
    let failed = ferry(machine, copy).arg("--no-check-sigs").fails();
    assert_eq!((failed.code(), failed.text()), (1, String::new()));
    assert!(failed.stderr.contains("it ends after 7 of "), "{}", failed.stderr);
    assert!(failed.stderr.contains("ferry: hint: the cache is damaged"), "{}", failed.stderr);
}

#[test]
fn what_makes_no_sense_is_refused_as_such() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let top = &*sender.top;
    for (args, said) in [
        (vec!["copy", top], "it is copied from where it is copied to"),
        (vec!["copy", "--to", "/data/x"], "nothing is named"),
        (vec!["copy", top, "--to", "file:///data/x?compresion=xz"], "`compresion` is not known"),
        (vec!["cache", "create", top, "--to", "/data/x", "--compression", "zip"], "`zip`"),
        (
            vec!["cache", "create", top, "--to", "/data/x", "--compression-level", "11"],
            "the levels of xz are 0 to 9",
        ),
    ] {
        let failed = ferry(&sender.machine, &args).fails();
        assert_eq!(failed.code(), 2, "{args:?}: {}", failed.stderr);
        assert!(failed.stderr.contains(said), "{args:?}: {}", failed.stderr);
    }
    let none =
        ferry(&sender.machine, ["copy", top, "--from", "file:///data", "--to", "/x"]).fails();
    assert_eq!(none.code(), 1);
    assert!(none.stderr.contains("it has no `nix-cache-info`"), "{}", none.stderr);
    assert!(!sender.machine.path("/data/x").exists());
}
