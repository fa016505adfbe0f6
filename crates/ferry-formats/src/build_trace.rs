//! What became of the outputs of derivations: Nix's *realisations*, later its *build trace*.
//!
//! Binary caches keep one file an output, in JSON, in one of two layouts:
//!
//! - up to Nix 2.34 `realisations/sha256:HASH!OUTPUT.doi`, under the hash of the derivation that
//!   [`realisation`] computes. The file repeats that, and says on which other
//!   realisations the output depends (which Nix 2.34 leaves empty).
//! - from Nix 2.35 on `build-trace-v2/NAME.drv/OUTPUT.doi`, under the resolved derivation, with
//!   path and signatures only.
//!
//! Neither follows from the other without all of the derivations, so each is carried as it is.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use thiserror::Error;

use crate::keys::{PublicKey, SecretKey, Signature, parse_signature};
use crate::{StorePath, realisation};

/// The directories of a binary cache that realisations are in.
pub const DIRECTORIES: [&str; 2] = [BY_HASH, BY_PATH];
const BY_HASH: &str = "realisations";
const BY_PATH: &str = "build-trace-v2";
/// How the names of the files end.
const SUFFIX: &str = ".doi";

/// An output of a derivation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrvOutput {
    /// The derivation.
    pub derivation: DrvKey,
    /// The name of the output, usually `out`.
    pub output: String,
}

/// What a derivation is filed under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrvKey {
    /// Its hash, as Nix up to 2.34 has it.
    Hash([u8; 32]),
    /// Its path, as Nix from 2.35 on has it.
    Path(StorePath),
}

/// The path that an output got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// Which output.
    pub id: DrvOutput,
    /// Its path.
    pub path: StorePath,
    /// Signatures over [`Realisation::fingerprint`], sorted.
    pub signatures: Vec<Signature>,
    /// What else was realised, and is referred to by the output. Only where derivations are filed
    /// under their hash.
    pub dependencies: BTreeMap<DrvOutput, StorePath>,
}

/// Why something is not a realisation.
#[derive(Debug, Error)]
#[error("not a realisation: {reason}")]
pub struct RealisationError {
    reason: String,
}

fn bad(reason: impl fmt::Display) -> RealisationError {
    let harmless = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    RealisationError { reason: reason.to_string().chars().take(300).map(harmless).collect() }
}

impl fmt::Display for DrvOutput {
    /// As Nix writes it: `sha256:HASH!OUTPUT`, or `NAME.drv^OUTPUT`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.derivation {
            DrvKey::Hash(hash) => {
                write!(formatter, "{}!{}", realisation::render(hash), self.output)
            }
            DrvKey::Path(path) => write!(formatter, "{}^{}", path.to_basename(), self.output),
        }
    }
}

impl DrvOutput {
    /// An output of a derivation that is filed under this text: `sha256:HASH` or `NAME.drv`.
    ///
    /// # Errors
    /// When it is neither, or the output has a name that no output can have.
    pub fn new(derivation: &str, output: &str) -> Result<Self, RealisationError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
        if output.is_empty() || output.starts_with('.') || !output.bytes().all(allowed) {
            return Err(bad(format_args!("`{output}` is no name of an output")));
        }
        let derivation = match derivation.strip_prefix("sha256:") {
            Some(digits) => DrvKey::Hash(base16(digits).ok_or_else(|| {
                bad(format_args!("`{derivation}` is not a SHA-256 hash in hexadecimal digits"))
            })?),
            None => {
                let path = StorePath::from_basename(derivation.as_bytes()).map_err(bad)?;
                if !path.is_derivation() {
                    return Err(bad(format_args!("`{derivation}` is not a derivation")));
                }
                DrvKey::Path(path)
            }
        };
        Ok(Self { derivation, output: output.to_owned() })
    }

    /// Reads `sha256:HASH!OUTPUT`.
    fn parse(text: &str) -> Result<Self, RealisationError> {
        let (hash, output) =
            text.split_once('!').ok_or_else(|| bad(format_args!("`{text}` has no `!`")))?;
        Self::new(hash, output)
    }

    /// The file of a binary cache that says what became of it.
    #[must_use]
    pub fn file_name(&self) -> String {
        match &self.derivation {
            DrvKey::Hash(_) => format!("{BY_HASH}/{self}{SUFFIX}"),
            DrvKey::Path(path) => {
                format!("{BY_PATH}/{}/{}{SUFFIX}", path.to_basename(), self.output)
            }
        }
    }

    /// The output that a file of a binary cache is about.
    ///
    /// # Errors
    /// When the file is not named as it would be.
    pub fn of_file(name: &str) -> Result<Self, RealisationError> {
        let parts: Vec<&str> = name.strip_suffix(SUFFIX).unwrap_or_default().split('/').collect();
        let found = match parts.as_slice() {
            [BY_HASH, id] => Self::parse(id),
            [BY_PATH, derivation, output] => Self::new(derivation, output),
            _ => Err(bad(format_args!("no file of one is called `{name}`"))),
        };
        found.and_then(|found| match found.file_name() == name {
            true => Ok(found),
            false => Err(bad(format_args!("no file of one is called `{name}`"))),
        })
    }
}

