//! Which files travel with an evaluation, and what becomes of them on the other side.

use ferry_test_world::{Machine, NixVersion, World};

use super::BUNDLE;
use super::recorded::TRACE;
use crate::support::{carry, ferry, machine, shell};

/// Text that has to stay at home.
const SECRET: &str = "nobody else is to read this";

/// A machine with an expression in `directory` that reads more than its log says.
fn with_expression(world: &World, directory: &str) -> Machine {
    let machine = machine(world, NixVersion::V2_26);
    let expression = r#"
        let name = "text"; in
        derivation {
          name = "files"; system = "x86_64-linux"; builder = "/bin/sh";
          src = ./src;
          text = builtins.readFile (./. + "/${name}");
          word = import <words/word.nix>;
        }
    "#;
    machine.write(format!("{directory}/default.nix"), expression);
    machine.write(format!("{directory}/src/file"), "a source\n");
    machine.write(format!("{directory}/text"), "read from a file");
    machine.write("/data/dictionary/word.nix", "''a word''");
    machine
}

/// Evaluates and records it, in `directory`, and returns the derivation.
fn trace(machine: &Machine, directory: &str) -> String {
    let trace = ferry(machine, ["trace", "--file", "default.nix", "--output", TRACE]);
    trace.current_dir(directory).env("NIX_PATH", "words=/data/dictionary").ok();
    let derivation = machine.command("nix-instantiate").arg("default.nix").current_dir(directory);
    derivation.env("NIX_PATH", "words=/data/dictionary").ok()
}

fn pack(machine: &Machine) -> ferry_test_world::MachineCommand {
    ferry(machine, ["pack", &format!("--with-eval={TRACE}"), "-o", BUNDLE])
}

/// The files of the evaluation in the bundle.
fn packed_files(machine: &Machine) -> String {
    let told = ferry(machine, ["info", BUNDLE]).ok();
    let evaluation = told.lines().find_map(|line| line.strip_prefix("evaluation:"));
    let evaluation = evaluation.unwrap_or_else(|| panic!("no evaluation: {told}")).trim();
    assert!(evaluation.ends_with("-files-evaluation"), "{evaluation}");
    ferry(machine, ["ls", "-R", BUNDLE, evaluation]).ok()
}

#[test]
fn files_that_are_read_or_looked_up_are_found_where_they_were_laid_out() {
    let Some(world) = World::open() else { return };
    // As they are, behind a link, and in a working tree of Git that ignores something.
    for place in ["/data/project", "/data/link/project", "/data/tree/project"] {
        let machine = with_expression(&world, &place.replace("/link", "/linked"));
        let script = match place {
            "/data/link/project" => "ln -s linked /data/link",
            "/data/tree/project" => {
                "cd /data/tree; git init --quiet; echo ignored > .gitignore; echo > ignored"
            }
            _ => "",
        };
        shell(&machine, script).ok();
        let derivation = trace(&machine, place);
        pack(&machine).ok();
        let files = packed_files(&machine);
        assert!(!files.contains("tree/ignored") && !files.contains(".git/"), "{files}");

        let island = self::machine(&world, NixVersion::V2_26);
        carry(&machine, &island, BUNDLE);
        ferry(&island, ["load", BUNDLE, "--eval-dir", "/data/again"]).ok();
        let there = ferry(&island, ["shell", "--offline", "/data/again", "--"]);
        assert_eq!(there.args(["nix-instantiate", "default.nix"]).ok(), derivation, "{place}");
        let looked_up = ["nix-instantiate", "--find-file", "words"];
        let there = ferry(&island, ["shell", "--offline", "/data/again", "--"]).args(looked_up);
        assert_eq!(there.ok(), "/data/again/files/data/dictionary", "{place}");
    }
}

#[test]
fn what_has_changed_since_it_was_evaluated_is_named_and_not_packed() {
    let Some(world) = World::open() else { return };
    let machine = with_expression(&world, "/data/project");
    trace(&machine, "/data/project");
    for (file, named) in [("src/file", "/data/project/src"), ("default.nix", "default.nix")] {
        let before = machine.read(format!("/data/project/{file}"));
        machine.write(format!("/data/project/{file}"), "other");
        let failed = pack(&machine).fails().stderr;
        assert!(
            failed.contains(&format!("{named} has changed since it was evaluated")),
            "{failed}"
        );
        machine.write(format!("/data/project/{file}"), before);
    }
    machine.write("/data/project/large", vec![0; 200_000]);
    let failed = pack(&machine).args(["--eval-limit", "100K"]).fails().stderr;
    assert!(failed.contains("/data/project alone has 2"), "{failed}");
    assert!(!machine.path(BUNDLE).exists());
    pack(&machine).ok();
}

#[test]
fn a_home_does_not_travel_because_something_in_it_was_evaluated() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    let expression = "derivation { name = \"files\"; system = \"x\"; builder = ./builder; }";
    machine.write("/root/default.nix", expression);
    machine.write("/root/builder", "a builder");
    machine.write("/root/secret", SECRET);
    machine.write("/root/.netrc", SECRET);
    trace(&machine, "/root");
    let told = pack(&machine).succeed().stderr;
    assert!(told.contains("/root does not travel as a whole"), "{told}");
    let files = packed_files(&machine);
    assert!(files.contains("files/root/builder"), "{files}");
    assert!(!files.contains("secret") && !files.contains("netrc"), "{files}");
}

#[test]
fn what_is_in_the_way_stays_and_exit_codes_are_passed_on() {
    let Some(world) = World::open() else { return };
    let machine = with_expression(&world, "/data/project");
    trace(&machine, "/data/project");
    pack(&machine).ok();
    machine.write("/data/other/file", "somebody's");
    let failed = ferry(&machine, ["load", BUNDLE, "--eval-dir", "/data/other"]).fails();
    assert!(failed.stderr.contains("/data/other is there already"), "{}", failed.stderr);
    assert_eq!(machine.read("/data/other/file"), b"somebody's");
    ferry(&machine, ["load", BUNDLE, "--no-eval"]).ok();
    assert!(!machine.path("/root/.local/share").exists());

    // Laid out when it is wanted.
    let exit = ferry(&machine, ["shell", "--offline", BUNDLE, "--", "sh", "-c", "exit 7"]).run();
    assert_eq!(exit.status.code(), Some(7));
    assert!(machine.path("/root/.local/share/ferry/evaluations").exists());
    let told = ferry(&machine, ["shell", "--offline", BUNDLE]).ok();
    assert!(told.ends_with(" -- nix-instantiate default.nix"), "{told}");

    // A bundle that is copied is still one with an evaluation; and the store has it, too.
    let copy = ["copy", "--from", BUNDLE, "--to", "/data/copy.ferry", "--all"];
    ferry(&machine, copy).ok();
    let told = ferry(&machine, ["info", "/data/copy.ferry"]).ok();
    let evaluation = told.lines().find_map(|line| line.strip_prefix("evaluation:"));
    let evaluation = evaluation.unwrap_or_else(|| panic!("no evaluation: {told}")).trim();
    let exit = ferry(&machine, ["shell", "--offline", evaluation, "--", "sh", "-c", "exit 8"]);
    assert_eq!(exit.run().status.code(), Some(8));
    let failed = ferry(&machine, ["shell", "--offline", "/data/other", "--", "true"]).fails();
    assert!(failed.stderr.contains("is not an evaluation"), "{}", failed.stderr);
}
