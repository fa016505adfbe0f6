//! What one bundle has and another has not.

use ferry_test_world::{Machine, NixVersion, World};
use serde_json::{Value, json};

use crate::support::{ferry, machine, pack_runtime, shell, sorted};

/// A library and a program that reads it, of this version and size.
fn program(machine: &Machine, version: &str, size: u32) -> String {
    let file = format!("/data/{version}.nix");
    machine.write(
        &file,
        format!(
            r#"
            let
              run = attrs: derivation ({{
                system = builtins.currentSystem;
                builder = "/bin/bash-static";
                args = [ "-euc" attrs.buildCommand ];
                PATH = "/usr/bin:/bin";
              }} // attrs);
              library = run {{
                name = "library-{version}";
                buildCommand = "head -c {size} /dev/zero >$out";
              }};
              same = run {{ name = "same-1.0"; buildCommand = "echo same >$out"; }};
            in run {{
              name = "program-1.0";
              inherit library same;
              buildCommand = "echo $library $same >$out";
            }}"#
        ),
    );
    machine.command("nix-build").args([&file, "--no-out-link"]).ok()
}

fn lines(machine: &Machine, args: &[&str]) -> Vec<String> {
    let outcome = ferry(machine, ["diff"].iter().chain(args)).run();
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    outcome.text().lines().map(str::to_owned).collect()
}

#[test]
fn two_closures_differ_as_nix_says_and_so_do_their_bundles() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let machine = machine(&world, version);
        let old = program(&machine, "1.0", 1000);
        let new = program(&machine, "1.1", 21_000);
        let told = machine.command("nix").args(["store", "diff-closures", &old, &new]).ok();
        assert!(told.starts_with("library: 1.0 → 1.1, "), "{told}");
        assert_eq!(told.lines().count(), 1);
        let expected = ["library: 1.0 → 1.1, +20.00 kB", "program: 1.0 differs"];
        assert_eq!(lines(&machine, &[&old, &new]), expected);

        pack_runtime(&machine, &old, "old.ferry").succeed();
        pack_runtime(&machine, &new, "new.ferry").succeed();
        assert_eq!(lines(&machine, &["old.ferry", "new.ferry"]), expected);
        assert_eq!(lines(&machine, &["old.ferry", &new]), expected);
        shell(&machine, "ferry convert new.ferry -o new.export").succeed();
        assert_eq!(lines(&machine, &["old.ferry", "new.export"]), expected);

        let long = lines(&machine, &["--long", "old.ferry", "new.ferry"]);
        let closure = |path: &str| machine.command("nix-store").args(["-qR", path]).ok();
        let (before, after) = (closure(&old), closure(&new));
        let only = |these: &str, those: &str, sign: &str| -> Vec<String> {
            let only = these.lines().filter(|line| !those.contains(*line));
            only.map(|line| format!("{sign} {line}")).collect()
        };
        let both = [only(&before, &after, "-"), only(&after, &before, "+")].concat();
        assert_eq!(
            sorted(long.iter().map(String::as_str)),
            sorted(both.iter().map(String::as_str))
        );

        let same = ferry(&machine, ["diff", "new.ferry", "new.export"]).succeed();
        assert_eq!(same.text(), "");
    }
}

#[test]
fn what_was_changed_in_a_derivation_is_told_apart_from_its_consequences() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    for (version, size) in [("1.0", 1000), ("1.1", 21_000)] {
        let top = program(&machine, version, size);
        let file = format!("{version}.ferry");
        ferry(&machine, ["pack", &top, "--set", "recipe", "-o", &file]).succeed();
    }
    let args = ["1.0.ferry", "1.1.ferry"];
    let packages = lines(&machine, &args);
    let [library, program] = packages.as_slice() else { panic!("{packages:?}") };
    assert!(library.starts_with("library.drv: 1.0 → 1.1"), "{library}");
    assert_eq!(program, "program.drv: 1.0 differs");
    let outcome = ferry(&machine, ["diff", "--json", "--derivations"].iter().chain(&args)).run();
    let told: Value = serde_json::from_str(&outcome.text()).unwrap();
    let derivations = &told["derivations"];
    let changed = derivations["changed"].as_array().unwrap();
    let what = |change: &Value| -> Vec<String> {
        let changes = change["changes"].as_array().unwrap();
        changes.iter().map(|it| it["what"].as_str().unwrap().to_owned()).collect()
    };
    let all: Vec<Vec<String>> = changed.iter().map(what).collect();
    assert_eq!(
        all,
        [
            &["args", "env.buildCommand", "env.name", "env.out"][..],
            &["inputs", "inputs", "env.library"]
        ]
    );
    assert_eq!(derivations["unpaired"], json!(0));
    let text = lines(&machine, &["-d", args[0], args[1]]);
    assert!(text.contains(&"  env.name: library-1.0 → library-1.1".to_owned()), "{text:?}");
    ferry(&machine, ["diff", "1.0.ferry", "1.0.ferry"]).succeed();
}