fn base16(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = digits.as_bytes();
    if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl Realisation {
    /// Reads the file of a binary cache that is called `name`, relative to the cache.
    ///
    /// # Errors
    /// When it is not called like one, and as [`parse`](Self::parse).
    pub fn of_file(name: &str, text: &[u8]) -> Result<Self, RealisationError> {
        Self::parse(&DrvOutput::of_file(name)?, text)
    }

    /// Reads the file of a binary cache about `id`.
    ///
    /// # Errors
    /// When it is not one, or is about another output.
    pub fn parse(id: &DrvOutput, text: &[u8]) -> Result<Self, RealisationError> {
        let value: Value = serde_json::from_slice(text).map_err(bad)?;
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        let path = field("outPath").ok_or_else(|| bad("it has no `outPath`"))?;
        let mut dependencies = BTreeMap::new();
        if let DrvKey::Hash(_) = id.derivation {
            let about = field("id").ok_or_else(|| bad("it has no `id`"))?;
            if DrvOutput::parse(about)? != *id {
                return Err(bad(format_args!("it is about {about}")));
            }
            let given = value.get("dependentRealisations").and_then(Value::as_object);
            for (id, path) in given.into_iter().flatten() {
                let path = path.as_str().ok_or_else(|| bad(format_args!("{id} has no path")))?;
                dependencies.insert(DrvOutput::parse(id)?, basename(path)?);
            }
        }
        let given = value.get("signatures").and_then(Value::as_array);
        // What cannot be a signature is passed over, as in a narinfo.
        let signatures = given.into_iter().flatten().filter_map(signature).collect();
        let mut parsed = Self { id: id.clone(), path: basename(path)?, signatures, dependencies };
        parsed.order_signatures();
        Ok(parsed)
    }

    /// The file of a binary cache, as Nix writes it.
    #[must_use]
    pub fn render(&self) -> String {
        let text = |signature: &Signature| json!(signature.to_string());
        let pair = |signature: &Signature| json!({ "keyName": signature.key_name, "sig": signature.encoded });
        match &self.id.derivation {
            DrvKey::Hash(_) => {
                let mut value = self.unsigned();
                if let Some(fields) = value.as_object_mut() {
                    let signatures = self.signatures.iter().map(text).collect();
                    fields.insert("signatures".to_owned(), Value::Array(signatures));
                }
                value.to_string()
            }
            DrvKey::Path(_) => json!({
                "outPath": self.path.to_basename(),
                "signatures": self.signatures.iter().map(pair).collect::<Vec<_>>(),
            })
            .to_string(),
        }
    }

    /// The text that a signature vouches for: JSON without spaces, names in order.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.unsigned().to_string()
    }

    fn unsigned(&self) -> Value {
        match &self.id.derivation {
            DrvKey::Hash(_) => {
                let dependencies: BTreeMap<String, String> = self
                    .dependencies
                    .iter()
                    .map(|(id, path)| (id.to_string(), path.to_basename()))
                    .collect();
                json!({
                    "dependentRealisations": dependencies,
                    "id": self.id.to_string(),
                    "outPath": self.path.to_basename(),
                })
            }
            DrvKey::Path(path) => json!({
                "key": { "drvPath": path.to_basename(), "outputName": self.id.output },
                "value": { "outPath": self.path.to_basename() },
            }),
        }
    }

    /// Whether one of the signatures was made by one of `keys`.
    #[must_use]
    pub fn is_signed_by_any(&self, keys: &[PublicKey]) -> bool {
        let fingerprint = self.fingerprint();
        let verify =
            |signature: &Signature| signature.verify(fingerprint.as_bytes(), keys).unwrap_or(false);
        self.signatures.iter().any(verify)
    }

    /// Adds a signature by `key`, unless it is there already.
    pub fn sign(&mut self, key: &SecretKey) {
        self.signatures.push(key.sign(self.fingerprint().as_bytes()));
        self.order_signatures();
    }

    /// Adds the signatures of another that says the same.
    pub fn add_signatures(&mut self, others: &[Signature]) {
        self.signatures.extend_from_slice(others);
        self.order_signatures();
    }

    fn order_signatures(&mut self) {
        self.signatures.sort();
        self.signatures.dedup();
    }
}

