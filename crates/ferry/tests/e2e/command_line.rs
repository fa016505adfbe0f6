//! The command line where no Nix is: what it refuses, in which words, and with which exit code.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use ferry_test_world::Origin;
use serde_json::Value;

use crate::support::ferry_without_nix;

const RECIPE: &str = "14qif9az5558dasgc1ai24sn7y55wzax-hello-1.0.drv";
const OUTPUT: &str = "jpa5gy8dk89nrr5dzw3v1w6b0b6r8sj1-hello-1.0";

/// A home with a copy of the example store in it, as `S`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/store");
        copy_tree(&store, &home.path("S"));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let home = fs::canonicalize(self.0.path()).unwrap();
        ferry_without_nix(&home).env("PATH", "/usr/bin:/bin").args(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what has to fail with a code and these words; returns what is on stdout.
    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> String {
        let output = self.run(args);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{args:?}: `{word}` is not in\n{told}");
        }
        String::from_utf8(output.stdout).unwrap()
    }

    fn pack(&self, what: &str, set: &str, file: &str) {
        self.ok(&["pack", what, "--set", set, "--store", "./S", "-o", file]);
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &place),
            false => drop(fs::copy(entry.path(), place).unwrap()),
        }
    }
}

#[test]
fn a_directory_with_a_cache_is_a_cache_to_every_command() {
    let home = Home::new();
    home.ok(&["cache", "create", OUTPUT, "--from", "./S", "--to", "cache"]);
    let before = fs::read_dir(home.path("cache")).unwrap().count();
    for to in ["cache", "./cache"] {
        home.ok(&["copy", RECIPE, "--set", "recipe", "--from", "./S", "--to", to]);
        assert!(!home.path("cache/nix").exists(), "a store was made in a cache");
    }
    home.ok(&["copy", OUTPUT, "--from", "cache", "--to", "./there", "--no-check-sigs"]);
    assert!(fs::read_dir(home.path("cache")).unwrap().count() > before);

    home.pack(RECIPE, "recipe", "x.ferry");
    home.fails(&["load", "x.ferry", "--to", "./cache"], 2, &["is a binary cache, and no store"]);
    home.fails(&["verify", "cache"], 1, &["is a directory", "hint: `ferry cache verify`"]);
}

#[test]
fn a_cache_that_can_be_listed_answers_all_and_another_does_not_keep_silent() {
    let home = Home::new();
    home.ok(&["cache", "create", RECIPE, "--set", "recipe", "--from", "./S", "--to", "cache"]);
    let address = format!("file://{}", home.path("cache").display());
    let all = home.ok(&["query", "all()", "--store", &address]);
    assert_eq!(all, home.ok(&["query", &format!("set(recipe, {RECIPE})"), "--store", "./S"]));
    home.ok(&["inventory", "--store", &address, "-o", "cache.inv"]);
    let left = format!("all() - have({})", home.path("cache.inv").display());
    assert_eq!(home.ok(&["query", &left, "--store", &address]), "");

    let origin = Origin::start();
    origin.serve_files(&home.path("cache"));
    let url = origin.url();
    home.fails(
        &["query", "all()", "--store", &url],
        1,
        &["cannot list what is in it", "--partial"],
    );
    home.ok(&["query", "all()", "--store", &url, "--partial"]);
}

#[test]
fn a_file_that_is_read_is_not_written_over() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    let before = fs::read(home.path("x.ferry")).unwrap();
    for args in [
        &["salvage", "x.ferry", "-o", "./x.ferry"][..],
        &["convert", "x.ferry", "--to", "export", "-o", "x.ferry"],
        &["copy", "--all", "--from", "x.ferry", "--to", "./x.ferry"],
        &[
            "pack", OUTPUT, "--set", "runtime", "--store", "./S", "--have", "x.ferry", "-o",
            "x.ferry",
        ],
        &["inventory", "--store", "x.ferry", "-o", "x.ferry"],
    ] {
        home.fails(args, 2, &["cannot be written at the same time"]);
        assert!(fs::read(home.path("x.ferry")).unwrap() == before, "{args:?}");
    }
}

#[test]
fn a_directory_without_derivations_is_not_converted() {
    let home = Home::new();
    home.fails(&["convert", "S", "-o", "x.ferry"], 1, &["there is no `.drv` file in S", "hint"]);
    assert!(!home.path("x.ferry").exists());
}

