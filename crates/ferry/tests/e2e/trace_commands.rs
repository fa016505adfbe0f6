//! Recording changes nothing for what is recorded, and fails where it has to.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use ferry_test_world::{Machine, NixVersion, World};
use serde_json::Value;

use crate::support::{NOBODY, ferry, machine, on_each, shell};

/// Says something while it is evaluated, imports what it builds, and says something again.
const TALKATIVE: &str = r#"
let
  made = name: text: derivation {
    inherit name; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo a line of the build; echo '${text}' > $out" ];
  };
in
derivation {
  name = "talkative"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "echo done > $out" ];
  a = builtins.trace "before" (import (made "imported.nix" "42") + 0) + "";
  b = builtins.trace "after" "${./file}";
}
"#;

fn project(machine: &Machine) {
    machine.write("/data/talkative.nix", TALKATIVE.replace(" + 0) + \"\"", ")"));
    machine.write("/data/file", "file");
    machine.write("/data/throws.nix", "builtins.trace \"so far\" (throw \"no further\")");
}

fn lines(machine: &Machine, file: &str) -> Vec<Value> {
    let text = String::from_utf8(machine.read(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts of the lines of a kind.
fn texts(lines: &[Value], kind: &str) -> Vec<String> {
    lines.iter().filter_map(|line| Some(line.get(kind)?.as_str()?.to_owned())).collect()
}

#[test]
fn a_command_that_is_recorded_does_and_says_what_it_does_otherwise() {
    on_each(|world, traced| {
        let plain = machine(world, traced.version());
        project(&plain);
        project(&traced);
        for command in [
            "nix-build talkative.nix --no-out-link",
            "nix-build talkative.nix --no-out-link",
            "nix-instantiate throws.nix",
            "nix-instantiate --eval --strict -E '1 + 1'",
            "nix-store --realise /nix/store/00000000000000000000000000000000-none",
            "sh -c 'cat; echo out; echo err >&2; exit 7'",
        ] {
            let expected = shell(&plain, &format!("exec {command}")).stdin("typed\n").run();
            let recorded = format!("exec ferry trace --quiet --output /data/x.trace -- {command}");
            let outcome = shell(&traced, &recorded).stdin("typed\n").run();
            let what = format!("Nix {}: {command}", traced.version());
            assert_eq!(outcome.code(), expected.code(), "{what}\n{}", outcome.stderr);
            assert_eq!(outcome.text(), expected.text(), "{what}");
            assert_eq!(outcome.stderr, expected.stderr, "{what}");
            let lines = lines(&traced, "/data/x.trace");
            assert_eq!(lines.last().unwrap()["complete"], expected.status.success(), "{what}");
        }
        let killed = "ferry trace --output /data/x.trace -- sh -c 'kill -9 $$'";
        assert_eq!(shell(&traced, killed).fails().code(), 128 + 9);
        let refused = "ferry trace -- nix-build --store /data/chroot talkative.nix";
        let refused = shell(&traced, refused).fails();
        assert_eq!(refused.code(), 2);
        assert!(refused.stderr.contains("ferry trace --store"), "{}", refused.stderr);
    });
}

#[test]
fn what_a_command_builds_for_itself_is_no_import() {
    on_each(|_, machine| {
        project(&machine);
        let command = "nix-build talkative.nix --no-out-link";
        let record = format!("ferry trace --output /data/x.trace -- {command}");
        let output = shell(&machine, &record).ok();
        let recorded = lines(&machine, "/data/x.trace");
        let root = shell(&machine, "nix-instantiate talkative.nix 2>/dev/null").ok();
        assert_eq!(texts(&recorded, "root"), [root]);
        let needs = texts(&recorded, "need");
        assert_eq!(needs.len(), 1, "{needs:?}");
        assert!(needs[0].ends_with("-imported.nix"), "{needs:?}");
        assert!(!needs.contains(&output));
        let outside = ["/data/file", "/data/talkative.nix"];
        assert_eq!(texts(&recorded, "outside"), outside);
    });
}

#[test]
fn an_evaluation_that_is_recorded_says_what_it_says_otherwise() {
    on_each(|world, traced| {
        let plain = machine(world, traced.version());
        project(&plain);
        project(&traced);
        for file in ["talkative.nix", "throws.nix"] {
            let expected = plain.command("nix-instantiate").arg(file).run();
            let outcome = ferry(&traced, ["trace", "--json", "--file", file]).run();
            let said = |stderr: &str| -> Vec<String> {
                let lines = stderr.lines().filter(|line| !line.starts_with("ferry: "));
                lines.map(str::to_owned).collect()
            };
            let version = traced.version();
            assert_eq!(said(&outcome.stderr), said(&expected.stderr), "Nix {version}: {file}");
            assert_eq!(outcome.status.success(), expected.status.success());
            if expected.status.success() {
                let json: Value = serde_json::from_str(&outcome.text()).unwrap();
                assert_eq!(json["recordings"][0]["roots"][0], *expected.text());
            } else {
                assert_eq!(outcome.text(), "");
            }
        }
        // What failed left nothing.
        let kept = fs::read_dir(traced.path("/root/.local/state/ferry/traces")).unwrap();
        assert_eq!(kept.count(), 1);
        let left = fs::read_dir(traced.path("/tmp")).unwrap();
        assert_eq!(left.count(), 0);
    });
}

#[test]
fn what_makes_an_evaluation_unrepeatable_is_said() {
    on_each(|_, machine| {
        machine.write("/data/library/default.nix", "\"found\"");
        machine.write(
            "/data/x.nix",
            r#"derivation {
              name = "x"; system = "x"; builder = "x";
              a = toString builtins.currentTime; b = builtins.getEnv "HOME"; c = import <library>;
            }"#,
        );
        let trace = ["trace", "--file", "/data/x.nix", "--output", "/data/x.trace"];
        let said = ferry(&machine, trace).env("NIX_PATH", "/data:other=/data/other").succeed();
        let recorded = lines(&machine, "/data/x.trace");
        let why = recorded.iter().filter(|line| line.get("warning").is_some());
        let mut why: Vec<&str> = why.map(|line| line["why"].as_str().unwrap()).collect();
        why.sort_unstable();
        assert_eq!(why, ["current-time", "environment", "nix-path"]);
        assert_eq!(said.stderr.matches("not repeatable everywhere").count(), 3);
        assert_eq!(recorded[0]["environment"]["NIX_PATH"], "library=/data/library");
        assert_eq!(texts(&recorded, "outside"), ["/data/library", "/data/x.nix"]);
    });
}

#[test]
fn whoever_may_only_ask_the_daemon_records_with_it() {
    on_each(|_, machine| {
        project(&machine);
        let _daemon = machine.daemon();
        let trace = ferry(&machine, ["trace", "--file", "/data/talkative.nix"]);
        let file = trace.user(NOBODY).ok();
        assert!(
            file.starts_with(&format!("/tmp/home-{NOBODY}/.local/state/ferry/traces/")),
            "{file}"
        );
        assert_eq!(texts(&lines(&machine, &file), "need").len(), 1);
    });
}

#[test]
fn two_recordings_at_once_are_two_recordings() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let _daemon = machine.daemon();
    let record = |name: &str| {
        machine.write(format!("/data/{name}-source"), name);
        let expression = format!(
            "builtins.genList (n: derivation {{ name = \"{name}${{toString n}}\"; system = \"x\"; \
             builder = \"x\"; source = /data/{name}-source; }}) 100"
        );
        let output = format!("/data/{name}.trace");
        let trace = ["trace", "--expr", &expression, "--output", &output];
        ferry(&machine, trace).env("NIX_REMOTE", "daemon").spawn()
    };
    let running = [record("one"), record("two")];
    for one in running {
        let outcome = one.wait();
        assert!(outcome.status.success(), "{}", outcome.stderr);
    }
    for name in ["one", "two"] {
        let recorded = lines(&machine, &format!("/data/{name}.trace"));
        let roots = texts(&recorded, "root");
        assert_eq!(roots.len(), 100);
        assert!(roots.iter().all(|root| root[44..].starts_with(name)), "{roots:?}");
        assert_eq!(texts(&recorded, "outside"), [format!("/data/{name}-source")]);
        assert_eq!(texts(&recorded, "added").len(), 1);
    }
}

#[test]
fn a_store_on_another_root_is_recorded_too() {
    on_each(|_, machine| {
        machine.write("/data/file", "file");
        let expression = "derivation { name = \"x\"; system = \"x\"; builder = \"x\"; \
                          a = /data/file; b = builtins.toFile \"text\" \"text\"; }";
        let trace = ["trace", "--store", "/data/chroot", "--expr", expression];
        let file = ferry(&machine, trace).ok();
        let recorded = lines(&machine, &file);
        let root = &texts(&recorded, "root")[0];
        assert!(machine.path(format!("/data/chroot{root}")).is_file());
        assert!(!machine.path(root).exists());
        assert_eq!(recorded[0]["storeDir"], "/nix/store");
        let mut whys: Vec<_> = recorded
            .iter()
            .filter(|line| line.get("added").is_some())
            .map(|line| &line["why"])
            .collect();
        whys.sort_by_key(|why| why.to_string());
        assert_eq!(whys, ["source", "text"]);
        assert_eq!(texts(&recorded, "outside"), ["/data/file"]);
    });
}

#[test]
fn neither_long_names_of_directories_nor_long_texts_are_in_the_way() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    let long = format!("/tmp/{}", "long/".repeat(30));
    fs::create_dir_all(machine.path(long.trim_end_matches('/'))).unwrap();
    let expression = "derivation { name = \"x\"; system = \"x\"; builder = \"x\"; a = builtins.concatStringsSep \
                      \"\" (builtins.genList (n: \"0123456789abcdef\") 200000); }";
    let trace = ["trace", "--expr", expression, "--output", "/data/x.trace"];
    ferry(&machine, trace).env("TMPDIR", &long).succeed();
    let recorded = lines(&machine, "/data/x.trace");
    assert_eq!(recorded.last().unwrap()["complete"], true);
    assert_eq!(texts(&recorded, "root").len(), 1);
}

