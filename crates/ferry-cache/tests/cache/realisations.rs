//! What became of the outputs of content-addressed derivations, on disks and on the web.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferry_formats::PathInfo;
use ferry_formats::StorePath;
use ferry_store::closure::closure;
use ferry_store::progress::Silent;
use ferry_store::{Store as _, copy};
use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{
    address, copy_all, files, new_store, open, parse, path, serve, some_objects, store_of,
};

const FEATURES: [&str; 2] = ["--extra-experimental-features", "nix-command ca-derivations"];

/// A machine on which the derivations of `floating.nix` were built; the derivation in the middle,
/// and its output.
fn built(world: &World, version: NixVersion) -> (Machine, String, String) {
    let machine = Machine::new(world, version);
    let file = machine.expression("floating.nix");
    let nix =
        |program: &str, args: &[&str]| machine.command(program).args(FEATURES).args(args).ok();
    let derivation = nix("nix-instantiate", &[&file, "-A", "middle"]);
    let output = nix("nix-store", &["--realise", &derivation]);
    (machine, derivation, output)
}

fn realisations(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let is_one = |name: &str| name.ends_with(".doi");
    files(directory).into_iter().filter(|(name, _)| is_one(name)).collect()
}

#[test]
fn on_the_web_they_are_found_by_the_derivations_and_by_what_depends_on_them() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, derivation, output) = built(&world, version);
        let store = store_of(&machine);
        let infos: BTreeMap<StorePath, PathInfo> =
            closure(&store, &[parse(&derivation), parse(&output)]).unwrap();
        let first = tempfile::tempdir().unwrap();
        let report = copy(&store, &open(&address(first.path(), "")), infos.clone(), &[], &Silent);
        assert!(report.unwrap().realisations > 0);
        let expected = realisations(first.path());
        // To the web, and from there.
        let origin = serve(first.path());
        let second = tempfile::tempdir().unwrap();
        let cache = open(&origin.url());
        copy(&cache, &open(&address(second.path(), "")), infos.clone(), &[], &Silent).unwrap();
        let found = realisations(second.path());
        // Those under the hash of a derivation that Nix made up on the way, and that is in no
        // cache, can be found where a cache can be listed, and not here.
        for (name, text) in &found {
            assert_eq!(expected.get(name), Some(text), "{version}: {name}");
        }
        let about = |name: &str| {
            let name = format!("outPath\":\"{name}");
            let text = |text: &Vec<u8>| String::from_utf8(text.clone()).unwrap().contains(&name);
            found.values().filter(|found| text(found)).count()
        };
        let base = output.strip_prefix("/nix/store/").unwrap();
        assert_eq!(about(base), 1, "{version}: {found:?}");

        let taking = ferry_test_world::Origin::start();
        taking.take_files();
        copy(&store, &open(&taking.url()), infos, &[], &Silent).unwrap();
        for (name, bytes) in &expected {
            assert_eq!(taking.files()[&format!("/{name}")][..], bytes[..], "{version}: {name}");
        }
    }
}

#[test]
fn the_newer_layout_is_carried_as_it_is_from_cache_to_cache_and_to_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), ""));
    copy_all(&some_objects().store(), &cache).unwrap();
    let drv = path("top.drv").to_basename();
    let below = directory.path().join("build-trace-v2").join(&drv);
    fs::create_dir_all(&below).unwrap();
    let text = format!(r#"{{"outPath":"{}","signatures":[]}}"#, path("top").to_basename());
    fs::write(below.join("out.doi"), &text).unwrap();
    // Of something that is not copied.
    fs::write(below.join("dev.doi"), text.replace("-top", "-dev")).unwrap();
    let expected = realisations(directory.path());
    let name = format!("build-trace-v2/{drv}/out.doi");

    let other = tempfile::tempdir().unwrap();
    let report = copy_all(&cache, &open(&address(other.path(), ""))).unwrap();
    assert_eq!(report.realisations, 1);
    assert_eq!(realisations(other.path()), [(name.clone(), expected[&name].clone())].into());

    // Into a database, which nobody has used for this before, and out again.
    let root = tempfile::tempdir().unwrap();
    let store = new_store(root.path());
    assert_eq!(copy_all(&cache, &store).unwrap().realisations, 1);
    assert_eq!(copy_all(&cache, &store).unwrap().realisations, 1);
    let third = tempfile::tempdir().unwrap();
    copy_all(&store, &open(&address(third.path(), ""))).unwrap();
    assert_eq!(realisations(third.path()), realisations(other.path()));
}

#[test]
fn what_is_no_realisation_is_told_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), ""));
    copy_all(&some_objects().store(), &cache).unwrap();
    let below = directory.path().join("build-trace-v2").join(path("top.drv").to_basename());
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("out.doi"), "<html>").unwrap();
    let root = tempfile::tempdir().unwrap();
    let error = copy_all(&cache, &new_store(root.path())).unwrap_err().to_string();
    assert!(error.contains("out.doi: not a realisation") && error.contains("<html>"), "{error}");
    // Nothing was written yet, and what has another name is not looked at.
    assert!(files(root.path()).is_empty());
    fs::rename(below.join("out.doi"), below.join("other")).unwrap();
    assert_eq!(copy_all(&cache, &new_store(root.path())).unwrap().added, 5);
    assert!(cache.all_paths().unwrap().is_some());
}
