use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ferry_formats::{ContentAddress, NixHash, PathInfo, StoreDir};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Store as _;
use crate::local::{Layout, UnregisteredStore, hash_tree};

const NEVER_WHOLE: &[std::path::PathBuf] = &[];

/// A trace of these lines in a new directory, in which the evaluated files are to be.
fn trace(lines: impl Fn(&str) -> Vec<Value>) -> (TempDir, Evaluation) {
    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    fs::create_dir(&work).unwrap();
    let work = work.to_str().unwrap();
    let root = "/nix/store/00000000000000000000000000000000-it.drv";
    let first = json!({
        "ferryTrace": 1,
        "storeDir": "/nix/store",
        "command": ["nix-instantiate", "default.nix", format!("--arg={work}/src")],
        "workingDirectory": work,
        "environment": { "NIX_PATH": format!("a=https://example.org/a:{work}/b:c={work}/src") },
    });
    let mut all = vec![first, json!({ "root": root })];
    fs::write(format!("{work}/default.nix"), "1").unwrap();
    fs::create_dir(format!("{work}/src")).unwrap();
    fs::write(format!("{work}/src/script"), "#!").unwrap();
    fs::set_permissions(format!("{work}/src/script"), fs::Permissions::from_mode(0o555)).unwrap();
    symlink("script", format!("{work}/src/link")).unwrap();
    all.extend(lines(work));
    all.push(json!({ "end": true, "complete": true }));
    let file = directory.path().join("it.trace");
    fs::write(&file, all.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let evaluation = Evaluation::read(&file, &StoreDir::default()).unwrap();
    (directory, evaluation)
}

fn make(evaluation: &Evaluation, scratch: &Path, bytes: u64) -> Result<EvaluationObject, String> {
    let store = UnregisteredStore::new(Layout::chroot(scratch), &[]);
    let limits = Limits { bytes, never_whole: NEVER_WHOLE };
    EvaluationObject::make(evaluation, &store, scratch, limits).map_err(|error| error.to_string())
}

fn both(work: &str) -> Vec<Value> {
    vec![
        json!({ "outside": format!("{work}/default.nix"), "why": "nix-file" }),
        json!({ "outside": format!("{work}/src"), "why": "source" }),
    ]
}

#[test]
fn what_is_laid_out_can_be_edited_and_is_never_written_over() {
    let (directory, evaluation) = trace(both);
    let object = make(&evaluation, directory.path(), 1 << 20).unwrap();
    assert_eq!(object.info().path.name(), "it-evaluation");
    // Nothing of when and where it was made is in it.
    let again = make(&evaluation, directory.path(), 1 << 20).unwrap();
    assert_eq!(again.info(), object.info());

    let place = directory.path().join("there/evaluation");
    let unpacked = unpack(object.store(), object.info(), &place).unwrap();
    assert!(!unpacked.was_there);
    let work = directory.path().join("work");
    let there = unpacked.evaluation.working_directory();
    assert_eq!(there, unpacked.evaluation.at(&work));
    let script = there.join("src/script");
    assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(there.join("src/link")).unwrap(), Path::new("script"));
    let source = there.join("src").display().to_string();
    let command = ["nix-instantiate".to_owned(), "default.nix".into(), format!("--arg={source}")];
    assert_eq!(unpacked.evaluation.command(), command);

    fs::write(&script, "edited").unwrap();
    assert!(unpack(object.store(), object.info(), &place).unwrap().was_there);
    assert_eq!(fs::read(&script).unwrap(), b"edited");
    let other = object.info().path.clone();
    fs::write(place.join("object"), "another").unwrap();
    let refused = unpack(object.store(), object.info(), &place).unwrap_err().to_string();
    assert!(refused.contains(&other.to_basename()), "{refused}");
}

#[test]
fn directories_of_the_search_path_are_those_laid_out() {
    let (directory, evaluation) = trace(both);
    let object = make(&evaluation, directory.path(), 1 << 20).unwrap();
    let place = directory.path().join("there");
    let unpacked = unpack(object.store(), object.info(), &place).unwrap();
    let work = directory.path().join("work");
    let environment = unpacked.evaluation.environment(Some("cores = 1"));
    let value = |name: &str| {
        environment.iter().find(|(one, _)| one == name).map(|(_, value)| value.clone()).unwrap()
    };
    let (there, work) = (unpacked.evaluation.at(&work), work.display());
    let expected = format!("a=https://example.org/a:{work}/b:c={}/src", there.display());
    assert_eq!(value("NIX_PATH"), expected);
    assert!(value("NIX_CONFIG").starts_with("cores = 1\n"), "{}", value("NIX_CONFIG"));
    assert!(value("NIX_CONFIG").contains("\nsubstituters =\n"), "{}", value("NIX_CONFIG"));
}

