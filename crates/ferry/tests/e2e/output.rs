//! What ferry prints, where, and how it ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::Duration;

use ferry_test_world::{Machine, NixVersion, Outcome, World, crossing, trees};

use crate::json::{Entries, Entry, json};
use crate::support::{
    Built, closure, ferry, machine, make_motley, pack_runtime, query, shell, sorted,
};

const BUNDLE: &str = "/tmp/c.ferry";

/// The lines of a command's stdout as they are, sorted.
fn lines(outcome: Outcome) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> =
        outcome.stdout.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

#[test]
fn files_are_listed_as_find_lists_them() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    let motley = trees::add(&machine, "motley", make_motley);
    let file = trees::add(&machine, "a-file", |path| fs::write(path, "five\n"));
    let link = trees::add(&machine, "a-link", |path| symlink("/some/where", path));
    let pack = ["pack", &motley, &file, &link, "--set", "runtime", "-o", BUNDLE];
    ferry(&machine, pack).ok();

    let ls = |args: &[&str]| lines(ferry(&machine, ["ls", BUNDLE]).args(args).succeed());
    let find = |args: &[&str]| {
        let find = machine.command("find").args([&motley, "-mindepth", "1"]);
        lines(find.args(args).succeed())
    };
    assert_eq!(ls(&[&motley]), find(&["-maxdepth", "1", "-printf", "%P\\n"]));
    assert_eq!(ls(&[&motley, "-R"]), find(&["-printf", "%P\\n"]));
    // Only files have a size.
    let long = [
        ["-type", "f", "-printf", "%M %12s %P\\n", "-o"],
        ["-type", "d", "-printf", "%M            0 %P\\n", "-o"],
        ["-type", "l", "-printf", "%M            0 %P -> %l\\n", ""],
    ];
    let long: Vec<&str> = long.concat().into_iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(ls(&[&motley, "-lR"]), find(&long));

    // However it is named, and whatever is below it.
    let base = motley.trim_start_matches("/nix/store/");
    assert_eq!(ls(&[base, "-R"]), ls(&[&motley, "-R"]));
    let text = |args: &[&str]| ferry(&machine, ["ls", BUNDLE]).args(args).ok();
    assert_eq!(text(&[&format!("{motley}/deep/")]), "deeper\nup");
    assert_eq!(text(&[&format!("{motley}/script"), "-l"]), "-r-xr-xr-x           19 script");
    assert_eq!(text(&[&file, "-l"]), "-r--r--r--            5 .");
    assert_eq!(text(&[&link, "-l"]), "lrwxrwxrwx            0 . -> /some/where");
    assert_eq!(text(&["-l"]).lines().count(), 3);

    let entries = |path: &str| {
        let told: Entries = json(&machine, &["ls", BUNDLE, path]);
        assert_eq!(told.version, 1);
        told.entries
    };
    let [path, target] = [String::new(), "/some/where".to_owned()];
    assert_eq!(entries(&link), [Entry::Symlink { path, target }]);
    let deep = [
        Entry::Directory { path: "deeper".to_owned() },
        Entry::Symlink { path: "up".to_owned(), target: "..".to_owned() },
    ];
    assert_eq!(entries(&format!("{motley}/deep")), deep);
    let path = "script".to_owned();
    let script = [Entry::Regular { path, size: 19, executable: true }];
    assert_eq!(entries(&format!("{motley}/script")), script);
}

#[test]
fn stdout_is_data_and_stderr_is_talk() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let Built { machine, derivation, top, .. } = &built;
    let pack = ["pack", top, "--set", "runtime", "-o", BUNDLE];
    let load = ["load", BUNDLE, "--no-check-sigs", "--to", "/data/island"];
    let closure: Vec<String> =
        closure(machine, top).into_iter().map(|object| object.path).collect();
    for (args, stdout, stderr) in [
        (&pack[..], vec![], "ferry: packed 4 paths, "),
        (&["verify", BUNDLE], vec![], "ferry: bundle /tmp/c.ferry is whole: 4 paths, "),
        (&["ls", BUNDLE], closure, ""),
        (&load, vec![top.clone()], "ferry: added 4 paths, "),
        (&load, vec![top.clone()], "ferry: added 0 paths, "),
    ] {
        let told = ferry(machine, args).succeed();
        assert_eq!(sorted(told.text().lines()), stdout, "{args:?}");
        assert!(told.stderr.starts_with(stderr), "{args:?}: {}", told.stderr);
        let every_line = told.stderr.lines().all(|line| line.starts_with("ferry: "));
        assert!(every_line, "{args:?}: {}", told.stderr);
        let quiet = ferry(machine, args).arg("--quiet").succeed();
        assert_eq!(quiet.text(), told.text(), "{args:?}");
        assert_eq!(quiet.stderr, "", "{args:?}");
    }
    // A bundle is data as well.
    let to_stdout = ferry(machine, ["pack", top, "--set", "runtime", "-o", "-"]).succeed();
    assert!(to_stdout.stdout == machine.read(BUNDLE));
    assert!(to_stdout.stderr.starts_with("ferry: packed 4 paths, "), "{}", to_stdout.stderr);

    ferry(machine, ["pack", derivation, "-o", BUNDLE]).ok();
    let info = ferry(machine, ["info", BUNDLE]).succeed();
    assert_eq!(info.stderr, "");
    let roots = format!("root:            {derivation}");
    for line in ["set:             recipe", &roots, "signed by:       nobody"] {
        assert!(info.text().lines().any(|told| told == line), "{line}: {}", info.text());
    }
}

