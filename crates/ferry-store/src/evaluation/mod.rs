//! Evaluating again on the other side: what a recorded evaluation read that is no store path
//! (expressions, sources, the fetchers' cache) as one store object, and that object laid out again
//! as files. What is in it, and why: `docs/evaluation.md`.

mod collect;
mod description;
mod error;
mod git;
mod object;
mod recorded;
mod restored;
mod stage;
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests;
mod unpack;
mod untrusted;

pub use collect::Limits;
pub use description::Description;
pub use error::EvaluationError;
pub use object::EvaluationObject;
pub use recorded::Evaluation;
pub use restored::{Restored, search_path_entries};
pub use stage::normal;
pub use unpack::{Unpacked, unpack};

/// Names in the object.
mod name {
    /// What was evaluated: a [`Description`](super::Description).
    pub(super) const DESCRIPTION: &str = "evaluation.json";
    /// The trace.
    pub(super) const TRACE: &str = "trace";
    /// Files, below it at their absolute paths.
    pub(super) const FILES: &str = "files";
    /// What `XDG_CACHE_HOME` has to hold.
    pub(super) const CACHE: &str = "cache";
    /// In the unpacked form only: the store path of the object.
    pub(super) const OBJECT: &str = "object";
    /// In the unpacked form only: a flake registry in which nothing is.
    pub(super) const REGISTRY: &str = "flake-registry.json";
}