#[test]
fn what_is_gone_or_too_large_or_no_path_is_an_error() {
    let (directory, evaluation) = trace(both);
    let error = make(&evaluation, directory.path(), 2).err().unwrap();
    assert!(error.contains("larger than 2 bytes"), "{error}");
    fs::remove_dir_all(directory.path().join("work/src")).unwrap();
    let error = make(&evaluation, directory.path(), 1 << 20).err().unwrap();
    assert!(error.contains("/work/src is not there any more"), "{error}");

    for path in ["relative", "/up/../down", "/nul\0"] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it.trace");
        let first = json!({ "ferryTrace": 1, "storeDir": "/nix/store" });
        let line = json!({ "outside": path, "why": "nix-file" });
        let last = json!({ "end": true, "complete": true });
        fs::write(&file, format!("{first}\n{line}\n{last}\n")).unwrap();
        let error = Evaluation::read(&file, &StoreDir::default()).unwrap_err().to_string();
        assert!(error.contains("not an absolute path"), "{path}: {error}");
    }
}

#[test]
fn links_that_are_read_through_lead_to_what_travels_in_whatever_order_it_was_taken() {
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("x.nix"), "2").unwrap();
    let (directory, evaluation) = trace(|work| {
        symlink(&other, format!("{work}/src/onward")).unwrap();
        vec![
            json!({ "outside": format!("{work}/src"), "why": "source" }),
            json!({ "outside": format!("{work}/src/onward/x.nix"), "why": "nix-file" }),
        ]
    });
    let object = make(&evaluation, directory.path(), 1 << 20).unwrap();
    fs::remove_file(other.join("x.nix")).unwrap();
    let place = directory.path().join("there");
    let unpacked = unpack(object.store(), object.info(), &place).unwrap();
    let file = unpacked.evaluation.at(&directory.path().join("work/src/onward/x.nix"));
    assert_eq!(fs::read(file).unwrap(), b"2");
}

/// An object that somebody else has made.
fn foreign(directory: &Path, description: &Value) -> (UnregisteredStore, PathInfo) {
    foreign_with(directory, description, &|_| ())
}

/// The same, with something of its own in it.
fn foreign_with(
    directory: &Path,
    description: &Value,
    spoil: &dyn Fn(&Path),
) -> (UnregisteredStore, PathInfo) {
    let layout = Layout::chroot(directory);
    let tree = layout.real_store_dir.join("tree");
    fs::create_dir_all(tree.join("files/repository/.git")).unwrap();
    fs::write(tree.join("files/repository/.git/config"), "[core]\n").unwrap();
    symlink("../../../../victim", tree.join("files/link")).unwrap();
    fs::write(tree.join("evaluation.json"), description.to_string()).unwrap();
    spoil(&tree);
    let (nar_hash, nar_size) = hash_tree(&tree).unwrap();
    let ca = ContentAddress::Nar(NixHash::Sha256(nar_hash.0));
    let path = layout.store_dir.build_ca_path("x-evaluation", &ca, [], false).unwrap();
    fs::rename(&tree, layout.real_path(&path)).unwrap();
    let references = [].into();
    let (ca, signatures) = (Some(ca), Vec::new());
    let info = PathInfo { path, nar_hash, nar_size, references, deriver: None, ca, signatures };
    (UnregisteredStore::of_object(layout, "x".to_owned(), &info), info)
}

#[test]
fn whoever_made_the_object_touches_nothing_outside_and_has_nothing_run() {
    let directory = tempfile::tempdir().unwrap();
    let victim = directory.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let description = json!({
        "ferryEvaluation": 1,
        "workingDirectory": "/../../victim",
        "environment": { "LD_PRELOAD": "/x", "NIX_CONFIG": "plugin-files = /x", "NIXPKGS_Y": "y" },
        "gitWorkingTrees": ["/link", "/../../victim", "/repository", "/nowhere"],
    });
    let (store, info) = foreign(directory.path(), &description);
    let place = directory.path().join("a/b/there");
    let unpacked = unpack(&store, &info, &place).unwrap();
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    assert_eq!(fs::read_dir(place.join("files/repository/.git")).unwrap().count(), 1);
    assert!(unpacked.evaluation.working_directory().starts_with(&place));
    let environment = unpacked.evaluation.environment(None);
    let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["NIXPKGS_Y", "NIX_PATH", "XDG_CACHE_HOME", "NIX_CONFIG"]);
    assert!(!environment.iter().any(|(_, value)| value.contains("plugin-files")));

    // And it is the object that was promised, or nothing is laid out.
    let mut other = info;
    other.nar_hash = ferry_formats::NarHash([0; 32]);
    let place = directory.path().join("not");
    let refused = unpack(&store, &other, &place).unwrap_err().to_string();
    assert!(refused.contains("its NAR has hash"), "{refused}");
    assert!(!place.exists() && store.all_paths().unwrap().is_some());
}

