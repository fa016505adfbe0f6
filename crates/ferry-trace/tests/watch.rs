//! Which files small programs are seen to read. The test is the program that they begin as.

// Tests fail by panicking, and say what they do.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use ferry_store::facts::EntryKind;
use ferry_trace::watch::{Ended, Interest, Seen, Watch, become_watched, is_nix};
use tempfile::TempDir;

const BEGIN: &str = "begin-as-this";

const TESTS: [(&str, fn()); 7] = [
    ("what_is_opened_is_read_whoever_started_the_program", opened),
    ("what_is_listed_is_kept_with_its_entries", listed),
    ("what_is_only_looked_at_is_no_more_than_that", looked_at),
    ("only_evaluators_are_seen_and_only_where_it_is_of_interest", of_interest),
    ("names_are_those_from_where_a_program_is", from_where),
    ("a_program_ends_as_it_would_and_one_that_is_not_there_is_an_error", ends),
    ("evaluators_are_known_by_their_names", names),
];

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == BEGIN) {
        let error = become_watched(&words[1..]);
        return ExitCode::from(u8::try_from(error.raw_os_error().unwrap()).unwrap());
    }
    let words: Vec<String> = words.iter().map(|word| word.to_str().unwrap().to_owned()).collect();
    let is_wanted = |name: &str| {
        let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| name.contains(filter.as_str()))
    };
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        eprintln!("{name}");
        test();
    }
    ExitCode::SUCCESS
}

/// Files to read, in a directory of their own.
fn files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("d/inside")).unwrap();
    fs::create_dir(at("store")).unwrap();
    for name in ["a", "b", "d/file", "store/x.nix", "store/y"] {
        fs::write(at(name), name).unwrap();
    }
    std::os::unix::fs::symlink("file", at("d/link")).unwrap();
    directory
}

fn watch(directory: &Path, is_evaluator: fn(&str, &str) -> bool) -> Watch {
    let itself = std::env::current_exe().unwrap();
    let ignored = ["/usr", "/lib", "/lib64", "/etc", "/proc", "/dev", "/sys"].map(PathBuf::from);
    Watch {
        launcher: vec![itself.into(), BEGIN.into()],
        interest: Interest {
            store_dir: directory.join("store"),
            ignored: [&ignored[..], &[directory.join("ignored")]].concat(),
            is_evaluator,
        },
    }
}

/// Runs a script where the files are, and tells what `cat`, `ls` and `test` were seen to do below.
fn run(directory: &TempDir, script: &str) -> Seen {
    let is_one = |file: &str, called: &str| file != "dash" && file != "bash" || called == "seen";
    let Ended { status, seen } = ended(directory.path(), is_one, &["/bin/sh", "-c", script]);
    assert!(status.success(), "{script}: {status}");
    let mut seen =
        seen.unwrap_or_else(|why| panic!("this system does not let itself be watched: {why}"));
    let own = |path: &PathBuf| path.starts_with(directory.path());
    seen.read.retain(own);
    seen.looked_at.retain(own);
    assert_eq!(seen.missed, BTreeSet::new());
    seen
}

fn ended(directory: &Path, is_evaluator: fn(&str, &str) -> bool, words: &[&str]) -> Ended {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let running = watch(directory, is_evaluator).start(
        &words,
        |_| {},
        |command| {
            command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped());
        },
    );
    let mut running = running.unwrap();
    let mut said = String::new();
    running.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    running.wait().unwrap()
}

fn paths(directory: &TempDir, names: &[&str]) -> BTreeSet<PathBuf> {
    names.iter().map(|name| directory.path().join(name)).collect()
}

fn opened() {
    let directory = files();
    for script in ["cat a b", "cat a; (cat b)", "cat a & cat b & wait", "sh -c 'exec cat a b'"] {
        let seen = run(&directory, script);
        assert_eq!(seen.read, paths(&directory, &["a", "b"]), "{script}");
    }
    // What is not there was not read, nor what was written.
    let seen = run(&directory, "cat none 2>/dev/null; cp a c");
    assert_eq!(seen.read, paths(&directory, &["a"]));
}

