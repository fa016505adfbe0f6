//! Nix stores, read and written without Nix, and the one operation that copies between them.
//!
//! A [`Store`] is something one can ask for path infos and NARs; a [`Destination`] takes paths
//! in. [`copy()`](copy::copy) moves a set of paths from any store to any destination, and
//! packing, loading and making a cache are that operation with other ends.
//!
//! Nothing here touches the terminal, `$HOME` or the environment: what depends on them is handed
//! in.

pub mod admission;
pub mod build_logs;
pub mod closure;
pub mod copy;
pub mod daemon;
pub mod derivation_directory;
pub mod difference;
mod error;
pub mod evaluation;
pub mod export;
pub mod facts;
mod hashed;
pub mod http;
pub mod input_hashes;
pub mod installable;
pub mod inventory;
mod joined;
pub mod leave_out;
pub mod local;
pub mod message;
mod nar_ranges;
pub mod new_derivations;
pub mod nix_conf;
pub mod parallel;
pub mod progress;
pub mod realisations;
pub mod reference_sites;
pub mod selection;
pub mod shard;
pub mod shown_derivations;
mod single_file;
mod store;
pub mod trust;
pub mod uri;
mod wanted;
mod whole_file;

pub use copy::{CopyReport, copy};
pub use error::{Error, Result};
pub use joined::{Joined, JoinedRanges};
pub use nar_ranges::{NarRanges, SpooledNars};
pub use store::{Destination, NarVisitor, Protection, SignatureCheck, Store, StoreWriter};
pub use wanted::Wanted;
