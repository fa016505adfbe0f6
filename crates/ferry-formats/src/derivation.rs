//! Derivations: read, written, and their paths computed again.
//!
//! Nothing in a `.drv` path or an output path is information: a `.drv` path is a hash of the
//! file's text, an input-addressed output path a hash of the text with every input derivation
//! replaced by the hash of *its* text, and so on down (`hashDerivationModulo` in Nix's
//! `derivations.cc`). [`OutputPaths`] computes them for a whole graph, which is how a store is
//! kept from accepting a derivation that claims output paths that are not its own.

use std::collections::HashMap;

use nix_derivation::{DerivationBuilder, InputResolutionError};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use nix_derivation::store_path::{downstream_placeholder, hash_placeholder};
pub use nix_derivation::{
    ContentAddressMethod, Derivation, DerivationModuloHash, InputDerivationHash, Output,
};

use crate::base16::put_hex;
use crate::derivation_text::{self, Hashes, Right};
use crate::{StoreDir, StorePath};

/// What is wrong with a derivation. Each message begins with the derivation's path.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DerivationError {
    /// The file is not a derivation.
    #[error("derivation {path} cannot be parsed: {reason}")]
    Parse {
        /// Its store path.
        path: String,
        /// What the parser met.
        reason: String,
    },
    /// The path does not end in `.drv`.
    #[error("{path} is not a derivation: its name does not end in `.drv`")]
    NotADerivation {
        /// The store path.
        path: String,
    },
    /// JSON that is not a derivation, or a derivation that cannot be JSON.
    #[error("derivation {path} as JSON: {reason}")]
    Json {
        /// Its store path or its name, as far as known.
        path: String,
        /// What was met.
        reason: String,
    },
    /// It breaks a rule of Nix's, or claims output paths that are not its own.
    #[error("derivation {path} is not valid: {reason}")]
    Invalid {
        /// Its store path.
        path: String,
        /// Which rule.
        reason: String,
    },
    /// The graph of derivations goes round in a circle.
    #[error("derivation {path} depends on itself")]
    Cycle {
        /// A store path in the circle.
        path: String,
    },
    /// An input derivation is needed to compute output paths, and cannot be had.
    #[error("derivation {path} needs {input} to compute its output paths: {reason}")]
    Input {
        /// The derivation.
        path: String,
        /// The input derivation.
        input: String,
        /// Why it cannot be had.
        reason: String,
    },
}

/// Parses a `.drv` file.
///
/// # Errors
/// When `path` does not name a derivation or `text` is not one.
pub fn parse(
    store_dir: &StoreDir,
    path: &StorePath,
    text: &[u8],
) -> Result<Derivation, DerivationError> {
    let rendered = || store_dir.render_path(path);
    let Some(name) = path.name().strip_suffix(".drv") else {
        return Err(DerivationError::NotADerivation { path: rendered() });
    };
    Derivation::from_aterm_bytes_in(text, name, store_dir.clone())
        .map_err(|source| DerivationError::Parse { path: rendered(), reason: source.to_string() })
}

/// The outputs of a derivation, by name, with the path where it is known before building.
///
/// # Errors
/// When a fixed output's path cannot be computed.
pub fn outputs(
    derivation: &Derivation,
) -> Result<Vec<(String, Option<StorePath>)>, DerivationError> {
    let resolved = derivation.resolved_outputs().map_err(|source| DerivationError::Invalid {
        path: derivation.name().to_owned(),
        reason: source.to_string(),
    })?;
    Ok(resolved.into_iter().map(|(name, output)| (name, output.path)).collect())
}

