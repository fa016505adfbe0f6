//! A bundle in several files, for disks and file systems that cannot take it whole.
//!
//! `docs/volume-format.md` specifies them. Each volume says which it is and of which bundle, and
//! has digests of its own pieces. Parity volumes stand in for as many others, whichever are
//! missing; and where volumes are damaged, for as many damaged pieces in the same place.

mod header;
mod names;
mod parity;
mod read;
mod repair;
mod set;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]
mod tests;
mod write;

pub use read::VolumeReader;
pub use set::{Condition, Volume, Volumes};
pub use write::{Begun, VolumeWriter, VolumesReport};
