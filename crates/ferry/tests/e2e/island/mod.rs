//! Evaluating on the other side what was evaluated on this one.

mod connected;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};

use self::connected::{CACHE, Connected, HandWritten, PROJECT};
use crate::support::{carry, ferry, generate_key, machine, shell};

const TRACE: &str = "/data/island.trace";
const BUNDLE: &str = "/data/island.ferry";

/// What was evaluated, and what it was built to.
struct Evaluated {
    derivation: String,
    output: String,
}

/// Evaluates and builds without flakes, and writes down what that needed.
fn without_flakes(connected: &Connected) -> Evaluated {
    let evaluate = ["nix-instantiate", "default.nix"];
    let derivation = connected.command(&evaluate).ok();
    let output = connected.command(&["nix-store", "--realise", &derivation]).ok();
    let mut trace = HandWritten::new(&evaluate);
    trace.root(&derivation);
    trace.need(&connected.source_with("text"), "fetch");
    trace.need(&connected.path("-shared.txt"), "store-path");
    for name in ["inner.nix", "outer.nix", "message"] {
        trace
            .output(&connected.path(&format!("-{name}")), &connected.path(&format!("-{name}.drv")));
    }
    for file in ["default.nix", "modules/eval.nix", "modules/base.nix"] {
        trace.outside(&format!("{PROJECT}/{file}"), "nix-file");
    }
    trace.outside(&format!("{PROJECT}/src"), "source");
    trace.outside(&format!("{PROJECT}/filtered"), "source");
    // Of what was fetched, only this is looked for again.
    let script =
        format!("cd {CACHE}; rm -rf nix/*.sqlite* nix/tarball-cache*; mv {CACHE} {TRACE}.cache");
    shell(&connected.machine, &script).ok();
    trace.outside("nix/gitv3", "fetcher-cache");
    trace.write(&connected.machine, TRACE);
    Evaluated { derivation, output }
}

/// A machine with nothing on it but a bundle.
fn island(world: &World, from: &Machine) -> Machine {
    let island = machine(world, from.version());
    carry(from, &island, BUNDLE);
    island
}

/// A command on the island with what the evaluation needs.
fn offline(island: &Machine, words: &[&str]) -> MachineCommand {
    ferry(island, ["shell", "--offline", BUNDLE, "--"]).args(words)
}

#[test]
fn what_was_evaluated_here_is_evaluated_built_and_changed_there() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let connected = Connected::new(&world, version);
        let evaluated = without_flakes(&connected);
        let key = generate_key(&connected.machine, "harbour-1");
        let pack = ["pack", &format!("--with-eval={TRACE}"), "--set", "sources", "-o", BUNDLE];
        ferry(&connected.machine, pack).args(["--sign-key", &key.secret]).ok();
        let island = island(&world, &connected.cut_off());
        island.configure(&format!("trusted-public-keys = {}", key.public));
        let loaded = ferry(&island, ["load", BUNDLE]).succeed();
        assert!(
            loaded.stderr.contains("evaluate again: ferry shell --offline"),
            "{}",
            loaded.stderr
        );
        assert_eq!(
            offline(&island, &["nix-instantiate", "default.nix"]).ok(),
            evaluated.derivation
        );
        assert!(!island.path(&evaluated.output).exists());
        assert_eq!(offline(&island, &["nix-build", "--no-out-link"]).ok(), evaluated.output);
    }
}
