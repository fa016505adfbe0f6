//! Binary caches, made up: every narinfo once, and nothing believed that cannot be right.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_cache::CacheError;
use ferry_formats::{NarHash, StorePath, narinfo};
use ferry_graph::Facts as _;
use ferry_test_world::{Answer, Origin};

use crate::support::{explorer, open, path, run_closure, text};

/// The narinfo of a path that refers to others.
fn narinfo_of(name: &str, references: &[&str]) -> String {
    let references: Vec<String> = references.iter().map(|name| path(name).to_basename()).collect();
    format!(
        "StorePath: {}\nURL: nar/x.nar\nCompression: none\nNarHash: {}\nNarSize: 120\n\
         References: {}\n",
        text(name),
        NarHash::of(name.as_bytes()),
        references.join(" "),
    )
}

fn file_of(name: &str) -> String {
    format!("/cache/{}", narinfo::file_name(&path(name)))
}

/// A cache with nothing in it.
fn empty() -> Origin {
    let origin = Origin::start();
    origin.serve("/cache/nix-cache-info", "StoreDir: /nix/store\nPriority: 30\n");
    origin
}

fn url(origin: &Origin) -> String {
    format!("{}/cache", origin.url())
}

fn refused(origin: &Origin, name: &str) -> CacheError {
    open(&url(origin)).narinfos(&[path(name)]).unwrap_err()
}

/// 300 paths in layers of thirty, each of which refers to all of the layer below.
fn layers() -> Vec<(String, Vec<String>)> {
    let name = |layer: usize, place: usize| format!("{layer}-{place}");
    let below = |layer: usize| (0..30).map(move |place| name(layer, place)).collect::<Vec<_>>();
    (0..10)
        .flat_map(|layer| (0..30).map(move |place| (layer, place)))
        .map(|(layer, place)| {
            (name(layer, place), if layer == 0 { Vec::new() } else { below(layer - 1) })
        })
        .collect()
}

#[test]
fn a_closure_asks_for_each_narinfo_once_and_for_many_at_a_time() {
    let origin = empty();
    for (name, references) in layers() {
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        origin.serve(&file_of(&name), narinfo_of(&name, &references));
    }
    let cache = open(&url(&origin));
    let mut explorer = explorer(cache.facts(None));
    let top = path("9-0");
    // By now the cache was looked at, so that what is held is narinfos alone.
    let known = explorer.node(&top);
    assert!(explorer.known(&[known]).unwrap().contains(known));
    origin.hold_until(20);

    let (closure, missing) = run_closure(&mut explorer, &[top]);
    let expected: BTreeSet<String> = layers()
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name == "9-0" || !name.starts_with("9-"))
        .map(|name| text(name))
        .collect();
    assert_eq!(closure, expected);
    assert_eq!(missing, Vec::<String>::new());
    for (name, _) in layers() {
        let wanted = usize::from(expected.contains(&text(&name)));
        assert_eq!(origin.requests_for(&file_of(&name)), wanted, "{name}");
    }
    assert_eq!(origin.requests_for("/cache/nix-cache-info"), 1);
    assert_eq!(origin.requests(), expected.len() + 1);
    assert!(origin.most_under_way() >= 20, "{}", origin.most_under_way());
    assert!(origin.connections() <= 25, "{}", origin.connections());
}

#[test]
fn what_the_cache_does_not_have_is_missing_and_not_asked_for_again() {
    let origin = empty();
    origin.serve(&file_of("top"), narinfo_of("top", &["top", "absent", "gone", "forbidden"]));
    let answer = |line| Answer::Status(line, Vec::new(), Vec::new());
    origin.answer_next(&file_of("gone"), answer("410 Gone"));
    // A bucket that nobody may list.
    origin.answer_next(&file_of("forbidden"), answer("403 Forbidden"));
    let cache = open(&url(&origin));
    let mut explorer = explorer(cache.facts(None));
    let (closure, missing) = run_closure(&mut explorer, &[path("top")]);
    assert_eq!(closure.len(), 4);
    for name in ["absent", "gone", "forbidden"] {
        let named = missing.iter().filter(|missing| missing.contains(&text(name))).count();
        assert_eq!(named, 1, "{name} in {missing:?}");
        assert_eq!(origin.requests_for(&file_of(name)), 1);
    }
    run_closure(&mut explorer, &[path("top")]);
    assert_eq!(origin.requests(), 5);
}

#[test]
fn a_directory_says_the_same_as_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("nix-cache-info", "StoreDir: /nix/store\n");
    write(&narinfo::file_name(&path("top")), &narinfo_of("top", &["below"]));
    write(&narinfo::file_name(&path("below")), &narinfo_of("below", &["absent"]));
    let plain = directory.path().to_str().unwrap().to_owned();
    for address in [format!("file://{plain}?compression=zstd"), plain] {
        let cache = open(&address);
        assert!(!cache.facts(None).is_remote());
        let (closure, missing) = run_closure(&mut explorer(cache.facts(None)), &[path("top")]);
        assert_eq!(closure, ["absent", "below", "top"].map(text).into());
        assert!(missing.len() == 1 && missing[0].contains(&text("absent")), "{missing:?}");
    }
    assert!(open("http://127.0.0.1:1").facts(None).is_remote());
}

