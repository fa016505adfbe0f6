//! Taking things out of caches: nothing that is kept, nothing that somebody is about to need.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferry_cache::{BinaryCache, CacheError, PruneOptions, PruneReport};
use ferry_formats::{NarHash, StoreDir, StorePath, narinfo};
use ferry_store::admission::Plan;
use ferry_store::progress::Silent;
use ferry_store::shard::Shard;
use ferry_store::{Destination, Error, SignatureCheck, Store, StoreWriter, copy};
use ferry_test_world::Answer;
use tempfile::TempDir;

use crate::support::{
    Hooked, Objects, address, all, chain, copy_all, count_whole, files, named, new_store, open,
    path, serve, some_objects, text,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const NOW: PruneOptions = PruneOptions {
    older_than: Duration::ZERO,
    grace: Duration::ZERO,
    dry_run: false,
    shard: Shard::WHOLE,
};

/// A cache of objects, all of it written ten days ago.
fn cache_of(objects: &Objects) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=zstd&write-nar-listing=1");
    copy_all(&objects.store(), &open(&place)).unwrap();
    for name in files(directory.path()).keys() {
        set_age(directory.path(), name, 10 * DAY);
    }
    directory
}

fn set_age(cache: &Path, name: &str, age: Duration) {
    let file = File::open(cache.join(name)).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

fn prune(cache: &Path, keep: &[&str], options: PruneOptions) -> Result<PruneReport, CacheError> {
    let keep: Vec<_> = keep.iter().map(|name| path(name)).collect();
    open(&address(cache, "")).prune(&keep, &options, &Silent)
}

/// The names of the paths in a cache.
fn there(cache: &Path) -> Vec<String> {
    let paths = open(&address(cache, "")).all_paths().unwrap().unwrap();
    let names: BTreeSet<String> = paths.iter().map(|path| path.name().to_owned()).collect();
    names.into_iter().collect()
}

fn names(report: &PruneReport) -> Vec<&str> {
    report.removed.iter().map(|path| path.name()).collect()
}

fn nars(cache: &Path) -> usize {
    files(cache).keys().filter(|name| name.starts_with("nar/")).count()
}

#[test]
fn what_is_kept_stays_with_all_it_refers_to_and_nars_go_when_their_time_of_grace_has_passed() {
    let cache = cache_of(&some_objects());
    let cache = cache.path();
    let with_grace = PruneOptions { grace: DAY, ..NOW };
    let dry = prune(cache, &["twin"], PruneOptions { dry_run: true, ..with_grace }).unwrap();
    let before = files(cache);
    let report = prune(cache, &["twin"], with_grace).unwrap();
    assert_eq!(names(&dry), names(&report));
    assert_eq!(names(&report), ["top", "large", "middle"]);
    assert_eq!(there(cache), ["bottom", "twin"]);
    assert_eq!(count_whole(cache), 2);
    // The NAR of `middle` is that of `twin`, too.
    assert_eq!((nars(cache), report.condemned.count, report.removed_nars.count), (4, 2, 0));
    assert_eq!((report.kept, report.recent, report.kept_nars.count), (2, 0, 2));
    let lists = files(cache).keys().filter(|name| name.ends_with(".ls")).count();
    assert_eq!(lists, 2);
    assert!(report.next.unwrap() > SystemTime::now());

    // Too early.
    let report = prune(cache, &["twin"], with_grace).unwrap();
    assert_eq!((report.condemned.count, report.removed.len(), nars(cache)), (2, 0, 4));
    // A day later.
    backdate(cache, 2);
    let report = prune(cache, &["twin"], with_grace).unwrap();
    assert_eq!((report.condemned.count, report.removed_nars.count, nars(cache)), (0, 2, 2));
    assert_eq!(report.next, None);
    let after = files(cache);
    assert!(
        after.iter().all(|(name, bytes)| name == ".ferry-prune/last" || before[name] == *bytes)
    );
    assert_eq!(after.len(), 2 + 2 + 2 + 2);
}

/// Writes into the list of what is condemned that it was so many days ago.
fn backdate(cache: &Path, days: u64) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let since = (since - days * DAY.as_secs()).to_string();
    for (name, text) in files(cache) {
        if name.starts_with(".ferry-prune/condemned-") {
            let text = String::from_utf8(text).unwrap();
            let mut lines: Vec<&str> = text.lines().collect();
            lines[1] = &since;
            fs::write(cache.join(name), lines.join("\n") + "\n").unwrap();
        }
    }
}