/// The derivations that `exportReferencesGraph` names. What Nix hands to such a build lists the
/// outputs of every derivation in their closures, so all of those have to be there.
#[must_use]
pub fn exported_derivations(derivation: &Derivation) -> Vec<StorePath> {
    const ATTRIBUTE: &str = "exportReferencesGraph";
    let mut words: Vec<&[u8]> = Vec::new();
    if let Some(value) = derivation.environment().get(ATTRIBUTE) {
        words.extend(value.split(u8::is_ascii_whitespace));
    }
    let structured = derivation.structured_attrs().and_then(|attrs| attrs.get(ATTRIBUTE));
    let mut values: Vec<&serde_json::Value> = structured.into_iter().collect();
    while let Some(value) = values.pop() {
        match value {
            serde_json::Value::String(text) => words.push(text.as_bytes()),
            serde_json::Value::Array(inner) => values.extend(inner),
            serde_json::Value::Object(inner) => values.extend(inner.values()),
            _ => {}
        }
    }
    let mut found: Vec<StorePath> = words
        .into_iter()
        .filter(|word| word.ends_with(b".drv"))
        .filter_map(|word| derivation.store_dir().parse_path(word).ok())
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Whether Nix may substitute its outputs, as far as the derivation says: the attribute
/// `allowSubstitutes`. (The setting `always-allow-substitutes` overrules it.)
#[must_use]
pub fn allows_substitutes(derivation: &Derivation) -> bool {
    const ATTRIBUTE: &str = "allowSubstitutes";
    match derivation.structured_attrs() {
        Some(attributes) => attributes.get(ATTRIBUTE).is_none_or(|value| *value == true),
        None => derivation.environment().get(ATTRIBUTE).is_none_or(|value| value == b"1"),
    }
}

/// The addresses that a fetcher is told to get something from: the attributes `url` and `urls`,
/// each address once. They may begin with `mirror://`, as those of nixpkgs do.
#[must_use]
pub fn fetched_urls(derivation: &Derivation) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    let mut add = |text: &str| {
        for url in text.split_whitespace() {
            if !urls.iter().any(|known| known == url) {
                urls.push(url.to_owned());
            }
        }
    };
    for attribute in ["url", "urls"] {
        match derivation.structured_attrs() {
            Some(attributes) => match attributes.get(attribute) {
                Some(serde_json::Value::String(text)) => add(text),
                Some(serde_json::Value::Array(texts)) => {
                    texts.iter().filter_map(serde_json::Value::as_str).for_each(&mut add);
                }
                _ => {}
            },
            None => {
                let value = derivation.environment().get(attribute);
                add(&String::from_utf8_lossy(value.map(Vec::as_slice).unwrap_or_default()));
            }
        }
    }
    urls
}

/// What stands for a derivation with a fixed output in its dependents, which may be made in any
/// way: `method` is as it stands in the text, such as `r:sha256`.
#[must_use]
pub fn fixed_output_hash(method: &str, digest: &[u8], path: &str) -> DerivationModuloHash {
    let mut text = format!("fixed:out:{method}:").into_bytes();
    put_hex(&mut text, digest);
    text.push(b':');
    text.extend_from_slice(path.as_bytes());
    DerivationModuloHash::new(Sha256::digest(&text).into())
}

/// Computes the output paths of a graph of derivations, each derivation once.
#[derive(Clone, Default)]
pub struct OutputPaths {
    hashes: Hashes,
}

impl OutputPaths {
    /// Takes somebody's word for what stands for a derivation in its dependents.
    pub fn know(&mut self, path: &StorePath, hash: InputDerivationHash) {
        self.hashes.insert(path.to_basename().into(), hash);
    }

    /// What stands for a derivation in its dependents, if it was checked or is known otherwise.
    #[must_use]
    pub fn known(&self, path: &StorePath) -> Option<InputDerivationHash> {
        self.hashes.get(path.to_basename().as_str()).copied()
    }

    /// Checks the text of a derivation as [`check`](Self::check) does, and returns its outputs
    /// with a path known before building. Most texts need not be parsed for that.
    ///
    /// # Errors
    /// As for [`parse`] and [`check`](Self::check).
    pub fn check_text(
        &mut self,
        store_dir: &StoreDir,
        path: &StorePath,
        text: &[u8],
        lookup: &mut dyn FnMut(&StorePath) -> Result<Vec<u8>, String>,
    ) -> Result<Vec<(String, StorePath)>, DerivationError> {
        if let Some(Right { hash, outputs }) =
            derivation_text::check(store_dir, path, text, &self.hashes)
        {
            self.know(path, hash);
            return Ok(outputs);
        }
        let parsed = parse(store_dir, path, text)?;
        self.check(path, &parsed, lookup)?;
        let outputs = outputs(&parsed)?.into_iter();
        Ok(outputs.filter_map(|(name, path)| Some((name, path?))).collect())
    }

