//! Checking caches: all of one or parts, on a disk and on the web, going on where a run was stopped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_cache::{Compression, ReadData, Sample, VerifyOptions, VerifyReport, VerifyState};
use ferry_formats::keys::{SecretKey, parse_public_key};
use ferry_formats::{NarHash, StorePath, narinfo};
use ferry_store::copy;
use ferry_store::progress::Silent;
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;
use ferry_test_world::{NixVersion, World};
use tempfile::TempDir;

use crate::support::{
    Objects, address, all, built, key, key_text, open, parse, path, serve, store_of,
};

/// The key that all of it is signed with.
fn harbour() -> SecretKey {
    key("harbour-1", 7)
}

/// A cache to be damaged: signed, with listings.
pub(crate) struct Cache {
    pub(crate) directory: TempDir,
    /// Nothing refers to it.
    pub(crate) top: StorePath,
    /// It refers to nothing, and is referred to.
    pub(crate) bottom: StorePath,
}

impl Cache {
    /// One that ferry writes.
    pub(crate) fn new(parameters: &str) -> Self {
        let mut objects = Objects::new();
        objects.add("bottom", b"at the bottom", &[]);
        objects.add("middle", &b"in between ".repeat(1000), &["bottom", "middle"]);
        objects.add("top", b"on top", &["middle"]);
        let directory = tempfile::tempdir().unwrap();
        let cache = open(&address(directory.path(), &format!("write-nar-listing=1&{parameters}")));
        copy(&objects.store(), &cache, all(&objects.store()), &[harbour()], &Silent).unwrap();
        Self { directory, top: path("top"), bottom: path("bottom") }
    }

    /// One that a Nix writes.
    pub(crate) fn of_nix(world: &World, version: NixVersion, method: &str) -> Self {
        let (machine, top) = built(world, version);
        machine.write("/data/secret", key_text("harbour-1", 7));
        let to = format!(
            "file:///data/cache?compression={method}&write-nar-listing=1&secret-key=/data/secret"
        );
        machine.command("nix").args(["copy", "--to", &to, &top]).ok();
        let directory = tempfile::tempdir().unwrap();
        copy_directory(&machine.path("/data/cache"), directory.path());
        let store = store_of(&machine);
        let multi = all(&store).into_keys().find(|path| path.name() == "crossing-multi-1.0");
        Self { directory, top: parse(&top), bottom: multi.unwrap() }
    }

