//! What stores tell about themselves is what Nix tells about them, with each Nix version.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tests make temporary directories where the environment says.
#![allow(clippy::disallowed_methods)]

mod support;

mod build_edges;
mod floating;
mod mentions;
mod run_edges;
