//! Nix's experimental kinds: floating outputs and dynamic derivations.

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};

use crate::support::{ferry, machine, sorted};

const FEATURES: [&str; 2] =
    ["--extra-experimental-features", "nix-command ca-derivations dynamic-derivations"];

fn nix(machine: &Machine, program: &str, args: &[&str]) -> MachineCommand {
    machine.command(program).args(FEATURES).args(["--option", "substitute", "false"]).args(args)
}

fn instantiate(machine: &Machine, attribute: &str) -> String {
    let file = machine.expression("floating.nix");
    nix(machine, "nix-instantiate", &[&file, "--arg", "dynamic", "true", "-A", attribute]).ok()
}

fn realise(machine: &Machine, derivation: &str) -> String {
    nix(machine, "nix-store", &["--realise", derivation]).ok()
}

fn ask(machine: &Machine, expression: &str) -> Vec<String> {
    sorted(ferry(machine, ["query", expression]).ok().lines())
}

#[test]
fn a_floating_output_is_a_node_before_it_has_a_path() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let machine = machine(&world, version);
        let [leaf, middle] = ["leaf", "middle"].map(|name| instantiate(&machine, name));
        let outputs = [format!("{leaf}^dev"), format!("{leaf}^out")];
        assert_eq!(ask(&machine, &format!("build({middle})")), outputs);
        let told = ferry(&machine, ["query", &format!("set(runtime, {leaf})")]).fails();
        let unknown = format!("the path of {} is not known before it is built", outputs[0]);
        assert!(told.stderr.contains(&unknown), "{}", told.stderr);
        ferry(&machine, ["pack", &leaf, "--set", "runtime", "-o", "/tmp/x.ferry"]).fails();

        let built = realise(&machine, &middle);
        let paths = sorted(realise(&machine, &leaf).lines());
        assert_eq!(paths.len(), 2);
        assert_eq!(ask(&machine, &format!("build({middle})")), paths);
        assert_eq!(ask(&machine, &format!("outputs({middle})")), [built.as_str()]);
        let dev = ask(&machine, &outputs[0]);
        assert!(dev.len() == 1 && dev[0].ends_with("-dev") && paths.contains(&dev[0]), "{dev:?}");
        ferry(&machine, ["pack", &middle, "--set", "build", "-o", "/tmp/x.ferry"]).ok();
        let carried = sorted(ferry(&machine, ["ls", "/tmp/x.ferry"]).ok().lines());
        assert!(paths.iter().chain([&built, &middle]).all(|path| carried.contains(path)));
    }
}

#[test]
fn a_dynamic_derivation_is_followed_as_far_as_it_is_built() {
    let Some(world) = World::open() else { return };
    for version in [NixVersion::V2_26, NixVersion::V2_34] {
        let machine = machine(&world, version);
        let names = ["inner", "producer", "wrapper"];
        let [inner, producer, wrapper] = names.map(|name| instantiate(&machine, name));
        let made = format!("{producer}^out^out");
        assert_eq!(ask(&machine, &format!("build({wrapper})")), [made.as_str()]);
        assert_eq!(ask(&machine, &made), [made.as_str()]);
        assert_eq!(ask(&machine, &format!("eval({made})")), [producer.as_str()]);
        let told = ferry(&machine, ["query", &format!("closure(build, {wrapper})")]).fails();
        let unknown = format!("the path of {producer}^out is not known before it is built");
        assert!(told.stderr.contains(&unknown), "{}", told.stderr);

        // Its producer is built: now it is a derivation like others.
        assert_eq!(realise(&machine, &producer), inner);
        let output = realise(&machine, &inner);
        assert_eq!(ask(&machine, &format!("{producer}^out")), [inner.as_str()]);
        assert_eq!(ask(&machine, &made), [output.as_str()]);
        assert_eq!(ask(&machine, &format!("build({wrapper})")), [output.as_str()]);
        assert_eq!(ask(&machine, &format!("deriver({producer}^out)")), [producer.as_str()]);
        let closure = ask(&machine, &format!("closure(build+eval, {wrapper})"));
        assert_eq!(closure, sorted([&*wrapper, &output, &producer, &inner]));
    }
}