fn basename(text: &str) -> Result<StorePath, RealisationError> {
    StorePath::from_basename(text.as_bytes())
        .map_err(|error| bad(format_args!("`{text}`: {error}")))
}

/// A signature as a text, or as an object of Nix 2.35 and later.
fn signature(value: &Value) -> Option<Signature> {
    let text = match value {
        Value::String(text) => text.clone(),
        _ => format!("{}:{}", value.get("keyName")?.as_str()?, value.get("sig")?.as_str()?),
    };
    parse_signature(&text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The hash and the key pair are made up; the form is that of Nix 2.26.
    fn by_hash() -> (DrvOutput, String) {
        let hash = "0123456789abcdef".repeat(4);
        let id = DrvOutput::new(&format!("sha256:{hash}"), "dev").unwrap();
        let text = format!(
            r#"{{"dependentRealisations":{{"sha256:{}!out":"21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-b"}},"id":"sha256:{hash}!dev","outPath":"k8sqsvs6ia9r8nqp4mw7rm45n1c44gj6-a-dev","signatures":[]}}"#,
            hash.replace('0', "1"),
        );
        (id, text)
    }

    fn by_path() -> (DrvOutput, String) {
        let id = DrvOutput::new("21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a.drv", "out").unwrap();
        let text = r#"{"outPath":"k8sqsvs6ia9r8nqp4mw7rm45n1c44gj6-a","signatures":[]}"#;
        (id, text.to_owned())
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        for (id, text) in [by_hash(), by_path()] {
            let parsed = Realisation::parse(&id, text.as_bytes()).unwrap();
            assert_eq!(parsed.render(), text);
            assert_eq!(DrvOutput::of_file(&id.file_name()).unwrap(), id);
        }
        let (id, _) = by_path();
        let name = "build-trace-v2/21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a.drv/out.doi";
        assert_eq!(id.file_name(), name);
    }

    #[test]
    fn a_signature_is_over_everything_but_signatures() {
        let key = crate::keys::tests::key();
        let public = crate::keys::parse_public_key(&key.public_key_text()).unwrap();
        for (id, text) in [by_hash(), by_path()] {
            let mut realisation = Realisation::parse(&id, text.as_bytes()).unwrap();
            assert!(!realisation.is_signed_by_any(std::slice::from_ref(&public)));
            realisation.sign(&key);
            realisation.sign(&key);
            assert_eq!(realisation.signatures.len(), 1);
            let again = Realisation::parse(&id, realisation.render().as_bytes()).unwrap();
            assert_eq!(again, realisation);
            assert!(again.is_signed_by_any(std::slice::from_ref(&public)));
            let other = StorePath::from_basename(b"21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-b").unwrap();
            let changed = Realisation { path: other, ..again };
            assert!(!changed.is_signed_by_any(std::slice::from_ref(&public)));
        }
    }

    #[test]
    fn what_is_no_realisation_is_refused() {
        let (id, text) = by_hash();
        for bad in [
            "",
            "{}",
            "<html>",
            &text.replace("!dev", "!out"),
            &text.replace("k8sq", "../x"),
            &text.replace("outPath", "path"),
            &text.replace("!out", "out"),
        ] {
            Realisation::parse(&id, bad.as_bytes()).unwrap_err();
        }
        for (derivation, output) in [
            ("sha256:00", "out"),
            ("21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a", "out"),
            ("21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a.drv", "../out"),
            ("21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a.drv", ".."),
            ("../21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-a.drv", "out"),
        ] {
            DrvOutput::new(derivation, output).unwrap_err();
        }
        for name in ["realisations/x.doi", "realisations/a/b.doi", "nar/x", "build-trace-v2/x.doi"]
        {
            DrvOutput::of_file(name).unwrap_err();
        }
    }
}
