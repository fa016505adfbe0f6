//! The sentences that the sets promise: with these paths and no network, that works.

use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{
    Built, Object, all_valid, carry, ferry, invalid, machine, objects, on_each_built, query, sorted,
};

const BUNDLE: &str = "/tmp/x.ferry";

/// A machine without a network that has got `set` of `derivation` from `sender`.
fn receiver(
    world: &World,
    version: NixVersion,
    sender: &Machine,
    derivation: &str,
    set: &[&str],
) -> Machine {
    ferry(sender, ["pack", derivation, "-o", BUNDLE, "--set"]).args(set).ok();
    let receiver = machine(world, version);
    carry(sender, &receiver, BUNDLE);
    // What was built is not signed here.
    ferry(&receiver, ["load", BUNDLE, "--no-check-sigs", "--no-root"]).ok();
    receiver
}

/// What `ferry` says is missing for a set.
fn missing(machine: &Machine, set: &str) -> Vec<String> {
    let query = format!("let s = {set}; s - valid(auto, s)");
    sorted(ferry(machine, ["query", &query]).ok().lines())
}

/// The one command of today for it; before 2.13 Nix had another.
fn realise(machine: &Machine, derivation: &str) -> ferry_test_world::MachineCommand {
    match machine.version() {
        NixVersion::V2_8 => machine.command("nix-store").args(["--realise", derivation]),
        _ => machine.command("nix").args(["build", "--no-link", &format!("{derivation}^*")]),
    }
}

fn delete(machine: &Machine, path: &str) {
    machine.command("nix-store").args(["--delete", path]).ok();
}

#[test]
fn with_its_build_dependencies_and_its_derivation_a_package_builds_offline() {
    on_each_built(|world, built| {
        for version in NixVersion::ALL {
            let sender = &built.machine;
            let [a, b] = ["crossing-a-1.0", "crossing-b-1.0"].map(|name| built.output(name));
            let derivation = query(sender, &["--deriver", &b]).concat();
            let wanted = objects(sender, vec![b.clone()]);

            let receiver = receiver(world, version, sender, &derivation, &["build(x) + x"]);
            let dependencies = format!("build({derivation})");
            assert_eq!(missing(&receiver, &dependencies), [""; 0]);
            let before = all_valid(&receiver);
            realise(&receiver, &derivation).ok();
            // It, and nothing else, was built: the same as on the other side.
            let mut built_here = all_valid(&receiver);
            built_here.retain(|object| !before.contains(object));
            assert_eq!(built_here, wanted);

            // One path less: said before, and then so.
            delete(&receiver, &b);
            delete(&receiver, &a);
            assert_eq!(missing(&receiver, &dependencies), [a.as_str()]);
            realise(&receiver, &derivation).fails();
        }
    });
}

#[test]
fn with_its_sources_a_package_is_built_from_source_offline() {
    on_each_built(|world, built| {
        let Built { machine: sender, derivation, top, fod } = built;
        let wanted = built.outputs();
        for version in NixVersion::ALL {
            let receiver = receiver(world, version, sender, derivation, &["sources"]);
            let names = wanted.iter().map(|object| object.path.clone()).collect::<Vec<_>>();
            let absent = invalid(&receiver, &names);
            assert_eq!(absent.len(), names.len() - 1, "only the download is there: {absent:?}");
            assert!(!absent.contains(fod));
            ferry(&receiver, ["query", &format!("set(sources, {derivation})")]).ok();
            realise(&receiver, derivation).ok();
            assert_eq!(objects(&receiver, names), wanted);

            let receiver = self::receiver(world, version, sender, derivation, &["sources"]);
            delete(&receiver, fod);
            let told = ferry(&receiver, ["query", &format!("set(sources, {derivation})")]).fails();
            assert!(told.stderr.contains(&format!("{fod} is not valid in")), "{}", told.stderr);
            realise(&receiver, derivation).fails();
            assert_eq!(invalid(&receiver, std::slice::from_ref(top)), [top.as_str()]);
        }
    });
}

#[test]
fn every_set_can_be_carried_and_keeps_what_it_promises() {
    on_each_built(|world, built| {
        let Built { machine: sender, derivation, .. } = built;
        let trace = format!(
            "{{\"ferryTrace\":1,\"storeDir\":\"/nix/store\"}}\n{{\"root\":\"{derivation}\"}}\n\
             {{\"end\":true,\"complete\":true}}\n"
        );
        sender.write("/tmp/c.trace", trace);
        let outputs = built.outputs();
        let has =
            |objects: &[Object]| outputs.iter().filter(|object| objects.contains(object)).count();
        for (set, built_there, derivations) in [
            ("recipe", 0, 5),
            ("runtime", 4, 0),
            // What runs is left out, but for what the development output refers to.
            ("rebuild", 3, 5),
            ("sources", 1, 5),
            ("sources+fragments", 1, 5),
            ("build", 6, 5),
            ("total", 6, 5),
        ] {
            let set_and_trace = [set, "--trace", "/tmp/c.trace"];
            let receiver = receiver(world, sender.version(), sender, derivation, &set_and_trace);
            let there = all_valid(&receiver);
            let asked = format!("set({set}, {derivation})");
            let asked = ferry(sender, ["query", &asked, "--trace", "/tmp/c.trace"]).ok();
            let carried: Vec<&str> = there.iter().map(|object| object.path.as_str()).collect();
            assert_eq!(sorted(asked.lines()), sorted(carried.iter().copied()), "{set}");
            assert_eq!(has(&there), built_there, "{set}: {there:#?}");
            let drvs = carried.iter().filter(|path| path.ends_with(".drv")).count();
            assert_eq!(drvs, derivations, "{set}");
        }
    });
}

#[test]
fn what_was_loaded_survives_the_garbage_collector() {
    on_each_built(|world, built| {
        let Built { machine: sender, derivation, fod, .. } = built;
        ferry(sender, ["pack", derivation, "--set", "sources", "-o", BUNDLE]).ok();
        let receiver = machine(world, sender.version());
        carry(sender, &receiver, BUNDLE);
        ferry(&receiver, ["load", BUNDLE]).ok();
        let before = all_valid(&receiver);
        receiver.command("nix-store").arg("--gc").ok();
        assert_eq!(all_valid(&receiver), before);
        assert!(before.iter().any(|object| object.path == *fod));
    });
}
