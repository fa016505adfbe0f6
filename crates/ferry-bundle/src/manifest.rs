//! What a bundle says about itself.

use std::collections::BTreeMap;

use ferry_formats::StorePath;
use ferry_formats::build_trace::Realisation;
use ferry_store::message::harmless;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// What became of outputs whose paths were not known before they were built: by the names of
    /// the files in which binary caches keep it, what these say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub realisations: BTreeMap<String, Value>,
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Manifest {
    /// In the form in which it has them.
    pub(crate) fn form_of_realisations(
        realisations: &[Realisation],
    ) -> serde_json::Result<BTreeMap<String, Value>> {
        let form =
            |one: &Realisation| Ok((one.id.file_name(), serde_json::from_str(&one.render())?));
        realisations.iter().map(form).collect()
    }

    /// What it says became of outputs.
    pub(crate) fn parse_realisations(&self) -> Result<Vec<Realisation>, String> {
        let parse = |(name, text): (&String, &Value)| {
            Realisation::of_file(name, text.to_string().as_bytes())
                .map_err(|error| format!("the realisation `{}`: {error}", harmless(name)))
        };
        self.realisations.iter().map(parse).collect()
    }

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
