//! What can go wrong with a binary cache.

use std::io;

use ferry_formats::narinfo::NarinfoError;
use ferry_store::Error;
use ferry_store::http::{HttpError, Tries};
use ferry_store::message::{Begins, beginning};
use thiserror::Error as ThisError;

use crate::place::Place;

/// Why a binary cache could not be read or written.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum CacheError {
    /// An address that is not understood.
    #[error("`{address}` is not the address of a binary cache: {reason}")]
    BadAddress {
        /// What was given, without passwords.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A bucket of S3 refused something, and said why.
    #[error("{method} {url}: S3 answers {status} {code}: {message}{}", Tries(*.attempts))]
    S3 {
        /// What was asked for.
        url: String,
        /// How.
        method: &'static str,
        /// The status code.
        status: u16,
        /// What S3 calls it: `NoSuchBucket`.
        code: String,
        /// What it says about it, made harmless.
        message: String,
        /// How often it was asked for.
        attempts: u32,
    },
    /// What a bucket of S3 answers cannot be understood, or it cannot be asked.
    #[error("{url}: {reason}")]
    Bucket {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// There are no keys to sign requests with.
    #[error("{cache}: there are no keys to sign requests with: {reason}")]
    NoCredentials {
        /// Its address.
        cache: String,
        /// Why not.
        reason: String,
    },
    /// There is something else, or nothing.
    #[error("{cache} is not a binary cache: it has no `nix-cache-info`")]
    NotACache {
        /// Its address.
        cache: String,
    },
    /// It would take a list of what is in it, or taking something away.
    #[error(
        "{cache}: a cache on the web cannot be listed, and nothing can be removed from it; use it where its files are"
    )]
    NoListing {
        /// Its address.
        cache: String,
    },
    /// What an earlier check is said to have found cannot be used.
    #[error("{file} cannot be used to go on from: {reason}")]
    BadState {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
    },
    /// What should be an index of a cache is none.
    #[error("{url}: {reason}")]
    BadIndex {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Whoever takes things away from a bucket has to be awake.
    #[error(
        "{cache}: this program stood still for so long that others take it for dead; nothing more is removed"
    )]
    Asleep {
        /// Its address.
        cache: String,
    },
    /// Nothing would be left.
    #[error("{cache}: nothing of what is to be kept is in it, so nothing is removed")]
    NothingKept {
        /// Its address.
        cache: String,
    },
    /// It is of another store.
    #[error("binary cache {cache} is of paths below {found}, not below {expected}")]
    OtherStore {
        /// Its address.
        cache: String,
        /// The directory that its paths begin with.
        found: String,
        /// The directory that they should begin with.
        expected: String,
    },
    /// What should be a narinfo is none.
    #[error("{url}: {reason}{}", Begins(.beginning))]
    BadNarinfo {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// How it begins, made harmless.
        beginning: String,
    },
    /// What should say what became of an output does not.
    #[error("{url}: {reason}{}", Begins(.beginning))]
    BadRealisation {
        /// Where it is.
        url: String,
        /// What is wrong with it.
        reason: String,
        /// How it begins, made harmless.
        beginning: String,
    },
    /// A narinfo is about another path.
    #[error("{url} is about {found}, and should be about {expected}")]
    OtherPath {
        /// Where it is.
        url: String,
        /// The path in it.
        found: String,
        /// The path that was asked about.
        expected: String,
    },
    /// A narinfo says that its NAR is somewhere where no NAR of this cache can be.
    #[error("path {path}: its narinfo has the URL `{url}`: {reason}")]
    BadUrl {
        /// The path.
        path: String,
        /// The URL, made harmless.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A method of compression that is not known here.
    #[error("path {path}: its NAR is compressed with `{method}`, which cannot be read here")]
    UnknownCompression {
        /// The path.
        path: String,
        /// Its name.
        method: String,
    },
    /// A narinfo is there, and the NAR that it names is not.
    #[error("path {path}: there is a narinfo, but no NAR at {url}")]
    NoNar {
        /// The path.
        path: String,
        /// Where it should be.
        url: String,
    },
    /// The file with a NAR is not what its narinfo says.
    #[error("path {path}: {url}: {reason}")]
    BadNar {
        /// The path.
        path: String,
        /// Where the file is.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file with a NAR could not be read to its end.
    #[error("path {path}: {reason}")]
    Unread {
        /// The path.
        path: String,
        /// What happened, and where.
        reason: String,
    },
    /// A path info that no narinfo can hold.
    #[error("path {path} cannot be put into a binary cache: {reason}")]
    Unfit {
        /// The path.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl CacheError {
    /// What should be a narinfo is none.
    pub(crate) fn bad_narinfo(
        place: &Place,
        name: &str,
        error: &NarinfoError,
        text: &[u8],
    ) -> Self {
        let (url, reason) = (place.shown_file(name), error.to_string());
        Self::BadNarinfo { url, reason, beginning: beginning(text) }
    }

    /// For `map_err`: names what was attempted on which file.
    pub(crate) fn io(
        action: &'static str,
        file: impl std::fmt::Display,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_string();
        move |source| Self::Io { action, file, source }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Self {
        match error {
            // The command line has advice about these.
            CacheError::Io { action, file, source } => {
                Self::Io { action: format!("{action} {file}"), source }
            }
            other => Self::other(other),
        }
    }
}
