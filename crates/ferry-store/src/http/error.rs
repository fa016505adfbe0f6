//! What can go wrong with a request.

use std::fmt;

use thiserror::Error;
use ureq::http::StatusCode;

use crate::message::Begins;

/// Why a request got no answer, or not the one wanted. Passwords in a URL are not shown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The server answered with an error.
    #[error("{method} {url}: the server answers {}{}{}", Meaning(*.status), Tries(*.attempts), Begins(.beginning))]
    Status {
        /// What was asked for.
        url: String,
        /// How: `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
        method: &'static str,
        /// The status code.
        status: u16,
        /// How often it was asked for.
        attempts: u32,
        /// How the answer begins, made harmless.
        beginning: String,
    },
    /// There was no answer, or only a part of one.
    #[error("{method} {url}: {reason}{}", Tries(*.attempts))]
    NoAnswer {
        /// What was asked for.
        url: String,
        /// How: `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
        method: &'static str,
        /// What happened instead.
        reason: String,
        /// How often it was asked for.
        attempts: u32,
    },
    /// The answer is longer than can be right.
    #[error("{method} {url}: the answer is longer than {limit} bytes{}", Begins(.beginning))]
    TooLong {
        /// What was asked for.
        url: String,
        /// How: `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
        method: &'static str,
        /// How many bytes were allowed.
        limit: u64,
        /// How the answer begins, made harmless.
        beginning: String,
    },
    /// Not an address of a web server.
    #[error("`{url}` is not an http or https URL")]
    BadUrl {
        /// What was given.
        url: String,
    },
    /// A setting that cannot be used.
    #[error("HTTP setting `{setting}`: {reason}")]
    Setting {
        /// Which one of [`HttpOptions`](super::HttpOptions).
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl HttpError {
    /// The status code that the server answered with, if that is what went wrong.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The part of a message that says how often it was tried, where that was more than once.
#[derive(Clone, Copy, Debug)]
pub struct Tries(pub u32);

impl fmt::Display for Tries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(formatter, " ({} attempts)", self.0) } else { Ok(()) }
    }
}

/// A status code with what it means.
struct Meaning(u16);

impl fmt::Display for Meaning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match StatusCode::from_u16(self.0).ok().and_then(|status| status.canonical_reason()) {
            Some(meaning) => write!(formatter, "{} {meaning}", self.0),
            None => write!(formatter, "{}", self.0),
        }
    }
}
