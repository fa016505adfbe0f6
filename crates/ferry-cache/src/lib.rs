//! Nix binary caches, read and written without Nix.
//!
//! A [`BinaryCache`] is a directory (`file://`), on the web (`http://`, `https://`) or in a bucket
//! (`s3://`). It is a [`Store`](ferry_store::Store) and a [`Destination`](ferry_store::Destination) of the copy engine, and a source of
//! [facts](CacheFacts) for the dependency graph. What it holds is what Nix documents as its
//! binary cache: `nix-cache-info`, a `HASH.narinfo` for each path, and compressed NARs.

mod address;
mod answers;
mod bucket;
mod cache;
mod compression;
mod directory;
mod error;
mod facts;
mod index;
mod layout;
mod listing;
mod logs;
pub mod missing;
mod offered;
mod others;
mod path_list;
mod pending;
mod pieces;
mod place;
mod prune;
mod publish;
mod reader;
mod realisations;
mod realised;
mod sign;
mod sweep;
mod verify;
mod walk;
mod whole;
mod writer;

pub use address::CacheAddress;
pub use cache::BinaryCache;
pub use compression::{Compression, CompressionSetting};
pub use error::CacheError;
pub use facts::CacheFacts;
pub use index::{CacheIndex, IndexEntry, Indexed};
pub use offered::Offered;
pub use path_list::PathList;
pub use prune::{NarFiles, PruneOptions, PruneReport};
pub use realised::realised_in;
pub use sign::{SignOptions, SignReport, ToSign};
pub use verify::{
    BadPercentage, Fault, FaultKind, Percentage, ReadData, Sample, VerifyOptions, VerifyReport,
    VerifyState,
};
pub use writer::WriteSettings;
