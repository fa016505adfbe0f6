//! Text for people, JSON for programs.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use serde_json::{Value, json};

use crate::failure::Failure;

/// The version of every JSON document printed; raised when a field changes its meaning or goes.
const JSON_VERSION: u32 = 1;

/// Prints a line of data: as it is, or on a terminal without what a terminal would obey.
pub(crate) fn line(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let shown = if out.is_terminal() {
        Cow::Owned(harmless(&String::from_utf8_lossy(text)).into_bytes())
    } else {
        Cow::Borrowed(text)
    };
    written(out.write_all(&shown).and_then(|()| out.write_all(b"\n")))
}

/// Prints records of data: lines or, for programs that want it so, ended by a NUL byte each.
pub(crate) fn records<T: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = T>,
    null: bool,
) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        return texts.into_iter().try_for_each(|text| line(text.as_ref()));
    }
    // Not a system call a line: there may be many.
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let end: &[u8] = if null { b"\0" } else { b"\n" };
    let mut write = |text: T| out.write_all(text.as_ref()).and_then(|()| out.write_all(end));
    let outcome = texts.into_iter().try_for_each(&mut write);
    written(outcome.and_then(|()| out.flush()))
}

/// Text from a bundle or a daemon may hold control characters, which a terminal obeys; they are
/// written out as escapes. Line ends and tabs stay.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            other if other.is_control() => shown.extend(other.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

/// A word as a shell takes it for one.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+=?:@,".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
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
            eprintln!("ferry: {}", harmless(&text.to_string()));
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
