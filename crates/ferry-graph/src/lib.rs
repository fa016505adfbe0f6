//! One graph of what store objects need: to run, to be built, to be evaluated.
//!
//! Nodes are store objects (an output whose path is not known yet is one too), and edges are of
//! three [`Kind`]s, each *immediate*. The graph is filled from [`Facts`], which are asked only
//! for what an answer takes; a fact that nobody has is reported, never guessed.
//!
//! Pure: it knows no file and no network.

mod builders;
mod closure;
mod dot;
mod edges;
mod error;
mod explore;
mod facts;
mod filters;
mod graph;
mod node;
mod order;
pub mod query;
mod realise;
mod set;
mod sizes;
mod way;

pub use dot::Dot;
pub use error::{GraphError, Missing};
pub use explore::Explorer;
pub use facts::{DerivationFacts, Disagreement, Facts, FactsError, Ledger, ObjectFacts, Question};
pub use graph::{Graph, Kind};
pub use node::{NodeId, Object};
pub use order::post_order;
pub use realise::{Needed, Realisation, Realiser, Supply};
pub use set::NodeSet;
pub use sizes::{SizeReport, Sizes};
pub use way::Step;
