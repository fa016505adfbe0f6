//! Files that no log tells of: a recorded evaluation is watched while it reads them.

use std::collections::BTreeMap;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};
use serde_json::Value;

use crate::support::{NOBODY, carry, ferry, machine, on_each, shell};

const TRACE: &str = "/data/x.trace";
const BUNDLE: &str = "/data/x.ferry";

/// Reads, lists and looks at what it does not name, and copies some of it.
const COMPUTED: &str = r#"
let
  name = "computed";
  list = builtins.readDir (./. + "/${name}.d");
  isThere = path: if builtins.pathExists path then "there" else throw "not there";
in
derivation {
  name = "computed"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "echo done > $out" ];
  a = builtins.readFile (./. + "/${name}.txt");
  b = builtins.toJSON list;
  c = isThere (./. + "/${name}.there");
  d = if builtins.pathExists (./. + "/${name}.absent") then "there" else "not there";
  e = import (./. + "/${name}.nix");
  f = "${./. + "/${name}.source"}";
  g = (builtins.fromJSON (builtins.readFile (./. + "/link/${name}.json"))).value;
  h = isThere (./. + "/${name}.directory");
  i = map (file: builtins.readFile (./. + "/${name}.d/${file}")) [ "read" ];
}
"#;

/// What it takes.
const OUTSIDE: [(&str, &str); 10] = [
    ("/data/p/computed.d", "directory"),
    ("/data/p/computed.d/read", "file"),
    ("/data/p/computed.directory", "exists"),
    ("/data/p/computed.nix", "nix-file"),
    ("/data/p/computed.source", "source"),
    ("/data/p/computed.there", "exists"),
    ("/data/p/computed.txt", "file"),
    ("/data/p/default.nix", "nix-file"),
    ("/data/p/link", "exists"),
    ("/data/real/computed.json", "file"),
];

fn project(machine: &Machine) {
    machine.write("/data/p/default.nix", COMPUTED);
    machine.write("/data/p/computed.txt", "a text");
    machine.write("/data/p/computed.d/listed", "not read");
    machine.write("/data/p/computed.d/read", "read");
    machine.write("/data/p/computed.there", "not read");
    machine.write("/data/p/computed.directory/file", "not read");
    machine.write("/data/p/computed.nix", "\"imported\"");
    machine.write("/data/p/computed.source/file", "a source");
    machine.write("/data/real/computed.json", "{ \"value\": 7 }");
    machine.write("/data/real/other", "nobody reads this");
    shell(machine, "ln -s ../real p/link; ln -s read p/computed.d/a-link").ok();
}

