//! Binary caches: read, written, damaged; as Nix writes and reads them.
//!
//! Those that need a real Nix get it from the test world; caches on the web are real HTTP servers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Tests make temporary directories where the environment says, and one talks to another.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

// What is asked of sources is asked of caches too.
#[path = "../../../ferry-store/tests/facts/asking.rs"]
mod asking;
mod support;

mod again;
mod bad_servers;
mod bucket;
mod damage;
mod facts;
mod index;
mod interrupted;
mod many;
mod memory;
mod nix_facts;
mod nix_reads;
mod nix_writes;
mod prune;
mod realisations;
mod round_trip;
mod shards;
mod sign;
mod verify;
mod verify_damage;
