//! `ferry-bench`: ferry and Nix on the same work, in the same run, side by side.
//!
//! The peer is in the room: every figure of ferry's stands beside that of the Nix commands
//! people use today for the same thing, measured in turn with it, so that a busy or slow
//! machine falls on both. All data is generated, but for the derivations of a real system, which
//! are read if they are at hand; nothing is downloaded. Prints Markdown on
//! standard output, and what it is doing on standard error.
//!
//! `docs/benchmarks.md` says how to read it. Needs root, as [`ferry_test_world`] does.

mod cache;
mod delta;
mod derivations;
mod facts;
mod freight;
mod generate;
mod measure;
mod missing;
mod program;
mod rebase;
mod report;
mod sections;

use std::path::PathBuf;

use clap::Parser;
use ferry_test_world::{NixVersion, World};

/// Measures ferry and Nix on the same work in the same run.
#[derive(Parser)]
struct Options {
    /// How many derivations the generated graph has
    #[arg(long, default_value_t = 28_000, value_parser = clap::value_parser!(u32).range(100..))]
    drvs: u32,
    /// How large the large files are, in bytes
    #[arg(long, default_value_t = 1_000_000_000)]
    large_file: u64,
    /// How many files of that size the section `pieces` has
    #[arg(long, default_value_t = 10)]
    pieces: u64,
    /// How many store paths the section `paths` has
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    paths: u32,
    /// How large the mixed trees are together, in bytes, about
    #[arg(long, default_value_t = 1_000_000_000)]
    mixed: u64,
    /// Which Nix to measure against: 2.8, 2.26 or 2.34
    #[arg(long, default_value = "2.26", value_parser = nix_version)]
    nix: NixVersion,
    /// How often everything is measured (what takes more than 90 s only once)
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure this only; may be given several times
    #[arg(long, value_enum, value_name = "SECTION")]
    only: Vec<sections::Name>,
    /// Write every single measurement to a file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// `.drv` files for the section `drvs`, a tar file that zstd made smaller
    /// [default: those that the tests use, if they are there]
    #[arg(long, value_name = "FILE")]
    drvs_archive: Option<PathBuf>,
    /// The ferry to measure [default: build it, and take that]
    #[arg(long, value_name = "PROGRAM")]
    ferry: Option<PathBuf>,
}

fn nix_version(text: &str) -> Result<NixVersion, String> {
    NixVersion::ALL
        .into_iter()
        .find(|version| version.to_string() == text)
        .ok_or_else(|| "there are 2.8, 2.26 and 2.34".to_owned())
}

fn main() {
    let options = Options::parse();
    let Some(world) = World::open() else { std::process::exit(1) };
    let ferry = options.ferry.clone().unwrap_or_else(program::build_ferry);
    let bench = sections::Bench::new(world, options, ferry);

    let mut report = report::Report::new(facts::before(&bench));
    print!("{}", report.heading());
    for name in bench.wanted() {
        for section in bench.section(name) {
            print!("{}", report.add(section));
        }
    }
    report.facts.extend(facts::after());
    print!("{}", report.footer());
    if let Some(file) = &bench.options.json {
        std::fs::write(file, report.json())
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
}
