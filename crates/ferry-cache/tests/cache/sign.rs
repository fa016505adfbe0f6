//! Signing what is in a cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferry_cache::{SignOptions, SignReport, ToSign};
use ferry_formats::keys::{SecretKey, parse_public_key};
use ferry_formats::{StoreDir, narinfo};
use ferry_store::progress::Silent;
use ferry_store::{Result, Store as _, copy};
use ferry_test_world::{NixVersion, World};

use crate::support::{
    Objects, address, all, built, files, key, open, path, serve, some_objects, text,
};

fn sign(place: &str, what: &ToSign, keys: &[SecretKey], remove: &[&str]) -> Result<SignReport> {
    let remove = remove.iter().map(|name| (*name).to_owned()).collect();
    open(place).sign(what, &SignOptions { keys: keys.to_vec(), remove }, &Silent)
}

/// Writes some objects into a cache, signed by these keys.
fn write(objects: &Objects, directory: &Path, keys: &[SecretKey]) {
    let store = objects.store();
    copy(&store, &open(&address(directory, "compression=zstd")), all(&store), keys, &Silent)
        .unwrap();
}

/// Who has signed a path of a cache.
fn signed_by(place: &str, name: &str) -> BTreeSet<String> {
    let info = open(place).require(&path(name)).unwrap();
    info.signatures.into_iter().map(|signature| signature.key_name).collect()
}

#[test]
fn what_is_signed_afterwards_is_what_is_signed_while_it_is_written() {
    let keys = [key("harbour-1", 7), key("island-1", 8)];
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let objects = some_objects();
    write(&objects, before.path(), &keys);
    write(&objects, after.path(), &[]);
    let place = address(after.path(), "");
    for (number, changed) in [(0, 5), (0, 0), (1, 5), (1, 0)] {
        let report = sign(&place, &ToSign::Everything, &keys[number..=number], &[]).unwrap();
        assert_eq!((report.paths, report.changed, report.added), (5, changed, changed));
    }
    assert!(files(before.path()) == files(after.path()));
    // A key is replaced by another, and then there is none.
    let new = key("harbour-2", 9);
    let report =
        sign(&place, &ToSign::Everything, std::slice::from_ref(&new), &["harbour-1"]).unwrap();
    assert_eq!((report.changed, report.added, report.removed), (5, 5, 5));
    assert_eq!(signed_by(&place, "top"), ["harbour-2", "island-1"].map(str::to_owned).into());
    sign(&place, &ToSign::Everything, &[], &["harbour-2", "island-1"]).unwrap();
    let unsigned = tempfile::tempdir().unwrap();
    write(&objects, unsigned.path(), &[]);
    assert!(files(unsigned.path()) == files(after.path()));
}

#[test]
fn only_what_is_named_is_signed_on_the_web_too() {
    let directory = tempfile::tempdir().unwrap();
    write(&some_objects(), directory.path(), &[]);
    let web = serve(directory.path());
    web.take_files();
    let key = [key("harbour-1", 7)];
    for place in [address(directory.path(), ""), web.url()] {
        let twin = ToSign::Paths(vec![path("twin")]);
        assert_eq!(sign(&place, &twin, &key, &[]).unwrap().changed, 1);
        assert_eq!(signed_by(&place, "bottom"), BTreeSet::new());
        let closure = ToSign::Closure(vec![path("large")]);
        let report = sign(&place, &closure, &key, &[]).unwrap();
        assert_eq!((report.paths, report.changed), (3, 3));
        assert_eq!(signed_by(&place, "top"), BTreeSet::new());
        let trusted = parse_public_key(&key[0].public_key_text()).unwrap();
        for name in ["bottom", "middle", "large", "twin"] {
            let info = open(&place).require(&path(name)).unwrap();
            let trusted = std::slice::from_ref(&trusted);
            assert!(info.is_signed_by_any(&StoreDir::default(), trusted), "{name}");
        }
        let nowhere = ToSign::Paths(vec![path("top"), path("nowhere")]);
        let error = sign(&place, &nowhere, &key, &[]).unwrap_err().to_string();
        assert!(error.contains(&text("nowhere")), "{error}");
    }
    let error = sign(&web.url(), &ToSign::Everything, &key, &[]).unwrap_err().to_string();
    assert!(error.contains("cannot be listed"), "{error}");
}

#[test]
fn what_is_not_understood_stays_and_what_is_damaged_is_not_signed() {
    let directory = tempfile::tempdir().unwrap();
    write(&some_objects(), directory.path(), &[]);
    let file = |name: &str| directory.path().join(narinfo::file_name(&path(name)));
    let new = fs::read_to_string(file("twin")).unwrap() + "SomethingNew: 1\nSig: nonsense\n";
    fs::write(file("twin"), &new).unwrap();
    fs::write(file("bottom"), "<html>").unwrap();
    fs::copy(file("top"), file("nowhere")).unwrap();
    let place = address(directory.path(), "");
    let report = sign(&place, &ToSign::Everything, &[key("harbour-1", 7)], &[]).unwrap();
    assert_eq!((report.paths, report.changed, report.failed.len()), (6, 4, 2));
    assert_eq!(fs::read_to_string(file("bottom")).unwrap(), "<html>");
    let signed = fs::read_to_string(file("twin")).unwrap();
    for line in new.lines() {
        assert!(signed.lines().any(|found| found == line), "{line} is not in {signed}");
    }
    assert_eq!(signed.lines().count(), new.lines().count() + 1);
    let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with('.')));
}

#[test]
fn what_nix_wrote_is_signed_as_nix_signs_it() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top) = built(&world, version);
        let key = [key("harbour-1", 7)];
        machine.write("/data/secret", crate::support::key_text("harbour-1", 7));
        for (name, parameters) in [("plain", ""), ("signed", "secret-key=/data/secret")] {
            let to = format!("file:///data/{name}?{parameters}");
            machine.command("nix").args(["copy", "--to", &to, &top]).ok();
        }
        let place = address(&machine.path("/data/plain"), "");
        let report = sign(&place, &ToSign::Everything, &key, &[]).unwrap();
        assert_eq!(report.changed, report.paths);
        let [plain, signed] =
            ["plain", "signed"].map(|name| files(&machine.path(format!("/data/{name}"))));
        assert!(plain == signed, "Nix {version}");
    }
}
