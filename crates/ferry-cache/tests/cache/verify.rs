//! Checking caches: everything that can be wrong is found, under its name, and nothing else is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ferry_cache::{
    Compression, FaultKind, ReadData, Sample, VerifyOptions, VerifyReport, VerifyState,
};
use ferry_formats::keys::{SecretKey, parse_public_key};
use ferry_formats::{ContentAddress, NarHash, NixHash, StoreDir, StorePath, narinfo};
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
struct Cache {
    directory: TempDir,
    /// Nothing refers to it.
    top: StorePath,
    /// It refers to nothing, and is referred to.
    bottom: StorePath,
}

impl Cache {
    /// One that ferry writes.
    fn new(parameters: &str) -> Self {
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
    fn of_nix(world: &World, version: NixVersion, method: &str) -> Self {
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
    fn clone(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_directory(self.directory.path(), directory.path());
        Self { directory, top: self.top.clone(), bottom: self.bottom.clone() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let file = self.file(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, contents).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    fn listing(path: &StorePath) -> String {
        narinfo::file_name(path).replace(".narinfo", ".ls")
    }

    fn text(&self, path: &StorePath) -> String {
        fs::read_to_string(self.file(&narinfo::file_name(path))).unwrap()
    }

    fn field(&self, path: &StorePath, field: &str) -> String {
        let text = self.text(path);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }

    fn number(&self, path: &StorePath, field: &str) -> u64 {
        self.field(path, field).parse().unwrap()
    }

    /// Changes the value of a field.
    fn set(&self, path: &StorePath, field: &str, value: impl std::fmt::Display) {
        let old = format!("{field}: {}\n", self.field(path, field));
        let text = self.text(path).replace(&old, &format!("{field}: {value}\n"));
        fs::write(self.file(&narinfo::file_name(path)), text).unwrap();
    }

    /// Adds a line.
    fn add(&self, path: &StorePath, line: &str) {
        let text = self.text(path) + line + "\n";
        fs::write(self.file(&narinfo::file_name(path)), text).unwrap();
    }

    fn nar(&self, path: &StorePath) -> PathBuf {
        self.file(&self.field(path, "URL"))
    }

    /// Puts something else where a NAR is, under the same name; hash and size are those of it.
    fn replace_nar(&self, path: &StorePath, contents: &[u8]) {
        fs::write(self.nar(path), contents).unwrap();
        self.set(path, "FileHash", NarHash::of(contents));
        self.set(path, "FileSize", contents.len());
    }

    fn options(&self) -> VerifyOptions {
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

    fn verify(&self, options: &VerifyOptions) -> VerifyReport {
        open(&address(self.directory.path(), "")).verify(options, None, &Silent).unwrap()
    }

    fn verify_data(&self) -> VerifyReport {
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

fn kinds(report: &VerifyReport) -> BTreeSet<&'static str> {
    report.faults.iter().map(|fault| fault.kind.name()).collect()
}

/// A hash of something else.
fn other_hash() -> NarHash {
    NarHash::of(b"something else")
}

/// A path that is nowhere.
fn nowhere() -> StorePath {
    path("nowhere")
}

/// A way to damage a cache; what is found of it by its structure, and what by its data.
struct Damage {
    what: &'static str,
    does: fn(&Cache),
    structure: &'static [&'static str],
    data: &'static [&'static str],
}

/// All kinds of damage. Where the structure shows it, reading the data finds it too.
const DAMAGE: &[Damage] = &[
    Damage {
        what: "another description",
        does: |cache| cache.write("nix-cache-info", "StoreDir: /nix/store\n<html>\n"),
        structure: &["bad-cache-info"],
        data: &[],
    },
    Damage {
        what: "no narinfo",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), "<html>\x1b[31m</html>\n"),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "an empty narinfo",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), ""),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a narinfo without end",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), vec![b'x'; 3 << 20]),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a narinfo under another name",
        does: |cache| cache.write(&narinfo::file_name(&nowhere()), cache.text(&cache.top)),
        structure: &["other-path"],
        data: &[],
    },
    Damage {
        what: "a reference gone",
        does: |cache| cache.remove(&narinfo::file_name(&cache.bottom)),
        structure: &["missing-reference", "orphan-nar", "orphan-listing"],
        data: &[],
    },
    Damage {
        what: "a URL that leads out",
        does: |cache| cache.set(&cache.top, "URL", "../secret"),
        structure: &["bad-url", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a compression that nobody knows",
        does: |cache| cache.set(&cache.top, "Compression", "lzop"),
        structure: &["unknown-compression"],
        data: &[],
    },
    Damage {
        what: "a NAR gone",
        does: |cache| fs::remove_file(cache.nar(&cache.top)).unwrap(),
        structure: &["no-nar"],
        data: &[],
    },
    Damage {
        what: "a NAR cut short",
        does: |cache| {
            let nar = File::options().write(true).open(cache.nar(&cache.top)).unwrap();
            nar.set_len(cache.number(&cache.top, "FileSize") - 1).unwrap();
        },
        structure: &["wrong-file-size"],
        data: &["bad-compression"],
    },
    Damage {
        what: "a FileSize too large",
        does: |cache| {
            cache.set(&cache.top, "FileSize", cache.number(&cache.top, "FileSize") + 1);
        },
        structure: &["wrong-file-size"],
        data: &[],
    },
    Damage {
        what: "a FileSize too small",
        does: |cache| {
            cache.set(&cache.top, "FileSize", cache.number(&cache.top, "FileSize") / 2);
        },
        structure: &["wrong-file-size"],
        data: &["bad-compression"],
    },
    Damage {
        what: "another FileHash",
        does: |cache| cache.set(&cache.top, "FileHash", other_hash()),
        structure: &[],
        data: &["wrong-file-hash"],
    },
    Damage {
        what: "a NAR that is a directory",
        does: |cache| {
            let nar = cache.nar(&cache.top);
            fs::remove_file(&nar).unwrap();
            fs::create_dir(nar).unwrap();
        },
        structure: &[],
        data: &["unreadable"],
    },
    Damage {
        what: "another compression",
        does: |cache| cache.set(&cache.top, "Compression", "bzip2"),
        structure: &[],
        data: &["bad-compression"],
    },
    Damage {
        what: "a NAR of something else",
        does: |cache| {
            cache.set(&cache.top, "URL", cache.field(&cache.bottom, "URL"));
            cache.set(&cache.top, "FileHash", cache.field(&cache.bottom, "FileHash"));
            cache.set(&cache.top, "FileSize", cache.field(&cache.bottom, "FileSize"));
            cache.set(&cache.top, "NarSize", cache.field(&cache.bottom, "NarSize"));
        },
        structure: &["bad-signature", "orphan-nar"],
        data: &["wrong-nar-hash"],
    },
    Damage {
        what: "a NarSize too large",
        does: |cache| cache.set(&cache.top, "NarSize", cache.number(&cache.top, "NarSize") + 1),
        structure: &["bad-signature"],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "a NarSize too small",
        does: |cache| cache.set(&cache.top, "NarSize", cache.number(&cache.top, "NarSize") - 1),
        structure: &["bad-signature"],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "another NarHash",
        does: |cache| cache.set(&cache.top, "NarHash", other_hash()),
        structure: &["bad-signature"],
        data: &["wrong-nar-hash"],
    },
    Damage {
        what: "a gigabyte of nothing",
        does: |cache| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder)
                .unwrap();
            cache.replace_nar(&cache.top, &encoder.finish().unwrap());
            cache.set(&cache.top, "Compression", "zstd");
        },
        structure: &[],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "no NAR, with all hashes right",
        does: |cache| {
            let contents = b"no NAR at all";
            cache.replace_nar(&cache.top, contents);
            cache.set(&cache.top, "Compression", "none");
            cache.set(&cache.top, "NarHash", NarHash::of(contents));
            cache.set(&cache.top, "NarSize", contents.len());
        },
        structure: &["bad-signature"],
        data: &["malformed-nar"],
    },
    Damage {
        what: "a deriver that is none",
        does: |cache| {
            let text = cache.text(&cache.top);
            let lines: Vec<&str> =
                text.lines().filter(|line| !line.starts_with("Deriver: ")).collect();
            cache.write(&narinfo::file_name(&cache.top), lines.join("\n") + "\n");
            cache.add(&cache.top, &format!("Deriver: {}", cache.bottom.to_basename()));
        },
        structure: &["bad-deriver"],
        data: &[],
    },
    Damage {
        what: "a content address of something else",
        does: |cache| cache.add(&cache.top, &format!("CA: fixed:r:{}", other_hash())),
        structure: &["wrong-content-address"],
        data: &["wrong-content"],
    },
    Damage {
        what: "something else at a content address",
        does: |cache| {
            let ca = ContentAddress::Nar(NixHash::Sha256(other_hash().0));
            let store_dir = StoreDir::default();
            let path = store_dir.build_ca_path("x", &ca, &[], false).unwrap();
            let mut narinfo =
                narinfo::parse(&store_dir, cache.text(&cache.bottom).as_bytes()).unwrap();
            narinfo.info.path = path.clone();
            narinfo.info.ca = Some(ca);
            narinfo.info.references = [].into();
            narinfo.info.signatures.clear();
            cache.write(&narinfo::file_name(&path), narinfo.render(&store_dir).unwrap());
        },
        structure: &[],
        data: &["wrong-content"],
    },
    Damage {
        what: "a signature that is none",
        does: |cache| cache.add(&cache.top, "Sig: harbour-1:nonsense"),
        structure: &["malformed-signature"],
        data: &[],
    },
    Damage {
        what: "the signature of another path",
        does: |cache| cache.set(&cache.top, "Sig", cache.field(&cache.bottom, "Sig")),
        structure: &["bad-signature"],
        data: &[],
    },
    Damage {
        what: "no signature",
        does: |cache| {
            let signature = format!("Sig: {}\n", cache.field(&cache.top, "Sig"));
            let text = cache.text(&cache.top).replace(&signature, "");
            cache.write(&narinfo::file_name(&cache.top), text);
        },
        structure: &["unsigned"],
        data: &[],
    },
    Damage {
        what: "a signature by somebody else",
        does: |cache| {
            let signature = cache.field(&cache.top, "Sig").replace("harbour-1:", "other-1:");
            cache.set(&cache.top, "Sig", signature);
        },
        structure: &["untrusted"],
        data: &[],
    },
    Damage {
        what: "half a listing",
        does: |cache| {
            let name = Cache::listing(&cache.top);
            let whole = fs::read(cache.file(&name)).unwrap();
            cache.write(&name, &whole[..whole.len() / 2]);
        },
        structure: &["bad-listing"],
        data: &["wrong-listing"],
    },
    Damage {
        what: "a listing of a version to come",
        does: |cache| cache.write(&Cache::listing(&cache.top), r#"{"version":2,"root":{}}"#),
        structure: &["bad-listing"],
        data: &["wrong-listing"],
    },
    Damage {
        what: "the listing of something else",
        does: |cache| {
            let other = fs::read(cache.file(&Cache::listing(&cache.bottom))).unwrap();
            cache.write(&Cache::listing(&cache.top), other);
        },
        structure: &[],
        data: &["wrong-listing"],
    },
    Damage {
        what: "no realisation",
        does: |cache| cache.write("realisations/sha256:00!out.doi", "<html>"),
        structure: &["bad-realisation"],
        data: &[],
    },
    Damage {
        what: "a realisation of what is nowhere, in the new place",
        does: |cache| {
            let path = nowhere().to_basename();
            cache.write("build-trace-v2/x.drv/out.doi", format!(r#"{{"outPath":"{path}"}}"#));
        },
        structure: &["dangling-realisation"],
        data: &[],
    },
    Damage {
        what: "a NAR that nothing names",
        does: |cache| cache.write("nar/0000.nar.xz", "x"),
        structure: &["orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a listing that nothing belongs to",
        does: |cache| cache.write(&Cache::listing(&nowhere()), r#"{"version":1,"root":{}}"#),
        structure: &["orphan-listing"],
        data: &[],
    },
    Damage {
        what: "a writer that was killed",
        does: |cache| cache.write(".ferry-dead/0", "x"),
        structure: &["stale-staging"],
        data: &[],
    },
];

/// Does every damage to a cache that is sound, and looks for it.
fn find_all_damage(cache: &Cache, what: &str) {
    for report in [cache.verify(&cache.options()), cache.verify_data()] {
        assert_eq!(report.faults, [], "{what}");
        assert!(report.paths >= 3 && report.signed_by_trusted == report.paths, "{what}");
    }
    for damage in DAMAGE {
        let cache = cache.clone();
        (damage.does)(&cache);
        let structure = cache.verify(&cache.options());
        let expected: BTreeSet<&str> = damage.structure.iter().copied().collect();
        assert_eq!(kinds(&structure), expected, "{what}: {}", damage.what);
        let data = cache.verify_data();
        let expected: BTreeSet<&str> =
            damage.structure.iter().chain(damage.data).copied().collect();
        assert_eq!(kinds(&data), expected, "{what}: {}", damage.what);
        for fault in &data.faults {
            assert!(!format!("{fault:?}").contains('\x1b'), "{fault:?}");
        }
        let is_harmless = |kind: &&str| kind.starts_with("orphan-") || kind.starts_with("stale-");
        assert_eq!(data.is_sound(), expected.iter().all(is_harmless), "{}", damage.what);
    }
}

#[test]
fn every_fault_is_found_under_its_name_and_none_in_a_cache_that_is_sound() {
    for parameters in ["compression=zstd", "compression=xz"] {
        find_all_damage(&Cache::new(parameters), parameters);
    }
}

#[test]
fn every_fault_is_found_in_what_every_nix_wrote() {
    let Some(world) = World::open() else { return };
    for (version, method) in NixVersion::ALL.into_iter().zip(["xz", "zstd", "gzip"]) {
        find_all_damage(&Cache::of_nix(&world, version, method), &format!("Nix {version}"));
    }
}

#[test]
fn every_kind_of_fault_there_is_has_its_damage() {
    let found: BTreeSet<&str> = DAMAGE
        .iter()
        .flat_map(|damage| damage.structure.iter().chain(damage.data))
        .copied()
        .collect();
    let all = FaultKind::ALL.iter().map(|kind| kind.name());
    // That needs a path to be asked for.
    let all: BTreeSet<&str> = all.filter(|name| *name != "missing-path").collect();
    assert_eq!(found, all);
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