    /// Checks that a derivation keeps Nix's rules and that the output paths it states are those
    /// that follow from its content, and remembers what its dependents need.
    ///
    /// Give inputs before their dependents where that is possible; an input that was not given is
    /// asked of `lookup`, which returns the text of a `.drv`.
    ///
    /// # Errors
    /// When the derivation or one of its inputs is wrong or cannot be had.
    pub fn check(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        lookup: &mut dyn FnMut(&StorePath) -> Result<Vec<u8>, String>,
    ) -> Result<(), DerivationError> {
        self.learn_inputs(path, derivation, lookup)?;
        let store_dir = derivation.store_dir();
        let resolve = |input: &StorePath| self.known(input).ok_or(Unknown);
        derivation
            .try_validate_with_input_hashes(resolve)
            .map_err(|source| invalid(store_dir, path, source))?;
        let hash = self.hash(path, derivation)?;
        self.know(path, hash);
        Ok(())
    }

    /// Gives a derivation that was written by hand the output paths that it does not state, and
    /// checks it as [`check`](Self::check) does. Returns its path, too.
    ///
    /// # Errors
    /// As for [`check`](Self::check).
    pub fn complete(
        &mut self,
        derivation: Derivation,
        lookup: &mut dyn FnMut(&StorePath) -> Result<Vec<u8>, String>,
    ) -> Result<(StorePath, Derivation), DerivationError> {
        let path_of = |derivation: &Derivation| {
            derivation.drv_path().map_err(|source| DerivationError::Invalid {
                path: derivation.name().to_owned(),
                reason: source.to_string(),
            })
        };
        let mut path = path_of(&derivation)?;
        let mut complete = derivation;
        if complete.outputs().values().any(|output| *output == Output::Deferred) {
            let stated = complete.clone();
            self.learn_inputs(&path, &complete, lookup)?;
            let resolve = |input: &StorePath| self.known(input).ok_or(Unknown);
            complete = DerivationBuilder::from_derivation(complete)
                .try_build_with_input_hashes(resolve)
                .map_err(|source| invalid(stated.store_dir(), &path, source))?
                .into_derivation();
            path = path_of(&complete)?;
            require_same_variables(&path, &stated, &complete)?;
        }
        self.check(&path, &complete, lookup)?;
        Ok((path, complete))
    }

    fn hash(
        &self,
        path: &StorePath,
        derivation: &Derivation,
    ) -> Result<InputDerivationHash, DerivationError> {
        let resolve = |input: &StorePath| self.known(input).ok_or(Unknown);
        derivation
            .try_hash_input_derivation_modulo(resolve)
            .map_err(|source| invalid(derivation.store_dir(), path, source))
    }

    /// Computes the hashes of all inputs that are not known yet, deepest first. Not recursive:
    /// a chain of derivations may be longer than a stack is deep.
    fn learn_inputs(
        &mut self,
        path: &StorePath,
        derivation: &Derivation,
        lookup: &mut dyn FnMut(&StorePath) -> Result<Vec<u8>, String>,
    ) -> Result<(), DerivationError> {
        let store_dir = derivation.store_dir();
        let mut pending = self.unknown_inputs(path, derivation);
        let mut open: HashMap<StorePath, Derivation> = HashMap::new();
        while let Some((needed_by, input)) = pending.last().cloned() {
            if self.known(&input).is_some() {
                pending.pop();
                continue;
            }
            if let Some(known) = open.get(&input) {
                // Back here with all of its inputs settled, unless it is one of them itself.
                if !self.unknown_inputs(&input, known).is_empty() {
                    let path = store_dir.render_path(&input);
                    return Err(DerivationError::Cycle { path });
                }
                let hash = self.hash(&input, known)?;
                self.know(&input, hash);
                open.remove(&input);
                pending.pop();
                continue;
            }
            let text = lookup(&input).map_err(|reason| DerivationError::Input {
                path: store_dir.render_path(&needed_by),
                input: store_dir.render_path(&input),
                reason,
            })?;
            let parsed = parse(store_dir, &input, &text)?;
            pending.extend(self.unknown_inputs(&input, &parsed));
            open.insert(input, parsed);
        }
        Ok(())
    }

