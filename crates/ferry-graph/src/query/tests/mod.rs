mod evaluation;
mod files;
mod grammar;
mod limits;
mod manual;
mod misnomers;
mod mistakes;
mod properties;
mod world;

use super::{Program, QueryError, Source, parse};

fn program(text: &str) -> Result<Program, QueryError> {
    parse(&[Source::new("<expression>", text)])
}

/// What is said about a query with a mistake.
fn mistake(text: &str) -> String {
    program(text).expect_err(text).render()
}
