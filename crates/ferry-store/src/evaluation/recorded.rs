//! What a trace says about an evaluation, as far as something travels because of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use ferry_formats::{NarHash, StoreDir, StorePath};

use super::description::Description;
use super::error::{EvaluationError, Result};
use crate::facts::{EntryKind, Recorded as Facts, Trace, Unfinished, Why};
use crate::message::harmless;

/// A recorded evaluation, to be taken along.
#[derive(Clone, Debug)]
pub struct Evaluation {
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
    /// The store object that has all of it that was read, where that was not everything.
    pub(super) copy: Option<StorePath>,
    /// What was in it, if it is a directory that was listed.
    pub(super) entries: BTreeMap<String, EntryKind>,
}

impl Evaluation {
    /// Reads a trace; what it has of the fetchers' cache lies beside it.
    ///
    /// # Errors
    /// When it is not a whole trace, or names files that cannot be.
    pub fn read(file: &Path, store_dir: &StoreDir) -> Result<Self> {
        let trace = Trace::read(file, store_dir, Unfinished::Refuse)?;
        // It may be a link to a recording that has several results.
        let file = fs::canonicalize(file)
            .map_err(EvaluationError::io(format!("find {}", file.display())))?;
        let Facts { header, roots, needs, outside: lines, .. } = trace.recorded();
        let (mut outside, mut cache) = (Vec::new(), Vec::new());
        for line in lines {
            if line.why == Why::FetcherCache {
                cache.push(relative(&line.what)?);
                continue;
            }
            outside.push(OutsideFile {
                path: absolute(&line.what)?,
                why: line.why.clone(),
                nar_hash: line.nar_hash,
                copy: line.copy.clone(),
                entries: line.entries.clone().unwrap_or_default(),
            });
        }
        let description = Description {
            command: header.command.clone(),
            working_directory: header.working_directory.clone(),
            environment: header.environment.clone(),
            evaluator: header.evaluator.clone(),
            system: header.system.clone(),
            roots: roots.iter().map(|root| store_dir.render_path(root)).collect(),
            working_trees: Vec::new(),
        };
        Ok(Self {
            file,
            store_dir: store_dir.clone(),
            description,
            roots: roots.clone(),
            needs: needs.iter().map(|need| need.path.clone()).collect(),
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