/// What `unpack` says of an object in which `spoil` has made something of its own.
fn refused(spoil: impl Fn(&Path)) -> String {
    let directory = tempfile::tempdir().unwrap();
    let (store, info) = foreign_with(directory.path(), &json!({ "ferryEvaluation": 1 }), &spoil);
    let place = directory.path().join("there");
    let refused = unpack(&store, &info, &place).unwrap_err().to_string();
    assert!(!place.exists());
    refused
}

#[test]
fn links_where_files_of_ours_are_to_be_are_refused_and_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["object", "flake-registry.json"] {
        let said = refused(|tree| symlink(&victim, tree.join(name)).unwrap());
        assert!(said.contains(&format!("`{name}` is in it")), "{said}");
        let said = refused(|tree| fs::write(tree.join(name), "").unwrap());
        assert!(said.contains(&format!("`{name}` is in it")), "{said}");
    }
    for (name, what) in [
        ("files", "directory"),
        ("cache", "directory"),
        ("trace", "file"),
        ("evaluation.json", "file"),
    ] {
        let said = refused(|tree| {
            let place = tree.join(name);
            if place.is_dir() {
                fs::remove_dir_all(&place).unwrap();
            }
            fs::remove_file(&place).ok();
            symlink(outside.path(), place).unwrap();
        });
        assert!(said.contains(&format!("`{name}` in it is not a {what}")), "{said}");
    }
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn repositories_in_the_fetchers_cache_have_nothing_run() {
    let repository = |tree: &Path, settings: &str| {
        let repository = tree.join("cache/nix/gitv3/x");
        fs::create_dir_all(repository.join("objects")).unwrap();
        fs::create_dir_all(repository.join("refs/heads/hooks")).unwrap();
        fs::write(repository.join("refs/heads/hooks/config"), "0000").unwrap();
        fs::write(repository.join("config"), settings).unwrap();
        repository
    };
    let harmless = "[core]\n\tbare = true\n\trepositoryformatversion = 0\n\
        [remote \"origin\"]\n\turl = http://127.0.0.1:1/r.git\n\tfetch = +refs/*:refs/*\n";
    for setting in [
        "fsmonitor = evil",
        "hooksPath=/evil",
        "bare = true\\\nfsmonitor = evil",
        "bare = true\n[remote \"origin\"]\n\turl = ext::sh -c evil",
        "bare = true\n[remote \"origin\"]\n\tuploadpack = evil",
    ] {
        let said = refused(|tree| drop(repository(tree, &format!("[core]\n\t{setting}\n"))));
        assert!(said.contains("which Git might obey"), "{said}");
    }
    let said = refused(|tree| drop(repository(tree, "[include]\n\tpath = /evil\n")));
    assert!(said.contains("`[include]`"), "{said}");
    let said = refused(|tree| {
        fs::create_dir(repository(tree, harmless).join("hooks")).unwrap();
    });
    assert!(said.contains("may be run by Git"), "{said}");
    // Behind what is read of it, or where other settings hold.
    let long = harmless.to_owned() + &"\n".repeat(1 << 16) + "[core]\nfsmonitor = evil\n";
    let said = refused(|tree| drop(repository(tree, &long)));
    assert!(said.contains("more than 65536 bytes"), "{said}");
    for name in ["commondir", ".git"] {
        let said = refused(|tree| {
            let repository = repository(tree, harmless);
            fs::remove_dir(repository.join("objects")).unwrap();
            fs::write(repository.join("HEAD"), "ref: refs/heads/x\n").unwrap();
            fs::write(repository.join(name), "../../../../files/evil\n").unwrap();
        });
        assert!(said.contains("may lead Git elsewhere"), "{said}");
    }
    let said = refused(|tree| symlink("/evil", repository(tree, harmless).join("HEAD")).unwrap());
    assert!(said.contains("is a link"), "{said}");

    let directory = tempfile::tempdir().unwrap();
    let (store, info) =
        foreign_with(directory.path(), &json!({ "ferryEvaluation": 1 }), &|tree: &Path| {
            repository(tree, harmless);
        });
    unpack(&store, &info, &directory.path().join("there")).unwrap();
}

#[test]
fn a_description_that_is_none_is_told_from_one() {
    for (text, reason) in [
        ("", "not a JSON object"),
        ("{}", "no version"),
        (r#"{"ferryEvaluation":2}"#, "version 2"),
        (r#"{"ferryEvaluation":1,"command":"x"}"#, "list of strings"),
        (r#"{"ferryEvaluation":1,"environment":{"x":1}}"#, "hold strings"),
    ] {
        let error = Description::parse(text.as_bytes()).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}