#[test]
fn without_grace_all_goes_at_once_and_nothing_is_left_of_it() {
    let objects = some_objects();
    let cache = cache_of(&objects);
    let report = prune(cache.path(), &["middle"], NOW).unwrap();
    assert_eq!(report.removed_nars.count, 2);
    let small = tempfile::tempdir().unwrap();
    let place = address(small.path(), "compression=zstd&write-nar-listing=1");
    let store = objects.store();
    let wanted = crate::support::named(&store, "middle");
    ferry_store::copy(&store, &open(&place), wanted, &[], &Silent).unwrap();
    let mut left = files(cache.path());
    assert!(left.remove(".ferry-prune/last").is_some());
    assert!(left == files(small.path()));
}

#[test]
fn what_is_recent_stays_with_all_it_refers_to() {
    let cache = cache_of(&some_objects());
    let cache = cache.path();
    set_age(cache, &narinfo::file_name(&path("large")), DAY);
    let options = PruneOptions { older_than: 2 * DAY, ..NOW };
    let report = prune(cache, &[], options).unwrap();
    assert_eq!(there(cache), ["bottom", "large", "middle"]);
    assert_eq!((report.kept, report.recent), (3, 3));
    // A NAR that nothing names may be of a writer who is about to write the narinfo.
    fs::write(cache.join("nar/new.nar.xz"), "new").unwrap();
    fs::write(cache.join("nar/old.nar.xz"), "old").unwrap();
    set_age(cache, "nar/old.nar.xz", 3 * DAY);
    assert_eq!(prune(cache, &["bottom"], options).unwrap().removed_nars.count, 1);
    assert!(cache.join("nar/new.nar.xz").exists() && !cache.join("nar/old.nar.xz").exists());
}

#[test]
fn a_nar_that_somebody_wants_again_is_no_longer_condemned() {
    let objects = some_objects();
    let cache = cache_of(&objects);
    let cache = cache.path();
    let with_grace = PruneOptions { grace: DAY, ..NOW };
    assert_eq!(prune(cache, &["bottom"], with_grace).unwrap().condemned.count, 3);
    copy_all(&objects.store(), &open(&address(cache, "compression=zstd&write-nar-listing=1")))
        .unwrap();
    backdate(cache, 2);
    let report = prune(cache, &["top"], with_grace).unwrap();
    assert_eq!((report.condemned.count, report.removed_nars.count), (0, 0));
    assert_eq!(count_whole(cache), 5);
    // Condemned again, it has all of its time again.
    let report = prune(cache, &["bottom"], with_grace).unwrap();
    assert_eq!((report.condemned.count, report.removed_nars.count), (3, 0));
    // Written again meanwhile, somebody is about to need it.
    backdate(cache, 2);
    let large = files(cache).into_iter().find(|(_, bytes)| bytes.len() > 1 << 20).unwrap().0;
    set_age(cache, &large, Duration::ZERO);
    let report = prune(cache, &["bottom"], with_grace).unwrap();
    assert_eq!((report.condemned.count, report.removed_nars.count), (1, 2));
    assert!(cache.join(large).exists());
}