fn lines(machine: &Machine) -> Vec<Value> {
    let text = String::from_utf8(machine.read(TRACE)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What was recorded of outside the store, and why.
fn outside(machine: &Machine) -> BTreeMap<String, String> {
    let of = |line: &Value| {
        let what = line.get("outside")?.as_str()?.to_owned();
        Some((what, line["why"].as_str()?.to_owned()))
    };
    lines(machine).iter().filter_map(of).collect()
}

fn expected(machine: &Machine) -> BTreeMap<String, String> {
    let mut expected: BTreeMap<String, String> =
        OUTSIDE.iter().map(|(what, why)| ((*what).to_owned(), (*why).to_owned())).collect();
    if machine.version() == NixVersion::V2_8 {
        // It lets the system follow links.
        expected.remove("/data/p/link");
        let json = expected.remove("/data/real/computed.json").unwrap();
        expected.insert("/data/p/link/computed.json".to_owned(), json);
    }
    expected
}

fn is_complete(machine: &Machine) -> bool {
    lines(machine).last().unwrap()["complete"] == true
}

/// `ferry trace`, in the project.
fn record(machine: &Machine, arguments: &[&str]) -> MachineCommand {
    let command = ferry(machine, ["trace", "--output", TRACE]).args(arguments);
    command.current_dir("/data/p")
}

#[test]
fn what_is_read_by_a_computed_name_is_recorded_and_nothing_else() {
    on_each(|_, machine| {
        project(&machine);
        let version = machine.version();
        for how in [
            &["--file", "default.nix"][..],
            &["--", "nix-instantiate", "default.nix"],
            &["--", "sh", "-c", "nix-instantiate; nix-build --no-out-link; cat ../real/other"],
            &["--", "nix", "build", "--no-link", "--file", "default.nix"],
        ] {
            record(&machine, how).succeed();
            assert_eq!(outside(&machine), expected(&machine), "Nix {version}, {how:?}");
            assert!(is_complete(&machine), "Nix {version}, {how:?}: {:#?}", lines(&machine));
        }
        let lines = lines(&machine);
        let listed = lines.iter().find(|line| line["why"] == "directory").unwrap();
        let entries = serde_json::json!({
            "a-link": "symlink", "listed": "regular", "read": "regular",
        });
        assert_eq!(listed["entries"], entries);
    });
}

#[test]
fn a_flake_that_a_command_evaluates_is_recorded_as_one() {
    on_each(|_, machine| {
        let flake = r#"{ outputs = { self }: { x = derivation {
            name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ];
            source = ./source; text = builtins.readFile (./. + "/${"text"}");
        }; }; }"#;
        machine.write("/data/p/flake.nix", flake);
        machine.write("/data/p/text", "text");
        machine.write("/data/p/source/file", "source");
        let make_repository = "cd p; git init -q; git add .";
        for (prepare, reference) in [("", "path:/data/p#x"), (make_repository, "/data/p#x")] {
            shell(&machine, prepare).ok();
            record(&machine, &["--", "nix", "build", "--no-link", reference]).succeed();
            let seen = outside(&machine);
            let what = format!("Nix {}, {reference}", machine.version());
            let expected = ("/data/p".to_owned(), "flake".to_owned());
            assert_eq!(seen.into_iter().collect::<Vec<_>>(), [expected], "{what}");
            assert!(is_complete(&machine), "{what}: {:#?}", lines(&machine));
        }
    });
}

#[test]
fn two_evaluators_of_one_command_are_both_seen() {
    on_each(|_, machine| {
        machine.write("/data/p/one.nix", "builtins.readFile (./. + \"/${\"one\"}.txt\")");
        machine.write("/data/p/two.nix", "builtins.readFile (./. + \"/${\"two\"}.txt\")");
        machine.write("/data/p/one.txt", "1");
        machine.write("/data/p/two.txt", "2");
        let both = "nix-instantiate --eval one.nix & nix-instantiate --eval two.nix; wait $!; \
                    cat two.nix > /dev/null";
        record(&machine, &["--", "sh", "-c", both]).succeed();
        let seen = outside(&machine);
        let files = ["/data/p/one.nix", "/data/p/one.txt", "/data/p/two.nix", "/data/p/two.txt"];
        assert_eq!(seen.keys().collect::<Vec<_>>(), files);
        assert!(is_complete(&machine));
    });
}

#[test]
fn whatever_was_read_travels_and_without_any_of_it_the_evaluation_fails() {
    on_each(|world, machine| {
        project(&machine);
        let root = machine.command("nix-instantiate").current_dir("/data/p").ok();
        let version = machine.version();
        for how in [&["--file", "default.nix"][..], &["--", "nix-instantiate", "default.nix"]] {
            record(&machine, how).succeed();
            // What came since is not what was seen.
            machine.write("/data/p/computed.d/new", "new");
            let pack = ["pack", &format!("--with-eval={TRACE}"), "--set", "recipe", "-o", BUNDLE];
            ferry(&machine, pack).ok();
            shell(&machine, "rm p/computed.d/new").ok();
            let island = || {
                let island = self::machine(world, version);
                carry(&machine, &island, BUNDLE);
                ferry(&island, ["load", BUNDLE, "--eval-dir", "/data/there"]).ok();
                island
            };
            let evaluate = |island: &Machine| {
                ferry(island, ["shell", "--offline", "/data/there", "--"])
                    .args(["nix-instantiate", "default.nix"])
            };
            let whole = island();
            assert_eq!(evaluate(&whole).ok(), root, "Nix {version}");
            let recorded = outside(&machine);
            for (what, why) in &recorded {
                shell(&whole, &format!("mv there/files{what} taken")).ok();
                let outcome = evaluate(&whole).run();
                assert!(!outcome.status.success(), "Nix {version}: {what}, {why}, is superfluous");
                shell(&whole, &format!("mv taken there/files{what}")).ok();
            }
            assert_eq!(evaluate(&whole).ok(), root);
        }
    });
}

