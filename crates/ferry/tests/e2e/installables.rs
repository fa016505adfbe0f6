//! The ways to name what is packed.

use ferry_test_world::{Machine, NixVersion, World, crossing};
use serde_json::Value;

use crate::support::{Built, ferry, machine, on_each_built, query, shell};

/// What `ferry pack` with these arguments takes for its roots.
fn roots(machine: &Machine, args: &[&str]) -> Vec<String> {
    let pack = ferry(machine, ["pack", "--json", "-o", "/tmp/x.ferry"]).args(args);
    let told: Value = serde_json::from_slice(&pack.succeed().stdout).expect("ferry prints JSON");
    let roots = told["roots"].as_array().expect("there are roots");
    roots.iter().map(|root| root.as_str().expect("a root is a path").to_owned()).collect()
}

#[track_caller]
fn assert_roots(machine: &Machine, args: &[&str], wanted: &[&str]) {
    assert_eq!(roots(machine, args), wanted, "{args:?}");
}

/// How `ferry pack` with these arguments fails: its exit code and what it says.
fn failure(machine: &Machine, args: &[&str]) -> (i32, String) {
    let pack = ferry(machine, ["pack", "-o", "/tmp/failed.ferry"]).args(args).fails();
    assert!(!machine.path("/tmp/failed.ferry").exists());
    (pack.code(), pack.stderr)
}

#[track_caller]
fn assert_failure(machine: &Machine, args: &[&str], code: i32, words: &[&str]) {
    let (found, told) = failure(machine, args);
    assert_eq!(found, code, "{told}");
    for words in words {
        assert!(told.contains(words), "not told: {words}\nbut: {told}");
    }
}

/// `crossing.nix` with its arguments given, as a file and as a flake without inputs.
fn write_expressions(machine: &Machine) {
    let directory = machine.expression("crossing.nix").replace("/crossing.nix", "");
    let call = |file: &str, system: &str| {
        let hash = crossing::DOWNLOAD_HASH;
        format!("import {file} {{ fodHash = \"{hash}\"; system = \"{system}\"; }}")
    };
    let system = machine.command("nix").args(["eval", "--impure", "--raw", "--expr"]);
    let system = system.arg("builtins.currentSystem").ok();
    machine.write("/data/packages.nix", call(&format!("{directory}/crossing.nix"), &system));
    shell(machine, &format!("mkdir /data/flake; cp -r {directory}/crossing* /data/flake")).ok();
    let flake = format!(
        "{{ outputs = _: {{ packages.{system} = {}; }}; }}",
        call("./crossing.nix", &system)
    );
    machine.write("/data/flake/flake.nix", flake);
}

fn instantiate(machine: &Machine, attribute: &str) -> String {
    let found = machine.command("nix-instantiate").args(["/data/packages.nix", "-A", attribute]);
    found.ok()
}

/// Builds the derivation with two outputs, and returns them: out and dev.
fn build_multi(machine: &Machine, derivation: &str) -> (String, String) {
    let outputs = machine.command("nix-store").args(["--realise", derivation]).ok();
    let (dev, out) = outputs.lines().partition(|path| path.ends_with("-dev"));
    (out, dev)
}

#[test]
fn a_recipe_is_found_from_whatever_names_it() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, .. } = built;
        let links = format!(
            "ln -s {top} result
             mkdir -p deep/down; ln -s ../../result deep/down/again; ln -s /data/deep /data/way
             ln -s {top} /nix/var/nix/profiles/system-1-link
             ln -s system-1-link /nix/var/nix/profiles/system
             ln -s /nix/var/nix/profiles/system /run/current-system"
        );
        shell(machine, &links).ok();
        let base = derivation.trim_start_matches("/nix/store/");
        for name in [
            derivation.as_str(),
            base,
            &format!("{derivation}^*"),
            &format!("{derivation}^out"),
            &format!("{derivation}!out"),
            top,
            &format!("{top}/bin/hello"),
            &format!("{top}/bin/../bin/hello"),
            "result",
            "./result",
            "result/bin/hello",
            "/data/way/down/again",
            "way/../deep/down/again",
            "/run/current-system",
            "/run/current-system/bin",
        ] {
            assert_roots(machine, &[name], &[derivation]);
        }
        // Each once, in the order named.
        let multi = query(machine, &["--deriver", &built.output("multi-1.0")]).concat();
        let several = [&multi, top, derivation, "result", &multi];
        assert_roots(machine, &several, &[&multi, derivation]);
    });
}

