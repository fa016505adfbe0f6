//! `ferry`: carries Nix software across a gap in the network.
//!
//! This crate is the command line: it reads arguments and the environment, shows progress, and
//! turns results into text, JSON and exit codes. What is done is in the libraries below it.

// The one crate that is allowed to know its surroundings.
#![allow(clippy::disallowed_methods)]

mod aws;
mod bars;
mod base;
mod cli;
mod commands;
mod context;
mod conversion;
mod evaluate;
mod evaluations;
mod failure;
mod have;
mod installables;
mod network;
mod output;
mod queries;
mod recording;
mod selected;
mod sink;
mod sources;
mod unfinished;
mod volumes;
mod watching;

use std::process::ExitCode;

use clap::Parser as _;

/// Graphs and indexes are made of many small pieces, several threads at a time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log_filter())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
