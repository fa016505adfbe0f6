//! The hashes under which a store keeps what became of a derivation's outputs.
//!
//! An output whose path is not known before it is built (of a floating content-addressed
//! derivation, or of one that reads such outputs) gets its path from a *realisation*. Nix up to
//! 2.34 files it under the output's name and the hash of the derivation's text, in which every
//! input derivation is replaced by *its* hash and what depends on the output paths is masked:
//! `staticOutputHashes` and `hashDerivationModulo` in Nix's `derivations.cc`. Unlike for the
//! output paths of [`derivation`](crate::derivation), the hash is the same kind of thing
//! whatever the inputs are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use crate::StorePath;
use crate::derivation::{Derivation, Output};

/// Computes the hashes of a graph of derivations, each derivation once.
#[derive(Default)]
pub struct RealisationHashes {
    /// Of derivations as inputs of others; `None` for those that have none.
    inputs: HashMap<StorePath, Option<[u8; 32]>>,
}

impl RealisationHashes {
    /// The hash of a derivation whose output paths are not known before they are built.
    ///
    /// `lookup` gives an input derivation; without it, and where something impure is among the
    /// inputs (whose outputs Nix does not file), the answer is `None`.
    ///
    /// # Errors
    /// What `lookup` fails with.
    pub fn of<E>(
        &mut self,
        derivation: &Derivation,
        lookup: &mut dyn FnMut(&StorePath) -> Result<Option<Derivation>, E>,
    ) -> Result<Option<[u8; 32]>, E> {
        self.learn_inputs(derivation, lookup)?;
        Ok(self.hash(derivation, Outputs::Masked))
    }

    /// Computes the hashes of all inputs that are not known yet, deepest first. Not recursive:
    /// a chain of derivations may be longer than a stack is deep.
    fn learn_inputs<E>(
        &mut self,
        derivation: &Derivation,
        lookup: &mut dyn FnMut(&StorePath) -> Result<Option<Derivation>, E>,
    ) -> Result<(), E> {
        let mut pending = self.unknown_inputs(derivation);
        let mut open: HashMap<StorePath, Derivation> = HashMap::new();
        while let Some(input) = pending.last().cloned() {
            if self.inputs.contains_key(&input) {
                pending.pop();
                continue;
            }
            // Back here, all of its inputs are settled; one that needs itself has no hash.
            let parsed = match open.remove(&input) {
                Some(parsed) => {
                    let hash = self.hash(&parsed, Outputs::AsWritten);
                    self.inputs.insert(input, hash);
                    pending.pop();
                    continue;
                }
                None => lookup(&input)?,
            };
            match parsed {
                Some(parsed) => {
                    pending.extend(self.unknown_inputs(&parsed));
                    open.insert(input, parsed);
                }
                None => drop(self.inputs.insert(input, None)),
            }
        }
        Ok(())
    }

    fn unknown_inputs(&self, derivation: &Derivation) -> Vec<StorePath> {
        // A fixed output follows from its own content address alone.
        if derivation.is_fixed_output().unwrap_or(false) {
            return Vec::new();
        }
        let inputs = derivation.input_derivations().keys();
        inputs.filter(|input| !self.inputs.contains_key(*input)).cloned().collect()
    }

    fn hash(&self, derivation: &Derivation, outputs: Outputs) -> Option<[u8; 32]> {
        if derivation.outputs().values().any(|output| matches!(output, Output::Impure { .. })) {
            return None;
        }
        if derivation.is_fixed_output().ok()? {
            let hash = derivation.hash_input_derivation_modulo(|_| [0; 32]).ok()?;
            return hash.fixed_output_hash().map(|hash| *hash.as_bytes());
        }
        let mut inputs: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (path, input) in derivation.input_derivations() {
            // What is read of outputs of outputs does not count.
            for output in input.outputs() {
                let hash = (*self.inputs.get(path)?)?;
                inputs.entry(base16(&hash)).or_default().insert(output);
            }
        }
        Some(Sha256::digest(text(derivation, &inputs, outputs)?).into())
    }
}

/// A hash as Nix writes it in `Realisations`: `sha256:` and 64 hexadecimal digits.
#[must_use]
pub fn render(hash: &[u8; 32]) -> String {
    format!("sha256:{}", base16(hash))
}

fn base16(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is hashed in place of the outputs of a derivation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outputs {
    /// What stands there.
    AsWritten,
    /// Nothing: neither paths nor the placeholders that stand in for them in the environment.
    Masked,
}

/// The text of a derivation with other inputs.
fn text(
    derivation: &Derivation,
    inputs: &BTreeMap<String, BTreeSet<&str>>,
    outputs: Outputs,
) -> Option<Vec<u8>> {
    let text = derivation.to_aterm_bytes();
    let outputs_start = text.iter().position(|byte| *byte == b'[')?;
    let inputs_start = list_end(&text, outputs_start)? + 1;
    let inputs_end = list_end(&text, inputs_start)?;
    let mut changed = text.get(..inputs_start)?.to_vec();
    let rendered: Vec<String> = inputs
        .iter()
        .map(|(hash, names)| {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("(\"{hash}\",[{}])", names.join(","))
        })
        .collect();
    changed.extend_from_slice(format!("[{}]", rendered.join(",")).as_bytes());
    let mut rest = text.get(inputs_end..)?.to_vec();
    if outputs == Outputs::Masked {
        for name in derivation.outputs().keys() {
            mask(&mut rest, name);
        }
    }
    changed.extend_from_slice(&rest);
    Some(changed)
}

/// Empties the environment variable of an output.
fn mask(text: &mut Vec<u8>, name: &str) {
    // Inside a string there is a backslash before every quotation mark; and where a string ends
    // in `(`, no name follows.
    let entry = format!("(\"{name}\",\"");
    let Some(found) = text.windows(entry.len()).position(|window| window == entry.as_bytes())
    else {
        return;
    };
    let start = found + entry.len();
    if let Some(length) = text.get(start..).and_then(string_length) {
        text.drain(start..start + length);
    }
}

/// How long a string is; `text` begins behind its opening quotation mark.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => *byte == b'"',
    })
}