#[test]
fn what_is_no_binary_cache_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().to_str().unwrap();
    let (origin, forbidding) = (Origin::start(), Origin::start());
    let answer = Answer::Status("403 Forbidden", Vec::new(), Vec::new());
    forbidding.answer_next("/cache/nix-cache-info", answer);
    for address in [plain, "/nowhere/at/all", &url(&origin)] {
        let error = open(address).narinfos(&[path("x")]).unwrap_err();
        assert!(matches!(error, CacheError::NotACache { .. }), "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
    assert!(matches!(refused(&forbidding, "x"), CacheError::Http(_)));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn a_cache_of_another_store_is_refused() {
    let origin = Origin::start();
    origin.serve("/cache/nix-cache-info", "StoreDir: /gnu/store\n");
    let error = refused(&origin, "x");
    assert!(matches!(&error, CacheError::OtherStore { found, .. } if found == "/gnu/store"));
    assert_eq!(origin.requests(), 1);
}

#[test]
fn garbage_is_refused_with_its_address_and_its_beginning() {
    let origin = empty();
    let whole = narinfo_of("x", &["y"]);
    let long = format!("{whole}Padding: {}\n", "x".repeat(1 << 20));
    for (garbage, said) in [
        (b"<html>\x1b]0;owned\x07".to_vec(), r"<html>\u{1b}]0;owned\u{7}"),
        (b"\xff\xff\xff".to_vec(), "UTF-8"),
        (Vec::new(), "StorePath"),
        (whole.replace("NarHash: sha256:", "NarHash: ").into_bytes(), "NarHash"),
        (whole.replace("/nix/store", "/gnu/store").into_bytes(), "StorePath"),
        (long.into_bytes(), "longer than 1048576 bytes"),
    ] {
        origin.serve(&file_of("x"), garbage);
        let message = refused(&origin, "x").to_string();
        assert!(message.contains(&format!("{}{}", origin.url(), file_of("x"))), "{message}");
        assert!(message.contains(said), "no {said} in {message}");
        assert!(message.len() < 1000 && !message.contains('\x1b'), "{message}");
    }
}

#[test]
fn a_narinfo_of_another_path_is_refused() {
    let origin = empty();
    let other = narinfo_of("other", &[]);
    let same_hash = narinfo_of("x", &[]).replace("-x\n", "-y\n");
    for found in [other, same_hash] {
        origin.serve(&file_of("x"), found);
        let error = refused(&origin, "x");
        assert!(matches!(&error, CacheError::OtherPath { expected, .. } if *expected == text("x")));
    }
}

#[test]
fn a_cache_that_fails_ends_the_question() {
    let origin = empty();
    let answer = Answer::Status("500 Internal Server Error", Vec::new(), b"broken".to_vec());
    (0..5).for_each(|_| origin.answer_next(&file_of("x"), answer.clone()));
    let message = refused(&origin, "x").to_string();
    assert!(message.contains("500") && message.contains("`broken`"), "{message}");
    assert_eq!(origin.requests_for(&file_of("x")), 5);
}

/// The files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn what_a_cache_has_is_kept_and_what_it_lacks_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let answers = directory.path().join("not/made/yet");
    let origin = empty();
    origin.serve(&file_of("top"), narinfo_of("top", &["below"]));
    let paths = [path("top"), path("below")];
    let ask = || -> Vec<Option<StorePath>> {
        let found = open(&url(&origin)).facts(Some(&answers)).narinfos(&paths).unwrap();
        found.into_iter().map(|narinfo| Some(narinfo?.info.path)).collect()
    };
    assert_eq!(ask(), [Some(path("top")), None]);
    assert_eq!(files(&answers).len(), 1);
    assert_eq!(origin.requests(), 3);

    origin.serve(&file_of("below"), narinfo_of("below", &[]));
    assert_eq!(ask(), [Some(path("top")), Some(path("below"))]);
    assert_eq!(origin.requests_for(&file_of("top")), 1);
    assert_eq!(origin.requests_for(&file_of("below")), 2);

    // Now it is not even looked at whether there still is a cache.
    let before = origin.requests();
    assert_eq!(ask(), [Some(path("top")), Some(path("below"))]);
    assert_eq!(origin.requests(), before);

    // What one cache has says nothing of another.
    let other = empty();
    let found = open(&url(&other)).facts(Some(&answers)).narinfos(&paths).unwrap();
    assert_eq!(found, [None, None]);
}

#[test]
fn a_damaged_answer_is_fetched_again_and_mended() {
    let directory = tempfile::tempdir().unwrap();
    let origin = empty();
    origin.serve(&file_of("x"), narinfo_of("x", &["y"]));
    let ask = || {
        let found =
            open(&url(&origin)).facts(Some(directory.path())).narinfos(&[path("x")]).unwrap();
        found[0].clone().unwrap()
    };
    let narinfo = ask();
    let [file] = files(directory.path()).try_into().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut fetched = 1;
    for place in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        for damaged in [&damaged[..], &whole[..place]] {
            fs::write(&file, damaged).unwrap();
            assert_eq!(ask(), narinfo);
            fetched += 1;
            assert_eq!(origin.requests_for(&file_of("x")), fetched, "byte {place}");
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
    }
}

#[test]
fn answers_that_cannot_be_kept_stop_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a file");
    fs::write(&file, "").unwrap();
    let origin = empty();
    origin.serve(&file_of("x"), narinfo_of("x", &[]));
    let found = open(&url(&origin)).facts(Some(&file)).narinfos(&[path("x")]).unwrap();
    assert!(found[0].is_some());
}
