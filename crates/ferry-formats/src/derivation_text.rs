//! The output paths of a derivation checked straight off its text.
//!
//! [`OutputPaths::check`](crate::derivation::OutputPaths::check) parses a derivation and writes it
//! again, twice, to hash it. In a text that is written as Nix writes it, all of that is there
//! already but for the inputs, which hashes stand for, and the output paths, which are blank while
//! they are computed. So this takes the text as it stands wherever it is certain that parsing and
//! writing would give the same, and leaves every other one to the parser.

use std::collections::HashMap;

use nix_derivation::{ContentAddressMethod, DerivationModuloHash, InputDerivationHash};
use sha2::{Digest as _, Sha256};

use crate::base16::{from_hex, put_hex};
use crate::derivation::fixed_output_hash;
use crate::derivation_parts::{Parts, is_escaped_as_nix_does, split};
use crate::{ContentAddress, HashAlgorithm, StoreDir, StorePath};

/// What stands for derivations in their dependents, by the last part of their paths.
pub(crate) type Hashes = HashMap<Box<str>, InputDerivationHash>;

/// A derivation that keeps Nix's rules and states its own output paths.
pub(crate) struct Right {
    /// What stands for it in its dependents.
    pub(crate) hash: InputDerivationHash,
    /// Its outputs, in order.
    pub(crate) outputs: Vec<(String, StorePath)>,
}

/// Checks a derivation of the usual form, all of whose inputs are known; `None` where that cannot
/// be told here, which says nothing against it.
pub(crate) fn check(
    store_dir: &StoreDir,
    path: &StorePath,
    text: &[u8],
    hashes: &Hashes,
) -> Option<Right> {
    let text = std::str::from_utf8(text).ok()?.as_bytes();
    let parts = is_escaped_as_nix_does(text).then(|| split(text)).flatten()?;
    let name = path.name().strip_suffix(".drv")?;
    let prefix = match store_dir.as_str() {
        "/" => "/".to_owned(),
        directory => format!("{directory}/"),
    };
    let text = Text { store_dir, name, prefix: prefix.as_bytes(), text, parts: &parts };
    if !text.is_written_as_nix_does() {
        return None;
    }
    match parts.outputs.as_slice() {
        [[b"out", path, method @ [_, ..], digest]] => text.fixed(path, method, digest),
        _ => text.input_addressed(hashes),
    }
}

struct Text<'a> {
    store_dir: &'a StoreDir,
    name: &'a str,
    /// What store paths begin with.
    prefix: &'a [u8],
    text: &'a [u8],
    parts: &'a Parts<'a>,
}

