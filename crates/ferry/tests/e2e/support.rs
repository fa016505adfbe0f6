//! What the tests have in common.

use ferry_test_world::{Machine, NixVersion, World};

/// Two or more machines, or `None` where the world cannot be made (never in CI).
pub(crate) fn machine(world: &World, version: NixVersion) -> Machine {
    let machine = Machine::new(world, version);
    machine.install(env!("CARGO_BIN_EXE_ferry"), "ferry");
    machine
}

/// Every pair of versions, from and to.
pub(crate) fn pairs() -> impl Iterator<Item = (NixVersion, NixVersion)> {
    NixVersion::ALL
        .into_iter()
        .flat_map(|from| NixVersion::ALL.into_iter().map(move |to| (from, to)))
}

/// Carries a file from one machine's disk to another's, as a stick would.
pub(crate) fn carry(from: &Machine, to: &Machine, file: &str) {
    to.write(file, from.read(file));
}
