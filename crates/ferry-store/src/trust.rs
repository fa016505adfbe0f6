//! Which signatures count.

use ferry_formats::content_address;
use ferry_formats::keys::PublicKey;
use ferry_formats::{PathInfo, StoreDir};

use crate::{Error, Result};

/// The key of `cache.nixos.org`, which Nix trusts unless told otherwise.
pub const DEFAULT_TRUSTED_PUBLIC_KEY: &str =
    "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Nix's `require-sigs` and `trusted-public-keys`.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    /// Whether a path needs a signature at all.
    pub require_signatures: bool,
    /// The keys of which one must have signed.
    pub trusted_public_keys: Vec<PublicKey>,
}

impl TrustPolicy {
    /// Accepts everything: Nix's `--no-check-sigs`.
    #[must_use]
    pub fn accept_all() -> Self {
        Self { require_signatures: false, trusted_public_keys: Vec::new() }
    }

    /// Whether a path may become valid, as Nix decides it: a content-addressed path proves itself
    /// (its content is checked when it is read), any other needs a signature by a trusted key.
    ///
    /// # Errors
    /// [`Error::Untrusted`].
    pub fn check(&self, store_dir: &StoreDir, info: &PathInfo) -> Result<()> {
        if !self.require_signatures {
            return Ok(());
        }
        let proves_itself = info.ca.as_ref().is_some_and(content_address::can_be_proved)
            && info.is_content_addressed(store_dir);
        if proves_itself || info.is_signed_by_any(store_dir, &self.trusted_public_keys) {
            return Ok(());
        }
        Err(Error::Untrusted {
            path: store_dir.render_path(&info.path),
            signed_by: info.signatures.iter().map(|signature| signature.key_name.clone()).collect(),
        })
    }
}