#[test]
fn a_runtime_has_the_outputs_that_are_named() {
    on_each_built(|_, built| {
        let machine = &built.machine;
        let [out, dev] = [built.output("multi-1.0"), built.output("multi-1.0-dev")];
        let multi = query(machine, &["--deriver", &out]).concat();
        let assert_runtime = |name: &str, wanted: &[&str]| {
            assert_roots(machine, &[name, "--set", "runtime"], wanted);
        };
        assert_runtime(&multi, &[&dev, &out]);
        assert_runtime(&format!("{multi}^*"), &[&dev, &out]);
        assert_runtime(&format!("{multi}^dev"), &[&dev]);
        assert_runtime(&format!("{multi}!out"), &[&out]);
        assert_runtime(&format!("{multi}^out,dev"), &[&out, &dev]);
        assert_runtime(&format!("{multi}^dev,out"), &[&dev, &out]);
        assert_runtime(&format!("{dev}/include/multi.pc"), &[&dev]);
        let also = [&multi, "--also", &format!("{multi}^dev"), "--also", &out];
        assert_roots(machine, &also, &[&multi, &dev, &out]);

        let no_such = ["its outputs are: dev, out"];
        assert_failure(machine, &[&format!("{multi}^doc"), "--set", "runtime"], 2, &no_such);
        let no_outputs = ["only a derivation (`….drv`) has outputs"];
        assert_failure(machine, &[&format!("{out}^out")], 2, &no_outputs);
        assert_failure(machine, &[&format!("{multi}^out,")], 2, &["outputs are written `^*`"]);
    });
}

#[test]
fn expressions_are_evaluated_by_nix() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        write_expressions(&machine);
        let [b, multi] = ["b", "multi"].map(|name| instantiate(&machine, name));
        let file = "/data/packages.nix";
        let call = "import ./packages.nix";
        assert_roots(&machine, &["-f", file, "b"], &[&b]);
        assert_roots(&machine, &["--file", "./packages.nix", "b", "multi"], &[&b, &multi]);
        assert_roots(&machine, &["--expr", call, "multi", "b"], &[&multi, &b]);
        assert_roots(&machine, &["--expr", "(import ./packages.nix).b"], &[&b]);
        assert_roots(&machine, &["-f", file, "multi.dev"], &[&multi]);
        assert_eq!(roots(&machine, &["-f", file]).len(), 5);

        // An attribute means the output that it is.
        let (out, dev) = build_multi(&machine, &multi);
        for (attribute, wanted) in [("multi", &out), ("multi.out", &out), ("multi.dev", &dev)] {
            assert_roots(&machine, &["-f", file, attribute, "--set", "runtime"], &[wanted]);
        }

        let no_such = ["attribute 'nothing'", "`nix-instantiate /data/packages.nix -A nothing`"];
        assert_failure(&machine, &["-f", file, "nothing"], 1, &no_such);
        // Another store, by way of Nix.
        let _daemon = machine.daemon();
        for store in ["/data/island", "daemon", "exec:nix-daemon --stdio"] {
            assert_roots(&machine, &["-f", file, "b", "--store", store], &[&b]);
        }
        assert!(machine.path(format!("/data/island{b}")).exists());
    }
}

