//! How time and memory grow with the graph: prints a table of nodes, edges, the time to enter
//! them and to take a closure of all of them, and the peak of resident memory.
//!
//!     cargo run --release -p ferry-graph --example large
//!     cargo run --release -p ferry-graph --example large -- run 2000000
//!
//! Each line is measured in a process of its own: memory that an earlier one gave back would
//! hide what a later one takes. Linux only, for `/proc/self/status`.

// It is for people to look at.
#![allow(clippy::expect_used, clippy::print_stdout)]

use std::process::Command;
use std::time::Instant;

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{
    DerivationFacts, Explorer, Facts, FactsError, Kind, Ledger, NodeId, ObjectFacts, Question,
};

const SIZES: [u32; 4] = [125_000, 250_000, 500_000, 1_000_000];
const EDGES_A_NODE: u32 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            println!("kind       nodes       edges   enter s  closure s  reached   peak MB");
            for kind in ["run", "build"] {
                for size in SIZES {
                    let program = std::env::current_exe().expect("this program");
                    let status = Command::new(program).args([kind, &size.to_string()]).status();
                    assert!(status.expect("it starts").success());
                }
            }
        }
        [kind, size] => measure(kind, size.parse().expect("a number of nodes")),
        _ => println!("usage: large [run|build NODES]"),
    }
}

fn measure(kind: &str, size: u32) {
    let mut explorer = Explorer::new(StoreDir::default());
    // Half of the nodes of a build graph are outputs.
    let (kinds, packages) = match kind {
        "run" => ([Kind::Run], size),
        _ => ([Kind::Build], size / 2),
    };
    let generated = Generated { packages, derivations: kinds == [Kind::Build] };
    let root = explorer.node(&generated.object(0));
    explorer.add_source(Box::new(generated));

    let start = Instant::now();
    explorer.everything().expect("it is all there");
    let entered = start.elapsed();
    let start = Instant::now();
    let reached = explorer.closure(&kinds, &[root].into_iter().collect(), None, None);
    let reached = reached.expect("it goes round in no circle").len();
    let closed = start.elapsed();
    assert_eq!(explorer.missing().count(), 0);

    let edges: u64 = (0..packages).map(|k| targets(packages, k).len() as u64).sum();
    println!(
        "{kind:5} {:>10} {edges:>11} {:>9.2} {:>10.2} {reached:>8} {:>9}",
        explorer.graph().len(),
        entered.as_secs_f64(),
        closed.as_secs_f64(),
        peak_megabytes(),
    );
}

/// Packages by number. Each refers to ones with higher numbers, and all are reached from the
/// first: two by a tree, the others by chance.
struct Generated {
    packages: u32,
    /// Whether they are derivations with an output each, or objects.
    derivations: bool,
}

impl Generated {
    fn object(&self, number: u32) -> StorePath {
        path(number, &format!("package-of-usual-length-{number}"))
    }

    fn derivation(&self, number: u32) -> StorePath {
        path(!number, &format!("package-of-usual-length-{number}.drv"))
    }
}

impl Facts for Generated {
    fn describe(&self) -> String {
        "numbers".to_owned()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if !matches!(question, Question::Everything) {
            // All that there is has been told.
            return Ok(());
        }
        if self.derivations {
            for number in 0..self.packages {
                let node = ledger.node(&self.derivation(number));
                let inputs = targets(self.packages, number).into_iter();
                let facts = DerivationFacts {
                    outputs: vec![("out".to_owned(), Some(self.object(number)))],
                    inputs: inputs.map(|to| (self.derivation(to), "out".to_owned())).collect(),
                    ..DerivationFacts::default()
                };
                ledger.derivation(node, &facts);
            }
        } else {
            let nodes: Vec<NodeId> =
                (0..self.packages).map(|number| ledger.node(&self.object(number))).collect();
            for (number, node) in (0..self.packages).zip(&nodes) {
                let references: Vec<NodeId> = targets(self.packages, number)
                    .into_iter()
                    .filter_map(|to| nodes.get(to as usize).copied())
                    .collect();
                let facts = ObjectFacts {
                    references: &references,
                    nar_size: Some(1000),
                    ..ObjectFacts::default()
                };
                ledger.object(*node, &facts);
            }
        }
        Ok(())
    }
}

/// What a package refers to.
fn targets(packages: u32, number: u32) -> Vec<u32> {
    let mut state = u64::from(number);
    let mut targets: Vec<u32> = vec![2 * number + 1, 2 * number + 2];
    targets.retain(|target| *target < packages);
    let above = u64::from(packages - number - 1);
    while targets.len() < EDGES_A_NODE as usize && above > u64::from(EDGES_A_NODE) {
        let chosen = next(&mut state) % above + 1;
        let target = number + u32::try_from(chosen).unwrap_or(1);
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    targets
}

fn path(seed: u32, name: &str) -> StorePath {
    let mut state = u64::from(seed);
    let mut digest = [0; 20];
    for chunk in digest.chunks_mut(8) {
        let bytes = next(&mut state).to_le_bytes();
        for (place, byte) in chunk.iter_mut().zip(bytes) {
            *place = byte;
        }
    }
    StorePath::from_parts(digest, name).expect("a good name")
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024 / 1_000_000
}
