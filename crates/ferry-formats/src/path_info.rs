//! What a store records about one of its paths.

use std::sync::Arc;

use crate::content_address;
use crate::keys::{PublicKey, SecretKey, Signature};
use crate::{ContentAddress, NarHash, StoreDir, StorePath};

/// The metadata that travels with a store path.
///
/// `references` is sorted, has no duplicates, and holds the path itself where the object refers
/// to itself. It is shared by all clones: a set of path infos is mostly references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathInfo {
    /// The path described.
    pub path: StorePath,
    /// Hash of its NAR.
    pub nar_hash: NarHash,
    /// Size of its NAR in bytes.
    pub nar_size: u64,
    /// The store paths that its contents mention.
    pub references: Arc<[StorePath]>,
    /// The derivation that produced it, if the store knows.
    pub deriver: Option<StorePath>,
    /// The claim that the path follows from its content, if it is one.
    pub ca: Option<ContentAddress>,
    /// Signatures over [`PathInfo::fingerprint`].
    pub signatures: Vec<Signature>,
}

impl PathInfo {
    /// The references, the path itself left out: its immediate *run* dependencies.
    pub fn other_references(&self) -> impl Iterator<Item = &StorePath> + Clone {
        self.references.iter().filter(|reference| **reference != self.path)
    }

    /// The text that a signature vouches for: version, path, NAR hash, NAR size and references,
    /// as in Nix's `ValidPathInfo::fingerprint`.
    #[must_use]
    pub fn fingerprint(&self, store_dir: &StoreDir) -> String {
        let references: Vec<String> =
            self.references.iter().map(|reference| store_dir.render_path(reference)).collect();
        format!(
            "1;{};{};{};{}",
            store_dir.render_path(&self.path),
            self.nar_hash,
            self.nar_size,
            references.join(",")
        )
    }

    /// Whether name, references and content address together give exactly this store path. (That
    /// the *content* has this address is checked while the NAR is read.)
    #[must_use]
    pub fn is_content_addressed(&self, store_dir: &StoreDir) -> bool {
        let Some(ca) = &self.ca else { return false };
        let self_reference = self.references.contains(&self.path);
        let references = self.other_references();
        content_address::path(store_dir, self.path.name(), ca, references, self_reference)
            .is_ok_and(|computed| computed == self.path)
    }

    /// Whether one of the signatures was made by one of `keys`.
    #[must_use]
    pub fn is_signed_by_any(&self, store_dir: &StoreDir, keys: &[PublicKey]) -> bool {
        if self.signatures.is_empty() || keys.is_empty() {
            return false;
        }
        let fingerprint = self.fingerprint(store_dir);
        self.signatures
            .iter()
            .any(|signature| signature.verify(fingerprint.as_bytes(), keys).unwrap_or(false))
    }

    /// Adds a signature by `key`; a signature that is already there stays as it is.
    pub fn sign(&mut self, store_dir: &StoreDir, key: &SecretKey) {
        let signature = key.sign(self.fingerprint(store_dir).as_bytes());
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
            self.signatures.sort();
        }
    }
}
