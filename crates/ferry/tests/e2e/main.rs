//! End to end: the `ferry` binary and real Nix, on both sides of the gap.
//!
//! One test binary. A machine is a Debian root with its own `/nix`; `ferry` is installed in it,
//! and whatever stands for the isolated side runs without a network.

// Tests fail by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
// They make temporary directories where the environment says, and bytes out of numbers.
#![allow(clippy::disallowed_methods, clippy::cast_possible_truncation)]

mod support;

mod bad_caches;
mod bad_input;
mod base;
mod based;
mod build_logs;
mod cache;
mod cache_care;
mod command_line;
mod convert;
mod crossing;
mod daemon;
mod derivations;
mod diff;
mod drv;
mod experimental;
mod fleet;
mod graph;
mod hostile;
mod installables;
mod interrupted;
mod inventory;
mod island;
mod json;
mod kills;
mod missing;
mod nginx;
mod nix_functions;
mod nix_language;
mod output;
mod prune;
mod query;
mod realisations;
mod s3;
mod s3_care;
mod s3_keys;
mod salvage;
mod seed;
mod stores;
mod thin;
mod trace;
mod trace_commands;
mod trust;
mod volumes;
mod watched;
