//! `ferry cache prune`, and what a part of a copy is refused.

use std::collections::BTreeSet;

use ferry_test_world::{Machine, NixVersion, World};
use serde::Deserialize;

use crate::support::{Built, ferry, query, shell};

/// What `--json` promises.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Pruned {
    version: u32,
    dry_run: bool,
    kept: Kept,
    removed: Removed,
    condemned: Condemned,
    absent: Vec<String>,
    dangling: Vec<String>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Kept {
    paths: u64,
    recent: u64,
    nars: Nars,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Removed {
    paths: Vec<String>,
    nars: Nars,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Condemned {
    nars: Nars,
    next: Option<u64>,
}

#[derive(Deserialize, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Nars {
    files: u64,
    size: u64,
}

/// The paths that a cache has, as Nix copies them out again.
fn there(machine: &Machine) -> BTreeSet<String> {
    let out = shell(machine, "cat /data/cache/*.narinfo | sed -n 's/^StorePath: //p'").ok();
    out.lines().map(str::to_owned).collect()
}

/// A machine with a cache of a closure, and the parts of that.
fn built() -> Option<(Built, Vec<String>, String)> {
    let world = World::open()?;
    let built = Built::new(&world, NixVersion::V2_34);
    ferry(&built.machine, ["cache", "create", &built.top, "--to", "/data/cache"]).ok();
    let all = query(&built.machine, &["--requisites", &built.top]);
    let below = all.iter().find(|path| **path != built.top).unwrap().clone();
    Some((built, all, below))
}

#[test]
fn what_is_to_be_kept_is_named_by_path_link_list_or_set() {
    let Some((built, all, below)) = built() else { return };
    let machine = &built.machine;
    let kept: BTreeSet<String> = query(machine, &["--requisites", &below]).into_iter().collect();
    let gone = (all.len() - kept.len()) as u64;
    shell(machine, &format!("ln -s {below} /data/result; cp -a /data/cache /data/full")).ok();
    machine.write("/data/list", format!("{below}\n"));
    shell(machine, "xz -k /data/list; mv /data/list.xz /data/store-paths.xz").ok();
    let at_once = ["--older-than", "0", "--grace", "0", "--json"];
    for keep in [
        vec![&*below],
        vec!["/data/result"],
        vec!["/data/list"],
        vec!["/data/store-paths.xz"],
        vec![&below, "--set", "closure(run, x)"],
    ] {
        shell(machine, "rm -rf /data/cache; cp -a /data/full /data/cache").ok();
        let run = |dry: &[&str]| -> Pruned {
            let prune = ["cache", "prune", "/data/cache", "--keep"];
            let out = ferry(machine, prune).args(&keep).args(at_once).args(dry).succeed();
            serde_json::from_slice(&out.stdout).expect("it is what was promised")
        };
        let before = there(machine);
        let dry = run(&["--dry-run"]);
        assert_eq!(there(machine), before);
        let done = run(&[]);
        assert_eq!((dry.version, dry.dry_run, done.dry_run), (1, true, false));
        assert_eq!(there(machine), kept, "{keep:?}");
        assert_eq!(done.kept.paths, kept.len() as u64);
        assert_eq!((done.kept.recent, done.removed.paths.len() as u64), (0, gone));
        assert_eq!(
            (&dry.removed.paths, &dry.removed.nars),
            (&done.removed.paths, &done.removed.nars)
        );
        assert!(done.removed.nars.files <= gone && done.removed.nars.size > 0);
        assert!(done.kept.nars.files > 0 && done.condemned.next.is_none());
        assert_eq!(done.condemned.nars.files, 0);
        assert!(done.absent.is_empty() && done.dangling.is_empty());
    }
}

#[test]
fn what_was_just_added_stays_unless_it_is_told_otherwise_and_so_do_nars_for_a_while() {
    let Some((built, all, below)) = built() else { return };
    let machine = &built.machine;
    let prune = |more: &[&str]| {
        ferry(machine, ["cache", "prune", "/data/cache", "--keep", &below]).args(more).succeed()
    };
    let recent = prune(&[]);
    assert_eq!(recent.text(), "");
    assert!(recent.stderr.contains("only for being recent"), "{}", recent.stderr);
    assert_eq!(there(machine).len(), all.len());

    let nars = || shell(machine, "ls /data/cache/nar | wc -l").ok();
    let before = nars();
    let condemned = prune(&["--older-than", "0"]);
    let removed: BTreeSet<String> = condemned.text().lines().map(str::to_owned).collect();
    assert!(removed.contains(&built.top), "{removed:?}");
    assert!(
        condemned.stderr.contains("a run in 24 hours or later removes"),
        "{}",
        condemned.stderr
    );
    assert_eq!(nars(), before);
    // A client that has read the narinfo before.
    prune(&["--older-than", "0", "--grace", "1s", "--wait"]);
    assert!(nars().parse::<u32>().unwrap() < before.parse().unwrap());
    assert!(there(machine).contains(&below));
}

#[test]
fn what_makes_no_sense_is_refused_as_such() {
    let Some((built, _, below)) = built() else { return };
    let machine = &built.machine;
    let top = &*built.top;
    for (args, said) in [
        (vec!["cache", "prune", "/data/cache"], "nothing is named that stays"),
        (vec!["cache", "prune", "/data/cache", "--keep", top, "--grace", "7"], "`7` is no age"),
        (vec!["copy", top, "--to", "/data/chroot", "--shard", "0/2"], "takes a binary cache"),
        (vec!["copy", top, "--to", "/data/x.ferry", "--shard", "0/2"], "takes a binary cache"),
        (vec!["copy", top, "--to", "http://127.0.0.1:1", "--shard", "0/2"], "on the web"),
        (vec!["copy", top, "--to", "file:///data/c", "--shard", "2/2"], "`2/2` names no part"),
    ] {
        let failed = ferry(machine, &args).fails();
        assert_eq!(failed.code(), 2, "{args:?}: {}", failed.stderr);
        assert!(failed.stderr.contains(said), "{args:?}: {}", failed.stderr);
    }
    let other = query(machine, &["--deriver", &below]).concat();
    let failed = ferry(machine, ["cache", "prune", "/data/cache", "--keep", &other]).fails();
    assert_eq!(failed.code(), 1);
    assert!(failed.stderr.contains("nothing of what is to be kept"), "{}", failed.stderr);
}
