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

/// The NAR hash that the `.narinfo` of `path` states, looked for and not read with all the rest.
/// Nothing where it does not look as everybody writes it: then only [`parse`] tells what it is.
#[must_use]
pub fn nar_hash_of(store_dir: &StoreDir, path: &StorePath, text: &[u8]) -> Option<NarHash> {
    let text = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n');
    let named = lines.next()?.strip_prefix("StorePath: ")?.strip_prefix(store_dir.as_str())?;
    if named.strip_prefix('/')? != path.to_basename() {
        return None;
    }
    let mut hashes = lines.filter_map(|line| line.strip_prefix("NarHash: "));
    let hash = NarHash::parse(hashes.next()?).ok()?;
    hashes.next().is_none().then_some(hash)
}

impl Narinfo {
    /// The text of the `.narinfo`, with its fields in Nix's order.
    ///
    /// # Errors
    /// When no reader could make sense of it: an empty URL, a NAR of no bytes.
    pub fn render(&self, store_dir: &StoreDir) -> Result<Vec<u8>, NarinfoError> {
        let info = &self.info;
        let nar_hash = NixHash::Sha256(info.nar_hash.0);
        NarInfo::builder_in(
            store_dir.clone(),
            info.path.clone(),
            self.url.clone(),
            nar_hash,
            info.nar_size,
        )
        .compression(self.compression.clone())
        .references(info.references.iter().cloned())
        .deriver(info.deriver.clone())
        .signatures(info.signatures.iter().cloned())
        .content_address(info.ca.clone())
        .file_hash(self.file_hash.clone())
        .file_size(self.file_size)
        .build()
        .map(|narinfo| narinfo.to_canonical_bytes())
        .map_err(|source| NarinfoError { reason: source.to_string() })
    }
}

/// A cache's `nix-cache-info`: lines `NAME: VALUE`, of which those that are not understood are
/// passed over, as Nix does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheInfo {
    /// The directory that its paths begin with.
    pub store_dir: Option<String>,
    /// Whether Nix may ask it for very many paths at a time.
    pub want_mass_query: Option<bool>,
    /// Among several caches, Nix asks the one with the least number first.
    pub priority: Option<u32>,
}

impl CacheInfo {
    /// Reads it.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut info = Self::default();
        for line in String::from_utf8_lossy(text).lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name {
                "StoreDir" => info.store_dir = Some(value.to_owned()),
                "WantMassQuery" => info.want_mass_query = Some(value == "1"),
                "Priority" => info.priority = value.parse().ok(),
                _ => {}
            }
        }
        info
    }

    /// Its text, with a line for each thing that it says.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text.push_str(&format!("{name}: {value}\n"));
        if let Some(store_dir) = &self.store_dir {
            line("StoreDir", store_dir.clone());
        }
        if let Some(want) = self.want_mass_query {
            line("WantMassQuery", u8::from(want).to_string());
        }
        if let Some(priority) = self.priority {
            line("Priority", priority.to_string());
        }
        text
    }
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
    fn a_nar_hash_is_found_in_the_narinfo_of_its_path_alone() {
        let store_dir = StoreDir::default();
        let path = store_dir.parse_path(PATH.as_bytes()).unwrap();
        let found = |path, text: &str| nar_hash_of(&store_dir, path, text.as_bytes());
        assert_eq!(found(&path, &text()), Some(NarHash::of(b"nar")));
        let other = StorePath::from_parts([0; 20], "tool-2.0").unwrap();
        assert_eq!(found(&other, &text()), None);
        let line = format!("NarHash: {}\n", NarHash::of(b"nar"));
        let text = text();
        for odd in [
            text.replace("/nix/store/", "/gnu/store/"),
            text.replace(&line, ""),
            text.replace(&line, &line.repeat(2)),
            text.replace(&line, "NarHash: sha1:0000\n"),
            text.strip_suffix('\n').unwrap().to_owned(),
            format!("URL: x\n{text}"),
            String::new(),
        ] {
            assert_eq!(found(&path, &odd), None, "{odd}");
        }
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
    fn what_is_rendered_is_what_was_parsed() {
        let store_dir = StoreDir::default();
        let narinfo = parse(&store_dir, text().as_bytes()).unwrap();
        let rendered = narinfo.render(&store_dir).unwrap();
        assert_eq!(parse(&store_dir, &rendered).unwrap(), narinfo);
        let names: Vec<String> = String::from_utf8(rendered)
            .unwrap()
            .lines()
            .map(|line| line.split(':').next().unwrap().to_owned())
            .collect();
        let expected = [
            "StorePath",
            "URL",
            "Compression",
            "FileHash",
            "FileSize",
            "NarHash",
            "NarSize",
            "References",
            "Deriver",
            "Sig",
            "Sig",
        ];
        assert_eq!(names, expected);
        assert!(Narinfo { url: String::new(), ..narinfo }.render(&store_dir).is_err());
    }

    #[test]
    fn a_cache_says_something_about_itself_or_does_not() {
        let found =
            CacheInfo::parse(b"WantMassQuery: 1\nStoreDir:  /gnu/store \nNew: x\nPriority: 7\n");
        let expected = CacheInfo {
            store_dir: Some("/gnu/store".to_owned()),
            want_mass_query: Some(true),
            priority: Some(7),
        };
        assert_eq!(found, expected);
        assert_eq!(CacheInfo::parse(found.render().as_bytes()), found);
        assert_eq!(CacheInfo::parse(b"Priority: high\n<html>\n"), CacheInfo::default());
    }
}
