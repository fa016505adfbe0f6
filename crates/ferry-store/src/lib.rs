//! Nix stores, read and written without Nix, and the one operation that copies between them.
//!
//! A [`Store`] is something one can ask for path infos and NARs; a [`Destination`] takes paths
//! in. [`copy()`](copy::copy) moves a set of paths from any store to any destination, and
//! packing, loading and making a cache are that operation with other ends.
//!
//! Nothing here touches the terminal, `$HOME` or the environment: what depends on them is handed
//! in.

pub mod admission;
pub mod closure;
pub mod copy;
pub mod daemon;
mod error;
pub mod facts;
pub mod http;
pub mod installable;
pub mod inventory;
pub mod local;
pub mod message;
pub mod nix_conf;
pub mod parallel;
pub mod progress;
pub mod reference_sites;
pub mod selection;
mod store;
pub mod trust;
pub mod uri;

pub use copy::{CopyReport, copy};
pub use error::{Error, Result};
pub use store::{Destination, NarVisitor, Protection, SignatureCheck, Store, StoreWriter};
