//! What `nix derivation show` says, in one shape for all versions.

use std::collections::{BTreeMap, BTreeSet};

use ferry_test_world::{Machine, NixVersion};
use serde_json::Value;

/// One derivation: its outputs, and what it reads.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) inputs: BTreeMap<String, Vec<String>>,
    pub(crate) sources: BTreeSet<String>,
}

/// Derivations by path.
pub(crate) struct ShownDerivations(pub(crate) BTreeMap<String, Shown>);

impl ShownDerivations {
    /// Asks Nix about everything below `derivation`.
    pub(crate) fn below(machine: &Machine, derivation: &str) -> Self {
        let command = match machine.version() {
            NixVersion::V2_8 => vec!["show-derivation", "-r"],
            _ => vec!["derivation", "show", "-r"],
        };
        let told = machine.command("nix").args(command).arg(derivation).ok();
        let told: Value = serde_json::from_str(&told).expect("Nix prints JSON");
        // From 2.33 on there is a version beside the derivations, and paths lack their directory.
        let derivations = told.get("derivations").unwrap_or(&told);
        let derivations = derivations.as_object().expect("a derivation has a path");
        Self(derivations.iter().map(|(path, shown)| (absolute(path), Shown::new(shown))).collect())
    }

    /// What a build of `derivation` reads.
    pub(crate) fn build(&self, derivation: &str) -> BTreeSet<String> {
        let shown = &self.0[derivation];
        let outputs = shown.inputs.iter().flat_map(|(input, names)| {
            names.iter().map(move |name| self.0[input].outputs[name].clone())
        });
        outputs.chain(shown.sources.iter().cloned()).collect()
    }

    /// What has to be built for `derivation`, and is read meanwhile; itself included.
    pub(crate) fn build_closure(&self, derivation: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::from([derivation.to_owned()]);
        let mut seen = found.clone();
        let mut pending = vec![derivation.to_owned()];
        while let Some(derivation) = pending.pop() {
            found.extend(self.build(&derivation));
            let inputs = self.0[&derivation].inputs.keys();
            pending.extend(inputs.filter(|input| seen.insert((*input).clone())).cloned());
        }
        found
    }
}

impl Shown {
    fn new(shown: &Value) -> Self {
        let inputs = shown.pointer("/inputs/drvs").or(shown.get("inputDrvs"));
        let sources = shown.pointer("/inputs/srcs").or(shown.get("inputSrcs"));
        let inputs = inputs.and_then(Value::as_object).expect("a derivation has inputs");
        let outputs = shown["outputs"].as_object().expect("a derivation has outputs");
        let path_of = |(name, output): (&String, &Value)| {
            // A fixed output's path stands in the environment only.
            let path = output.get("path").or_else(|| shown["env"].get(name));
            (name.clone(), absolute(path.and_then(Value::as_str).expect("an output has a path")))
        };
        Self {
            outputs: outputs.iter().map(path_of).collect(),
            inputs: inputs.iter().map(|(path, names)| (absolute(path), names_of(names))).collect(),
            sources: strings(sources.expect("a derivation has sources")).map(absolute).collect(),
        }
    }
}

/// A list of output names or, from 2.17 on, an object that has one.
fn names_of(input: &Value) -> Vec<String> {
    strings(input.get("outputs").unwrap_or(input)).map(str::to_owned).collect()
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("a list of strings"))
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/nix/store/{path}") }
}
