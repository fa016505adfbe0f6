//! What goes into a cache comes out of it, and is written once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::narinfo::{self, Narinfo};
use ferry_formats::{NarHash, NixHash, StoreDir};
use ferry_store::Store as _;
use ferry_store::copy;
use ferry_store::progress::Silent;
use ferry_test_world::{Answer, Origin};

use crate::support::{
    Objects, address, all, copy_all, files, impatient, key, new_store, open, path, serve,
    some_objects,
};

/// The narinfos in a cache, each checked against the file that it names.
fn checked(directory: &std::path::Path) -> Vec<Narinfo> {
    let files = files(directory);
    let infos = files.iter().filter(|(name, _)| name.ends_with(".narinfo"));
    infos
        .map(|(name, text)| {
            let narinfo = narinfo::parse(&StoreDir::default(), text).unwrap();
            assert_eq!(*name, narinfo::file_name(&narinfo.info.path));
            let nar = &files[&narinfo.url];
            assert_eq!(narinfo.file_size, Some(nar.len() as u64));
            assert_eq!(narinfo.file_hash, Some(NixHash::Sha256(NarHash::of(nar).0)));
            narinfo
        })
        .collect()
}

#[test]
fn what_goes_into_a_cache_comes_out_of_it_from_a_disk_and_from_the_web() {
    let objects = some_objects();
    let source = objects.store();
    let wanted = all(&source);
    for (method, suffix) in
        [("none", ".nar"), ("xz", ".xz"), ("zstd", ".zst"), ("gzip", ".nar"), ("bzip2", ".bz2")]
    {
        let directory = tempfile::tempdir().unwrap();
        let parameters = format!("compression={method}");
        let cache = open(&address(directory.path(), &parameters));
        let report = copy_all(&source, &cache).unwrap();
        assert_eq!((report.added, report.present), (5, 0));
        for narinfo in checked(directory.path()) {
            assert!(narinfo.url.ends_with(suffix), "{method}: {}", narinfo.url);
            assert_eq!(narinfo.compression.as_str(), method);
        }
        let origin = serve(directory.path());
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let disk = new_store(roots[0].path());
        copy_all(&open(&address(directory.path(), "")), &disk).unwrap();
        let web = new_store(roots[1].path());
        copy(&open(&origin.url()), &web, wanted.clone(), &[], &Silent).unwrap();
        for store in [disk, web] {
            assert_eq!(all(&store), wanted, "{method}");
            let basename = path("large").to_basename();
            let file = store.layout().real_store_dir.join(basename).join("bin/file");
            assert_eq!(fs::read(file).unwrap(), crate::support::noise(3 << 20), "{method}");
        }
    }
}

#[test]
fn a_nar_that_two_paths_share_is_there_once() {
    let directory = tempfile::tempdir().unwrap();
    copy_all(&some_objects().store(), &open(&address(directory.path(), ""))).unwrap();
    let names: Vec<String> = files(directory.path()).into_keys().collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("nar/")).count(), 4, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.ends_with(".narinfo")).count(), 5);
    // Nothing else than these, and that it is a cache.
    assert_eq!(names.len(), 10, "{names:?}");
}

#[test]
fn the_same_paths_give_the_same_bytes_however_many_threads_there_are() {
    let objects = some_objects();
    let write = |threads: usize| {
        let directory = tempfile::tempdir().unwrap();
        let parameters = "compression=zstd&write-nar-listing=1&priority=7&want-mass-query=0";
        let mut place = CacheAddress::parse(&address(directory.path(), parameters)).unwrap();
        place.settings.threads = std::num::NonZero::new(threads);
        let cache = BinaryCache::new(&place, &StoreDir::default(), &impatient()).unwrap();
        copy_all(&objects.store(), &cache).unwrap();
        files(directory.path())
    };
    let one = write(1);
    assert!(one == write(1) && one == write(2) && one == write(7));
    let info = String::from_utf8(one["nix-cache-info"].clone()).unwrap();
    assert_eq!(info, "StoreDir: /nix/store\nWantMassQuery: 0\nPriority: 7\n");
    assert_eq!(one.keys().filter(|name| name.ends_with(".ls")).count(), 5);
}

#[test]
fn what_is_there_is_not_written_again() {
    let mut objects = some_objects();
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "");
    copy_all(&objects.store(), &open(&place)).unwrap();
    let inodes = || -> Vec<(String, u64)> {
        let names = files(directory.path()).into_keys();
        names
            .map(|name| {
                let inode = fs::metadata(directory.path().join(&name)).unwrap().ino();
                (name, inode)
            })
            .collect()
    };
    let before = inodes();
    let report = copy_all(&objects.store(), &open(&place)).unwrap();
    assert_eq!((report.added, report.present), (0, 5));
    assert_eq!(inodes(), before);

    objects.add("new", b"something new", &["top"]);
    let report = copy_all(&objects.store(), &open(&place)).unwrap();
    assert_eq!((report.added, report.present), (1, 5));
    let after = inodes();
    assert!(before.iter().all(|file| after.contains(file)));
    assert_eq!(after.len(), before.len() + 2);
}

