//! Checking a content address against the NAR that claims it, as the bytes go by.
//!
//! A path with a content address needs no signature, so the claim has to be proved twice: name,
//! references and address must give the store path
//! ([`PathInfo::is_content_addressed`](crate::PathInfo::is_content_addressed)), and the content
//! must have the address. The second half is here, for the methods of Nix's
//! `content-address.cc`: the NAR itself (`fixed:r:`, with the path's own hash part blanked out
//! where it refers to itself, as in `HashModuloSink`), a file's bytes (`fixed:`), and text
//! (`text:`). A Git tree hash cannot be computed from a NAR as it streams by; such a path is
//! treated as one without a content address and needs a signature.

use nix_derivation::NixHasher;
use thiserror::Error;

use crate::base16::put_hex;
use crate::nixbase32;
use crate::{ContentAddress, NarHash, NixHash, PathInfo, StoreDir, StorePath, StorePathError};

/// Length of the hash part of a store path, in characters.
const HASH_PART: usize = 32;

/// The content does not have the address that its path info claims.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContentAddressError {
    /// Another digest than the claimed one.
    #[error("its content address should be {claimed}, and its content has the hash {found}")]
    Mismatch {
        /// The address claimed.
        claimed: String,
        /// What was computed.
        found: String,
    },
    /// An address of a single file, claimed by something else.
    #[error("it claims the content address {claimed} of a plain file, and it is not one")]
    NotAFile {
        /// The address claimed.
        claimed: String,
    },
}

/// Whether a content address of this kind is proof enough, checked as this module does.
#[must_use]
pub fn can_be_proved(ca: &ContentAddress) -> bool {
    !matches!(ca, ContentAddress::Git(_))
}

/// The content address from which a path follows, where nobody has said one: if it is by SHA-256,
/// and the object does not refer to itself. `file` is the digest of the plain file that it is.
///
/// What it finds is true whoever asks: another content has another path.
#[must_use]
pub fn found(
    store_dir: &StoreDir,
    info: &PathInfo,
    file: Option<[u8; 32]>,
) -> Option<ContentAddress> {
    let of_file = file.into_iter().flat_map(|digest| {
        [ContentAddress::Text(digest), ContentAddress::Flat(NixHash::Sha256(digest))]
    });
    let whole = ContentAddress::Nar(NixHash::Sha256(info.nar_hash.0));
    let fits = |ca: &ContentAddress| {
        !info.references.contains(&info.path)
            && path(store_dir, info.path.name(), ca, info.references.iter(), false)
                .is_ok_and(|computed| computed == info.path)
    };
    of_file.chain([whole]).find(fits)
}

/// The path that follows from a name, a content address and references: that of
/// [`StoreDir::build_ca_path`], in a quarter of the time for the two kinds that most paths have.
///
/// # Errors
/// When there is no such path.
pub fn path<'a>(
    store_dir: &StoreDir,
    name: &str,
    ca: &ContentAddress,
    references: impl Iterator<Item = &'a StorePath> + Clone,
    self_reference: bool,
) -> Result<StorePath, StorePathError> {
    let (kind, digest) = match ca {
        ContentAddress::Text(digest) if !self_reference => ("text", digest),
        ContentAddress::Nar(NixHash::Sha256(digest)) => ("source", digest),
        _ => return store_dir.build_ca_path(name, ca, references, self_reference),
    };
    if !references.clone().is_sorted_by(|a, b| a < b) {
        return store_dir.build_ca_path(name, ca, references, self_reference);
    }
    let directory = store_dir.as_str();
    let between = if directory == "/" { "" } else { "/" };
    let mut fingerprint = Vec::with_capacity(2048);
    fingerprint.extend_from_slice(kind.as_bytes());
    for reference in references {
        let hash = nixbase32::encode(reference.digest());
        for part in [":", directory, between, &hash, "-", reference.name()] {
            fingerprint.extend_from_slice(part.as_bytes());
        }
    }
    if self_reference {
        fingerprint.extend_from_slice(b":self");
    }
    fingerprint.extend_from_slice(b":sha256:");
    put_hex(&mut fingerprint, digest);
    for part in [":", directory, ":", name] {
        fingerprint.extend_from_slice(part.as_bytes());
    }
    // Nix folds what is too long (`compressHash` in its `hash.cc`).
    let mut folded = [0; 20];
    for (place, byte) in NarHash::of(&fingerprint).0.into_iter().enumerate() {
        if let Some(folded) = folded.get_mut(place % 20) {
            *folded ^= byte;
        }
    }
    StorePath::from_parts(folded, name)
}

/// Computes a content address from the bytes of a NAR.
pub struct ContentAddressHasher {
    claimed: ContentAddress,
    kind: Kind,
}

enum Kind {
    /// The address is the NAR hash itself, which is computed anyway.
    SameAsNarHash,
    /// Another algorithm over the whole NAR.
    Nar(Box<NixHasher>),
    /// The NAR with every occurrence of the path's own hash part blanked.
    Modulo(Box<Modulo>),
    /// The bytes of the one file in the NAR.
    File(Box<FileBytes>),
    /// Not computed here.
    Unproved,
}

