//! What a trace says about an evaluation, as far as something travels because of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Component, Path, PathBuf};

use ferry_formats::{NarHash, StoreDir, StorePath};
use serde_json::{Map, Value};

use super::description::{Description, text, variables};
use super::error::{EvaluationError, Result};
use crate::facts::{Trace, Unfinished};
use crate::message::harmless;

/// A recorded evaluation, to be taken along.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The trace.
    pub(super) file: PathBuf,
    pub(super) store_dir: StoreDir,
    pub(super) description: Description,
    roots: Vec<StorePath>,
    needs: Vec<StorePath>,
    pub(super) outside: Vec<OutsideFile>,
    /// Entries of the fetchers' cache, relative to the private cache directory.
    pub(super) cache: Vec<PathBuf>,
}

/// A file or directory that is no store object.
#[derive(Clone, Debug)]
pub(super) struct OutsideFile {
    pub(super) path: PathBuf,
    pub(super) why: Why,
    /// What its NAR had for a hash when it was read.
    pub(super) nar_hash: Option<NarHash>,
    /// The store object that the evaluation made of it, if it did.
    pub(super) added: Option<StorePath>,
}

/// How a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Evaluated.
    NixFile,
    /// Copied into the store.
    Source,
    /// What `<name>` is.
    NixPath,
    /// A flake that is not in the store.
    Flake,
}

impl Recorded {
    /// Reads a trace; what it has of the fetchers' cache lies beside it.
    ///
    /// # Errors
    /// When it is not a whole trace, or names files that cannot be.
    pub fn read(file: &Path, store_dir: &StoreDir) -> Result<Self> {
        let trace = Trace::read(file, store_dir, Unfinished::Refuse)?;
        let details = Details::read(file, store_dir)?;
        let (mut outside, mut cache) = (Vec::new(), Vec::new());
        for line in trace.outside() {
            let why = match line.why.as_str() {
                "fetcher-cache" => {
                    cache.push(relative(&line.what)?);
                    continue;
                }
                "source" => Why::Source,
                "nix-path" => Why::NixPath,
                "flake" => Why::Flake,
                _ => Why::NixFile,
            };
            let path = absolute(&line.what)?;
            outside.push(OutsideFile {
                why,
                nar_hash: details.hashes.get(&line.what).copied(),
                added: details.added.get(&line.what).cloned(),
                path,
            });
        }
        let header = trace.header();
        let description = Description {
            command: header.command.clone(),
            working_directory: details.working_directory,
            environment: details.environment,
            evaluator: header.evaluator.clone(),
            system: header.system.clone(),
            roots: trace.roots().iter().map(|root| store_dir.render_path(root)).collect(),
            working_trees: Vec::new(),
        };
        Ok(Self {
            file: file.to_owned(),
            store_dir: store_dir.clone(),
            description,
            roots: trace.roots().to_vec(),
            needs: trace.needs().iter().map(|need| need.path.clone()).collect(),
            outside,
            cache,
        })
    }

    /// What the evaluation resulted in.
    #[must_use]
    pub fn roots(&self) -> &[StorePath] {
        &self.roots
    }

    /// The store objects that it needed.
    #[must_use]
    pub fn needs(&self) -> &[StorePath] {
        &self.needs
    }

    /// What to call it: the name of its first result.
    pub(super) fn name(&self) -> String {
        let root = self.roots.first().map(|root| root.name().trim_end_matches(".drv").to_owned());
        format!("{}-evaluation", root.filter(|name| !name.is_empty()).as_deref().unwrap_or("nix"))
    }

    /// Where what it has of the fetchers' cache lies.
    pub(super) fn cache_directory(&self) -> PathBuf {
        let mut name = self.file.as_os_str().to_owned();
        name.push(".cache");
        name.into()
    }
}

/// A path from a trace that has to be absolute, and has to stay where it says.
fn absolute(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    let plain =
        path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && !text.contains('\0') {
        return Ok(path.components().collect());
    }
    Err(EvaluationError::BadPath { file: harmless(text) })
}

fn relative(text: &str) -> Result<PathBuf> {
    let path = absolute(&format!("/{text}"))?;
    Ok(path.strip_prefix("/").unwrap_or(&path).to_owned())
}

/// What a trace says besides.
#[derive(Default)]
struct Details {
    working_directory: Option<String>,
    environment: BTreeMap<String, String>,
    hashes: BTreeMap<String, NarHash>,
    added: BTreeMap<String, StorePath>,
}

impl Details {
    fn read(file: &Path, store_dir: &StoreDir) -> Result<Self> {
        let failed = || EvaluationError::io(format!("read {}", file.display()));
        let mut details = Self::default();
        for (number, line) in
            BufReader::new(File::open(file).map_err(failed())?).lines().enumerate()
        {
            let line = line.map_err(failed())?;
            let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&line) else { continue };
            let bad =
                |reason| failed()(std::io::Error::other(format!("line {}: {reason}", number + 1)));
            if number == 0 {
                details.working_directory = text(&fields, "workingDirectory").map_err(bad)?;
                details.environment = variables(fields.get("environment")).map_err(bad)?;
            } else if let Some(Value::String(outside)) = fields.get("outside") {
                if let Some(hash) = text(&fields, "narHash").map_err(bad)? {
                    let hash = NarHash::parse(&hash).map_err(|error| bad(error.to_string()))?;
                    details.hashes.insert(outside.clone(), hash);
                }
            } else if let Some(Value::String(added)) = fields.get("added") {
                let path = store_dir.parse_path(added.as_bytes());
                let path = path.map_err(|error| bad(error.to_string()))?;
                if let Some(from) = text(&fields, "from").map_err(bad)? {
                    details.added.insert(from, path);
                }
            }
        }
        Ok(details)
    }
}
