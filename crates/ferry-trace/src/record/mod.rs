//! Records an evaluation: what its store was asked for, and what its log says, become facts.

mod cache;
mod classify;
mod files;
mod heard;
mod lock;
mod origins;
mod outside;
mod scan;
mod watched;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_formats::{StoreDir, StorePath};
use ferry_store::Store;
use ferry_store::facts::{Recorded, Trace, TraceError, TraceHeader, Unfinished, cache_beside};
use tempfile::TempDir;
use thiserror::Error;

pub use self::witness::{Shown, Verbosity, Witness, without_colours};

use self::classify::Classifier;
use self::heard::Heard;
use crate::proxy::{Proxy, ProxyError, Upstream};
use crate::watch::Seen;

/// How long connections may take to end when the evaluator is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an evaluation cannot be recorded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no socket.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// There is no directory for the fetchers' cache.
    #[error("cannot make a directory in {directory}: {source}")]
    Cache {
        /// Where it was to be.
        directory: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The trace cannot be written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// What was fetched cannot be put beside the trace.
    #[error("cannot write {file}: {source}")]
    Write {
        /// What was to be written.
        file: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// There is a recording that tells more.
    #[error("{file} is a complete recording, which stays: the new one {worse}")]
    Better {
        /// The recording that is there.
        file: String,
        /// What is wrong with the new one.
        worse: &'static str,
    },
}

/// An evaluation that is being recorded.
pub struct Recording {
    proxy: Proxy,
    heard: Arc<Mutex<Heard>>,
    cache: TempDir,
    store_dir: StoreDir,
}

/// What is known about an evaluation besides what was heard.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// About the recording; the protocol is filled in.
    pub header: TraceHeader,
    /// What the evaluator said that it resulted in; nothing where that is to be found out.
    pub roots: Option<Vec<StorePath>>,
    /// The evaluator's log, if it was read.
    pub witness: Option<Witness>,
    /// What evaluators were seen to do with files, if they were watched.
    pub seen: Option<Seen>,
    /// Where the files of the store really are, if that is not where its paths say.
    pub real_store_dir: Option<PathBuf>,
    /// Files that were named to the evaluator.
    pub files: Vec<PathBuf>,
    /// Expressions that were given to it.
    pub expressions: Vec<String>,
    /// The directory of the flake that was named to it.
    pub flake: Option<PathBuf>,
    /// Where `<name>` is looked up: names, perhaps empty, and directories.
    pub search_path: Vec<(String, PathBuf)>,
    /// Where the evaluator puts what it needs for a while.
    pub temporary_directory: Option<PathBuf>,
    /// Whether it could see neither environment nor time.
    pub is_pure: bool,
    /// Why something may be missing.
    pub incomplete: Vec<String>,
}

/// A recorded evaluation, and what it left in the fetchers' cache.
#[derive(Debug)]
pub struct RecordedEvaluation {
    recorded: Recorded,
    store_dir: StoreDir,
    cache: TempDir,
}

impl Recording {
    /// Listens on a socket in the first of the directories `sockets` where its address is not too
    /// long; what the evaluator fetches is kept in a new directory inside `cache_in`, which is made.
    ///
    /// # Errors
    /// When there is no room for either.
    pub fn start(
        upstream: Upstream,
        sockets: &[PathBuf],
        cache_in: &Path,
        store_dir: StoreDir,
    ) -> Result<Self, RecordError> {
        let failed =
            |source| RecordError::Cache { directory: cache_in.display().to_string(), source };
        std::fs::create_dir_all(cache_in).map_err(failed)?;
        let cache =
            tempfile::Builder::new().prefix(".recording-").tempdir_in(cache_in).map_err(failed)?;
        let heard = Arc::new(Mutex::new(Heard::new(store_dir.clone())));
        let hear = Arc::clone(&heard);
        let observer = Box::new(move |connection, event| {
            hear.lock().unwrap_or_else(PoisonError::into_inner).hear(connection, event);
        });
        let roomy = sockets.iter().find(|directory| Proxy::has_room(directory));
        let directory = roomy.or(sockets.first()).map_or(Path::new("/tmp"), PathBuf::as_path);
        let proxy = Proxy::start(directory, upstream, observer)?;
        Ok(Self { proxy, heard, cache, store_dir })
    }

    /// Where the evaluator is to connect to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.proxy.socket()
    }

    /// What is to be its `XDG_CACHE_HOME`.
    #[must_use]
    pub fn cache_directory(&self) -> &Path {
        self.cache.path()
    }

    /// Makes facts of what was heard, when the evaluator has ended; `store` is the one in which it
    /// worked.
    #[must_use]
    pub fn finish(self, evaluation: Evaluation, store: &dyn Store) -> RecordedEvaluation {
        let Self { proxy, heard, cache, store_dir } = self;
        let open = proxy.finish(PATIENCE);
        let mut lock = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = std::mem::replace(&mut *lock, Heard::new(store_dir.clone()));
        drop(lock);
        if open > 0 {
            heard.miss("the evaluator ended, and something that it started goes on".to_owned());
        }
        let recorded = Classifier::new(heard, evaluation, store, cache.path()).facts();
        RecordedEvaluation { recorded, store_dir, cache }
    }
}

impl RecordedEvaluation {
    /// The facts.
    #[must_use]
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Refuses to replace a complete recording by one that may lack something, or that has nothing
    /// in it.
    ///
    /// # Errors
    /// [`RecordError::Better`].
    pub fn require_better(&self, file: &Path) -> Result<(), RecordError> {
        // What cannot be read is no loss.
        let Ok(before) = Trace::read(file, &self.store_dir, Unfinished::Refuse) else {
            return Ok(());
        };
        let is_empty = |recorded: &Recorded| {
            let Recorded { needs, added, outside, .. } = recorded;
            needs.is_empty() && added.is_empty() && outside.is_empty()
        };
        let better = |worse| RecordError::Better { file: file.display().to_string(), worse };
        if !before.is_complete() {
            return Ok(());
        }
        if !self.recorded.incomplete.is_empty() {
            return Err(better("may lack something"));
        }
        if is_empty(&self.recorded) && !is_empty(before.recorded()) {
            return Err(better("has nothing in it"));
        }
        Ok(())
    }

    /// Writes the trace into `file`, and beside it, in `file` with `.cache` behind it, what of the
    /// fetchers' cache the evaluation needs.
    ///
    /// # Errors
    /// When one of the two cannot be written; the trace is there only if both could.
    pub fn write(&self, file: &Path) -> Result<(), RecordError> {
        cache::keep(&self.recorded, self.cache.path(), &cache_beside(file))?;
        self.recorded.write(file, &self.store_dir)?;
        Ok(())
    }
}
