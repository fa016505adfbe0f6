//! What can be wrong with a graph, and what can be missing from it.

use thiserror::Error;

use crate::facts::FactsError;

/// Why a question about the graph has no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A source could not look.
    #[error("{source}")]
    Source {
        /// Which one.
        name: String,
        /// What it says.
        source: FactsError,
    },
    /// Derivations, or references, that lead back to where they began.
    #[error("what {} needs leads back to it:\n  {}", cycle.first().map_or("it", String::as_str), cycle.join("\n  "))]
    Cycle {
        /// The objects on the way round, the first one again at the end.
        cycle: Vec<String>,
    },
    /// An output is named that the derivation does not have.
    #[error("{derivation} has no output `{output}`; it has: {}", known.join(", "))]
    NoSuchOutput {
        /// The derivation.
        derivation: String,
        /// What was asked for.
        output: String,
        /// What there is.
        known: Vec<String>,
    },
}

/// A fact that an answer takes and no source has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Missing {
    /// No source has this object, so its references are not known.
    Object {
        /// Its path.
        path: String,
        /// The derivation and the output that it is, if that is known: it is not built, then.
        output_of: Option<(String, String)>,
    },
    /// This output has no path before it is built.
    Output(String),
    /// No derivation is known that made this path.
    Deriver {
        /// The path.
        path: String,
        /// The derivation that is recorded as its deriver, which no source has.
        recorded: Option<String>,
    },
    /// No source has this `.drv` file.
    Derivation(String),
    /// No evaluation of this derivation was recorded.
    Evaluation(String),
    /// This source cannot list what it has.
    Listing(String),
}

impl Missing {
    /// Says what is missing; `sources` is what the sources that were asked are called.
    #[must_use]
    pub fn tell(&self, sources: &str) -> String {
        match self {
            Self::Object { path, output_of: None } => {
                format!("path {path} is not valid in {sources}")
            }
            Self::Object { path, output_of: Some((derivation, output)) } => format!(
                "output `{output}` of {derivation} is not built: {path} is not valid in {sources}"
            ),
            Self::Output(output) => format!("the path of {output} is not known before it is built"),
            Self::Deriver { path, recorded: None } => {
                format!("no deriver of {path} is known in {sources}")
            }
            Self::Deriver { path, recorded: Some(deriver) } => {
                format!("the deriver of {path}, {deriver}, is not valid in {sources}")
            }
            Self::Derivation(path) => format!("derivation {path} is not valid in {sources}"),
            Self::Evaluation(path) => format!("no evaluation of {path} was recorded"),
            Self::Listing(source) => format!("{source} cannot list what is in it"),
        }
    }
}
