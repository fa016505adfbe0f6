//! `ferry man`: a page a command.

use std::fs;
use std::io;
use std::path::Path;

use clap::builder::Resettable;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::Arguments;
use crate::failure::Failure;

/// What stands at the foot of every page.
const SOURCE: &str = concat!("ferry ", env!("CARGO_PKG_VERSION"));

pub(super) fn run(directory: &Path) -> Result<(), Failure> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, directory).map_err(|error| {
        Failure::new(format!("cannot write into {}: {error}", directory.display()))
    })
}

fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, directory)?;
    }
    // What stands behind the help would be filled like a paragraph.
    let page = Man::new(command.clone().after_help(Resettable::Reset));
    let page = page.source(SOURCE).manual("Nix Ferry");
    let mut text = Vec::new();
    page.render(&mut text)?;
    if let Some(examples) = command.get_after_help() {
        text.extend(examples_section(&examples.to_string()).to_roff().into_bytes());
    }
    fs::write(directory.join(page.get_filename()), text)
}

/// Examples, each line as it is.
fn examples_section(text: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]).control("nf", []);
    for line in text.strip_prefix("Examples:\n").unwrap_or(text).lines() {
        section.text([roman(line)]);
    }
    section.control("fi", []);
    section
}