impl ContentAddressHasher {
    /// What it takes to check the content address of `info`, or `None` where it claims none.
    #[must_use]
    pub fn new(info: &PathInfo) -> Option<Self> {
        let claimed = info.ca.clone()?;
        let self_reference = info.references.contains(&info.path);
        let kind = match &claimed {
            ContentAddress::Nar(hash) if self_reference => {
                let basename = info.path.to_basename();
                let own = basename.as_bytes().get(..HASH_PART).unwrap_or_default();
                Kind::Modulo(Box::new(Modulo::new(NixHasher::new(hash.algorithm()), own)))
            }
            ContentAddress::Nar(NixHash::Sha256(_)) => Kind::SameAsNarHash,
            ContentAddress::Nar(hash) => Kind::Nar(Box::new(NixHasher::new(hash.algorithm()))),
            ContentAddress::Flat(_) | ContentAddress::Text(_) => {
                let hasher = NixHasher::new(claimed.hash().algorithm());
                Kind::File(Box::new(FileBytes::new(hasher)))
            }
            ContentAddress::Git(_) => Kind::Unproved,
        };
        Some(Self { claimed, kind })
    }

    /// Takes in the next bytes of the NAR.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.kind {
            Kind::SameAsNarHash | Kind::Unproved => {}
            Kind::Nar(hasher) => hasher.update(bytes),
            Kind::Modulo(modulo) => modulo.update(bytes),
            Kind::File(file) => file.update(bytes),
        }
    }

    /// Compares, once the whole NAR has gone by and has been found to have `nar_hash`.
    ///
    /// # Errors
    /// When the content has another address.
    pub fn finish(self, nar_hash: NarHash) -> Result<(), ContentAddressError> {
        let claimed = self.claimed.to_nix_string();
        let found = match self.kind {
            Kind::Unproved => return Ok(()),
            Kind::SameAsNarHash => NixHash::Sha256(nar_hash.0),
            Kind::Nar(hasher) => hasher.finalize(),
            Kind::Modulo(modulo) => modulo.finish(),
            Kind::File(file) => match file.finish() {
                Some(hash) => hash,
                None => return Err(ContentAddressError::NotAFile { claimed }),
            },
        };
        if found == self.claimed.hash() {
            Ok(())
        } else {
            let found = found.to_nix_nixbase32_string();
            Err(ContentAddressError::Mismatch { claimed, found })
        }
    }
}

/// Hashes a stream in which each occurrence of `own` counts as zeros, then the positions where it
/// stood, as Nix does for objects that mention themselves.
struct Modulo {
    hasher: NixHasher,
    own: Vec<u8>,
    /// Bytes held back because an occurrence may begin in them.
    held: Vec<u8>,
    /// How many bytes went into the hasher.
    hashed: u64,
    positions: Vec<u64>,
}

impl Modulo {
    fn new(hasher: NixHasher, own: &[u8]) -> Self {
        Self { hasher, own: own.to_vec(), held: Vec::new(), hashed: 0, positions: Vec::new() }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = find(self.held.get(from..).unwrap_or_default(), &self.own) {
            let at = from + at;
            self.positions.push(self.hashed + at as u64);
            if let Some(occurrence) = self.held.get_mut(at..at + HASH_PART) {
                occurrence.fill(0);
            }
            from = at + HASH_PART;
        }
        // Keep what may be the beginning of an occurrence that the next bytes complete.
        let settled = self.held.len().saturating_sub(HASH_PART - 1).max(from);
        let settled = settled.min(self.held.len());
        self.hasher.update(self.held.get(..settled).unwrap_or_default());
        self.hashed += settled as u64;
        self.held.drain(..settled);
    }

