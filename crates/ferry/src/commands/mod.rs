//! A module a command.

mod cache;
mod copy;
mod deps;
mod info;
mod load;
mod ls;
mod pack;
mod query;
mod size;
mod verify;
mod why;

use clap::CommandFactory as _;

use crate::cli::{Arguments, Command};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let context = Context::new(&arguments.global)?;
    match arguments.command {
        Command::Pack(options) => pack::run(&context, &options),
        Command::Query(options) => query::run(&context, &options),
        Command::Deps(options) => deps::run(&context, &options),
        Command::Why(options) => why::run(&context, &options),
        Command::Size(options) => size::run(&context, &options),
        Command::Verify(options) => verify::run(&context, &options),
        Command::Ls(options) => ls::run(&context, &options),
        Command::Info(options) => info::run(&context, &options),
        Command::Load(options) => load::run(&context, &options),
        Command::Copy(options) => copy::run(&context, &options),
        Command::Cache(crate::cli::Cache::Create(options)) => cache::create(&context, &options),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "ferry", &mut script);
            output::line(&script)
        }
        Command::Man { directory } => clap_mangen::generate_to(Arguments::command(), &directory)
            .map_err(|error| {
                Failure::new(format!("cannot write into {}: {error}", directory.display()))
            }),
    }
}
