//! `tests/nix/big-graph.nix`, the generator of large graphs of derivations.

use crate::{Machine, MachineCommand};

/// What decides about a large graph.
#[derive(Clone, Debug)]
pub struct BigGraph {
    /// How many derivations there are in all.
    pub n: u32,
    /// Another seed makes another graph.
    pub seed: String,
    /// What the bottom is made from: another one changes every derivation's hash, and leaves
    /// the graph and all that the derivations say as it is.
    pub stdenv_source: String,
}

impl BigGraph {
    /// A graph of `n` derivations.
    pub fn new(n: u32) -> Self {
        Self { n, seed: "0".to_owned(), stdenv_source: "0".to_owned() }
    }

    /// The `nix-instantiate` that writes it.
    pub fn command(&self, machine: &Machine) -> MachineCommand {
        machine
            .command("nix-instantiate")
            .arg(machine.expression("big-graph.nix"))
            .args(["-A", "all", "--arg", "n", &self.n.to_string()])
            .args(["--argstr", "seed", &self.seed])
            .args(["--argstr", "stdenvSource", &self.stdenv_source])
    }
}

/// Writes a graph of `n` derivations into the machine's store, and returns the path of the
/// one at the top.
pub fn big_graph(machine: &Machine, n: u32) -> String {
    let path = BigGraph::new(n).command(machine).ok();
    assert!(path.ends_with(".drv"), "nix-instantiate did not print a .drv: {path}");
    path
}
