//! `tests/nix/crossing.nix`, the small graph with one of everything.

use crate::{Machine, MachineCommand, Origin};

/// Where the graph's one download is on its origin.
pub const DOWNLOAD_PATH: &str = "/dist/crossing-source-1.0.txt";

/// The hash of [`download`], as the graph declares it.
pub const DOWNLOAD_HASH: &str = "sha256-J347eSRFtSH70hMbEMmUFwVJybwrVb9n6Xp406z4ccc=";

/// The bytes of the graph's one download.
pub fn download() -> Vec<u8> {
    (0..2000).flat_map(|line| format!("line {line} of the source\n").into_bytes()).collect()
}

/// An origin that serves the download, and nothing else.
pub fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve(DOWNLOAD_PATH, download());
    origin
}

/// `program crossing.nix -A attribute` with the arguments that the graph wants; for
/// nix-instantiate and nix-build. Attributes: `a`, `b`, `c` (the top), `fod`, `multi`.
pub fn command(machine: &Machine, program: &str, attribute: &str, origin: &str) -> MachineCommand {
    machine
        .command(program)
        .arg(machine.expression("crossing.nix"))
        .args(["-A", attribute])
        .args(["--argstr", "origin", origin])
        .args(["--argstr", "fodHash", DOWNLOAD_HASH])
}
