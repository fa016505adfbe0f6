//! The main job: a derivation leaves one store in one file and is built in another.

use ferry_test_world::{Machine, World, crossing};

use crate::support::{carry, machine, pairs};

/// The hashes of everything that building `top` made, as Nix tells them.
fn outputs(machine: &Machine, derivation: &str) -> Vec<String> {
    let query = |args: &[&str]| machine.command("nix-store").arg("--query").args(args).ok();
    let mut outputs: Vec<String> = query(&["--requisites", "--include-outputs", derivation])
        .lines()
        .filter(|path| !path.ends_with(".drv"))
        .map(|path| format!("{path} {}", query(&["--hash", path])))
        .collect();
    outputs.sort();
    outputs
}

#[test]
fn a_recipe_is_rebuilt_on_the_other_side_without_a_network() {
    let Some(world) = World::open() else { return };
    for (from, to) in pairs() {
        let sender = machine(&world, from);
        let mut origin = crossing::origin();
        let url = origin.url();
        crossing::command(&sender, "nix-build", "c", &url).online().ok();
        let derivation = crossing::command(&sender, "nix-instantiate", "c", &url).ok();
        let fod = crossing::command(&sender, "nix-build", "fod", &url).arg("--no-out-link").ok();
        origin.stop();
        let pack = ["pack", &derivation, "--also", &fod, "-o", "/data/c.ferry"];
        sender.command("ferry").args(pack).ok();

        let receiver = machine(&world, to);
        carry(&sender, &receiver, "/data/c.ferry");
        let loaded = receiver.command("ferry").args(["load", "/data/c.ferry"]).ok();
        assert_eq!(loaded, format!("{derivation}\n{fod}"), "{from} to {to}");
        receiver.command("nix-store").args(["--realise", &derivation]).ok();
        assert_eq!(outputs(&receiver, &derivation), outputs(&sender, &derivation));
    }
}
