//! Sources of facts: what each of them knows, and what it does with what is not as it should be.
//!
//! Those that need a real Nix get it from the test world; caches on the web are real HTTP servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tests make temporary directories where the environment says.
#![allow(clippy::disallowed_methods)]

mod asking;
mod support;

mod http;
mod nix_builds;
mod references_graph;
mod trace;
