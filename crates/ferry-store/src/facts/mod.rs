//! Where the facts of a [graph](ferry_graph) come from.
//!
//! | source | run | build | eval |
//! |---|---|---|---|
//! | [`LocalFacts`], the database and the `.drv` files of a store on disk | yes | yes | |
//! | [`StoreFacts`], any other store: a daemon, a bundle | yes | yes | |
//! | [`ReferencesGraph`], what Nix writes into a build for `exportReferencesGraph` | yes | | |
//! | [`Trace`], a recorded evaluation | | | yes |
//!
//! [`RealisedIn`] adds to one of them the paths that outputs got which have none before they are
//! built. Binary caches, which know run dependencies, are the business of `ferry-cache`.

mod derivations;
mod local;
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod local_tests;
mod objects;
mod realised;
mod realised_in;
mod references_graph;
mod references_json;
mod references_text;
mod store;
mod trace;
mod trace_directory;
mod trace_entries;
mod trace_line;
mod trace_write;

pub(crate) use derivations::read_one as read_derivation;
pub use local::LocalFacts;
pub use realised_in::RealisedIn;
pub use references_graph::{ReferencesGraph, ReferencesGraphEntry, ReferencesGraphError};
pub use store::{StoreFacts, enter_derivations};
pub use trace::{
    Added, Need, OutputOf, Outside, Recorded, Trace, TraceError, TraceHeader, Unfinished, Warning,
    Why,
};
pub use trace_directory::{TraceDirectory, cache_beside, link_trace, trace_name};
pub use trace_entries::EntryKind;