#[test]
fn an_inventory_in_compact_form_answers_what_of_a_set_is_there() {
    let home = Home::new();
    home.ok(&["copy", OUTPUT, "--from", "./S", "--to", "./island", "--no-check-sigs"]);
    home.ok(&["inventory", "--store", "./island", "-o", "island.inv"]);
    let query = |text: &str| home.ok(&["query", text, "--store", "./S"]);
    let runtime = query(&format!("closure(run, {OUTPUT})"));
    assert_ne!(runtime, "");
    for there in [
        "all() & have(island.inv)",
        "have(island.inv) & all()",
        "let island = have(island.inv); all() & island",
    ] {
        assert_eq!(query(there), runtime, "{there}");
    }
    let rest = query("all() - have(island.inv)");
    assert_eq!(rest, query(&format!("all() - closure(run, {OUTPUT})")));
    home.fails(
        &["query", "have(island.inv)", "--store", "./S"],
        2,
        &["lists none", "X - have(FILE)"],
    );

    home.ok(&["cache", "create", RECIPE, "--set", "build", "--from", "./S", "--to", "cache"]);
    home.ok(&["cache", "prune", "cache", "--keep", "island.inv", "--older-than", "0"]);
    let kept = home.ok(&["query", "all()", "--store", "cache"]);
    assert_eq!(kept, runtime);
}

#[test]
fn an_empty_set_is_said_to_be_empty() {
    let home = Home::new();
    home.ok(&["cache", "create", OUTPUT, "--from", "./S", "--to", "cache"]);
    for args in [
        &["pack", RECIPE, "--store", "./S", "-o", "x.ferry"][..],
        &["copy", RECIPE, "--from", "./S", "--to", "./there"],
        &["cache", "create", RECIPE, "--from", "./S", "--to", "new"],
        &["missing", RECIPE, "--store", "./S", "--in", "cache"],
    ] {
        let args = [args, &["--set", "x - x"]].concat();
        home.fails(&args, 1, &["the set `x - x` is empty: there is nothing to take"]);
    }
}

#[test]
fn a_file_in_the_place_of_an_installable_is_named_and_nix_is_not_asked() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    home.ok(&["cache", "create", OUTPUT, "--from", "./S", "--to", "cache"]);
    let absent = ["no such file"];
    home.fails(&["diff", "x.ferry", "nope.ferry"], 1, &absent);
    home.fails(&["drv", "show", "nope.ferry"], 1, &absent);
    home.fails(&["cache", "prune", "cache", "--keep", "nope.txt"], 1, &absent);
    home.fails(
        &["pack", RECIPE, "--store", "./S", "--have", "nope.txt", "-o", "y.ferry"],
        1,
        &absent,
    );
    home.fails(&["copy", "--all", "--from", "nope.ferry", "--to", "./y"], 1, &absent);
    let bundle = ["x.ferry is a bundle, and no installable", "--store x.ferry"];
    home.fails(&["deps", "run", "x.ferry", "--store", "./S"], 2, &bundle);
    home.fails(&["pack", "x.ferry", "--store", "./S", "-o", "y.ferry"], 2, &bundle);
}

#[test]
fn what_is_wrong_with_a_bundle_is_told_as_json_too() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    let whole = fs::read(home.path("x.ferry")).unwrap();
    fs::write(home.path("cut.ferry"), &whole[..whole.len() / 2]).unwrap();
    let text = home.fails(&["verify", "--json", "cut.ferry"], 1, &["is truncated"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["version"], 1);
    assert_eq!(told["valid"], false);
    assert_eq!(told["bundle"], "cut.ferry");
    assert_eq!(told["offset"], whole.len() / 2);
    assert!(told["error"].as_str().unwrap().contains("is truncated"), "{text}");
}

#[test]
fn what_nobody_has_signed_fails_where_signatures_are_asked_for() {
    let home = Home::new();
    home.pack(OUTPUT, "runtime", "x.ferry");
    home.pack(RECIPE, "recipe", "recipe.ferry");
    home.ok(&["verify", "x.ferry"]);
    let unsigned = ["no trusted key has signed", OUTPUT, "hint: sign when packing"];
    home.fails(&["verify", "x.ferry", "--require-sigs"], 1, &unsigned);
    home.ok(&["verify", "recipe.ferry", "--require-sigs"]);
}