    /// The same once more, to be damaged in another way.
    pub(crate) fn clone(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_directory(self.directory.path(), directory.path());
        Self { directory, top: self.top.clone(), bottom: self.bottom.clone() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let file = self.file(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, contents).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    pub(crate) fn listing(path: &StorePath) -> String {
        narinfo::file_name(path).replace(".narinfo", ".ls")
    }

    pub(crate) fn text(&self, path: &StorePath) -> String {
        fs::read_to_string(self.file(&narinfo::file_name(path))).unwrap()
    }

    pub(crate) fn field(&self, path: &StorePath, field: &str) -> String {
        let text = self.text(path);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }

    pub(crate) fn number(&self, path: &StorePath, field: &str) -> u64 {
        self.field(path, field).parse().unwrap()
    }

    /// Changes the value of a field.
    pub(crate) fn set(&self, path: &StorePath, field: &str, value: impl std::fmt::Display) {
        let old = format!("{field}: {}\n", self.field(path, field));
        let text = self.text(path).replace(&old, &format!("{field}: {value}\n"));
        fs::write(self.file(&narinfo::file_name(path)), text).unwrap();
    }

    /// Adds a line.
    pub(crate) fn add(&self, path: &StorePath, line: &str) {
        let text = self.text(path) + line + "\n";
        fs::write(self.file(&narinfo::file_name(path)), text).unwrap();
    }

    pub(crate) fn nar(&self, path: &StorePath) -> PathBuf {
        self.file(&self.field(path, "URL"))
    }

    /// Puts something else where a NAR is, under the same name; hash and size are those of it.
    pub(crate) fn replace_nar(&self, path: &StorePath, contents: &[u8]) {
        fs::write(self.nar(path), contents).unwrap();
        self.set(path, "FileHash", NarHash::of(contents));
        self.set(path, "FileSize", contents.len());
    }

    pub(crate) fn options(&self) -> VerifyOptions {
        VerifyOptions {
            roots: Vec::new(),
            shard: Shard::WHOLE,
            trust: TrustPolicy {
                require_signatures: true,
                trusted_public_keys: vec![parse_public_key(&harbour().public_key_text()).unwrap()],
            },
            data: ReadData::Nothing,
            again_after: None,
        }
    }

    pub(crate) fn verify(&self, options: &VerifyOptions) -> VerifyReport {
        open(&address(self.directory.path(), "")).verify(options, None, &Silent).unwrap()
    }

    pub(crate) fn verify_data(&self) -> VerifyReport {
        self.verify(&VerifyOptions { data: ReadData::Everything, ..self.options() })
    }
}

fn copy_directory(from: &Path, to: &Path) {
    for (name, bytes) in crate::support::files(from) {
        let file = to.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
}

pub(crate) fn kinds(report: &VerifyReport) -> BTreeSet<&'static str> {
    report.faults.iter().map(|fault| fault.kind.name()).collect()
}

/// A path that is nowhere.
pub(crate) fn nowhere() -> StorePath {
    path("nowhere")
}

#[test]
fn every_compression_that_is_read_is_verified_and_a_changed_byte_is_found_anywhere() {
    for method in Compression::ALL {
        let Ok(setting) = ferry_cache::CompressionSetting::new(method, None) else { continue };
        let method = setting.method().name();
        let cache = Cache::new(&format!("compression={method}"));
        let nar = cache.nar(&cache.top);
        let whole = fs::read(&nar).unwrap();
        for place in (0..whole.len()).step_by(3) {
            let mut changed = whole.clone();
            changed[place] ^= 0x20;
            fs::write(&nar, changed).unwrap();
            let report = cache.verify_data();
            let found = kinds(&report);
            assert!(found.contains("wrong-file-hash"), "{method}, byte {place}: {found:?}");
        }
    }
}

#[test]
fn a_cache_is_verified_from_the_paths_that_are_named_on_the_web_too() {
    let cache = Cache::new("compression=zstd");
    let from_roots = |roots: &[&StorePath]| VerifyOptions {
        roots: roots.iter().copied().cloned().collect(),
        data: ReadData::Everything,
        ..cache.options()
    };
    let web = serve(cache.directory.path());
    let on_the_web = |options: &VerifyOptions| open(&web.url()).verify(options, None, &Silent);
    for (roots, count) in [(vec![&cache.top], 3), (vec![&cache.bottom], 1)] {
        let options = from_roots(&roots);
        for report in [cache.verify(&options), on_the_web(&options).unwrap()] {
            assert_eq!(
                (report.faults.as_slice(), report.paths, report.nars_read),
                (&[][..], count, count)
            );
            assert!(!report.looked_for_orphans);
        }
    }
    let error = on_the_web(&cache.options()).unwrap_err().to_string();
    assert!(error.contains("cannot be listed"), "{error}");

    let missing = nowhere();
    let options = from_roots(&[&missing, &cache.top]);
    fs::remove_file(cache.file(&narinfo::file_name(&cache.bottom))).unwrap();
    fs::remove_file(cache.nar(&cache.top)).unwrap();
    let web = serve(cache.directory.path());
    for report in
        [cache.verify(&options), open(&web.url()).verify(&options, None, &Silent).unwrap()]
    {
        let expected = ["missing-path", "missing-reference", "no-nar"];
        assert_eq!(kinds(&report), BTreeSet::from(expected));
        assert_eq!(report.faults.len(), 3);
    }
    // In parts, each of them is somebody's.
    let parts = (0..4).map(|part| {
        let shard = format!("{part}/4").parse().unwrap();
        let options = VerifyOptions { shard, ..options.clone() };
        open(&web.url()).verify(&options, None, &Silent).unwrap().faults.len()
    });
    assert_eq!(parts.sum::<usize>(), 3);
}

#[test]
fn the_parts_and_the_samples_make_the_whole() {
    let cache = Cache::new("compression=zstd");
    let whole = cache.verify_data();
    let parts: Vec<VerifyReport> = (0..3)
        .map(|part| {
            let shard = format!("{part}/3").parse().unwrap();
            let data = ReadData::Everything;
            cache.verify(&VerifyOptions { shard, data, ..cache.options() })
        })
        .collect();
    assert_eq!(parts.iter().map(|report| report.paths).sum::<u64>(), whole.paths);
    assert_eq!(parts.iter().map(|report| report.nar_size_read).sum::<u64>(), whole.nar_size);
    let sample = |part: &str, seed| {
        let data = ReadData::Sample(Sample { part: part.parse().unwrap(), seed });
        cache.verify(&VerifyOptions { data, ..cache.options() })
    };
    assert_eq!(sample("100%", 1).nars_read, 3);
    assert_eq!(sample("0.000001%", 1).nars_read, 0);
    let read: BTreeSet<u64> = (0..50).map(|seed| sample("40%", seed).nars_read).collect();
    assert!(read.len() > 1, "{read:?}");
    assert_eq!(sample("40%", 3), sample("40%", 3));
}

#[test]
fn what_was_read_is_not_read_again_until_it_changes_or_time_has_passed() {
    let cache = Cache::new("compression=zstd");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("state");
    let data = ReadData::Everything;
    let options = VerifyOptions { data, ..cache.options() };
    let opened = || open(&address(cache.directory.path(), ""));
    let run = |options: &VerifyOptions| {
        let state = VerifyState::open(&file, &opened()).unwrap();
        let report = opened().verify(options, Some(&state), &Silent).unwrap();
        (report.nars_read, report.nars_read_before, kinds(&report))
    };
    let none = BTreeSet::new();
    assert_eq!(run(&options), (3, 0, none.clone()));
    assert_eq!(run(&options), (0, 3, none.clone()));
    let again_after = Some(std::time::Duration::ZERO);
    assert_eq!(run(&VerifyOptions { again_after, ..options.clone() }), (3, 0, none.clone()));

    // Killed in the middle of a line: what stands before it counts.
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let (header, first, second) = (lines[0], lines[1], &lines[2][..20]);
    fs::write(&file, format!("{header}\n{first}\n{second}")).unwrap();
    assert_eq!(run(&options), (2, 1, none.clone()));
    assert_eq!(run(&options), (0, 3, none.clone()));
    // Killed in the first.
    fs::write(&file, &header[..10]).unwrap();
    assert_eq!(run(&options), (3, 0, none));

    // On the web too.
    let web = serve(cache.directory.path());
    let state = place.path().join("web");
    let options_there = VerifyOptions { roots: vec![cache.top.clone()], ..options.clone() };
    for expected in [(3, 0), (0, 3)] {
        let there = open(&web.url());
        let state = VerifyState::open(&state, &there).unwrap();
        let report = there.verify(&options_there, Some(&state), &Silent).unwrap();
        assert_eq!((report.nars_read, report.nars_read_before), expected);
    }

    // What is wrong is found each time.
    let nar = cache.nar(&cache.top);
    let mut changed = fs::read(&nar).unwrap();
    changed[20] ^= 1;
    fs::write(&nar, changed).unwrap();
    for _ in 0..2 {
        let (read, before, found) = run(&options);
        assert_eq!((read, before), (1, 2));
        assert!(found.contains("wrong-file-hash"), "{found:?}");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().count() <= 5, "{text}");
}

#[test]
fn a_state_of_something_else_or_of_another_run_is_not_touched() {
    let cache = Cache::new("compression=zstd");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("state");
    let opened = open(&address(cache.directory.path(), ""));
    for (contents, said) in [
        ("my diary\n", "something else"),
        ("my diary", "something else"),
        ("ferry-cache-verify 1 /srv/other\n", "it is about the cache /srv/other"),
    ] {
        fs::write(&file, contents).unwrap();
        let error = VerifyState::open(&file, &opened).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), contents);
    }
    fs::remove_file(&file).unwrap();
    let held = VerifyState::open(&file, &opened).unwrap();
    let error = VerifyState::open(&file, &opened).err().unwrap().to_string();
    assert!(error.contains("another run uses it"), "{error}");
    drop(held);
    VerifyState::open(&file, &opened).unwrap();
    let text = fs::read_to_string(&file).unwrap() + "nonsense\n";
    fs::write(&file, text).unwrap();
    let error = VerifyState::open(&file, &opened).err().unwrap().to_string();
    assert!(error.contains("line 2 is damaged"), "{error}");
}
