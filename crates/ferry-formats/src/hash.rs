//! Digests, a type for each role so that two of them cannot be mixed up.

use std::fmt;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{NixHash, nixbase32};

/// The SHA-256 digest of a store object's NAR serialisation: what a store records for a path and
/// what a signature vouches for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NarHash(pub [u8; 32]);

/// A string that is not the hash of a NAR.
#[derive(Debug, Error)]
#[error("`{text}` is not a SHA-256 hash: {reason}")]
pub struct ParseNarHashError {
    text: String,
    reason: String,
}

impl NarHash {
    /// Parses `sha256:<base16 | base32 | base64>`, `sha256-<base64>` or bare base-16 (the form
    /// that the daemon protocol carries).
    ///
    /// # Errors
    /// When the text is none of these or names another algorithm.
    pub fn parse(text: &str) -> Result<Self, ParseNarHashError> {
        let error =
            |reason: String| ParseNarHashError { text: text.chars().take(128).collect(), reason };
        let parsed = if text.contains([':', '-']) {
            NixHash::parse(text)
        } else {
            NixHash::parse(&format!("sha256:{text}"))
        };
        match parsed {
            Ok(NixHash::Sha256(digest)) => Ok(Self(digest)),
            Ok(other) => Err(error(format!("the algorithm is {}", other.algorithm()))),
            Err(source) => Err(error(source.to_string())),
        }
    }

    /// The hash of bytes already in memory.
    #[must_use]
    pub fn of(nar: &[u8]) -> Self {
        Self(Sha256::digest(nar).into())
    }

    /// Lower-case base-16 without a prefix, as the daemon protocol carries it.
    #[must_use]
    pub fn to_base16(self) -> String {
        let prefixed = NixHash::Sha256(self.0).to_nix_base16_string();
        prefixed.trim_start_matches("sha256:").to_owned()
    }

    /// `sha256-<base64>`, the form that Nix's messages and JSON use.
    #[must_use]
    pub fn to_sri(self) -> String {
        NixHash::Sha256(self.0).to_sri_string()
    }
}

/// `sha256:<base32>`, the form of a `.narinfo` file and of a fingerprint.
impl fmt::Display for NarHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", nixbase32::encode(&self.0))
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A SHA-256 digest being computed, with the number of bytes seen.
#[derive(Clone, Default)]
pub struct NarHasher {
    digest: Sha256,
    size: u64,
}

impl NarHasher {
    /// Takes in the next bytes of the NAR.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Bytes taken in so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(self) -> NarHash {
        NarHash(self.digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_hash_is_the_same_hash() {
        let hash = NarHash::of(b"nar");
        for text in [hash.to_string(), hash.to_base16(), hash.to_sri()] {
            assert_eq!(NarHash::parse(&text).ok(), Some(hash), "{text}");
        }
    }

    #[test]
    fn another_algorithm_is_refused_by_name() {
        let error = NarHash::parse("sha1:0000000000000000000000000000000000000000")
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("the algorithm is sha1"), "{error}");
    }
}
