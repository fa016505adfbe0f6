//! Ed25519 keys and signatures in Nix's text forms.
//!
//! `NAME:BASE64` throughout: 32 bytes for a public key, 64 for a signature, and for a secret key
//! 64 bytes, the seed followed by the public key, as libsodium keeps them. Nix's
//! `nix key generate-secret` and `nix-store --generate-binary-cache-key` write such files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use thiserror::Error;

pub use nix_narinfo::{NixSignature as Signature, TrustedPublicKey as PublicKey};

/// Why a key could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not `NAME:BASE64`.
    #[error("a key has the form `NAME:BASE64`, and this has no name before a `:`")]
    NoName,
    /// What stands before the first colon is no name that can be shown: it may be a secret.
    #[error("this is no secret key, which has the form `NAME:BASE64`")]
    NotAKey,
    /// The part after the colon is not base-64.
    #[error("the part after `{name}:` is not base-64")]
    NotBase64 {
        /// The key's name.
        name: String,
    },
    /// A secret key that is not 64 bytes long.
    #[error(
        "secret key `{name}` is {size} bytes long and should be 64{}",
        if *size == 32 { " (is this the public key?)" } else { "" }
    )]
    WrongSize {
        /// The key's name.
        name: String,
        /// Decoded size in bytes.
        size: usize,
    },
    /// The two halves of a secret key do not belong together.
    #[error("secret key `{name}` is damaged: its public half does not belong to its secret half")]
    Inconsistent {
        /// The key's name.
        name: String,
    },
    /// A public key that cannot be one.
    #[error("`{text}` is not a public key: {reason}")]
    BadPublicKey {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Longest name of a key that is shown where the key is wrong, in bytes.
const LONGEST_NAME_SHOWN: usize = 80;

/// A key that signs.
#[derive(Clone)]
pub struct SecretKey {
    name: String,
    key: SigningKey,
}

impl SecretKey {
    /// Reads the contents of a secret key file; white space around it is ignored.
    ///
    /// # Errors
    /// When it is not `NAME:BASE64` of a consistent 64-byte key. No part of the secret is in the
    /// message.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, encoded) = text.trim().split_once(':').ok_or(KeyError::NoName)?;
        if name.is_empty() {
            return Err(KeyError::NoName);
        }
        let name = name.to_owned();
        let Ok(bytes) = STANDARD.decode(encoded) else {
            return Err(Self::refused(name, |name| KeyError::NotBase64 { name }));
        };
        let Ok(bytes) = <[u8; 64]>::try_from(bytes.as_slice()) else {
            let size = bytes.len();
            return Err(Self::refused(name, |name| KeyError::WrongSize { name, size }));
        };
        match SigningKey::from_keypair_bytes(&bytes) {
            Ok(key) => Ok(Self { name, key }),
            Err(_) => Err(Self::refused(name, |name| KeyError::Inconsistent { name })),
        }
    }

    /// The error about a key, which shows what seems to be its name and nothing else.
    fn refused(name: String, error: impl FnOnce(String) -> KeyError) -> KeyError {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match name.len() <= LONGEST_NAME_SHOWN && name.bytes().all(allowed) {
            true => error(name),
            false => KeyError::NotAKey,
        }
    }

    /// The name that its signatures carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.key.sign(message);
        Signature { key_name: self.name.clone(), encoded: STANDARD.encode(signature.to_bytes()) }
    }

    /// The public key as `NAME:BASE64`, for `trusted-public-keys`.
    #[must_use]
    pub fn public_key_text(&self) -> String {
        format!("{}:{}", self.name, STANDARD.encode(self.key.verifying_key().to_bytes()))
    }
}

/// Why something is not a signature.
#[derive(Debug, Error)]
#[error("`{text}` is not a signature: {reason}")]
pub struct SignatureError {
    text: String,
    reason: &'static str,
}

/// Length of an Ed25519 signature in bytes.
const SIGNATURE_LENGTH: usize = 64;

/// Reads one signature, `NAME:BASE64`. Stores keep several in one text with spaces between them,
/// so a name with a space in it would make the rest unreadable.
///
/// # Errors
/// When it has no name, the name has white space or control characters in it, or the rest is not
/// base-64 of 64 bytes.
pub fn parse_signature(text: &str) -> Result<Signature, SignatureError> {
    let bad = |reason| SignatureError {
        text: text.chars().take(100).flat_map(char::escape_default).collect(),
        reason,
    };
    let Some((name, encoded)) = text.split_once(':') else {
        return Err(bad("it has no name before a `:`"));
    };
    if name.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(bad("its name has white space or control characters in it"));
    }
    match STANDARD.decode(encoded) {
        Ok(bytes) if bytes.len() == SIGNATURE_LENGTH => {}
        _ => return Err(bad("the part after the `:` is not base-64 of 64 bytes")),
    }
    Signature::parse(text).map_err(|_| bad("it is not well-formed"))
}

/// Reads one public key.
///
/// # Errors
/// When it is not `NAME:BASE64` of 32 bytes that are a point of the curve.
pub fn parse_public_key(text: &str) -> Result<PublicKey, KeyError> {
    PublicKey::parse(text).map_err(|source| KeyError::BadPublicKey {
        text: text.chars().take(200).collect(),
        reason: source.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// A key made here from a fixed seed.
    pub(crate) fn key() -> SecretKey {
        let signing = SigningKey::from_bytes(&[7; 32]);
        let text = format!("test-1:{}\n", STANDARD.encode(signing.to_keypair_bytes()));
        SecretKey::parse(&text).unwrap()
    }

    #[test]
    fn a_signature_verifies_with_its_own_key_and_no_other() {
        let key = key();
        let public = parse_public_key(&key.public_key_text()).unwrap();
        let signature = key.sign(b"message");
        assert!(signature.verify(b"message", std::slice::from_ref(&public)).unwrap());
        assert!(!signature.verify(b"massage", &[public]).unwrap());
        assert!(!signature.verify(b"message", &[]).unwrap());
    }

    #[test]
    fn a_key_file_that_is_not_one_says_why_and_never_shows_the_secret() {
        let public = key().public_key_text();
        let error = SecretKey::parse(&public).err().unwrap().to_string();
        assert!(error.contains("is this the public key?"), "{error}");

        let mut bytes = SigningKey::from_bytes(&[7; 32]).to_keypair_bytes();
        bytes[40] ^= 1;
        let damaged = STANDARD.encode(bytes);
        let error = SecretKey::parse(&format!("k:{damaged}")).err().unwrap().to_string();
        assert!(error.contains("does not belong") && !error.contains(&damaged), "{error}");
    }
}
