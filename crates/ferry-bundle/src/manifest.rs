//! What a bundle says about itself.

use ferry_formats::StorePath;
use serde::{Deserialize, Serialize};

/// The first section of a bundle: JSON, so that a person with no ferry at hand can read it.
///
/// No date, host or program version: the same paths give the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The directory that all paths in it begin with.
    pub store_dir: String,
    /// The named set that was packed.
    pub set: String,
    /// What was asked for, as store path base names, in the order asked.
    pub roots: Vec<String>,
    /// How many store paths it holds.
    pub paths: u64,
    /// Sum of their NAR sizes in bytes.
    pub nar_size: u64,
    /// How many paths the receiving store has to have; none in a bundle that stands on its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prerequisites: u64,
    /// How far back in the payload its blocks refer at most, in bytes. More than 64 MiB of that
    /// go to a temporary file where the bundle is read from a stream.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reach: u64,
    /// Which of the paths, or of the prerequisites, hold the files of recorded evaluations, as base
    /// names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<String>,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Manifest {
    /// The roots as store paths. Reading a bundle makes sure that they are.
    #[must_use]
    pub fn root_paths(&self) -> Vec<StorePath> {
        store_paths(&self.roots)
    }

    /// What holds the files of recorded evaluations. Reading a bundle makes sure that these are
    /// store paths.
    #[must_use]
    pub fn evaluation_paths(&self) -> Vec<StorePath> {
        store_paths(&self.evaluations)
    }
}

fn store_paths(names: &[String]) -> Vec<StorePath> {
    names.iter().filter_map(|name| StorePath::from_basename(name.as_bytes()).ok()).collect()
}
