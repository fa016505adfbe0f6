//! One cache, many hands: writers that are killed, that share the work, and that somebody prunes
//! under.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_formats::{NarHash, StoreDir, narinfo};
use ferry_test_world::{Machine, MachineCommand, NixVersion, S3Server, World, big_graph, trees};

use crate::kills::{Moments, kill_after};
use crate::support::{ferry, files, machine, query, shell};

const CACHE: &str = "file:///data/cache?compression=zstd";
const KILLS: usize = 50;

/// What a reader sees: every narinfo has its NAR, whole, and the narinfos of all that it refers to.
/// Returns the paths that are there.
fn assert_whole(directory: &Path, when: &str) -> Vec<String> {
    if !directory.exists() {
        return Vec::new();
    }
    let files = files(directory);
    let store_dir = StoreDir::default();
    let mut paths = Vec::new();
    for (name, text) in &files {
        if !name.ends_with(".narinfo") || name.starts_with(".ferry-") {
            continue;
        }
        let narinfo = narinfo::parse(&store_dir, text).unwrap();
        let path = store_dir.render_path(&narinfo.info.path);
        let nar = files.get(&narinfo.url);
        let nar = nar.unwrap_or_else(|| panic!("{when}: {path} has no NAR"));
        let hash = format!("FileHash: {}\n", NarHash::of(nar));
        assert!(String::from_utf8_lossy(text).contains(&hash), "{when}: the NAR of {path}");
        for reference in narinfo.info.references.iter() {
            let is_there = files.contains_key(&narinfo::file_name(reference));
            assert!(is_there, "{when}: {path} refers to {reference}");
        }
        paths.push(path);
    }
    paths
}

/// The files of the cache, those of pruning left out.
fn cache_files(machine: &Machine) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(&machine.path("/data/cache"));
    files.retain(|name, _| !name.starts_with(".ferry-prune/"));
    files
}

fn wipe(machine: &Machine) {
    shell(machine, "rm -rf /data/cache").ok();
}

/// Small paths and large ones: more than are given their places at a time.
struct Load {
    machine: Machine,
    installables: Vec<String>,
    /// The cache that nobody disturbed.
    whole: BTreeMap<String, Vec<u8>>,
    /// How many paths there are.
    count: usize,
}

impl Load {
    fn new(world: &World) -> Self {
        let machine = machine(world, NixVersion::V2_34);
        let mut installables = vec![big_graph(&machine, 400)];
        for size in [9_000_000, 10_000_000, 11_000_000, 12_000_000, 13_000_000] {
            installables.push(trees::add_large_file(&machine, size));
        }
        let mut load = Self { machine, installables, whole: BTreeMap::new(), count: 0 };
        load.copy().ok();
        load.whole = cache_files(&load.machine);
        load.count = load.seen("the undisturbed copy");
        load
    }

    fn copy(&self) -> MachineCommand {
        ferry(&self.machine, ["copy", "--set", "x + closure(run, x)", "--to", CACHE])
            .args(&self.installables)
    }

    fn seen(&self, when: &str) -> usize {
        assert_whole(&self.machine.path("/data/cache"), when).len()
    }

    fn assert_complete(&self) {
        assert_eq!(self.seen("in the end"), self.count);
        let files = cache_files(&self.machine);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&files), names(&self.whole));
        assert!(files == self.whole, "the files differ");
    }
}

#[test]
fn a_copy_killed_at_any_moment_leaves_a_cache_that_is_whole_and_the_next_one_completes_it() {
    let Some(world) = World::open() else { return };
    let load = Load::new(&world);
    wipe(&load.machine);
    let took = load.copy().measure().wall;
    let (mut kills, mut begun) = (0, 0);
    let mut moments = Moments::within(took);
    for attempt in 0..5 * KILLS {
        if attempt % 4 == 0 {
            wipe(&load.machine);
        }
        let killed = moments.kill(load.copy());
        let seen = load.seen(&format!("attempt {attempt} at {killed:?}"));
        kills += usize::from(killed.is_some());
        begun += usize::from(killed.is_some() && (1..load.count).contains(&seen));
        if kills == KILLS {
            break;
        }
    }
    assert_eq!(kills, KILLS, "copies that were killed before they ended");
    assert!(begun > 0, "no kill left a part behind");
    load.copy().ok();
    load.assert_complete();
}

#[test]
fn parts_written_by_processes_that_are_killed_and_begun_again_make_the_same_cache() {
    let Some(world) = World::open() else { return };
    let load = Load::new(&world);
    let part = |part: u32| load.copy().args(["--shard", &format!("{part}/4")]);
    let mut moments = Moments::within(load.copy().measure().wall * 2);
    for round in 0..4 {
        wipe(&load.machine);
        for _ in 0..round {
            let mut running: Vec<_> = (0..4).map(|number| part(number).spawn()).collect();
            std::thread::sleep(moments.next());
            let last = running.pop();
            running.into_iter().for_each(|running| drop(running.kill()));
            drop(last.map(ferry_test_world::Running::wait));
            load.seen(&format!("round {round}"));
        }
        if round % 2 == 0 {
            let running: Vec<_> = (0..4).map(|number| part(number).spawn()).collect();
            for running in running {
                let outcome = running.wait();
                assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
            }
        } else {
            (0..4).rev().for_each(|number| drop(part(number).ok()));
        }
        load.assert_complete();
    }
}

/// Numbers from nothing to `below`, the same ones every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % below
    }
}