#[test]
fn exit_codes_tell_a_failure_from_a_wrong_request() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let file = trees::add(&machine, "file", |path| fs::write(path, "contents"));
    pack_runtime(&machine, &file, BUNDLE).ok();
    machine.write("/tmp/other.ferry", "not one at all");
    let below = format!("{file}/below");
    let absent = "00000000000000000000000000000000-absent";
    const KEY: &str = "a-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let cases: [(i32, &[&str]); 30] = [
        (0, &["--help"]),
        (0, &["--version"]),
        (0, &["pack", "--help"]),
        (0, &["verify", BUNDLE]),
        (1, &["verify", "/tmp/absent.ferry"]),
        (1, &["verify", "/tmp/other.ferry"]),
        (1, &["verify", BUNDLE, "--require-bundle-key", KEY]),
        (1, &["info", "/tmp/other.ferry"]),
        (1, &["ls", BUNDLE, absent]),
        (1, &["ls", BUNDLE, &below]),
        (1, &["load", "/tmp/other.ferry", "--to", "/data/island"]),
        (1, &["pack", absent, "-o", "/tmp/x"]),
        (1, &["pack", &file, "--set", "runtime", "-o", "/no/such/directory/x"]),
        (1, &["pack", &file, "--set", "runtime", "-o", "/tmp/x", "--sign-key", "/no/key"]),
        (1, &["repair", "/tmp/absent.001.ferry"]),
        (2, &[]),
        (2, &["repair", BUNDLE]),
        (1, &["verify", BUNDLE, "--require-bundle-key", "/no/key"]),
        (2, &["pack", &file, "-o", "/tmp/x", "--parity", "1"]),
        (2, &["pack", &file, "-o", "-", "--volume-size", "4G"]),
        (2, &["carry"]),
        (2, &["pack", &file]),
        (2, &["pack", &file, "-o", "/tmp/x", "--set", "everything"]),
        (2, &["pack", &file, "-o", "-", "--json"]),
        (2, &["pack", &file, "-o", "/tmp/x", "--store", "ftp://x"]),
        (2, &["verify", BUNDLE, "--quiet", "--verbose"]),
        (2, &["verify", BUNDLE, "--trusted-public-key", "no:nsense"]),
        (2, &["ls", BUNDLE, "not-a-store-path"]),
        (2, &["load", BUNDLE, "--root", "a/b"]),
        (2, &["load", BUNDLE, "--root", "x", "--no-root"]),
    ];
    for (code, args) in cases {
        let told = ferry(&machine, args).run();
        assert_eq!(told.code(), code, "{args:?}: {}", told.stderr);
        if code == 0 {
            continue;
        }
        assert_eq!(told.text(), "", "{args:?}");
        assert!(told.stderr.contains("error: ") || args.is_empty(), "{args:?}: {}", told.stderr);
        assert!(!told.stderr.contains("panicked"), "{args:?}: {}", told.stderr);
        // Errors are said to whoever wants quiet, too.
        let quiet = ferry(&machine, args).arg("--quiet").run();
        assert_ne!(quiet.stderr, "", "{args:?}");
    }
    assert!(!machine.path("/tmp/x").exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_8);
    let many = trees::add_many_files(&machine, 2500, 1);
    pack_runtime(&machine, &many, BUNDLE).ok();
    // More than fits into a pipe.
    let listing = ferry(&machine, ["ls", BUNDLE, &many, "-lR"]).succeed().stdout;
    assert!(listing.len() > 65536, "{}", listing.len());
    let script = format!("ferry ls {BUNDLE} {many} -lR | head -n 1; echo ${{PIPESTATUS[*]}}");
    let told = shell(&machine, &script).succeed();
    assert_eq!((told.text().lines().last(), &*told.stderr), (Some("0 0"), ""));
}

