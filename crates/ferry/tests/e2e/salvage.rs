//! What is left of a bundle after the voyage.

use ferry_test_world::World;

use crate::support::{Built, ferry, machine, pack_runtime, sorted};

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