/// Where the list that begins at `start` ends.
fn list_end(text: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut position = start;
    loop {
        match text.get(position)? {
            b'[' => depth += 1,
            b']' => depth = depth.checked_sub(1)?,
            b'"' => position += 1 + string_length(text.get(position + 1..)?)?,
            _ => {}
        }
        position += 1;
        if depth == 0 {
            return Some(position);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{StoreDir, derivation};

    fn parse(name: &str, text: &str) -> (StorePath, Derivation) {
        let path = StorePath::from_parts([u8::try_from(name.len()).unwrap(); 20], name).unwrap();
        let parsed = derivation::parse(&StoreDir::default(), &path, text.as_bytes()).unwrap();
        (path, parsed)
    }

    const FIXED: &str = r#"Derive([("out","/nix/store/21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-fixed","sha256","d51e6afabb54ff8daed5ebf6ba3d8f39a5d9e8ef87d1e1f0c9dc1a71d9a1e0a1")],[],[],"x","/b",[],[("out","/nix/store/21ms7ghwn3cz7qfanbs3xyg5wm36a4y2-fixed")])"#;

    /// An input-addressed derivation whose environment holds what looks like an output's.
    fn plain(input: &StorePath) -> String {
        let input = StoreDir::default().render_path(input);
        format!(
            r#"Derive([("dev","/nix/store/k4s9igj8f1ky3591r43zpsr4zz5ydlsb-p-dev","",""),("out","/nix/store/k8sqsvs6ia9r8nqp4mw7rm45n1c44gj6-p","","")],[("{input}",["out"])],[],"x","/b",["[(\"out\",\"x\")","("],[("dev","/nix/store/k4s9igj8f1ky3591r43zpsr4zz5ydlsb-p-dev"),("k","[(\"out\",\"no\\"),("out","/nix/store/k8sqsvs6ia9r8nqp4mw7rm45n1c44gj6-p")])"#
        )
    }

    #[test]
    fn as_inputs_derivations_have_the_hashes_that_output_paths_are_made_from() {
        let (fixed_path, fixed) = parse("fixed.drv", FIXED);
        let (_, plain) = parse("p.drv", &plain(&fixed_path));
        let mut hashes = RealisationHashes::default();
        hashes.learn_inputs(&plain, &mut |_| Ok::<_, Infallible>(Some(fixed.clone()))).unwrap();
        let fixed_hash = fixed.hash_input_derivation_modulo(|_| [0; 32]).unwrap();
        let expected = plain.hash_input_derivation_modulo(|_| fixed_hash).unwrap();
        let found = hashes.hash(&plain, Outputs::AsWritten);
        assert_eq!(found.as_ref(), expected.regular_hash().map(|hash| hash.as_bytes()));
        assert!(found.is_some());
    }

    #[test]
    fn masking_empties_the_outputs_variables_and_nothing_else() {
        let (fixed_path, _) = parse("fixed.drv", FIXED);
        let written = plain(&fixed_path);
        let (_, plain) = parse("p.drv", &written);
        let inputs = BTreeMap::from([("ab".to_owned(), BTreeSet::from(["out", "dev"]))]);
        let masked = text(&plain, &inputs, Outputs::Masked).unwrap();
        let input = StoreDir::default().render_path(&fixed_path);
        let expected = written
            .replace(&format!(r#"("{input}",["out"])"#), r#"("ab",["dev","out"])"#)
            .replace(
                r#"("dev","/nix/store/k4s9igj8f1ky3591r43zpsr4zz5ydlsb-p-dev"),"#,
                r#"("dev",""),"#,
            )
            .replace(
                r#"("out","/nix/store/k8sqsvs6ia9r8nqp4mw7rm45n1c44gj6-p")])"#,
                r#"("out","")])"#,
            );
        assert_eq!(String::from_utf8(masked).unwrap(), expected);
    }

    #[test]
    fn without_an_input_there_is_no_hash() {
        let (fixed_path, _) = parse("fixed.drv", FIXED);
        let (_, plain) = parse("p.drv", &plain(&fixed_path));
        let mut hashes = RealisationHashes::default();
        assert_eq!(hashes.of(&plain, &mut |_| Ok::<_, Infallible>(None)), Ok(None));
    }

    #[test]
    fn a_derivation_that_needs_itself_has_no_hash_and_no_end() {
        let (path, _) = parse("p.drv", FIXED);
        let (_, plain) = parse("p.drv", &plain(&path));
        let mut hashes = RealisationHashes::default();
        let mut lookup = |_: &StorePath| Ok::<_, Infallible>(Some(plain.clone()));
        assert_eq!(hashes.of(&plain, &mut lookup), Ok(None));
    }
}