#[test]
fn a_directory_that_was_listed_and_has_lost_something_is_named_and_not_packed() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    project(&machine);
    record(&machine, &["--file", "default.nix"]).succeed();
    shell(&machine, "rm p/computed.d/listed; mkdir p/computed.d/listed").ok();
    let pack = ["pack", &format!("--with-eval={TRACE}"), "-o", BUNDLE];
    let failed = ferry(&machine, pack).fails().stderr;
    assert!(
        failed.contains("/data/p/computed.d has changed since it was evaluated: `listed`"),
        "{failed}"
    );
}

#[test]
fn what_may_not_be_followed_runs_all_the_same_and_the_recording_says_so() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    project(&machine);
    let root = machine.command("nix-instantiate").current_dir("/data/p").ok();
    // What is followed by one cannot be followed by another.
    let inner = ["ferry", "trace", "--output", "/data/inner.trace"];
    let outer = [&["--"][..], &inner].concat();
    let command = [&outer[..], &["--", "nix-instantiate", "default.nix"]].concat();
    assert_eq!(record(&machine, &command).ok(), root);
    assert_eq!(outside(&machine), expected(&machine));
    assert!(is_complete(&machine), "{:#?}", lines(&machine));
    let inner = String::from_utf8(machine.read("/data/inner.trace")).unwrap();
    assert!(inner.contains("was not seen (this process may not follow others: "), "{inner}");
    assert!(inner.contains("\"complete\":false"), "{inner}");
    assert!(!inner.contains("computed.txt"), "{inner}");

    let file = [&outer[..], &["--file", "default.nix"]].concat();
    let outcome = record(&machine, &file).succeed();
    assert!(outcome.stderr.contains("which files are read is not seen"), "{}", outcome.stderr);
    let inner = String::from_utf8(machine.read("/data/inner.trace")).unwrap();
    assert!(inner.contains("\"/data/p/default.nix\"") && inner.contains(&root), "{inner}");
}

#[test]
fn of_a_home_that_was_listed_the_names_travel_and_what_was_not_read_does_not() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let expression = r#"derivation {
        name = "home"; system = "x"; builder = "x"; names = builtins.attrNames (builtins.readDir ./.);
        read = builtins.readFile (./. + "/${"read"}");
    }"#;
    machine.write("/root/default.nix", expression);
    machine.write("/root/secret", "nobody else is to read this");
    machine.write("/root/read", "read");
    let trace = ferry(&machine, ["trace", "--file", "default.nix", "--output", TRACE]);
    trace.current_dir("/root").succeed();
    let root = machine.command("nix-instantiate").current_dir("/root").ok();
    let packed = ferry(&machine, ["pack", &format!("--with-eval={TRACE}"), "-o", BUNDLE]).succeed();
    assert!(packed.stderr.contains("/root was listed"), "{}", packed.stderr);
    let island = self::machine(&world, NixVersion::V2_26);
    carry(&machine, &island, BUNDLE);
    ferry(&island, ["load", BUNDLE, "--eval-dir", "/data/there"]).ok();
    let again = ferry(&island, ["shell", "--offline", "/data/there", "--", "nix-instantiate"]);
    assert_eq!(again.ok(), root);
    assert_eq!(island.read("/data/there/files/root/secret"), b"");
    assert_eq!(island.read("/data/there/files/root/read"), b"read");
}

#[test]
fn whoever_is_not_root_is_watched_too() {
    on_each(|_, machine| {
        project(&machine);
        let _daemon = machine.daemon();
        let trace = ferry(&machine, ["trace", "--output", "/tmp/x.trace", "--"]);
        let trace = trace.args(["nix-instantiate", "/data/p/default.nix"]).user(NOBODY);
        trace.succeed();
        let text = String::from_utf8(machine.read("/tmp/x.trace")).unwrap();
        assert!(text.contains("\"/data/p/computed.txt\""), "{text}");
        assert!(text.contains("\"complete\":true"), "{text}");
    });
}

