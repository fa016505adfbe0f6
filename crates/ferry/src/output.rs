//! Text for people, JSON for programs.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::failure::Failure;

/// The version of every JSON document printed; raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Prints a line of data.
pub(crate) fn line(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text).and_then(|()| out.write_all(b"\n")))
}

/// Prints a JSON object, with its version.
pub(crate) fn json(mut fields: Value) -> Result<(), Failure> {
    if let Some(object) = fields.as_object_mut() {
        object.insert("version".to_owned(), json!(JSON_VERSION));
    }
    line(fields.to_string().as_bytes())
}

fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        // The reader has seen enough, as in `ferry ls x | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => {
            outcome.map_err(|error| Failure::new(format!("cannot write the output: {error}")))
        }
    }
}

/// Talks to the person, unless told to be quiet.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) quiet: bool,
}

impl Talk {
    #[allow(clippy::print_stderr)]
    pub(crate) fn say(self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("ferry: {text}");
        }
    }
}

/// `1 path`, `2 paths`.
pub(crate) fn paths(count: u64) -> String {
    if count == 1 { "1 path".to_owned() } else { format!("{count} paths") }
}

/// A size for people: `532 B`, `1.4 MB` (powers of a thousand, as disks are sold).
pub(crate) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
