//! What can go wrong with an evaluation that travels.

use std::io;
use std::path::PathBuf;

use ferry_formats::nar;
use thiserror::Error;

use crate::facts::TraceError;
use crate::message::harmless;

/// Why an evaluation cannot be taken along, or be laid out again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, with the file it was attempted on.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A file is not what it was when it was evaluated.
    #[error("{} has changed since it was evaluated: its NAR has hash {found}, and had {recorded}", file.display())]
    Changed {
        /// The file or directory.
        file: PathBuf,
        /// The hash in the trace.
        recorded: String,
        /// The hash it has now.
        found: String,
    },
    /// Something that the trace names is not there any more.
    #[error("{} is not there any more, and the recorded evaluation needed it", file.display())]
    Gone {
        /// The file or directory.
        file: PathBuf,
    },
    /// More than may be taken along.
    #[error("the files of the evaluation are larger than {limit} bytes: {} alone has {size}", largest.display())]
    TooLarge {
        /// What takes most, of what the trace names.
        largest: PathBuf,
        /// Its size in bytes, as far as it was looked at.
        size: u64,
        /// How much may be taken along, in bytes.
        limit: u64,
    },
    /// A path in the trace that cannot be a file's.
    #[error("the trace names the file `{file}`, and that is not an absolute path without `..`")]
    BadPath {
        /// What it names.
        file: String,
    },
    /// A directory that was listed has other entries now.
    #[error(
        "{} has changed since it was evaluated: `{}` is gone, or something else: evaluate it again",
        directory.display(),
        harmless(entry)
    )]
    OtherEntries {
        /// The directory.
        directory: PathBuf,
        /// What was in it.
        entry: String,
    },
    /// Git cannot say what it tracks.
    #[error("git cannot tell which files it tracks in {}: {reason}", directory.display())]
    Git {
        /// The working tree.
        directory: PathBuf,
        /// What it says.
        reason: String,
    },
    /// Something of an evaluation that was laid out is wrong.
    #[error("{} is not an evaluation that `ferry load` has laid out: {reason}", directory.display())]
    NotAnEvaluation {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is another evaluation, or something else, where one should be laid out.
    #[error("{} is there already, and is not the evaluation {object}", directory.display())]
    Occupied {
        /// The directory.
        directory: PathBuf,
        /// What should have been laid out.
        object: String,
    },
    /// The NAR of the object is not what it should be.
    #[error("{object}: {reason}")]
    BadObject {
        /// The store path.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Shorthand for this module's results.
pub(super) type Result<T> = std::result::Result<T, EvaluationError>;

impl EvaluationError {
    /// For `map_err`: names what was attempted on which file.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// For `map_err`: a tree that could not be read as a NAR.
    pub(super) fn tree(file: &std::path::Path) -> impl FnOnce(nar::Error) -> Self {
        let action = format!("read {}", file.display());
        move |error| match error {
            nar::Error::Io(source) => Self::Io { action, source },
            other => Self::Io { action, source: io::Error::other(other.to_string()) },
        }
    }
}
