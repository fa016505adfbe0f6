//! The graph against a model that is too plain to be wrong, and what it says about broken worlds.
//!
//! One test binary. A [`world::World`] is a handful of tables of text; [`source::Source`] hands it
//! to the graph in many ways, and [`model::Model`] answers the same questions from the tables.

// A test fails by panicking.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod answers;
mod builder;
mod model;
mod plan;
mod source;
mod world;

mod against_model;
mod arrival;
mod broken;
mod disagreements;
mod dot;
mod drawn;
mod many;
mod promises;
mod realised;
mod ways;

/// Four times as many cases as is usual: what is worth finding takes several odd things at once.
/// What fails is made a test of its own, not a file.
fn proptest_config() -> proptest::test_runner::Config {
    let usual = proptest::test_runner::Config::default();
    let cases = usual.cases.saturating_mul(4);
    proptest::test_runner::Config { cases, failure_persistence: None, ..usual }
}
