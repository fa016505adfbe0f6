//! A module a command.

mod cache;
mod convert;
mod copied;
mod copy;
mod deps;
mod diff;
mod drv;
mod info;
mod inventory;
mod load;
mod ls;
mod man;
mod missing;
mod pack;
mod prerequisites;
mod query;
mod repair;
mod salvage;
mod shell;
mod size;
mod trace;
mod verify;
mod why;

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Arguments, Command};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Command::BecomeWatched { command } = &arguments.command {
        return Ok(trace::become_watched(command));
    }
    let context = Context::new(&arguments.global)?;
    let done = match arguments.command {
        Command::Diff(options) => return diff::run(&context, &options),
        Command::Cache(command) => return cache::run(&context, &command),
        Command::Trace(options) => return trace::run(&context, &options),
        Command::Missing(options) => return missing::run(&context, &options),
        Command::Salvage(options) => return salvage::run(&context, &options),
        Command::Shell(options) => return shell::run(&context, &options),
        Command::Pack(options) => pack::run(&context, options),
        Command::Query(options) => query::run(&context, &options),
        Command::Deps(options) => deps::run(&context, &options),
        Command::Why(options) => why::run(&context, &options),
        Command::Size(options) => size::run(&context, &options),
        Command::Verify(options) => verify::run(&context, &options),
        Command::Ls(options) => ls::run(&context, &options),
        Command::Info(options) => info::run(&context, &options),
        Command::Repair(options) => repair::run(&context, &options),
        Command::Load(options) => load::run(&context, &options),
        Command::Inventory(options) => inventory::run(&context, &options),
        Command::Convert(options) => convert::run(&context, &options),
        Command::Drv(command) => drv::run(&context, &command),
        Command::Copy(options) => copy::run(&context, &options),
        Command::BecomeWatched { .. } => Ok(()),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "ferry", &mut script);
            output::line(&script)
        }
        Command::Man { directory } => man::run(&directory),
    };
    done.map(|()| ExitCode::SUCCESS)
}
