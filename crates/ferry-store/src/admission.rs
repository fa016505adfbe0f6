//! The one place that decides whether a path may become valid.
//!
//! Two steps. Before anything is written, [`plan`] looks at the path infos: what is already there
//! must be the same object, every reference must be there or coming, and signatures must satisfy
//! the policy. Then each NAR goes through an [`Admitted`], which hashes it as it is read; only a
//! NAR with the promised size, hash and content address, and for a derivation the output paths
//! that follow from its text, yields a [`Verified`], and only with a [`Verified`] does a store
//! register a path. Neither type can be made elsewhere.

mod checks;
mod plan;

pub use self::checks::{Admitted, Checks, DerivationLookup, Verified};
pub use self::plan::{Plan, plan, realisations};
pub use crate::single_file::{MAX_DERIVATION_NAR, read_single_file};
