//! Derivations as JSON, against the `nix derivation` of each version.

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};
use serde_json::{Value, json};

use crate::support::{
    Built, assert_store_is_whole, ferry, ferry_without_nix, machine, objects, on_each,
    on_each_built, query, sorted,
};

const FEATURES: [&str; 2] =
    ["--extra-experimental-features", "nix-command ca-derivations dynamic-derivations"];

fn nix(machine: &Machine, args: &[&str]) -> MachineCommand {
    machine.command("nix").args(FEATURES).args(args)
}

/// Everything below a derivation, as this machine's Nix shows it.
fn nix_show(machine: &Machine, derivation: &str) -> String {
    match machine.version() {
        NixVersion::V2_8 => nix(machine, &["show-derivation", "-r", derivation]).ok(),
        _ => nix(machine, &["derivation", "show", "-r", derivation]).ok(),
    }
}

fn ferry_show(machine: &Machine, args: &[&str]) -> Value {
    parsed(&ferry(machine, ["drv", "show"].iter().chain(args)).ok())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn instantiate(machine: &Machine, file: &str, attribute: &str, args: &[&str]) -> String {
    let file = machine.expression(file);
    let command = machine.command("nix-instantiate").args(FEATURES).args([&file, "-A", attribute]);
    command.args(args).ok()
}

const DYNAMIC: [&str; 3] = ["--arg", "dynamic", "true"];

/// Derivations of every kind. They have no sources, so that they can be added anywhere.
fn kinds(machine: &Machine) -> Vec<String> {
    let floating = match machine.version() {
        NixVersion::V2_8 => &["plain", "leaf", "top"][..],
        _ => &["plain", "leaf", "top", "producer", "wrapper"],
    };
    let dynamic = machine.version() != NixVersion::V2_8;
    let args = if dynamic { &DYNAMIC[..] } else { &[] };
    let floating = floating.iter().map(|name| instantiate(machine, "floating.nix", name, args));
    floating.chain([instantiate(machine, "mentions.nix", "above", &[])]).collect()
}

#[test]
fn every_kind_is_shown_as_nix_shows_it() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let machine = &built.machine;
    let mut derivations = kinds(machine);
    derivations.push(built.derivation.clone());
    for derivation in &derivations {
        let told = parsed(&nix_show(machine, derivation));
        assert_eq!(ferry_show(machine, &["--recursive", derivation]), told, "{derivation}");
        let alone = parsed(&nix(machine, &["derivation", "show", derivation]).ok());
        assert_eq!(ferry_show(machine, &[derivation]), alone, "{derivation}");
    }
    let both = [derivations[0].as_str(), &derivations[1]];
    let told = nix(machine, &["derivation", "show"]).args(both).ok();
    assert_eq!(ferry_show(machine, &both), parsed(&told));
    // By what it has made.
    let told = nix(machine, &["derivation", "show", &built.top]).ok();
    assert_eq!(ferry_show(machine, &[&built.top]), parsed(&told));
}

#[test]
fn a_bundle_shows_its_derivations_where_there_is_no_nix() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let Built { machine, derivation, .. } = &built;
    ferry(machine, ["pack", derivation, "-o", "x.ferry"]).succeed();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("x.ferry"), machine.read("/data/x.ferry")).unwrap();
    let here = |args: &[&str]| {
        let output = ferry_without_nix(home.path()).args(["drv", "show"]).args(args).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        parsed(&String::from_utf8_lossy(&output.stdout))
    };
    let told = parsed(&nix_show(machine, derivation));
    assert_eq!(here(&["-r", "x.ferry"]), told);
    let alone = nix(machine, &["derivation", "show", derivation]).ok();
    assert_eq!(here(&["x.ferry"]), parsed(&alone));
    let fod = &told["derivations"].as_object().unwrap().keys().find(|key| key.contains("source"));
    let fod = format!("/nix/store/{}", fod.unwrap());
    let alone = nix(machine, &["derivation", "show", &fod]).ok();
    assert_eq!(here(&["--store", "./x.ferry", &fod]), parsed(&alone));
}

#[test]
fn what_each_nix_shows_is_added_under_the_same_paths_and_builds() {
    on_each(|world, ship| {
        let island = machine(world, ship.version());
        for derivation in kinds(&ship) {
            let shown = nix_show(&ship, &derivation);
            let added = ferry(&island, ["drv", "add"]).stdin(shown).ok();
            let below = query(&ship, &["--requisites", &derivation]);
            let below: Vec<&str> = below.iter().map(String::as_str).collect();
            assert_eq!(sorted(added.lines()), below);
            let whole =
                |machine| objects(machine, below.iter().map(|path| (*path).into()).collect());
            assert_eq!(whole(&island), whole(&ship));
        }
        assert_store_is_whole(&island);
        let above = instantiate(&ship, "mentions.nix", "above", &[]);
        island.command("nix-store").args(["--realise", &above]).succeed();
    });
}

