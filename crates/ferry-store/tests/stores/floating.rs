//! Outputs that have no path before they are built.

use std::collections::BTreeSet;

use ferry_graph::Kind;
use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{assert_nothing_is_missing, explorer, nodes, path, paths, store};

const FEATURES: &str = "experimental-features = nix-command flakes ca-derivations";

fn build(machine: &Machine, attribute: &str, options: &[&str]) -> BTreeSet<String> {
    let build = machine.command("nix-build").arg(machine.expression("floating.nix"));
    let built = build.args(["-A", attribute, "--no-out-link"]).args(options).ok();
    built.lines().map(str::to_owned).collect()
}

fn instantiate(machine: &Machine, attribute: &str, options: &[&str]) -> String {
    let command = machine.command("nix-instantiate").arg(machine.expression("floating.nix"));
    command.args(["-A", attribute]).args(options).ok()
}

#[test]
fn what_was_built_of_floating_outputs_is_found() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let machine = Machine::new(&world, version);
        machine.configure(FEATURES);
        let attributes = ["leaf", "middle", "structured", "top"];
        let derivations = attributes.map(|name| instantiate(&machine, name, &[]));

        // Not built, they have no paths, and nothing else is said to be missing.
        let store = store(&machine);
        let mut explorer = explorer(store.facts());
        let roots = nodes(&mut explorer, derivations.iter().map(String::as_str));
        let outputs = explorer.outputs(&roots).unwrap();
        let expected = derivations.iter().flat_map(|path| match path.contains("leaf") {
            true => vec![format!("{path}^dev"), format!("{path}^out")],
            false => vec![format!("{path}^out")],
        });
        assert_eq!(paths(&explorer, &outputs), expected.collect());
        assert_nothing_is_missing(&explorer);

        for (attribute, derivation) in attributes.iter().zip(&derivations) {
            let mut built = build(&machine, attribute, &[]);
            if *attribute == "leaf" {
                built.extend(build(&machine, "leaf.dev", &[]));
            }
            let mut explorer = crate::support::explorer(store.facts());
            let node = nodes(&mut explorer, [derivation.as_str()]);
            let outputs = explorer.outputs(&node).unwrap();
            assert_eq!(paths(&explorer, &outputs), built, "{attribute}, Nix {version}");
        }

        // What reads them is built from what they have become.
        let middle = build(&machine, "middle", &[]);
        let structured = build(&machine, "structured", &[]);
        let mut explorer = crate::support::explorer(store.facts());
        let top = nodes(&mut explorer, [derivations[3].as_str()]);
        let reads = explorer.immediate(Kind::Build, &top).unwrap();
        assert_eq!(paths(&explorer, &reads), &middle | &structured, "Nix {version}");
        // Also from the output's side: its recorded deriver is one that Nix has made from `top`.
        let built = build(&machine, "top", &[]);
        let mut explorer = crate::support::explorer(store.facts());
        let output = nodes(&mut explorer, built.iter().map(String::as_str));
        let reads = explorer.immediate(Kind::Build, &output).unwrap();
        assert_eq!(paths(&explorer, &reads), &middle | &structured, "Nix {version}");
        assert_nothing_is_missing(&explorer);
    }
}

#[test]
fn a_derivation_that_was_built_is_read_like_any_other() {
    let Some(world) = World::open() else { return };
    // Older versions cannot build it.
    let machine = Machine::new(&world, NixVersion::V2_34);
    machine.configure(&format!("{FEATURES} dynamic-derivations"));
    let dynamic = ["--arg", "dynamic", "true"];
    let wrapper = instantiate(&machine, "wrapper", &dynamic);
    let producer = instantiate(&machine, "producer", &dynamic);
    let store = store(&machine);

    let mut unbuilt = explorer(store.facts());
    let node = nodes(&mut unbuilt, [wrapper.as_str()]);
    let reads = unbuilt.immediate(Kind::Build, &node).unwrap();
    assert_eq!(paths(&unbuilt, &reads), BTreeSet::from([format!("{producer}^out^out")]));

    build(&machine, "wrapper", &dynamic);
    let made = build(&machine, "producer", &dynamic);
    // Already there.
    let inner = build(&machine, "inner", &dynamic);
    let mut explorer = explorer(store.facts());
    let node = nodes(&mut explorer, [wrapper.as_str()]);
    let reads = explorer.immediate(Kind::Build, &node).unwrap();
    assert_eq!(paths(&explorer, &reads), inner);
    let node = explorer.node(&path(&producer));
    let output = explorer.output(node, "out").unwrap();
    assert_eq!(BTreeSet::from([explorer.graph().render(output)]), made);
    assert_nothing_is_missing(&explorer);
}
