//! What can go wrong with a store.

use std::io;

use ferry_formats::derivation::DerivationError;
use ferry_graph::{GraphError, Missing};
use thiserror::Error;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the path, offset or address at which it happened. The command line adds what
/// to do next.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, with the file it was attempted on.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A store has no such path.
    #[error("path {path} is not valid in {store}")]
    NotValid {
        /// The path asked for.
        path: String,
        /// The store asked.
        store: String,
    },
    /// A path that would be added refers to something that is neither there nor coming.
    #[error(
        "path {path} refers to {reference}, which is neither in {store} nor among the paths to be added"
    )]
    MissingReference {
        /// The path that would be added.
        path: String,
        /// What it refers to.
        reference: String,
        /// The store it would be added to.
        store: String,
    },
    /// Several paths needed on the other side are not there.
    #[error("{} of the paths needed are not in {store}:\n{}", paths.len(), paths.join("\n"))]
    MissingPaths {
        /// The absent paths.
        paths: Vec<String>,
        /// The store asked.
        store: String,
    },
    /// Something removes paths as fast as they are added.
    #[error(
        "what is copied to {store} is taken away again, time after time: something else removes paths there"
    )]
    TakenAway {
        /// The store.
        store: String,
    },
    /// The destination already holds another object under this path.
    #[error(
        "path {path} is already valid in {store} with NAR hash {present}; the one offered has {offered}"
    )]
    Conflict {
        /// The path.
        path: String,
        /// The store that has it.
        store: String,
        /// NAR hash of what is there.
        present: String,
        /// NAR hash of what was offered.
        offered: String,
    },
    /// No signature by a trusted key, and not content-addressed.
    #[error(
        "path {path} lacks a signature by a trusted key (it is signed by: {})",
        if signed_by.is_empty() { "nobody".to_owned() } else { signed_by.join(", ") }
    )]
    Untrusted {
        /// The path.
        path: String,
        /// Names of the keys that did sign it.
        signed_by: Vec<String>,
    },
    /// The NAR that arrived is not the one described.
    #[error("path {path}: its NAR has hash {found}, and should have {expected}")]
    WrongNarHash {
        /// The path.
        path: String,
        /// The hash in its path info.
        expected: String,
        /// The hash of what was read.
        found: String,
    },
    /// The NAR that arrived is longer or shorter than described.
    #[error("path {path}: its NAR ends after {found} bytes, and should have {expected}")]
    WrongNarSize {
        /// The path.
        path: String,
        /// The size in its path info.
        expected: u64,
        /// The bytes there were.
        found: u64,
    },
    /// A NAR that breaks the format.
    #[error("path {path}: malformed NAR: {reason}")]
    MalformedNar {
        /// The path.
        path: String,
        /// What the decoder met.
        reason: String,
    },
    /// The content does not have the content address that it claims.
    #[error("path {path}: {reason}")]
    WrongContentAddress {
        /// The path.
        path: String,
        /// Claimed and found.
        reason: String,
    },
    /// A derivation that cannot be read or is not valid.
    #[error(transparent)]
    Derivation(#[from] DerivationError),
    /// References go round in a circle that is not a path's reference to itself.
    #[error("the references of {path} lead back to it")]
    ReferenceCycle {
        /// A path on the circle.
        path: String,
    },
    /// The store's database cannot be read or written.
    #[error("database {database}: {reason}")]
    Database {
        /// The database file.
        database: String,
        /// SQLite's message, or what about its contents is wrong.
        reason: String,
    },
    /// A store of a version that is not known here.
    #[error("{store} has schema version {found}; only version {known} can be written")]
    SchemaVersion {
        /// The store.
        store: String,
        /// What its `schema` file says.
        found: String,
        /// The version known.
        known: u32,
    },
    /// The daemon reported an error of its own.
    #[error("{daemon} says: {message}")]
    Daemon {
        /// Which daemon.
        daemon: String,
        /// Its message, with its traces.
        message: String,
    },
    /// The daemon does not speak the protocol as it should.
    #[error("{daemon}: {reason}")]
    Protocol {
        /// Which daemon.
        daemon: String,
        /// What was met.
        reason: String,
    },
    /// Signatures should not be checked, and the daemon would check them all the same.
    #[error("{daemon} does not trust this user, so it checks signatures whatever it is told")]
    NotTrustedByDaemon {
        /// Which daemon.
        daemon: String,
    },
    /// A store address that is not understood.
    #[error("`{uri}` is not a store address: {reason}")]
    BadUri {
        /// What was given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An installable that is not understood, or names nothing.
    #[error("`{installable}`: {reason}")]
    BadInstallable {
        /// What was given.
        installable: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list of store paths with something else in it.
    #[error("{file}, line {line}: {reason}")]
    BadInventory {
        /// The list.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// An inventory in compact form that cannot be used.
    #[error("{file} cannot be used as an inventory: {reason}")]
    UnusableInventory {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that is not what `nix-store --export` writes.
    #[error("export stream {stream} is damaged or is none, at offset {offset}: {reason}")]
    Export {
        /// The file.
        stream: String,
        /// Where, in bytes from the beginning.
        offset: u64,
        /// What was met.
        reason: String,
    },
    /// Facts that an answer takes and nobody has.
    #[error("{}", tell(missing, sources))]
    MissingFacts {
        /// All of them.
        missing: Vec<Missing>,
        /// What was asked.
        sources: String,
    },
    /// The dependency graph has no answer.
    #[error(transparent)]
    Graph(GraphError),
    /// The two ends keep their paths under different directories.
    #[error(
        "{source_store} keeps its paths in {source_dir}, and {destination} in {destination_dir}: paths cannot move between them"
    )]
    StoreDirMismatch {
        /// The store read from.
        source_store: String,
        /// Its logical store directory.
        source_dir: String,
        /// The store written to.
        destination: String,
        /// Its logical store directory.
        destination_dir: String,
    },
    /// A setting in `nix.conf` that cannot be used.
    #[error("{file}: setting `{setting}`: {reason}")]
    Setting {
        /// The file or variable it stands in.
        file: String,
        /// Its name.
        setting: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A failure in another kind of source or destination, with its own message.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        match error {
            // A source of ours says it better itself.
            GraphError::Source { name, source } => match source.downcast::<Self>() {
                Ok(inner) => *inner,
                Err(source) => Self::Graph(GraphError::Source { name, source }),
            },
            GraphError::NoSuchOutput { derivation, output, known } => Self::BadInstallable {
                installable: format!("{derivation}^{output}"),
                reason: format!("its outputs are: {}", known.join(", ")),
            },
            other => Self::Graph(other),
        }
    }
}

/// One fact in a sentence, several in lines.
fn tell(missing: &[Missing], sources: &str) -> String {
    match missing {
        [only] => only.tell(sources),
        several => {
            let lines: Vec<String> = several.iter().map(|fact| fact.tell(sources)).collect();
            format!("{} facts are missing:\n{}", several.len(), lines.join("\n"))
        }
    }
}

impl Error {
    /// For `map_err`: names what was attempted on which file.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Like [`Error::io`], for reading NARs: a store's reader hands its own failures through
    /// [`io::Error`], and they come out again here.
    pub fn reading(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| match source.downcast::<Self>() {
            Ok(inner) => inner,
            Err(source) => Self::Io { action, source },
        }
    }

    /// Like [`Error::io`], for the error type of system calls.
    pub(crate) fn os(action: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source: source.into() }
    }

    /// Wraps the failure of a source or destination that lives in another crate.
    pub fn other(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Other(Box::new(source))
    }
}