/// A place for caches, seen by `ferry` on a machine and by the test.
struct Place {
    address: String,
    directory: PathBuf,
    /// Whoever serves it.
    server: Option<S3Server>,
}

impl Place {
    fn on_disk(machine: &Machine) -> Self {
        let directory = machine.path("/data/cache");
        Self { address: CACHE.to_owned(), directory, server: None }
    }

    fn in_bucket(server: S3Server) -> Self {
        let endpoint = server.url();
        let address = format!("s3://cache?endpoint={endpoint}&region=eu-west-1&compression=zstd");
        Self { address, directory: server.bucket("cache"), server: Some(server) }
    }

    /// Takes everything out of it.
    fn empty(&self) {
        let _ = fs::remove_dir_all(&self.directory);
        if let Some(server) = &self.server {
            server.bucket("cache");
        }
    }

    /// Makes all that is in it two days older.
    fn age(&self) {
        for name in files(&self.directory).keys() {
            let file = File::open(self.directory.join(name)).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - Duration::from_secs(2 * 24 * 60 * 60)).unwrap();
        }
    }

    /// The files, those of pruning left out.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = files(&self.directory);
        files.retain(|name, _| !name.starts_with(".ferry-prune/"));
        files
    }
}

/// Rounds of two writers and somebody who prunes at the same time; `read` makes Nix read what the
/// writers say that they have written.
fn compete(machine: &Machine, place: &Place, rounds: usize, read: impl Fn(usize, [&str; 2])) {
    let top = big_graph(machine, 250);
    let derivations: Vec<String> = query(machine, &["--requisites", &top])
        .into_iter()
        .filter(|path| path.ends_with(".drv"))
        .collect();
    let copy = |path: &str| {
        let args = ["copy", path, "--set", "x + closure(run, x)", "--to", &place.address];
        ferry(machine, args).online()
    };
    let mut dice = Dice(1);
    for round in 0..rounds {
        place.empty();
        let mut any = || derivations[dice.roll(derivations.len())].as_str();
        let (old, anchor, first, second) = (any(), any(), any(), any());
        for path in [old, anchor] {
            copy(path).ok();
        }
        place.age();
        // By what is wanted, or by what is new.
        let keep = match round % 2 {
            0 => format!("--keep {anchor} --keep {first} --keep {second} --older-than 0"),
            _ => format!("--keep {anchor} --older-than 1d"),
        };
        let prune = format!("ferry -q cache prune '{}' {keep} --grace 0", place.address);
        let script = format!("for n in 1 2 3 4; do {prune}; done");
        let pruner = shell(machine, &script).online().spawn();
        let writers = [copy(first).spawn(), copy(second).spawn()];
        for running in writers.into_iter().chain([pruner]) {
            let outcome = running.wait();
            assert_eq!(outcome.code(), 0, "round {round}: {}", outcome.stderr);
        }
        let there = assert_whole(&place.directory, &format!("round {round}"));
        for path in [anchor, first, second] {
            assert!(there.iter().any(|there| there == path), "round {round}: {path}");
        }
        read(round, [first, second]);

        // With nobody else at work, what is left is what is wanted, and not a file more.
        let keep = ["--keep", anchor, "--keep", first, "--keep", second];
        let rest = ["--older-than", "0", "--grace", "0"];
        ferry(machine, ["cache", "prune", &place.address]).args(keep).args(rest).online().ok();
        let left = place.files();
        place.empty();
        for path in [anchor, first, second] {
            copy(path).ok();
        }
        assert!(left == place.files(), "round {round}");
    }
}

#[test]
fn two_writers_lose_nothing_to_somebody_who_prunes_at_the_same_time() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    compete(&machine, &Place::on_disk(&machine), 12, |round, paths| {
        let chroot = format!("/data/chroot-{round}");
        machine
            .command("nix")
            .args(["copy", "--no-check-sigs", "--from", "file:///data/cache", "--to", &chroot])
            .args(paths)
            .ok();
    });
}

#[test]
fn two_writers_of_a_bucket_lose_nothing_to_somebody_who_prunes_at_the_same_time() {
    let (Some(world), Some(server)) = (World::open(), S3Server::start()) else { return };
    let machine = machine(&world, NixVersion::V2_34);
    compete(&machine, &Place::in_bucket(server), 6, |_, _| ());
}

#[test]
fn a_prune_killed_at_any_moment_leaves_a_cache_that_is_whole_and_the_next_one_completes_it() {
    let Some(world) = World::open() else { return };
    let load = Load::new(&world);
    let machine = &load.machine;
    let keep = &load.installables[1];
    shell(machine, "cp -a /data/cache /data/full").ok();
    let prune = || {
        let args = ["cache", "prune", "/data/cache", "--keep", keep, "--older-than", "0"];
        ferry(machine, args).args(["--grace", "0"])
    };
    let again = || shell(machine, "rm -rf /data/cache; cp -a /data/full /data/cache").ok();
    let took = prune().measure().wall;
    let pruned = cache_files(machine);
    assert_eq!(pruned.len(), 3);
    let mut kills = 0;
    let mut moments = Moments::within(took);
    for _ in 0..100 {
        again();
        let killed = moments.kill(prune());
        kills += u32::from(killed.is_some());
        load.seen(&format!("a kill at {killed:?}"));
        if kills == 20 {
            break;
        }
    }
    assert_eq!(kills, 20, "prunes that were killed before they ended");
    prune().ok();
    assert!(cache_files(machine) == pruned);
    again();
    kill_after(prune(), took.mul_f32(0.7));
    load.copy().ok();
    load.assert_complete();
}
