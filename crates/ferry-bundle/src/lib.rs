//! The bundle: store paths in one file.
//!
//! `docs/bundle-format.md` specifies the file. In short: a head (manifest and index of all store
//! paths, derivations in coded form) with its digest and signatures, then the other NARs in compressed blocks, then a digest of
//! the whole. Everything that decides what becomes valid stands in the head, so a reader that has
//! checked the head can take the NARs one by one, each checked against the index, from a stream
//! that it sees only once.
//!
//! A [`Bundle`] is a [`Store`](ferry_store::Store) and a [`BundleWriter`] a
//! [`Destination`](ferry_store::Destination): packing and loading are copies.

mod against;
mod arrange;
mod choose_bases;
mod codec;
mod compact_index;
mod derivations;
mod error;
mod format;
mod head;
mod index;
mod listing;
mod manifest;
mod order;
mod payload;
mod pipeline;
mod prerequisites;
mod reader;
mod replaced;
mod salvage;
mod streams;
mod verify;
mod volumes;
mod writer;

pub use against::Against;
pub use choose_bases::Counterparts;
pub use derivations::DerivationBase;
pub use error::{BundleError, Result};
pub use format::{MAGIC, VERSION};
pub use head::HeadDigest;
pub use listing::{Entry, EntryKind, list_nar};
pub use manifest::Manifest;
pub use prerequisites::{Prerequisite, Prerequisites};
pub use reader::Bundle;
pub use salvage::{DamagedBundle, Loss, Salvage};
pub use verify::{VerifyReport, verify, verify_against};
pub use volumes::{Begun, Condition, Volume, VolumeReader, VolumeWriter, Volumes, VolumesReport};
pub use writer::{BundleWriter, PackOptions};
