//! What a derivation reads, from the `.drv` files.

use std::collections::{BTreeMap, BTreeSet};

use ferry_graph::Kind;
use ferry_test_world::{Machine, NixVersion};
use serde_json::Value;

use crate::support::{assert_nothing_is_missing, explorer, nodes, on_each_filled, paths};

/// What Nix says of a derivation, in the shape of none of its versions.
struct Shown {
    outputs: BTreeMap<String, String>,
    /// The outputs that it reads, by derivation.
    inputs: BTreeMap<String, BTreeSet<String>>,
    sources: BTreeSet<String>,
}

/// Everything below `derivation`, as `nix derivation show` tells it.
fn shown(machine: &Machine, derivation: &str) -> BTreeMap<String, Shown> {
    let nix = machine.command("nix");
    let command = match machine.version() {
        NixVersion::V2_8 => nix.arg("show-derivation"),
        _ => nix.args(["derivation", "show"]),
    };
    let json: Value = serde_json::from_str(&command.args(["-r", derivation]).ok()).unwrap();
    // From some version on everything has a wrapper, and paths have no directory.
    let all = json.get("derivations").unwrap_or(&json).as_object().unwrap();
    let full = |text: &str| match text.starts_with('/') {
        true => text.to_owned(),
        false => format!("/nix/store/{text}"),
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter()
        .map(|(path, value)| {
            let inputs = value.get("inputs");
            let drvs = inputs.map_or(&value["inputDrvs"], |inputs| &inputs["drvs"]);
            let sources = inputs.map_or(&value["inputSrcs"], |inputs| &inputs["srcs"]);
            let input = |(path, names): (&String, &Value)| {
                let names = names.as_array().or_else(|| names["outputs"].as_array()).unwrap();
                (full(path), names.iter().map(text).collect())
            };
            // The path of a fixed output is in the environment, too.
            let output = |(name, output): (&String, &Value)| {
                let path = output.get("path").unwrap_or(&value["env"][name]);
                (name.clone(), full(path.as_str().unwrap()))
            };
            let shown = Shown {
                outputs: value["outputs"].as_object().unwrap().iter().map(output).collect(),
                inputs: drvs.as_object().unwrap().iter().map(input).collect(),
                sources: sources.as_array().unwrap().iter().map(|path| full(&text(path))).collect(),
            };
            (full(path), shown)
        })
        .collect()
}

#[test]
fn what_derivations_make_and_read_is_what_nix_shows() {
    on_each_filled(|filled| {
        for derivation in &filled.derivations {
            let shown = shown(&filled.machine, derivation);
            assert!(shown.contains_key(derivation));
            let mut whole = explorer(filled.store.facts());
            let root = nodes(&mut whole, [derivation.as_str()]);
            let below = whole.closure(&[Kind::Run], &root, None, None).unwrap();
            let below = whole.derivations(&below);
            assert_eq!(paths(&whole, &below), shown.keys().cloned().collect());
            for (path, expected) in &shown {
                let outputs: BTreeSet<String> = expected.outputs.values().cloned().collect();
                let inputs = expected.inputs.iter().flat_map(|(input, names)| {
                    names.iter().map(|name| shown[input].outputs[name].clone())
                });
                let reads: BTreeSet<String> =
                    inputs.chain(expected.sources.iter().cloned()).collect();
                for explorer in [&mut explorer(filled.store.facts()), &mut whole] {
                    let node = nodes(explorer, [path.as_str()]);
                    let found = explorer.outputs(&node).unwrap();
                    assert_eq!(paths(explorer, &found), outputs, "{path}");
                    let found = explorer.immediate(Kind::Build, &node).unwrap();
                    assert_eq!(paths(explorer, &found), reads, "{path}");
                    assert_nothing_is_missing(explorer);
                }
            }
        }
    });
}