#[test]
fn a_disk_that_is_full_is_an_error_and_the_command_keeps_its_status() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let many = "let text = n: builtins.toFile \"text-${toString n}\" \"text\"; in derivation { name = \"x\"; \
                system = \"x\"; builder = \"x\"; a = builtins.genList text 500; }";
    machine.write("/data/many.nix", many);
    let on_full = |command: &str| {
        let script = format!(
            "mkdir -p tiny; mount -t tmpfs -o size=16k tmpfs tiny; set +e; {command}; code=$?; \
             ls -A tiny; exit $code"
        );
        shell(&machine, &script).run()
    };
    let outcome = on_full("ferry trace --file many.nix --output tiny/x.trace");
    assert_eq!((outcome.code(), outcome.text().as_str()), (1, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("tiny/x.trace: No space left"), "{}", outcome.stderr);
    let command = "sh -c 'nix-instantiate many.nix >/dev/null; exit 3'";
    let outcome = on_full(&format!("ferry trace --output tiny/x.trace -- {command}"));
    assert_eq!((outcome.code(), outcome.text().as_str()), (3, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("tiny/x.trace: No space left"), "{}", outcome.stderr);
}

#[test]
fn a_daemon_that_dies_is_an_evaluation_that_fails() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let endless = "import (derivation { name = \"endless\"; system = builtins.currentSystem; \
                   builder = \"/bin/sh\"; PATH = \"/bin:/usr/bin\"; \
                   args = [ \"-c\" \"echo > /data/started; sleep 1000\" ]; })";
    let daemon = machine.daemon();
    let trace = ["trace", "--expr", endless, "--output", "/data/x.trace"];
    let running = ferry(&machine, trace).env("NIX_REMOTE", "daemon").spawn();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !machine.path("/data/started").exists() {
        assert!(Instant::now() < deadline, "the build does not start");
        thread::sleep(Duration::from_millis(10));
    }
    drop(daemon);
    let outcome = running.wait();
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    assert!(!machine.path("/data/x.trace").exists());
}