#[test]
fn a_command_that_is_watched_ends_stops_and_goes_on_as_it_would() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    machine.write("/data/p/x", "");
    for (script, code) in [
        ("exit 3", 3),
        ("kill -9 $$", 128 + 9),
        ("kill -SEGV $$", 128 + 11),
        (
            "(kill -STOP $BASHPID; echo stopped) & \
             while kill -CONT $! 2>/dev/null; do sleep 0.02; done; wait $!",
            0,
        ),
        ("trap 'exit 5' USR1; kill -USR1 $$; sleep 1", 5),
        ("exec /data/p/x", 126),
        ("exec no-such-command", 127),
        // A job of its own group stops, and its shell is told so.
        ("set -m; sh -c 'kill -TSTP $$; exit 9' & wait $!; fg %1 >/dev/null; exit $?", 9),
    ] {
        let plain = machine.command("bash").args(["-c", script]).run();
        assert_eq!(plain.code(), code, "{script}");
        let watched = record(&machine, &["--", "bash", "-c", script]).run();
        assert_eq!(watched.code(), code, "{script}\n{}", watched.stderr);
        assert_eq!(watched.text(), plain.text(), "{script}");
    }
    let missing = record(&machine, &["--", "/data/p/none"]).fails();
    assert!(
        missing.stderr.contains("cannot run `/data/p/none`: No such file"),
        "{}",
        missing.stderr
    );
    let forbidden = record(&machine, &["--", "/data/p/x"]).fails();
    assert!(forbidden.stderr.contains("Permission denied"), "{}", forbidden.stderr);
}

/// A shell's loop that goes on until it is told otherwise.
const ENDLESS: &str = "touch /data/ready; while :; do sleep 0.02; done";
/// Waits for that.
const READY: &str = "while [ ! -e /data/ready ]; do sleep 0.02; done";

#[test]
fn signals_are_for_the_command_whoever_sends_them() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    // To all that run in a terminal, by its interrupt key; and to ferry alone.
    let trap = format!("trap \"echo caught; exit 9\" INT TERM; {ENDLESS}");
    machine.write("/data/endless", trap);
    let from_terminal = format!(
        "({READY}; printf '\\003') | script -qec 'exec ferry trace -o {TRACE} -- sh /data/endless' none"
    );
    let sent =
        format!("ferry trace -o {TRACE} -- sh /data/endless & {READY}; kill -TERM $!; wait $!");
    for script in [from_terminal, sent] {
        let outcome = machine.command("bash").args(["-c", &script]).run();
        assert_eq!(outcome.code(), 9, "{script}\n{}{}", outcome.text(), outcome.stderr);
        assert_eq!(outcome.text().matches("caught").count(), 1, "{script}");
        let lines = lines(&machine);
        assert!(
            lines.iter().any(|line| line["incomplete"] == "the command failed (exit status: 9)")
        );
        shell(&machine, &format!("rm /data/ready {TRACE}")).ok();
    }
    // The terminal is the command's, too.
    let script = "echo typed | script -qec 'ferry trace -q -- sh -c \"test -t 0; \
                  read line; echo /\\$line/; exit 4\"' none";
    let outcome = machine.command("bash").args(["-c", script]).run();
    assert_eq!(outcome.code(), 4, "{}{}", outcome.text(), outcome.stderr);
    assert!(outcome.text().contains("/typed/"), "{}", outcome.text());
}

#[test]
fn a_command_whose_recorder_is_killed_ends_too() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    // Whoever reads from the other end of a pipe hears of it.
    machine.write("/data/endless", format!("exec 3> pipe; {ENDLESS}"));
    let script = format!(
        "mkfifo pipe; ferry trace -- sh /data/endless & ferry=$!; cat pipe & end=$!; \
         {READY}; kill -KILL $ferry; wait $end"
    );
    machine.command("bash").args(["-c", &script]).succeed();
}