#[test]
fn what_speaks_of_paths_that_go_goes_with_them() {
    let cache = cache_of(&some_objects());
    let cache = cache.path();
    let write = |name: &str, text: &str| {
        let file = cache.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        set_age(cache, name, 10 * DAY);
    };
    let derivation = |name: &str| path(&format!("{name}.drv")).to_basename();
    let id = |name: &str| format!("sha256:{}!out", format!("{:02x}", name.len()).repeat(32));
    for name in ["top", "bottom"] {
        let file = cache.join(narinfo::file_name(&path(name)));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}Deriver: {}\n", derivation(name))).unwrap();
        let url = text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap().to_owned();
        let output = path(name).to_basename();
        write(&format!("log/{}", derivation(name)), "a log");
        let realisation =
            format!(r#"{{"id":"{}","outPath":"{output}","signatures":[]}}"#, id(name));
        write(&format!("realisations/{}.doi", id(name)), &realisation);
        write(&format!("build-trace-v2/{}/out.doi", derivation(name)), &realisation);
        let debug = format!(r#"{{"archive":"../{url}","member":"lib/x.debug"}}"#);
        write(&format!("debuginfo/{name}.debug"), &debug);
    }
    write(&format!("log/{}", derivation("unknown")), "of something else");
    write("index.html", "hello");
    prune(cache, &["bottom"], NOW).unwrap();
    let left = files(cache);
    for name in ["bottom", "top"] {
        for file in [
            format!("log/{}", derivation(name)),
            format!("realisations/{}.doi", id(name)),
            format!("build-trace-v2/{}/out.doi", derivation(name)),
            format!("debuginfo/{name}.debug"),
        ] {
            assert_eq!(left.contains_key(&file), name == "bottom", "{file}");
        }
    }
    assert!(left.contains_key(&format!("log/{}", derivation("unknown"))));
    assert!(left.contains_key("index.html"));
}

#[test]
fn nothing_is_removed_where_it_is_not_certain_what_may_go() {
    let cache = cache_of(&some_objects());
    let cache = cache.path();
    let before = files(cache);
    let refused = |keep: &[&str], said: &str| {
        let error = prune(cache, keep, NOW).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    };
    refused(&["elsewhere"], "nothing of what is to be kept is in it");
    assert!(files(cache) == before);
    let broken = narinfo::file_name(&path("large"));
    fs::write(cache.join(&broken), "<html>").unwrap();
    refused(&["bottom"], &broken);
    fs::remove_file(cache.join("nix-cache-info")).unwrap();
    refused(&["bottom"], "not a binary cache");
    assert_eq!(files(cache).len(), before.len() - 1);

    let origin = serve(cache);
    origin.answer_next("/x", Answer::Cut);
    origin.serve("/nix-cache-info", "StoreDir: /nix/store\n");
    let web = open(&origin.url());
    let error = web.prune(&[path("bottom")], &NOW, &Silent).unwrap_err().to_string();
    assert!(error.contains("a cache on the web cannot be listed"), "{error}");
}

#[test]
fn what_waits_for_other_machines_stays_with_its_nar() {
    let objects = some_objects();
    let cache = cache_of(&objects);
    let cache = cache.path();
    // `large` waits for `middle`, as far as anybody can tell.
    let name = narinfo::file_name(&path("large"));
    fs::create_dir(cache.join(".ferry-pending")).unwrap();
    fs::rename(cache.join(&name), cache.join(format!(".ferry-pending/{name}"))).unwrap();
    fs::remove_file(cache.join(narinfo::file_name(&path("top")))).unwrap();
    let report = prune(cache, &["bottom"], NOW).unwrap();
    assert_eq!(names(&report), ["twin"]);
    assert_eq!((report.removed_nars.count, report.dangling.len()), (1, 0));
    // The next writer, whatever it writes, gives it its place.
    copy_all(&objects.store(), &open(&address(cache, "compression=zstd"))).unwrap();
    assert_eq!(count_whole(cache), 5);
    assert!(!cache.join(".ferry-pending").exists());
}

#[test]
fn parts_do_together_what_one_does_alone() {
    let objects = chain();
    let (alone, parted) = (cache_of(&objects), cache_of(&objects));
    let whole = prune(alone.path(), &["p7"], NOW).unwrap();
    let mut removed = (0, 0);
    for part in ["0/3", "1/3", "2/3"] {
        let shard = part.parse().unwrap();
        let report = prune(parted.path(), &["p7"], PruneOptions { shard, ..NOW }).unwrap();
        removed.0 += report.removed.len();
        removed.1 += report.removed_nars.count;
    }
    assert_eq!(removed, (whole.removed.len(), whole.removed_nars.count));
    let files = |cache: &Path| -> Vec<String> { files(cache).into_keys().collect() };
    assert_eq!(files(alone.path()), files(parted.path()));
}

#[test]
fn a_nar_that_was_found_before_a_sweep_and_is_taken_after_another_look_gets_no_narinfo() {
    let objects = chain();
    let store = objects.store();
    let whole = cache_of(&objects);
    // Old NARs that nothing refers to: a sweep takes them all, whenever it comes.
    for at in (0..30).step_by(3) {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        for (name, bytes) in files(whole.path()) {
            if !name.ends_with(".narinfo") {
                fs::create_dir_all(cache.join(&name).parent().unwrap()).unwrap();
                fs::write(cache.join(name), bytes).unwrap();
            }
        }
        let pruned = Cell::new(false);
        let before = |read| {
            if read == at && !pruned.replace(true) {
                prune(cache, &[], NOW).unwrap();
            }
            Ok(())
        };
        let hooked = Hooked { store: &store, before: Box::new(before) };
        copy_all(&hooked, &open(&address(cache, "compression=zstd"))).unwrap();
        assert_eq!(count_whole(cache), 30, "{at}");
    }
}

#[test]
fn a_writer_puts_again_what_is_taken_away_under_its_hands() {
    let objects = chain();
    let store = objects.store();
    let parameters = "compression=zstd&write-nar-listing=1";
    for (present, at) in [(0, 5), (10, 0), (10, 7), (25, 0), (25, 4), (30, 0)] {
        // Some of it is there already, and old; of some there is the NAR alone.
        let cache = cache_of(&objects);
        let cache = cache.path();
        for number in present..30 {
            let name = narinfo::file_name(&path(&format!("p{number}")));
            fs::remove_file(cache.join(name)).unwrap();
        }
        let pruned = Cell::new(0);
        let before = |read| {
            if read == at && pruned.get() == 0 {
                pruned.set(1);
                // Nobody knows that anything is wanted.
                prune(cache, &[], NOW).unwrap();
            }
            Ok(())
        };
        let source = Hooked { store: &store, before: Box::new(before) };
        let report = copy_all(&source, &open(&address(cache, parameters))).unwrap();
        assert_eq!(pruned.get(), usize::from(present < 30));
        assert_eq!(report.added + report.present, 30);
        assert_eq!(count_whole(cache), 30, "{present} {at}");
        if pruned.get() > 0 {
            // All that was there went.
            assert_eq!((report.added, report.present), (30, 0), "{present} {at}");
        }
        let root = tempfile::tempdir().unwrap();
        copy_all(&open(&address(cache, "")), &new_store(root.path())).unwrap();
        assert_eq!(all(&new_store(root.path())), all(&store));
    }
}

/// A cache from which everything is taken once, right after it has said what it has.
struct TakenFrom<'a> {
    cache: &'a BinaryCache,
    place: &'a Path,
    is_done: Cell<bool>,
}

