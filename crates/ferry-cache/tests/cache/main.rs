//! Binary caches: read, written, damaged; as Nix writes and reads them.
//!
//! Those that need a real Nix get it from the test world; caches on the web are real HTTP servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tests make temporary directories where the environment says, and one talks to another.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod support;

mod bucket;
mod damage;
mod facts;
mod interrupted;
mod memory;
mod nix_facts;
mod nix_reads;
mod nix_writes;
mod prune;
mod round_trip;
mod shards;