#[test]
fn what_cannot_be_read_is_1_and_what_makes_no_sense_is_2() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    let pack = ["pack", RECIPE, "--store", "./S", "-o", "y.ferry"];
    for (code, args) in [
        (1, &["pack", "./nope.drv", "--store", "./S", "-o", "y.ferry"][..]),
        (1, &["diff", "x.ferry", "./nope", "--store", "./S"]),
        (1, &["verify", "x.ferry", "--require-bundle-key", "nope"]),
        (1, &["verify", "x.ferry", "--trusted-public-key", "nope"]),
        (1, &[&pack[..], &["--have", "nope.txt"]].concat()),
        (1, &["pack", RECIPE, "--store", "./S", "-o", "nowhere/y.ferry"]),
        (2, &[&pack[..], &["--volume-size", "300"]].concat()),
        (2, &["verify", "x.ferry", "--option", "require-sigs", "maybe"]),
    ] {
        home.fails(args, code, &["ferry: error: "]);
    }
}

#[test]
fn the_store_that_nix_uses_is_the_default_everywhere() {
    let home = Home::new();
    let run = |args: &[&str]| {
        let mut command = ferry_without_nix(home.0.path());
        let output = command.env("NIX_REMOTE", home.path("S")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", told(&output));
    };
    run(&["pack", RECIPE, "-o", "x.ferry"]);
    run(&["copy", OUTPUT, "--to", "./there", "--no-check-sigs"]);
    run(&["cache", "create", OUTPUT, "--to", "cache"]);
    run(&["cache", "prune", "cache", "--keep", RECIPE, "--set", "build", "--dry-run"]);
}

#[test]
fn a_key_is_given_by_itself_or_in_a_file_and_no_file_is_shown() {
    let home = Home::new();
    let public = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
    fs::write(home.path("key"), format!("{public}\n")).unwrap();
    home.pack(RECIPE, "recipe", "x.ferry");
    for key in [public, "key"] {
        home.ok(&["verify", "x.ferry", "--trusted-public-key", key]);
        let unsigned = ["not signed by a key that is required"];
        home.fails(&["verify", "x.ferry", "--require-bundle-key", key], 1, &unsigned);
    }
    fs::write(home.path("notes"), "user=u\npassword=hunter2\nsee: there\n").unwrap();
    for option in ["--sign-key", "--trusted-public-key"] {
        let args = match option {
            "--sign-key" => {
                vec!["pack", RECIPE, "--store", "./S", "-o", "y.ferry", option, "notes"]
            }
            _ => vec!["verify", "x.ferry", option, "notes"],
        };
        let output = home.run(&args);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains("notes"), "{}", told(&output));
        assert!(!told(&output).contains("hunter2"), "{}", told(&output));
    }
}

#[test]
fn a_setting_that_is_nearly_one_is_pointed_out() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    let said =
        |name: &str, value: &str| told(&home.run(&["verify", "x.ferry", "--option", name, value]));
    assert!(said("require-sig", "false").contains("did you mean `require-sigs`?"));
    for name in ["require-sigs", "sandbox", "substitute"] {
        assert!(!said(name, "false").contains("did you mean"), "{name}");
    }
}

#[test]
fn hints_name_what_helps_with_this_command() {
    let home = Home::new();
    home.pack(RECIPE, "recipe", "x.ferry");
    let ls = home.run(&["ls", "x.ferry", OUTPUT]);
    assert!(!told(&ls).contains("--store"), "{}", told(&ls));
    let nowhere = ["there is no directory", "nowhere"];
    home.fails(&["pack", RECIPE, "--store", "./S", "-o", "nowhere/x.ferry"], 1, &nowhere);
}

#[test]
fn every_command_has_a_page_that_names_the_version_and_its_examples() {
    let home = Home::new();
    fs::create_dir(home.path("man")).unwrap();
    home.ok(&["man", "man"]);
    let version = format!("ferry {}", env!("CARGO_PKG_VERSION"));
    for entry in fs::read_dir(home.path("man")).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(file.extension(), Some(OsStr::new("1")));
        let page = fs::read_to_string(&file).unwrap();
        let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        assert!(title.contains(&version), "{}: {title}", file.display());
    }
    let pack = fs::read_to_string(home.path("man/ferry-pack.1")).unwrap();
    let (_, examples) = pack.split_once(".SH EXAMPLES").unwrap();
    assert!(examples.trim_start().starts_with(".nf"), "{examples}");
    assert!(examples.lines().any(|line| line.contains("ferry pack nixpkgs#hello")), "{examples}");
    let help = home.ok(&["--help"]);
    assert!(help.contains("completions") && help.contains("  man "), "{help}");
}