impl Destination for TakenFrom<'_> {
    fn store_dir(&self) -> &StoreDir {
        Store::store_dir(self.cache)
    }

    fn describe(&self) -> String {
        Store::describe(self.cache)
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>, Error> {
        let answer = self.cache.present(paths);
        if !self.is_done.replace(true) {
            prune(self.place, &[], NOW).unwrap();
        }
        answer
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>, Error> {
        Store::derivation_text(self.cache, path)
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        self.cache.signature_check()
    }

    fn lost(&self, plan: &Plan) -> Result<Vec<StorePath>, Error> {
        self.cache.lost(plan)
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>, Error> {
        self.cache.writer(plan)
    }
}

#[test]
fn what_is_taken_away_right_after_it_was_found_there_is_copied() {
    let objects = chain();
    let store = objects.store();
    for present in [0, 15, 28] {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path();
        let place = address(cache, "compression=none");
        let some = named(&store, &format!("p{present}"));
        copy(&store, &open(&place), some, &[], &Silent).unwrap();
        for name in files(cache).keys() {
            set_age(cache, name, 10 * DAY);
        }
        let taken = TakenFrom { cache: &open(&place), place: cache, is_done: Cell::new(false) };
        let report = copy_all(&store, &taken).unwrap();
        assert!(taken.is_done.get());
        assert_eq!((report.added, report.present), (30, 0), "{present}");
        assert_eq!(count_whole(cache), 30, "{present}");
    }
}

#[test]
fn a_writer_from_whom_everything_is_taken_for_ever_gives_up() {
    let objects = some_objects();
    let store = objects.store();
    let cache = cache_of(&objects);
    fs::remove_file(cache.path().join(narinfo::file_name(&path("top")))).unwrap();
    let before = |_| {
        for name in files(cache.path()).keys() {
            set_age(cache.path(), name, 10 * DAY);
        }
        prune(cache.path(), &[], NOW).map(drop).map_err(Into::into)
    };
    let source = Hooked { store: &store, before: Box::new(before) };
    let place = address(cache.path(), "compression=zstd");
    let outcome = copy_all(&source, &open(&place));
    // Whatever the order of things was: either it is all there, or it says that it is not.
    match outcome {
        Ok(_) => assert_eq!(count_whole(cache.path()), 5),
        Err(error) => assert!(error.to_string().contains("time after time"), "{error}"),
    }
    assert!(text("top").ends_with("-top"));
}