#[test]
fn flakes_are_evaluated_by_nix() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        write_expressions(&machine);
        let eval = |attribute: &str| {
            let attribute = format!("/data/flake#{attribute}.drvPath");
            machine.command("nix").args(["eval", "--raw", &attribute]).ok()
        };
        let [a, multi] = ["a", "multi"].map(eval);
        for name in ["/data/flake#a", "path:/data/flake#a", "./flake#a", "./flake#a^*"] {
            assert_roots(&machine, &[name], &[&a]);
        }
        let here = ferry(&machine, ["pack", ".#a", "-o", "/tmp/here.ferry"]);
        here.current_dir("/data/flake").ok();
        assert_eq!(machine.read("/tmp/here.ferry"), machine.read("/tmp/x.ferry"));
        assert_roots(&machine, &["/data/flake#multi", "/data/flake#a"], &[&multi, &a]);

        let (out, dev) = build_multi(&machine, &multi);
        for (outputs, wanted) in
            [("", vec![&*out]), ("^*", vec![&*dev, &*out]), ("^dev", vec![&*dev])]
        {
            let name = format!("/data/flake#multi{outputs}");
            assert_roots(&machine, &[&name, "--set", "runtime"], &wanted);
        }
        assert_failure(&machine, &["/data/flake#nothing"], 1, &["nothing", "failed"]);
    }
}

#[test]
fn what_cannot_be_packed_is_told_plainly() {
    on_each_built(|_, built| {
        let machine = &built.machine;
        let references = query(machine, &["--references", &built.derivation]);
        let source = references.iter().find(|path| path.ends_with("-builder.sh"));
        let source = source.expect("the derivation has a source");
        let no_deriver = [
            format!("no deriver of {source} is known"),
            "hint: name its `.drv`, or take the path itself".to_owned(),
        ];
        let no_deriver = no_deriver.each_ref().map(String::as_str);
        assert_failure(machine, &[source], 1, &no_deriver);
        // And so it is done.
        assert_roots(machine, &[source, "--set", "runtime"], &[source]);
        let also = [&built.derivation, "--also", source];
        assert_roots(machine, &also, &[&built.derivation, source]);

        let absent = "/nix/store/00000000000000000000000000000000-absent";
        let not_valid = [absent, "is not valid in", "hint: build or fetch it first"];
        assert_failure(machine, &[absent], 1, &not_valid);
        assert_failure(machine, &["./absent"], 1, &["`./absent`: ", "No such file"]);
        assert_failure(machine, &["/data"], 2, &["/data is not in /nix/store"]);
        shell(machine, "ln -sfn b a; ln -sfn a b").ok();
        assert_failure(machine, &["./a"], 2, &["too many symbolic links"]);
        assert_failure(machine, &[], 2, &["INSTALLABLE"]);
    });
}

#[test]
fn the_runtime_of_what_is_not_built_says_how_to_build_it() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        write_expressions(&machine);
        let multi = instantiate(&machine, "multi");
        let runtime = [multi.as_str(), "--set", "runtime"];
        let (code, told) = failure(&machine, &runtime);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains(&format!("output `dev` of {multi} is not built")), "{told}");
        let hint = told.lines().find_map(|line| line.strip_prefix("ferry: hint: build it first: "));
        let hint = hint.unwrap_or_else(|| panic!("no hint: {told}"));
        // The hint is a command that works.
        shell(&machine, hint).ok();
        assert_eq!(roots(&machine, &runtime).len(), 2);
    }
}

#[test]
fn an_output_without_its_first_deriver_is_packed_by_another() {
    on_each_built(|_, built| {
        let Built { machine, fod, .. } = built;
        let first = query(machine, &["--deriver", fod]).concat();
        // The same download, of another place.
        let other = crossing::command(machine, "nix-instantiate", "fod", "http://elsewhere").ok();
        assert_ne!(first, other);
        assert_roots(machine, &[fod], &[&first]);
        let collect = format!(
            "ln -s {other} {fod} /nix/var/nix/gcroots
             nix-store --gc --option keep-derivations false"
        );
        shell(machine, &collect).ok();
        assert!(!machine.path(&first).exists(), "the first deriver is still there");
        assert_roots(machine, &[fod], &[&other]);
        let _daemon = machine.daemon();
        assert_roots(machine, &[fod, "--store", "daemon"], &[&other]);
    });
}
