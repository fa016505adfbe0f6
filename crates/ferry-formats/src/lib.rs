//! What Nix writes down, and nothing that touches a disk or a network.
//!
//! The formats themselves come from three published crates: [`nix-derivation`](nix_derivation)
//! (derivations, store paths, content addresses), [`nix-archive`](nix_archive) (NARs) and
//! [`nix-narinfo`](nix_narinfo) (signatures, narinfos). Every other crate of the workspace
//! reaches them through this one, so that a breaking release of any of them is mended here.
//!
//! What those crates leave out is ours: the [`PathInfo`] that a store keeps for a path and the
//! fingerprint that is signed ([`path_info`]), secret keys ([`keys`]), the streaming check of a
//! content address ([`content_address`]), the recomputation of a whole graph's output paths
//! ([`derivation`]), the strings of a derivation as they stand ([`derivation_parts`]), and the earlier versions of derivations as JSON ([`derivation_json`]).

pub mod base16;
pub mod build_trace;
pub mod content_address;
pub mod derivation;
pub mod derivation_json;
pub mod derivation_parts;
mod derivation_text;
pub mod hash;
pub mod keys;
pub mod nar;
pub mod narinfo;
pub mod path_info;
pub mod realisation;

pub use hash::NarHash;
pub use nix_derivation::{CAHash as ContentAddress, HashAlgorithm, NixHash, StoreDir, StorePath};
pub use path_info::PathInfo;

/// Failures of parsing or building a store path.
pub use nix_derivation::store_path::Error as StorePathError;

/// Nix's own base-32 alphabet and digit order.
pub mod nixbase32 {
    pub use nix_derivation::nixbase32::{Error, decode, encode};
}
