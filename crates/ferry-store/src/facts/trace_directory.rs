//! Recorded evaluations that are kept in one directory, each under the names of its roots.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;
use ferry_graph::{Facts, FactsError, Ledger, NodeId, Question};

use super::trace::{Trace, TraceError, Unfinished};

/// What the recording of a root is called: `HASH-NAME.trace`, without the `.drv`.
#[must_use]
pub fn trace_name(root: &StorePath) -> String {
    let name = root.to_basename();
    format!("{}.trace", name.strip_suffix(".drv").unwrap_or(&name))
}

/// Where what an evaluation needs of the fetchers' cache stands beside its trace.
#[must_use]
pub fn cache_beside(trace: &Path) -> PathBuf {
    let mut name = trace.as_os_str().to_owned();
    name.push(".cache");
    name.into()
}

/// Lets a recording be found under another name in the same directory.
///
/// # Errors
/// When no link can be made.
pub fn link_trace(file: &Path, name: &str) -> Result<(), TraceError> {
    let (Some(directory), Some(target)) = (file.parent(), file.file_name()) else { return Ok(()) };
    let link = directory.join(name);
    let failed =
        |source: io::Error| TraceError::Unwritten { file: link.display().to_string(), source };
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => symlink(target, &link).map_err(failed),
    }
}

/// The recordings in a directory, which are read when somebody asks about their roots.
#[derive(Debug)]
pub struct TraceDirectory {
    directory: PathBuf,
    /// Those that were read.
    traces: Vec<Trace>,
    asked: HashSet<StorePath>,
}

impl TraceDirectory {
    /// Those in `directory`, which may not be there.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, traces: Vec::new(), asked: HashSet::new() }
    }

    fn look_for(&mut self, nodes: &[NodeId], ledger: &Ledger<'_>) -> Result<(), FactsError> {
        for path in nodes.iter().filter_map(|node| ledger.path(*node)) {
            if !self.asked.insert(path.clone()) {
                continue;
            }
            let file = self.directory.join(trace_name(&path));
            if !file.exists() {
                continue;
            }
            match Trace::read(&file, ledger.store_dir(), Unfinished::Refuse) {
                Ok(trace) => self.traces.push(trace),
                // Recorded for a store elsewhere.
                Err(TraceError::OtherStore { .. }) => {}
                Err(error) => return Err(Box::new(error)),
            }
        }
        Ok(())
    }
}

impl Facts for TraceDirectory {
    fn describe(&self) -> String {
        format!("recorded evaluations in `{}`", self.directory.display())
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if let Question::Evaluations(nodes) = question {
            self.look_for(nodes, ledger)?;
        }
        self.traces.iter_mut().try_for_each(|trace| trace.learn(question, ledger))
    }
}