    fn unknown_inputs(
        &self,
        path: &StorePath,
        derivation: &Derivation,
    ) -> Vec<(StorePath, StorePath)> {
        // A fixed output follows from its own content address alone.
        if derivation.is_fixed_output().unwrap_or(false) {
            return Vec::new();
        }
        derivation
            .input_derivations()
            .keys()
            .filter(|input| self.known(input).is_none())
            .map(|input| (path.clone(), input.clone()))
            .collect()
    }
}

/// A variable that states an output's path states the right one.
fn require_same_variables(
    path: &StorePath,
    stated: &Derivation,
    complete: &Derivation,
) -> Result<(), DerivationError> {
    for name in complete.outputs().keys() {
        let value = stated.environment().get(name).filter(|value| !value.is_empty());
        let right = complete.environment().get(name);
        if let Some(value) = value.filter(|value| Some(*value) != right) {
            return Err(DerivationError::Invalid {
                path: complete.store_dir().render_path(path),
                reason: format!(
                    "its variable `{name}` is {}, and should be {}",
                    value.escape_ascii(),
                    right.map(|right| right.escape_ascii().to_string()).unwrap_or_default(),
                ),
            });
        }
    }
    Ok(())
}

/// An input whose hash was not learnt; cannot happen once `learn_inputs` has succeeded.
#[derive(Debug, Error)]
#[error("its hash is not known")]
struct Unknown;

fn invalid(
    store_dir: &StoreDir,
    path: &StorePath,
    source: InputResolutionError<Unknown>,
) -> DerivationError {
    let path = store_dir.render_path(path);
    match source {
        InputResolutionError::Derivation(source) => {
            DerivationError::Invalid { path, reason: source.to_string() }
        }
        InputResolutionError::Resolve { path: input, error } => DerivationError::Input {
            path,
            input: store_dir.render_path(&input),
            reason: error.to_string(),
        },
        other => DerivationError::Invalid { path, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a derivation with these variables says.
    fn said(variables: &str) -> (bool, Vec<String>) {
        let path = "00000000000000000000000000000000-x.drv";
        let output = "/nix/store/00000000000000000000000000000001-x";
        let text = format!(
            r#"Derive([("out","{output}","","")],[],[],"x","b",[],[{variables}("out","{output}")])"#
        );
        let path = StorePath::from_basename(path.as_bytes()).unwrap();
        let parsed = parse(&StoreDir::default(), &path, text.as_bytes()).unwrap();
        (allows_substitutes(&parsed), fetched_urls(&parsed))
    }

    #[test]
    fn attributes_are_read_as_nix_reads_them_structured_or_not() {
        let urls = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>();
        assert_eq!(said(""), (true, urls(&[])));
        let plain =
            r#"("allowSubstitutes","1"),("url","http://a/x"),("urls","http://a/x mirror://b/x"),"#;
        assert_eq!(said(plain), (true, urls(&["http://a/x", "mirror://b/x"])));
        for no in ["", "0", "true"] {
            assert!(!said(&format!(r#"("allowSubstitutes","{no}"),"#)).0, "{no}");
        }
        let json = r#"("__json","{\"allowSubstitutes\":false,\"urls\":[\"http://a/x\",\"http://b/x\"]}"),"#;
        assert_eq!(said(json), (false, urls(&["http://a/x", "http://b/x"])));
    }
}