impl Text<'_> {
    /// Whether the strings are such that the parser would take them, and would write them in the
    /// same order. (Outputs are looked at by whoever knows their kind.)
    fn is_written_as_nix_does(&self) -> bool {
        let Parts { outputs, inputs, sources, system, builder, environment, .. } = self.parts;
        let is_plain = |text: &[u8]| !text.contains(&b'\\');
        is_plain(system)
            && !system.is_empty()
            && !builder.is_empty()
            && !outputs.is_empty()
            && outputs.is_sorted_by(|[a, ..], [b, ..]| a < b)
            && outputs.iter().all(|[name, ..]| is_output_name(name))
            && inputs.is_sorted_by(|(a, _), (b, _)| a < b)
            && inputs.iter().all(|(path, outputs)| {
                path.ends_with(b".drv")
                    && !outputs.is_empty()
                    && outputs.is_sorted_by(|a, b| a < b)
                    && outputs.iter().all(|name| is_output_name(name))
            })
            && sources.is_sorted_by(|a, b| a < b)
            && sources.iter().all(|path| self.is_path(path))
            && environment.is_sorted_by(|(a, _), (b, _)| a < b)
            && environment
                .iter()
                .all(|(key, _)| is_plain(key) && !key.is_empty() && *key != b"__json")
    }

    fn is_path(&self, text: &[u8]) -> bool {
        let basename = text.strip_prefix(self.prefix);
        basename.is_some_and(|basename| StorePath::from_basename(basename).is_ok())
    }

    /// The value of a variable, escapes and all.
    fn value(&self, key: &[u8]) -> Option<&[u8]> {
        let environment = &self.parts.environment;
        let place = environment.binary_search_by(|(other, _)| (*other).cmp(key)).ok()?;
        environment.get(place).map(|(_, value)| *value)
    }

    fn fixed(&self, path: &[u8], method: &[u8], digest: &[u8]) -> Option<Right> {
        let (by, algorithm) = match method.strip_prefix(b"r:") {
            Some(algorithm) => (ContentAddressMethod::Nar, algorithm),
            None => (ContentAddressMethod::Flat, method),
        };
        let algorithm: HashAlgorithm = std::str::from_utf8(algorithm).ok()?.parse().ok()?;
        let bytes = from_hex(digest)?;
        let address = ContentAddress::from_parts(by, algorithm, &bytes).ok()?;
        let computed = self.store_dir.build_ca_path(self.name, &address, [], false).ok()?;
        let rendered = self.store_dir.render_path(&computed);
        // An input need only be named well: nothing of it goes into a fixed output.
        let are_paths = self.parts.inputs.iter().all(|(path, _)| self.is_path(path));
        if !are_paths || path != rendered.as_bytes() || self.value(b"out") != Some(path) {
            return None;
        }
        let hash = fixed_output_hash(std::str::from_utf8(method).ok()?, &bytes, &rendered);
        Some(Right {
            hash: InputDerivationHash::FixedOutput(hash),
            outputs: vec![("out".to_owned(), computed)],
        })
    }

    fn input_addressed(&self, hashes: &Hashes) -> Option<Right> {
        let inputs = self.inputs(hashes)?;
        let computed = self.masked(&inputs)?;
        let mut outputs = Vec::with_capacity(self.parts.outputs.len());
        for [name, path, method, digest] in &self.parts.outputs {
            let output = std::str::from_utf8(name).ok()?;
            let expected = self.store_dir.build_output_path(computed, output, self.name).ok()?;
            let is_right = method.is_empty()
                && digest.is_empty()
                && *path == self.store_dir.render_path(&expected).as_bytes()
                && self.value(name) == Some(*path);
            if !is_right {
                return None;
            }
            outputs.push((output.to_owned(), expected));
        }
        let mut hasher = Sha256::new();
        hasher.update(self.text.get(..self.parts.inputs_at.start)?);
        hasher.update(&inputs);
        hasher.update(self.text.get(self.parts.inputs_at.end..)?);
        let hash = DerivationModuloHash::new(hasher.finalize().into());
        Some(Right { hash: InputDerivationHash::Regular(hash), outputs })
    }

    /// The list of inputs, with what stands for each.
    fn inputs(&self, hashes: &Hashes) -> Option<Vec<u8>> {
        let mut inputs = Vec::with_capacity(self.parts.inputs.len());
        for (path, outputs) in &self.parts.inputs {
            let basename = std::str::from_utf8(path.strip_prefix(self.prefix)?).ok()?;
            let hash = match hashes.get(basename)? {
                InputDerivationHash::Regular(hash) => hash,
                InputDerivationHash::FixedOutput(hash) if outputs.as_slice() == [b"out"] => hash,
                InputDerivationHash::FixedOutput(_) | InputDerivationHash::Deferred => return None,
            };
            inputs.push((hash.as_bytes(), outputs));
        }
        inputs.sort_unstable();
        inputs.dedup();
        // The same derivation by two names, and different outputs of it.
        if inputs.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return None;
        }
        let mut list = Vec::with_capacity(100 * inputs.len());
        list.push(b'[');
        for (place, (hash, outputs)) in inputs.into_iter().enumerate() {
            list.extend_from_slice(if place > 0 { b",(\"" } else { b"(\"" });
            put_hex(&mut list, hash);
            list.extend_from_slice(b"\",[");
            for (place, output) in outputs.iter().enumerate() {
                list.extend_from_slice(if place > 0 { b",\"" } else { b"\"" });
                list.extend_from_slice(output);
                list.push(b'"');
            }
            list.extend_from_slice(b"])");
        }
        list.push(b']');
        Some(list)
    }

    /// The hash of the text without its output paths, which these follow from.
    fn masked(&self, inputs: &[u8]) -> Option<DerivationModuloHash> {
        let Parts { outputs, environment, inputs_at, .. } = self.parts;
        let mut head = b"Derive([".to_vec();
        for (place, [name, ..]) in outputs.iter().enumerate() {
            head.extend_from_slice(if place > 0 { b",(\"" } else { b"(\"" });
            head.extend_from_slice(name);
            head.extend_from_slice(b"\",\"\",\"\",\"\")");
        }
        head.extend_from_slice(b"],");
        let mut hasher = Sha256::new();
        hasher.update(&head);
        hasher.update(inputs);
        let mut from = inputs_at.end;
        for ((key, _), value) in environment.iter().zip(self.parts.values_at()) {
            if outputs.iter().any(|[name, ..]| name == key) {
                hasher.update(self.text.get(from..value.start)?);
                from = value.end;
            }
        }
        hasher.update(self.text.get(from..)?);
        Some(DerivationModuloHash::new(hasher.finalize().into()))
    }
}

/// Whether Nix takes this for the name of an output. (It takes a few more, which nobody has.)
fn is_output_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    !name.is_empty() && name.len() < 100 && name != b"drv" && name.iter().all(is_plain)
}
