//! What is left of a bundle after the voyage.

use ferry_test_world::World;

use crate::support::{Built, ferry, machine, pack_runtime, shell, sorted};

#[test]
fn what_is_left_of_a_bundle_loads_and_what_is_lost_is_listed() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, ferry_test_world::NixVersion::V2_34);
    let Built { machine: ship, derivation, top, .. } = &built;
    ferry(ship, ["pack", derivation, "-o", "x.ferry"]).succeed();
    let whole = ferry(ship, ["salvage", "x.ferry", "-o", "y.ferry"]).succeed();
    assert_eq!(whole.text(), "");
    assert!(ship.read("/data/x.ferry") == ship.read("/data/y.ferry"));

    // Of a recipe in one block, the derivations that read no source are in the head.
    let bundle = ship.read("/data/x.ferry");
    ship.write("/data/cut.ferry", &bundle[..bundle.len() - 100]);
    let outcome = ferry(ship, ["salvage", "cut.ferry", "-o", "left.ferry"]).run();
    assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
    let all = sorted(ferry(ship, ["ls", "x.ferry"]).ok().lines());
    let left = ferry(ship, ["ls", "left.ferry"]).ok();
    let mut both: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    both.extend(left.lines().map(str::to_owned));
    both.sort();
    assert_eq!(both, all);
    assert!(left.contains("crossing-source-1.0.txt.drv"), "{left}");
    let island = machine(&world, ship.version());
    island.write("/data/left.ferry", ship.read("/data/left.ferry"));
    ferry(&island, ["verify", "left.ferry"]).succeed();
    ferry(&island, ["load", "left.ferry"]).succeed();

    // Of outputs in one block that nobody signed, nothing is.
    pack_runtime(ship, top, "r.ferry").succeed();
    let bundle = ship.read("/data/r.ferry");
    ship.write("/data/cut.ferry", &bundle[..bundle.len() - 100]);
    let outcome = ferry(ship, ["salvage", "--json", "cut.ferry", "-o", "none.ferry"]).fails();
    let told: serde_json::Value = serde_json::from_str(&outcome.text()).unwrap();
    assert_eq!(told["saved"], serde_json::json!([]));
    assert_eq!(told["lost"][0]["reason"], "damaged");
    assert!(!ship.path("/data/none.ferry").exists());
    ship.write("/data/cut.ferry", &bundle[..100]);
    let outcome = ferry(ship, ["salvage", "cut.ferry", "-o", "none.ferry"]).fails();
    assert!(outcome.stderr.contains("is truncated"), "{}", outcome.stderr);
}

#[test]
fn an_update_against_a_base_is_saved_where_the_base_is() {
    let Some(world) = World::open() else { return };
    let Built { machine: ship, top, .. } = Built::new(&world, ferry_test_world::NixVersion::V2_26);
    let program = |version: &str| {
        let script = format!(
            "mkdir -p /data/{version}; head -c 400000 /usr/bin/bash > /data/{version}/program; \
             echo {version} >> /data/{version}/program; nix-store --add /data/{version}/program"
        );
        shell(&ship, &script).ok().trim().to_owned()
    };
    let (old, new) = (program("1.0"), program("1.1"));
    pack_runtime(&ship, &old, "/data/old.ferry").succeed();
    pack_runtime(&ship, &new, "/data/new.ferry").args(["--base", "/data/old.ferry"]).succeed();
    let size = ship.read("/data/new.ferry").len();
    assert!(size < 4000, "{size} bytes");
    let refused = ferry(&ship, ["salvage", "new.ferry", "-o", "left.ferry"]).fails();
    assert!(refused.stderr.contains("--against"), "{}", refused.stderr);
    let salvage = ["salvage", "new.ferry", "-o", "left.ferry", "--against", "local"];
    ferry(&ship, salvage).succeed();
    assert_eq!(ferry(&ship, ["ls", "left.ferry"]).ok(), new);
    ferry(&ship, ["verify", "left.ferry"]).succeed();

    // The outputs of a thin bundle that refer to what the other side has.
    let have = ["--have", "/data/old.ferry", "--also", &top];
    pack_runtime(&ship, &new, "/data/thin.ferry").args(have).succeed();
    ferry(&ship, ["salvage", "thin.ferry", "-o", "left.ferry"]).succeed();
    assert_eq!(ferry(&ship, ["ls", "left.ferry"]).ok(), ferry(&ship, ["ls", "thin.ferry"]).ok());
}

#[test]
fn volumes_are_saved_as_one_bundle() {
    let Some(world) = World::open() else { return };
    let Built { machine: ship, top, .. } = Built::new(&world, ferry_test_world::NixVersion::V2_26);
    let noise = "head -c 300000 /dev/urandom > /data/noise; nix-store --add /data/noise";
    let noise = shell(&ship, noise).ok().trim().to_owned();
    pack_runtime(&ship, &top, "/data/whole.ferry").args(["--also", &noise]).succeed();
    let volumes = ["--also", &noise, "--volume-size", "100K", "--parity", "1"];
    pack_runtime(&ship, &top, "/data/v.ferry").args(volumes).succeed();
    std::fs::remove_file(ship.path("/data/v.002.ferry")).unwrap();
    ferry(&ship, ["salvage", "v.003.ferry", "-o", "left.ferry"]).succeed();
    assert!(ship.read("/data/left.ferry") == ship.read("/data/whole.ferry"));
    // Too little of the only block is left.
    std::fs::remove_file(ship.path("/data/v.003.ferry")).unwrap();
    let failed = ferry(&ship, ["salvage", "v.001.ferry", "-o", "none.ferry"]).fails();
    assert!(failed.stderr.contains("there is nothing"), "{}", failed.stderr);
    assert!(failed.text().contains(&noise), "{}", failed.text());
    // Parts of another kind are to be joined first.
    let parts = ["salvage", "left.ferry", "whole.ferry", "-o", "none.ferry"];
    let failed = ferry(&ship, parts).fails();
    assert!(failed.code() == 2 && failed.stderr.contains("join"), "{}", failed.stderr);
}