#[test]
fn a_bundle_goes_through_pipes() {
    let Some(world) = World::open() else { return };
    let Built { machine, derivation, top, fod } = Built::new(&world, NixVersion::V2_26);
    let script = format!(
        "set -o pipefail
         ferry pack {derivation} --also {top} --also {fod} -o - | tee {BUNDLE} |
             ferry load - --to /data/island --no-check-sigs
         for command in verify ls info; do ferry $command - <{BUNDLE}; done
         ferry ls - {top} -R <{BUNDLE}"
    );
    let told = shell(&machine, &script).ok();
    assert!(told.starts_with(&format!("{derivation}\n{top}\n{fod}\n")), "{told}");
    assert!(told.ends_with("bin\nbin/hello"), "{told}");
    let all = ["path-info", "--all", "--store", "/data/island"];
    let loaded = sorted(machine.command("nix").args(all).ok().lines());
    let mut wanted = query(&machine, &["--requisites", &derivation, &top, &fod]);
    wanted.dedup();
    assert_eq!(loaded, wanted);
}

#[test]
fn the_same_paths_give_the_same_bytes_wherever_they_are_packed() {
    let Some(world) = World::open() else { return };
    let mut first: Option<[Vec<u8>; 3]> = None;
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        // Numbers in the database, and times, that no two of them share.
        for number in 0..version.suite().len() {
            trees::add(&machine, &format!("{number}"), |path| fs::write(path, "x"));
        }
        let derivation = crossing::command(&machine, "nix-instantiate", "multi", "http://x").ok();
        let outputs = machine.command("nix-store").args(["--realise", &derivation]).ok();
        assert_eq!(outputs.lines().count(), 2);
        // The same key on each.
        machine.write("/data/key", KEY);
        let pack = |file: &str| {
            let pack = ["pack", &derivation, "--also", &format!("{derivation}^*"), "-o", file];
            ferry(&machine, pack).args(["--sign-key", "/data/key"]).ok();
            machine.read(file)
        };
        let runtime = pack_runtime(&machine, &derivation, "/tmp/r.ferry").args(["--level", "max"]);
        runtime.ok();
        let bundles = [pack("/tmp/1.ferry"), pack("/tmp/2.ferry"), machine.read("/tmp/r.ferry")];
        assert!(bundles[0] == bundles[1], "Nix {version}: not the same twice");
        let first = first.get_or_insert_with(|| bundles.clone());
        assert!(*first == bundles, "Nix {version}: not the same as elsewhere");
    }
}

/// Thirty-two bytes of seed, and the public key that belongs to it.
const KEY: &str = "test-1:\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA7aie8zrakLWKjqNAqbw1zZTIVdx3iQ6Y6wEihi1naKQ==";

/// Longer than it takes for a bar to appear.
const PAUSE: Duration = Duration::from_millis(300);

/// Runs a shell command that reads the bundle from `/data/slow`, which comes from a slow medium.
fn feed_slowly(machine: &Machine, command: &str) -> Outcome {
    let bundle = machine.read(BUNDLE);
    shell(machine, "rm -f slow; mkfifo slow").ok();
    let running = shell(machine, command).env("TERM", "xterm").spawn();
    let slow = OpenOptions::new().write(true).open(machine.path("/data/slow"));
    let mut slow = slow.expect("the pipe is there");
    // More than the reader and the pipe hold together: when it is written, work has begun.
    for part in bundle.chunks(bundle.len().div_ceil(2)) {
        assert!(part.len() > 1_000_000, "the bundle is too small");
        slow.write_all(part).expect("it is read");
        thread::sleep(PAUSE);
    }
    drop(slow);
    running.wait()
}

#[test]
fn a_terminal_sees_a_bar_and_nothing_else_does() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    let large = trees::add_large_file(&machine, 12_000_000);
    let small = trees::add_large_file(&machine, 1000);
    let pack = ["pack", &large, &small, "--set", "runtime", "--level", "fast", "-o", BUNDLE];
    ferry(&machine, pack).ok();
    let load = "ferry load /data/slow --no-check-sigs --no-root --to ./island";
    let on_terminal = |command: &str| format!("script -qec 'stty cols 80; {command}' /dev/null");
    for (command, what) in [(load, "copying "), ("ferry verify /data/slow", "verifying ")] {
        let bar = feed_slowly(&machine, &on_terminal(command));
        assert!(bar.status.success(), "{}", bar.text());
        let shown = bar.text();
        let lines: Vec<&str> = shown.split('\r').filter(|line| line.contains("ETA ")).collect();
        assert!(!lines.is_empty(), "no bar: {shown:?}");
        for line in lines {
            for part in [what, "/2 paths ", "B/12.00 MB ", "B/s ETA "] {
                assert!(line.contains(part), "no {part} in {line:?}");
            }
        }
    }
    for command in [load.replace("island", "reef"), on_terminal("ferry verify /data/slow -q")] {
        let told = feed_slowly(&machine, &command);
        assert!(told.status.success(), "{}", told.stderr);
        let told = told.text() + &told.stderr;
        assert!(!told.contains(['\r', '\u{1b}']) && !told.contains("ETA"), "{told:?}");
    }
}