#[test]
fn several_writers_do_each_other_no_harm() {
    let mut objects = Objects::new();
    for number in 0..200 {
        let below = if number == 0 { String::new() } else { format!("p{}", (number - 1) / 2) };
        let references: &[&str] = if number == 0 { &[] } else { &[&below] };
        objects.add(&format!("p{number}"), format!("object {number}").as_bytes(), references);
    }
    let directory = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = open(&address(directory.path(), "compression=zstd"));
                copy_all(&objects.store(), &cache).unwrap();
            });
        }
    });
    assert_eq!(checked(directory.path()).len(), 200);
    let root = tempfile::tempdir().unwrap();
    let store = new_store(root.path());
    copy_all(&open(&address(directory.path(), "")), &store).unwrap();
    assert_eq!(all(&store), all(&objects.store()));
    let left: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn every_key_signs_every_path() {
    let keys = [key("one-1", 1), key("two-1", 2)];
    let objects = some_objects();
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), ""));
    copy(&objects.store(), &cache, all(&objects.store()), &keys, &Silent).unwrap();
    for narinfo in checked(directory.path()) {
        for key in &keys {
            let public = ferry_formats::keys::parse_public_key(&key.public_key_text()).unwrap();
            assert!(narinfo.info.is_signed_by_any(&StoreDir::default(), &[public]));
        }
    }
}

#[test]
fn on_the_web_and_on_a_disk_it_is_the_same_cache() {
    let objects = some_objects();
    let parameters = "compression=zstd&write-nar-listing=1";
    let directory = tempfile::tempdir().unwrap();
    copy_all(&objects.store(), &open(&address(directory.path(), parameters))).unwrap();
    let origin = Origin::start();
    origin.take_files();
    let place = format!("{}/some/cache?{parameters}", origin.url());
    // A server that is in trouble now and then.
    let nar = files(directory.path()).into_keys().find(|name| name.starts_with("nar/")).unwrap();
    let trouble = Answer::Status("503 Service Unavailable", Vec::new(), Vec::new());
    origin.answer_next(&format!("/some/cache/{nar}"), trouble);
    let name = narinfo::file_name(&path("middle"));
    (0..2).for_each(|_| origin.answer_next(&format!("/some/cache/{name}"), Answer::Cut));
    let report = copy_all(&objects.store(), &open(&place)).unwrap();
    assert_eq!((report.added, report.present), (5, 0));
    let there: BTreeMap<String, Vec<u8>> = origin
        .files()
        .into_iter()
        .map(|(name, bytes)| (name.replacen("/some/cache/", "", 1), bytes.to_vec()))
        .collect();
    assert!(there == files(directory.path()));

    let before = origin.requests();
    let report = copy_all(&objects.store(), &open(&place)).unwrap();
    assert_eq!((report.added, report.present), (0, 5));
    // A narinfo each, and twice (once to see what is to be copied) that it is a cache.
    let asked = origin.requests() - before;
    assert!(asked <= 5 + 2, "{asked} requests for nothing");
}

#[test]
fn a_server_that_takes_nothing_is_named_with_what_it_says() {
    let origin = Origin::start();
    let error = copy_all(&some_objects().store(), &open(&origin.url())).unwrap_err().to_string();
    let expected = format!("PUT {}/nix-cache-info: the server answers 405", origin.url());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_path_in_a_cache_knows_its_deriver_if_that_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), ""));
    copy_all(&some_objects().store(), &cache).unwrap();
    assert_eq!(cache.derivers(&path("top")).unwrap(), []);
}

#[test]
fn a_path_that_is_there_with_another_content_stays_and_the_rest_comes() {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=none");
    let mut first = Objects::new();
    first.add("bottom", b"at the bottom", &[]);
    first.add("middle", b"built yesterday", &["bottom"]);
    copy_all(&first.store(), &open(&place)).unwrap();
    let before = files(directory.path());

    let mut second = Objects::new();
    second.add("bottom", b"at the bottom", &[]);
    second.add("middle", b"built today", &["bottom"]);
    second.add("top", b"on top", &["middle"]);
    let report = copy_all(&second.store(), &open(&place)).unwrap();
    assert_eq!((report.added, report.present), (1, 2));
    assert_eq!(report.kept, [path("middle")]);
    let after = files(directory.path());
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
    assert_eq!(after.len(), before.len() + 2);
    // The same out of the cache, into a store that has yet another one.
    let root = tempfile::tempdir().unwrap();
    copy_all(&first.store(), &new_store(root.path())).unwrap();
    let report = copy_all(&open(&place), &new_store(root.path())).unwrap();
    assert_eq!((report.added, report.kept), (1, Vec::new()));
}