    fn finish(mut self) -> NixHash {
        self.hasher.update(&self.held);
        for position in &self.positions {
            self.hasher.update(format!("|{position}").as_bytes());
        }
        self.hasher.finalize()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return None;
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// What every NAR of one plain file begins with, up to the length of its contents.
fn file_prefix() -> Vec<u8> {
    let mut prefix = Vec::new();
    for token in ["nix-archive-1", "(", "type", "regular", "contents"] {
        prefix.extend_from_slice(&(token.len() as u64).to_le_bytes());
        prefix.extend_from_slice(token.as_bytes());
        prefix.resize(prefix.len().next_multiple_of(8), 0);
    }
    prefix
}

/// Hashes the contents of the one plain file that a NAR holds.
struct FileBytes {
    hasher: NixHasher,
    /// The NAR's first bytes, until the length of the contents is known.
    head: Vec<u8>,
    prefix: Vec<u8>,
    remaining: Option<u64>,
    is_file: bool,
}

impl FileBytes {
    fn new(hasher: NixHasher) -> Self {
        Self { hasher, head: Vec::new(), prefix: file_prefix(), remaining: None, is_file: true }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        if !self.is_file {
            return;
        }
        if self.remaining.is_none() {
            let wanted = self.prefix.len() + 8 - self.head.len();
            let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.head.extend_from_slice(head);
            bytes = rest;
            let Some((prefix, length)) = self.head.split_at_checked(self.prefix.len()) else {
                return;
            };
            let Ok(length) = <[u8; 8]>::try_from(length) else { return };
            self.is_file = prefix == self.prefix;
            self.remaining = Some(u64::from_le_bytes(length));
            if !self.is_file {
                return;
            }
        }
        if let Some(remaining) = &mut self.remaining {
            let take = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len());
            self.hasher.update(bytes.get(..take).unwrap_or_default());
            *remaining -= take as u64;
        }
    }

    fn finish(self) -> Option<NixHash> {
        (self.is_file && self.remaining == Some(0)).then(|| self.hasher.finalize())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::nar;
    use crate::{HashAlgorithm, StoreDir};
    use nix_derivation::hash_bytes;
    use proptest::prelude::{any, proptest};

    /// Feeds `bytes` in pieces of `step` bytes and reports whether the claim held.
    fn holds(info: &PathInfo, bytes: &[u8], step: usize) -> Result<(), ContentAddressError> {
        let mut hasher = ContentAddressHasher::new(info).unwrap();
        bytes.chunks(step).for_each(|piece| hasher.update(piece));
        hasher.finish(NarHash::of(bytes))
    }

    fn info(name: &str, ca: ContentAddress, nar: &[u8], self_reference: bool) -> PathInfo {
        let store_dir = StoreDir::default();
        let path = store_dir.build_ca_path(name, &ca, [], self_reference).unwrap();
        PathInfo {
            references: if self_reference { [path.clone()].into() } else { [].into() },
            path,
            nar_hash: NarHash::of(nar),
            nar_size: nar.len() as u64,
            deriver: None,
            ca: Some(ca),
            signatures: vec![],
        }
    }

    #[test]
    fn text_and_flat_addresses_are_of_the_bytes_of_the_file() {
        let nar = nar::of_file(b"contents of a file");
        let good = hash_bytes(HashAlgorithm::Sha1, b"contents of a file");
        let bad = hash_bytes(HashAlgorithm::Sha1, b"contents of another");
        for step in [1, 7, 64, 4096] {
            holds(&info("f", ContentAddress::Flat(good.clone()), &nar, false), &nar, step).unwrap();
            let error =
                holds(&info("f", ContentAddress::Flat(bad.clone()), &nar, false), &nar, step);
            assert!(matches!(error, Err(ContentAddressError::Mismatch { .. })));
        }
    }

    proptest! {
        #[test]
        fn paths_are_those_that_the_crate_below_computes(
            references in proptest::collection::vec((any::<[u8; 20]>(), "[a-z.+-]{0,3}[a-z]"), 0..4),
            (digest, kind, itself) in (any::<[u8; 32]>(), 0..4usize, any::<bool>()),
            (name, directory) in ("[a-z.=?]{0,9}", "(/[a-z]{1,5}){1,3}|/"),
        ) {
            let store_dir = StoreDir::new(directory).unwrap();
            let mut references: Vec<StorePath> = references
                .iter()
                .filter_map(|(digest, name)| StorePath::from_parts(*digest, name).ok())
                .collect();
            if kind > 0 {
                references.sort();
            }
            let ca = match kind {
                0 | 1 => ContentAddress::Text(digest),
                2 => ContentAddress::Nar(NixHash::Sha256(digest)),
                _ => ContentAddress::Flat(NixHash::Sha256(digest)),
            };
            let expected = store_dir.build_ca_path(&name, &ca, &references, itself);
            assert_eq!(path(&store_dir, &name, &ca, references.iter(), itself), expected);
        }
    }

    #[test]
    fn a_directory_cannot_claim_the_address_of_a_file() {
        let mut encoder = nar::Encoder::new(Vec::new()).unwrap();
        encoder.start_directory(None).unwrap();
        encoder.end_directory().unwrap();
        let nar = encoder.finish().unwrap();
        let hash = hash_bytes(HashAlgorithm::Sha256, b"");
        let error = holds(&info("d", ContentAddress::Flat(hash), &nar, false), &nar, 16);
        assert!(matches!(error, Err(ContentAddressError::NotAFile { .. })));
    }

    #[test]
    fn self_references_are_blanked_wherever_the_pieces_are_cut() {
        // Two occurrences, one of them right behind the other.
        let own = [b'x'; HASH_PART];
        let mut text = b"before".to_vec();
        text.extend_from_slice(&own);
        text.extend_from_slice(&own);
        text.extend_from_slice(b"after");

        let mut blank = text.clone();
        blank.iter_mut().filter(|byte| **byte == b'x').for_each(|byte| *byte = 0);
        blank.extend_from_slice(b"|6|38");
        let expected = hash_bytes(HashAlgorithm::Sha256, &blank);
        for step in 1..text.len() {
            let mut modulo = Modulo::new(NixHasher::new(HashAlgorithm::Sha256), &own);
            text.chunks(step).for_each(|piece| modulo.update(piece));
            assert_eq!(modulo.finish(), expected, "in pieces of {step}");
        }
    }
}
