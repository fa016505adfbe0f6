//! What a binary cache says about a path: `.narinfo` files, and the `nix-cache-info` of the cache.

use nix_derivation::NixHash;
use nix_narinfo::NarInfo;
use thiserror::Error;

pub use nix_narinfo::{Compression, MAX_NARINFO_SIZE};

use crate::keys::parse_signature;
use crate::{NarHash, PathInfo, StoreDir, StorePath};

/// A parsed `.narinfo`: a path info, and where the NAR is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narinfo {
    /// The path, and what a store would record about it. Signatures that cannot be any are left
    /// out, as Nix ignores them.
    pub info: PathInfo,
    /// Where the compressed NAR is: a URL, relative to the cache's own.
    pub url: String,
    /// How it is compressed.
    pub compression: Compression,
    /// Hash of the file at `url`. Nix does not check it.
    pub file_hash: Option<NixHash>,
    /// Size of the file at `url` in bytes. Nix does not check it.
    pub file_size: Option<u64>,
}

/// Why something is not a `.narinfo`.
#[derive(Debug, Error)]
#[error("not a narinfo: {reason}")]
pub struct NarinfoError {
    reason: String,
}

/// Where in a cache the `.narinfo` of a path is, relative to its top: `HASH.narinfo`.
#[must_use]
pub fn file_name(path: &StorePath) -> String {
    let basename = path.to_basename();
    let hash = basename.split('-').next().unwrap_or_default();
    format!("{hash}.narinfo")
}

/// Reads a `.narinfo` of at most [`MAX_NARINFO_SIZE`] bytes.
///
/// # Errors
/// When it is not one, is of another store directory, or its NAR hash is not a SHA-256 hash.
pub fn parse(store_dir: &StoreDir, text: &[u8]) -> Result<Narinfo, NarinfoError> {
    let harmless = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    let error =
        |reason: String| NarinfoError { reason: reason.chars().take(300).map(harmless).collect() };
    let parsed = NarInfo::parse_in(store_dir, text).map_err(|source| error(source.to_string()))?;
    let NixHash::Sha256(nar_hash) = *parsed.nar_hash() else {
        return Err(error(format!("its NAR hash is of {}", parsed.nar_hash().algorithm())));
    };
    let mut signatures: Vec<_> = parsed
        .signatures()
        .iter()
        .filter_map(|signature| parse_signature(&signature.to_nix_string()).ok())
        .collect();
    signatures.sort();
    signatures.dedup();
    Ok(Narinfo {
        info: PathInfo {
            path: parsed.store_path().clone(),
            nar_hash: NarHash(nar_hash),
            nar_size: parsed.nar_size(),
            references: parsed.references().iter().cloned().collect(),
            deriver: parsed.deriver().cloned(),
            ca: parsed.content_address().cloned(),
            signatures,
        },
        url: parsed.url().to_owned(),
        compression: parsed.compression().clone(),
        file_hash: parsed.file_hash().cloned(),
        file_size: parsed.file_size(),
    })
}

/// The store directory that a `nix-cache-info` names, if it names one: lines `NAME: VALUE`, of
/// which those that are not understood are passed over, as Nix does.
#[must_use]
pub fn store_dir_of_cache(cache_info: &[u8]) -> Option<String> {
    String::from_utf8_lossy(cache_info)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == "StoreDir")
        .map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/00000000000000000000000000000000-tool-1.0";

    /// A narinfo with every field, made up.
    fn text() -> String {
        let hash = NarHash::of(b"nar");
        let signature = "A".repeat(86) + "==";
        format!(
            "StorePath: {PATH}\nURL: nar/x.nar.xz\nCompression: xz\nFileHash: {hash}\n\
             FileSize: 7\nNarHash: {hash}\nNarSize: 3\n\
             References: 11111111111111111111111111111111-library-2.0 \
             00000000000000000000000000000000-tool-1.0\n\
             Deriver: 22222222222222222222222222222222-tool-1.0.drv\n\
             Sig: b:{signature}\nSig: not one\nSig: a:{signature}\nSomethingNew: 1\n"
        )
    }

    #[test]
    fn a_narinfo_is_a_path_info_and_the_place_of_a_nar() {
        let store_dir = StoreDir::default();
        let narinfo = parse(&store_dir, text().as_bytes()).unwrap();
        let info = &narinfo.info;
        assert_eq!(store_dir.render_path(&info.path), PATH);
        assert_eq!(info.references.len(), 2);
        assert!(info.references.is_sorted() && info.references.contains(&info.path));
        assert_eq!((info.nar_size, info.nar_hash), (3, NarHash::of(b"nar")));
        assert!(info.deriver.as_ref().unwrap().is_derivation());
        let names: Vec<&str> = info.signatures.iter().map(|sig| sig.key_name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((narinfo.url.as_str(), narinfo.file_size), ("nar/x.nar.xz", Some(7)));
        assert_eq!(narinfo.compression, Compression::Xz);
        assert_eq!(file_name(&info.path), "00000000000000000000000000000000.narinfo");
    }

    #[test]
    fn what_is_no_narinfo_or_of_another_store_is_refused() {
        let refused = |text: &str| {
            let error = parse(&StoreDir::default(), text.as_bytes()).unwrap_err().to_string();
            assert!(error.len() < 500, "{error}");
            error
        };
        assert!(refused("<html>\n").contains("line 1"));
        assert!(refused(&text().replace("NarSize: 3", "")).contains("NarSize"));
        assert!(refused(&text().replace("/nix/store", "/gnu/store")).contains("StorePath"));
        let sha1 = text().replace("NarHash: sha256:", "NarHash: sha1:");
        assert!(refused(&sha1).contains("NarHash"));
        refused(&"x".repeat(10_000));
    }

    #[test]
    fn a_cache_names_its_store_directory_or_does_not() {
        let found = store_dir_of_cache(b"WantMassQuery: 1\nStoreDir:  /gnu/store \n");
        assert_eq!(found.as_deref(), Some("/gnu/store"));
        assert_eq!(store_dir_of_cache(b"Priority: 40\n"), None);
    }
}
