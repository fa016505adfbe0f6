//! What would be built and fetched, as Nix says it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ferry_test_world::{Machine, NixVersion, World};

use super::told::{CACHE_INFO, missing, narinfo, narinfo_name};
use crate::support::machine;

/// Numbers that look random, and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Some derivations in a chain of needs, as a Nix expression: with several outputs, downloads,
/// sources, and some that say that they are never substituted.
fn expression(chance: &mut Chance, count: usize) -> String {
    let mut text = String::from("let\n");
    let mut outputs: Vec<Vec<&str>> = Vec::new();
    for number in 0..count {
        let of_this = if chance.below(3) == 0 { vec!["out", "dev"] } else { vec!["out"] };
        let mut inputs = String::new();
        for _ in 0..chance.below(5).min(number) {
            let input = number - 1 - chance.below(number.min(12));
            for output in &outputs[input] {
                if *output == "out" || chance.below(2) == 0 {
                    let _ = write!(inputs, " \"${{d{input}.{output}}}\"");
                }
            }
        }
        let kind = chance.below(8);
        let of_this = if kind == 0 { vec!["out"] } else { of_this };
        let extra = match kind {
            0 => format!(
                "outputHash = builtins.hashString \"sha256\" \"{number}\"; outputHashAlgo = \"sha256\"; \
                 outputHashMode = \"flat\"; url = \"http://host.invalid/{number}\"; "
            ),
            1 => "allowSubstitutes = false; ".to_owned(),
            _ => format!("src = builtins.toFile \"source-{number}\" \"{number}\"; "),
        };
        let names: Vec<String> = of_this.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = writeln!(
            text,
            "d{number} = derivation {{ name = \"d{number}\"; system = \"x86_64-linux\"; \
             builder = \"/bin/sh\"; outputs = [ {} ]; inputs = [{inputs} ]; {extra}}};",
            names.join(" ")
        );
        outputs.push(of_this);
    }
    let all: Vec<String> = (count - 6..count).map(|number| format!("d{number}")).collect();
    let _ = write!(
        text,
        "in derivation {{ name = \"top\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         inputs = [ {} ]; }}",
        all.join(" ")
    );
    text
}

/// What Nix says that it would do: what it builds, and what it fetches.
fn dry_run(machine: &Machine, derivation: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let dry = ["--realise", "--dry-run", derivation];
    let said = machine.command("nix-store").args(dry).succeed().stderr;
    let (mut built, mut fetched) = (BTreeSet::new(), BTreeSet::new());
    let mut list = None;
    for line in said.lines() {
        match line.trim() {
            path if path.starts_with("/nix/store/") => {
                let list: &mut BTreeSet<String> =
                    list.as_deref_mut().expect("it says what it lists");
                list.insert(path.to_owned());
            }
            words if words.contains("will be built") => list = Some(&mut built),
            words if words.contains("will be fetched") => list = Some(&mut fetched),
            words => panic!("nix-store says `{words}`"),
        }
    }
    (built, fetched)
}

#[test]
fn nix_would_build_and_fetch_the_same() {
    let Some(world) = World::open() else { return };
    let mut chance = Chance(7);
    let (mut builds, mut fetches) = (0, 0);
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        machine.configure("require-sigs = false");
        for round in 0..5 {
            let file = format!("/data/graph-{round}.nix");
            machine.write(&file, expression(&mut chance, 40));
            let top = machine.command("nix-instantiate").arg(&file).ok();
            let derivations =
                machine.command("nix-store").args(["--query", "--requisites", &top]).ok();
            let (derivations, sources): (Vec<&str>, Vec<&str>) =
                derivations.lines().partition(|path| path.ends_with(".drv"));
            let all =
                machine.command("nix-store").args(["--query", "--outputs"]).args(&derivations).ok();
            for share in [0, 40, 75, 95] {
                let cache = format!("/data/cache-{round}-{share}");
                machine.write(format!("{cache}/nix-cache-info"), CACHE_INFO);
                let mut present: Vec<String> = Vec::new();
                for path in all.lines() {
                    if chance.below(100) >= share {
                        continue;
                    }
                    let references: Vec<String> = (0..chance.below(4).min(present.len()))
                        .map(|_| present[chance.below(present.len())].clone())
                        .collect();
                    let text = narinfo(path, &references, 1000 + chance.below(100_000));
                    machine.write(format!("{cache}/{}", narinfo_name(path)), text);
                    present.push(path.to_owned());
                }
                let address = format!("file://{cache}");
                machine.configure(&format!("substituters = {address}"));
                let (built, fetched) = dry_run(&machine, &top);
                let told = missing(&machine, &[&top, "--in", &address]);
                let evaluated = missing(&machine, &["--file", &file, "--in", &address]);
                assert_eq!(evaluated.built, told.built);
                let what = format!("Nix {version}, graph {round}, {share} %");
                assert_eq!(told.built.iter().cloned().collect::<BTreeSet<_>>(), built, "{what}");
                let substituted = told.paths.iter().filter(|path| path.substituted);
                let substituted: BTreeSet<String> =
                    substituted.map(|path| path.path.clone()).collect();
                assert_eq!(substituted, fetched, "{what}");
                // Sources are there for whoever has the derivations; no cache has them here.
                let lacking = told.paths.iter().filter(|path| path.state == "source");
                assert!(lacking.clone().all(|path| sources.contains(&path.path.as_str())));
                assert_eq!(told.nar_size, 2 * told.download_size);
                assert!(told.missing_facts.is_empty());
                builds += built.len();
                fetches += fetched.len();
            }
        }
    }
    assert!(builds > 100 && fetches > 100, "{builds} built, {fetches} fetched");
}