fn listed() {
    let directory = files();
    let seen = run(&directory, "ls d");
    let entries = &seen.listed[&directory.path().join("d")];
    let named = |name: &str| entries[&OsString::from(name)];
    assert_eq!(entries.len(), 3);
    assert_eq!(named("file"), EntryKind::Regular);
    assert_eq!(named("inside"), EntryKind::Directory);
    assert_eq!(named("link"), EntryKind::Symlink);
    assert_eq!(seen.listed.len(), 1);
    assert_eq!(seen.read, BTreeSet::new());
}

fn looked_at() {
    let directory = files();
    let seen =
        run(&directory, "ls -ld d d/link > /dev/null; /usr/bin/test -e a; /usr/bin/test ! -e none");
    assert_eq!(seen.looked_at, paths(&directory, &["a", "d", "d/link"]));
    assert_eq!((seen.read.len(), seen.listed.len()), (0, 0));
}

fn of_interest() {
    let directory = files();
    fs::create_dir(directory.path().join("ignored")).unwrap();
    fs::write(directory.path().join("ignored/file"), "").unwrap();
    let seen = run(&directory, "cat store/x.nix store/y ignored/file; ls store");
    assert_eq!(seen.read, paths(&directory, &["store/x.nix"]));
    assert_eq!(seen.listed.len(), 0);
    // A shell reads too, and is none.
    let seen = run(&directory, "read line < a; . ./b 2>/dev/null || true");
    assert_eq!(seen.read, BTreeSet::new());
}

fn from_where() {
    let directory = files();
    let seen = run(&directory, "cd d; cat ../a ./inside/../file; cd inside; cat ../../b");
    assert_eq!(seen.read, paths(&directory, &["a", "b", "d/file"]));
    // Names that go over the end of a page of memory.
    let deep = format!("{}/d/inside", directory.path().display());
    let long = "/./".repeat(1200);
    let seen = run(&directory, &format!("cat {deep}{long}../file"));
    assert_eq!(seen.read, paths(&directory, &["d/file"]));
}

fn ends() {
    let directory = files();
    let none = |_: &str, _: &str| false;
    let of = |script: &str| ended(directory.path(), none, &["/bin/sh", "-c", script]).status;
    assert_eq!(of("exit 3").code(), Some(3));
    assert_eq!(of("kill -TERM $$").signal(), Some(15));
    let stopped = "sh -c 'kill -STOP $$; exit 4' & \
                   while kill -CONT $! 2>/dev/null; do sleep 0.02; done; wait $!";
    assert_eq!(of(stopped).code(), Some(4));
    let watch = watch(directory.path(), none);
    let missing = watch.start(&[directory.path().join("none").into()], |_| {}, |_| {});
    assert_eq!(missing.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let forbidden = watch.start(&[directory.path().join("a").into()], |_| {}, |_| {});
    assert_eq!(forbidden.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    // Where it cannot begin as a program that lets itself be watched, it runs all the same.
    let unwatched = Watch { launcher: vec!["/bin/false".into()], ..watch };
    let ended = unwatched.start(&["/bin/sh".into(), "-c".into(), "exit 5".into()], |_| {}, |_| {});
    let Ended { status, seen } = ended.unwrap().wait().unwrap();
    assert_eq!(status.code(), Some(5));
    assert!(seen.is_err());
}

fn names() {
    for (file, called) in [
        ("nix", "nix-instantiate"),
        ("nix", "nix"),
        ("lix", "nix-build"),
        (".nix-wrapped", "nix"),
        ("nix-env", "nix-env"),
        ("nix-eval-jobs", "nix-eval-jobs"),
        ("hydra-eval-jobs", "hydra-eval-jobs"),
    ] {
        assert!(is_nix(file, called), "{file}, {called}");
    }
    for (file, called) in [
        ("nix", "nix-store"),
        ("nix", "nix-daemon"),
        ("git", "git"),
        ("nixos", "nixos"),
        ("sh", "nix"),
    ] {
        assert!(!is_nix(file, called), "{file}, {called}");
    }
}