#[test]
fn what_is_shown_and_added_to_a_bundle_is_what_is_packed() {
    on_each_built(|_, built| {
        let Built { machine, derivation, .. } = built;
        ferry(machine, ["pack", derivation, "-o", "x.ferry"]).succeed();
        let shown = ferry(machine, ["drv", "show", "-r", "x.ferry"]).ok();
        for (number, shown) in [shown, nix_show(machine, derivation)].into_iter().enumerate() {
            let file = format!("y{number}.ferry");
            ferry(machine, ["drv", "add", "-o", &file]).stdin(shown).succeed();
            let [x, y] = ["x.ferry", &file].map(|file| machine.read(format!("/data/{file}")));
            assert!(x == y, "{file}");
        }
    });
}

#[test]
fn nix_adds_the_same() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let ship = machine(&world, version);
        let island = machine(&world, version);
        for derivation in kinds(&ship) {
            let shown = parsed(&nix_show(&ship, &derivation));
            let by_path = shown.get("derivations").unwrap_or(&shown).as_object().unwrap();
            // Nix takes one at a time, in the right order; ferry says which that is.
            let order = ferry(&island, ["drv", "add", "--dry-run"]).stdin(shown.to_string()).ok();
            for path in order.lines() {
                let base = path.rsplit('/').next().unwrap();
                let one = by_path.get(path).or(by_path.get(base)).unwrap();
                let added = nix(&island, &["derivation", "add"]).stdin(one.to_string()).ok();
                assert_eq!(added, path);
            }
        }
    }
}

#[test]
fn output_paths_that_are_left_out_are_computed_as_nix_computes_them() {
    let Some(world) = World::open() else { return };
    let ship = machine(&world, NixVersion::V2_34);
    let plain = instantiate(&ship, "floating.nix", "plain", &[]);
    let mut shown = parsed(&nix_show(&ship, &plain));
    let base = plain.rsplit('/').next().unwrap();
    let derivation = &mut shown["derivations"][base];
    derivation["outputs"]["out"] = json!({});
    derivation["env"]["out"] = json!("");
    assert_eq!(nix(&ship, &["derivation", "add"]).stdin(derivation.to_string()).ok(), plain);
    let island = machine(&world, NixVersion::V2_34);
    let derivations: Vec<&Value> = shown["derivations"].as_object().unwrap().values().collect();
    let added = ferry(&island, ["drv", "add"]).stdin(json!(derivations).to_string()).ok();
    assert!(added.lines().any(|path| path == plain), "{added}");
    island.command("nix-store").args(["--realise", &plain]).succeed();
}

#[test]
fn what_is_wrong_is_refused_and_nothing_is_added() {
    let Some(world) = World::open() else { return };
    let ship = machine(&world, NixVersion::V2_34);
    let above = instantiate(&ship, "mentions.nix", "above", &[]);
    let whole = parsed(&nix_show(&ship, &above));
    let base = above.rsplit('/').next().unwrap();
    let island = machine(&world, NixVersion::V2_34);
    let refused = |given: &Value, reason: &str| {
        let outcome = ferry(&island, ["drv", "add"]).stdin(given.to_string()).fails();
        assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty());
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut given = whole.clone();
        change(&mut given["derivations"][base]);
        given
    };
    let elsewhere = "00000000000000000000000000000000-above";
    refused(&changed(&|it| it["outputs"]["out"]["path"] = json!(elsewhere)), "is not valid");
    refused(&changed(&|it| it["env"]["more"] = json!("1")), "is not valid");
    refused(&changed(&|it| it["builder"] = json!(1)), "as JSON");
    refused(&whole["derivations"][base], "which is neither in local store");
    refused(&json!([]), "there is no derivation");
    refused(&json!({ "derivations": 1 }), "as JSON");

    // Each reads the other, under the paths that they claim.
    let mut circle = serde_json::Map::new();
    let names = ["1", "2"].map(|digit| format!("{}-x.drv", digit.repeat(32)));
    for (own, other) in [(&names[0], &names[1]), (&names[1], &names[0])] {
        let mut derivation = whole["derivations"][base].clone();
        derivation["inputs"]["drvs"] =
            json!({ other.clone(): { "outputs": ["out"], "dynamicOutputs": {} } });
        circle.insert(own.clone(), derivation);
    }
    refused(&json!({ "version": 4, "derivations": circle }), "depends on itself");
    assert_eq!(island.command("nix").args(["path-info", "--all"]).ok(), "");
}
