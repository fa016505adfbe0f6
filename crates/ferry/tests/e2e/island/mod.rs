//! Evaluating on the other side what was evaluated on this one.

mod connected;
mod files;
mod recorded;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World};

use self::connected::{Connected, PROJECT};
use self::recorded::{Evaluated, Kind, TRACE, record};
use crate::support::{Key, carry, ferry, generate_key, machine, query, shell};

const BUNDLE: &str = "/data/island.ferry";

/// A project that was evaluated and built, and packed with its evaluation.
struct Packed {
    machine: Machine,
    key: Key,
    evaluated: Evaluated,
}

impl Packed {
    /// Packed is what was recorded, or what is recorded now.
    fn new(world: &World, version: NixVersion, kind: Kind, set: &str, now: bool) -> Self {
        let connected = Connected::new(world, version);
        let evaluated = record(&connected, kind);
        let key = generate_key(&connected.machine, "harbour-1");
        let recorded = format!("--with-eval={TRACE}");
        let what = match now {
            true => [&["--with-eval"], kind.installable()].concat(),
            false => vec![recorded.as_str()],
        };
        let pack = ["ferry", "pack", "--set", set, "-o", BUNDLE, "--sign-key", &key.secret];
        connected.command(&[&pack[..], &what].concat()).ok();
        Self { machine: connected.cut_off(), key, evaluated }
    }

    /// A machine with nothing on it but what was packed, where the evaluation was laid out, and what
    /// `ferry load` said.
    fn island(&self, world: &World) -> (Machine, String, String) {
        let island = machine(world, self.machine.version());
        island.configure(&format!("trusted-public-keys = {}", self.key.public));
        carry(&self.machine, &island, BUNDLE);
        let loaded = ferry(&island, ["load", BUNDLE]).succeed().stderr;
        let place = loaded.lines().find_map(|line| line.split(" the evaluation in ").nth(1));
        let place = place.unwrap_or_else(|| panic!("nothing was laid out:\n{loaded}")).to_owned();
        (island, place, loaded)
    }

    /// The same evaluation, there.
    fn evaluate(&self, island: &Machine) -> MachineCommand {
        offline(island, &self.evaluated.command())
    }
}

/// A command on the island with what the evaluation needs.
fn offline(island: &Machine, words: &[&str]) -> MachineCommand {
    ferry(island, ["shell", "--offline", BUNDLE, "--"]).args(words)
}

/// Each Nix version, without flakes and with them.
fn everything(test: impl Fn(&World, NixVersion, Kind)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        for kind in Kind::ALL {
            test(&world, version, kind);
        }
    }
}

#[test]
fn what_was_evaluated_here_is_evaluated_built_and_changed_there() {
    everything(|world, version, kind| {
        let packed = Packed::new(world, version, kind, "sources", true);
        let (island, place, told) = packed.island(world);
        let Evaluated { derivation, output, .. } = &packed.evaluated;
        let tried = island.network_attempts();
        let hash = |machine: &Machine, path: &str| query(machine, &["--hash", path]).concat();

        // The command that it tells, and the one that was recorded.
        let next = told.lines().find_map(|line| line.strip_prefix("ferry: evaluate again: "));
        assert_eq!(shell(&island, next.expect("a command")).ok(), *derivation, "{told}");
        assert_eq!(packed.evaluate(&island).ok(), *derivation, "Nix {version}, {kind:?}");
        assert!(!island.path(output).exists(), "Nix {version}, {kind:?}: it came along");
        let realised = offline(&island, &["nix-store", "--realise", derivation]).ok();
        assert_eq!(realised, *output);
        assert_eq!(hash(&island, output), hash(&packed.machine, output));

        island.write(format!("{place}/files{PROJECT}/src/hello.txt"), "changed on the island\n");
        let other = packed.evaluate(&island).ok();
        assert_ne!(other, *derivation, "Nix {version}, {kind:?}");
        let built = offline(&island, &["nix-store", "--realise", &other]).ok();
        let text = String::from_utf8(island.read(&built)).expect("text");
        assert!(text.starts_with("changed on the island\nkept\n"), "{text}");

        // Loaded once more, what was edited stays.
        let again = ferry(&island, ["load", BUNDLE]).succeed().stderr;
        assert!(
            again.contains("is there already") || again.contains("already, and stays"),
            "{again}"
        );
        assert_eq!(packed.evaluate(&island).ok(), other);
        assert_eq!(island.network_attempts(), tried, "Nix {version}, {kind:?}: it tried");
    });
}

#[test]
fn without_any_one_thing_that_was_recorded_the_evaluation_fails_there() {
    everything(|world, version, kind| {
        let packed = Packed::new(world, version, kind, "recipe", false);
        let (island, ..) = packed.island(world);
        assert_eq!(packed.evaluate(&island).ok(), packed.evaluated.derivation);
        let (mut taken, mut superfluous) = (0, Vec::new());
        for (need, line) in packed.evaluated.lines("need") {
            let (island, ..) = packed.island(world);
            // With what refers to it: the derivations are made again.
            let script = format!(
                "nix-store --delete --ignore-liveness \
                 $(nix-store --query --referrers-closure {need})"
            );
            shell(&island, &script).ok();
            if packed.evaluate(&island).run().status.success() {
                superfluous.push(line);
            }
            taken += 1;
        }
        for (what, line) in packed.evaluated.lines("outside") {
            let (island, place, _) = packed.island(world);
            let file = match line["why"].as_str() {
                Some("fetcher-cache") => format!("{place}/cache/{what}"),
                _ => format!("{place}/files{what}"),
            };
            shell(&island, &format!("mv {file} /data/taken")).ok();
            if packed.evaluate(&island).run().status.success() {
                superfluous.push(line);
            }
            taken += 1;
        }
        assert!(superfluous.is_empty(), "Nix {version}, {kind:?}: superfluous: {superfluous:#?}");
        assert!(taken >= 7, "Nix {version}, {kind:?}: only {taken} were recorded");
    });
}
