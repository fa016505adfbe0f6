//! The query language: sets of store objects, in the manner of Bazel's `query`.
//!
//! ```text
//! # a comment, to the end of the line
//! let tools = closure(run, ./result);             # a value
//! let without(x, y) = x - y;                      # a function of sets
//! set mine(x) = closure(run, outputs(drvs(x)));   # a named set
//! without(tools, "/nix/store/…-glibc-2.40") & name("^gcc", tools)
//! ```
//!
//! [`parse`] reads and checks a query, [`evaluate`](Program::evaluate) answers it. The functions
//! that are built in stand in one table, [`functions`]; the named sets are defined in the
//! language itself, and [`named_sets`] tells what ferry has of them.

mod arguments;
mod error;
mod evaluate;
mod functions;
mod lex;
mod parse;
mod program;
mod resolve;
mod syntax;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

pub use error::QueryError;
pub use evaluate::Outside;
pub use functions::{Function, functions};
pub use program::Program;

use error::Fault;

/// The definitions of the named sets, which every query begins with.
const SETS: &str = include_str!("sets.query");

/// A text of the query language: an expression from the command line, or a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// A text, and what messages call it: the name of a file, or `<expression>`.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A named set, as it is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSet {
    /// What it is called.
    pub name: String,
    /// What it holds: the comment in front of it, up to an empty comment line.
    pub doc: String,
    /// What the other side can do with it: the rest of that comment.
    pub sentence: String,
    /// The definition, from `set` to the semicolon.
    pub definition: String,
}

/// Reads a query: texts that follow one another, each seeing what those before it define. One of
/// them has an expression.
///
/// # Errors
/// When something in it is not understood, or there is no expression.
pub fn parse(sources: &[Source]) -> Result<Program, QueryError> {
    let program = parse_definitions(sources)?;
    if program.has_expression() {
        return Ok(program);
    }
    let last = program.sources.len() - 1;
    let text = program.sources.last().map(Source::text).unwrap_or_default();
    let end = text.trim_end().len();
    let fault = if sources.iter().all(|source| resolve::is_empty(source.text())) {
        Fault::new(&(end..end), "the query is empty").help("say what is wanted, such as `./result`")
    } else {
        Fault::new(&(end..end), "nothing is asked: there are only definitions")
            .help("behind them write what is wanted, such as `set(NAME, ./result)`")
    };
    Err(fault.within(&program.sources, last))
}

/// Reads texts that need not have an expression: definitions of named sets.
///
/// # Errors
/// When something in them is not understood.
pub fn parse_definitions(sources: &[Source]) -> Result<Program, QueryError> {
    let own = Source::new("<named sets>", SETS);
    resolve::program(std::iter::once(own).chain(sources.iter().cloned()).collect())
}

/// The named sets that ferry has.
#[must_use]
pub fn named_sets() -> Vec<NamedSet> {
    // A test reads the file: this does not fail.
    parse_definitions(&[])
        .map(|program| program.named_sets().cloned().collect())
        .unwrap_or_default()
}

/// The definitions behind [`named_sets`], and what they use, with their comments.
#[must_use]
pub fn named_set_definitions() -> &'static str {
    SETS
}
