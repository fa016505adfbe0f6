//! Derivations that are not in the bundle, and are inputs of those that are: no text, only what a
//! reader needs of them. They take the numbers before those of the coded derivations.

use ferry_formats::derivation::{
    DerivationModuloHash, InputDerivationHash, downstream_placeholder,
};
use ferry_formats::derivation_parts::split;
use ferry_formats::{StoreDir, StorePath};

use crate::codec::{Malformed, Take, put_number};
use crate::derivations::form::kind_of;
use crate::derivations::model::{Identity, Kind, Known, KnownOutput};
use crate::derivations::settle::{fixed_hash, fixed_path};
use crate::format::limit;

/// What is said of such a derivation.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) path: StorePath,
    /// That of its outputs, or of the first where they differ.
    kind: Kind,
    /// The hash that stands for it, or the digest of its fixed output.
    digest: Box<[u8]>,
    pub(crate) outputs: Vec<GivenOutput>,
}

/// Name and path of an output, as they stand in the text.
#[derive(Clone, Debug)]
pub(crate) struct GivenOutput {
    pub(crate) name: Box<[u8]>,
    path: Box<[u8]>,
}

impl Given {
    /// Of a derivation with this text, where `hash` stands for it; `None` where that is more than
    /// can be said.
    pub(crate) fn new(path: &StorePath, hash: InputDerivationHash, text: &[u8]) -> Option<Self> {
        let parts = split(text);
        let outputs = parts.map(|parts| parts.outputs).unwrap_or_default();
        let (kind, digest): (Kind, Box<[u8]>) = match (hash, outputs.first()) {
            (InputDerivationHash::Regular(hash), Some(_)) => {
                (Kind::InputAddressed, hash.as_bytes().as_slice().into())
            }
            (InputDerivationHash::FixedOutput(_), Some(output)) => kind_of(output)?,
            (InputDerivationHash::Deferred, _) => (Kind::Deferred, Box::default()),
            _ => return None,
        };
        let output = |[name, path, ..]: &[&[u8]; 4]| GivenOutput {
            name: (*name).into(),
            path: (*path).into(),
        };
        let outputs = outputs.iter().map(output);
        Some(Self { path: path.clone(), kind, digest, outputs: outputs.collect() })
    }

    /// What the derivations that mention it know of it; `words` are the numbers of its outputs.
    pub(crate) fn known(&self, store_dir: &StoreDir, words: &[u32]) -> Option<Known> {
        let outputs = self.outputs.iter().zip(words).map(|(GivenOutput { name, path }, word)| {
            let output = match path.is_empty() {
                false => Output::Path(std::str::from_utf8(path).ok()?.into()),
                true => Output::Named(std::str::from_utf8(name).ok()?),
            };
            output.known(&self.path, *word)
        });
        let outputs = outputs.collect::<Option<Box<[_]>>>()?;
        known(store_dir, &self.path, self.kind, &self.digest, outputs).ok()
    }
}

enum Output<'a> {
    Path(Box<str>),
    /// One that is known only when it is built.
    Named(&'a str),
}

impl Output<'_> {
    fn known(self, derivation: &StorePath, word: u32) -> Option<KnownOutput> {
        Some(match self {
            Self::Path(text) => KnownOutput { word, text, is_path: true },
            Self::Named(name) => {
                let text = downstream_placeholder(derivation, [name]).ok()?;
                KnownOutput { word, text: text.into(), is_path: false }
            }
        })
    }
}

fn known(
    store_dir: &StoreDir,
    path: &StorePath,
    kind: Kind,
    digest: &[u8],
    outputs: Box<[KnownOutput]>,
) -> Result<Known, String> {
    let identity = match kind {
        Kind::InputAddressed => {
            let hash: [u8; 32] = digest.try_into().map_err(|_| "a hash of another length")?;
            Identity::Regular(DerivationModuloHash::new(hash))
        }
        Kind::Fixed(by) => {
            let path = fixed_path(store_dir, by, digest, name_of(path))?;
            Identity::Fixed(fixed_hash(by, digest, &store_dir.render_path(&path)))
        }
        Kind::Deferred | Kind::Floating(_) | Kind::Impure(_) => Identity::Deferred,
    };
    let rendered = store_dir.render_path(path).into();
    Ok(Known { path: path.clone(), rendered, outputs, identity })
}

/// The name without `.drv`.
fn name_of(path: &StorePath) -> &str {
    path.name().strip_suffix(".drv").unwrap_or(path.name())
}

/// Writes the list: numbers, and digests. `entries` are the numbers of their entries, ascending;
/// of the outputs those that `used` names are written. Returns how
/// many those are.
pub(crate) fn write<'a>(
    store_dir: &StoreDir,
    given: impl Iterator<Item = (&'a Given, &'a Known, u32)>,
    used: impl Fn(&Known, &KnownOutput) -> bool,
    (numbers, digests): (&mut Vec<u8>, &mut Vec<u8>),
) -> u64 {
    let (mut next, mut count) = (0, 0);
    for (given, known, entry) in given {
        put_number(numbers, u64::from(entry - next));
        next = entry + 1;
        put_number(numbers, given.kind.number());
        digests.extend(&given.digest);
        let mut outputs: Vec<&KnownOutput> =
            known.outputs.iter().filter(|output| used(known, output)).collect();
        outputs.sort_by_key(|output| output.word);
        put_number(numbers, outputs.len() as u64);
        count += outputs.len() as u64;
        for output in outputs {
            put_number(numbers, u64::from(output.word));
            if given.kind == Kind::InputAddressed
                && let Ok(path) = store_dir.parse_path(output.text.as_bytes())
            {
                digests.extend(path.digest());
            }
        }
    }
    count
}

/// The most outputs that the list in a section of so many bytes may have.
pub(crate) fn most_outputs(section: u64) -> u64 {
    section.saturating_mul(8).saturating_add(limit::REFERENCES_SLACK)
}

/// Reads the list of `count` derivations. `path` gives the path of an entry that is a
/// prerequisite.
pub(crate) fn take<'a>(
    count: u64,
    store_dir: &StoreDir,
    path: impl Fn(u64) -> Option<&'a StorePath>,
    words: &[String],
    section: u64,
    (numbers, digests): (&mut Take<'_>, &mut Take<'_>),
) -> Result<Vec<(Given, Known)>, Malformed> {
    let mut found = Vec::new();
    let (mut next, mut outputs_left) = (0u64, most_outputs(section));
    for _ in 0..count {
        let entry = next.checked_add(numbers.number()?);
        let Some((entry, path)) = entry.and_then(|entry| Some((entry, path(entry)?))) else {
            return numbers.malformed("a derivation that is no prerequisite");
        };
        next = entry + 1;
        if !path.is_derivation() {
            return numbers.malformed(format!("{path} among the derivations"));
        }
        let kind = numbers.number()?;
        let Some(kind) = Kind::from_number(kind) else {
            return numbers.malformed(format!("outputs of kind {kind}"));
        };
        let digest = digests.exactly(match kind {
            Kind::InputAddressed => 32,
            Kind::Fixed(by) => by.digest_length(),
            Kind::Deferred | Kind::Floating(_) | Kind::Impure(_) => 0,
        })?;
        let mut outputs: Vec<KnownOutput> = Vec::new();
        let mut of_given = Vec::new();
        for _ in 0..numbers.number()? {
            outputs_left = match outputs_left.checked_sub(1) {
                Some(left) => left,
                None => return numbers.malformed("more outputs than there can be"),
            };
            let word = numbers.number()?;
            let name = usize::try_from(word).ok().and_then(|word| words.get(word));
            let (Some(name), Ok(word)) = (name, u32::try_from(word)) else {
                return numbers.malformed(format!("no output name {word}"));
            };
            if outputs.last().is_some_and(|last| last.word >= word) {
                return numbers.malformed("outputs that are not sorted");
            }
            let known = output_path(store_dir, path, kind, digest, name, digests)?;
            let known = known.map(|path| store_dir.render_path(&path));
            of_given.push(GivenOutput {
                name: name.as_bytes().into(),
                path: known.as_deref().unwrap_or_default().as_bytes().into(),
            });
            let output = match known {
                Some(path) => Output::Path(path.into()),
                None => Output::Named(name),
            };
            match output.known(path, word) {
                Some(output) => outputs.push(output),
                None => return numbers.malformed(format!("an output of {path} that cannot be")),
            }
        }
        let known = known(store_dir, path, kind, digest, outputs.into());
        let known = known.or_else(|reason| numbers.malformed(reason))?;
        let given = Given { path: path.clone(), kind, digest: digest.into(), outputs: of_given };
        found.push((given, known));
    }
    Ok(found)
}

/// The path of an output, where it is known before it is built.
fn output_path(
    store_dir: &StoreDir,
    derivation: &StorePath,
    kind: Kind,
    digest: &[u8],
    output: &str,
    digests: &mut Take<'_>,
) -> Result<Option<StorePath>, Malformed> {
    let name = name_of(derivation);
    let path = match kind {
        Kind::InputAddressed => {
            let digest = digests.array()?;
            let path = match output {
                "out" => StorePath::from_parts(digest, name),
                other => StorePath::from_parts(digest, &format!("{name}-{other}")),
            };
            path.map_err(|error| error.to_string())
        }
        Kind::Fixed(by) if output == "out" => fixed_path(store_dir, by, digest, name),
        Kind::Fixed(_) => Err("a fixed output of another name than out".to_owned()),
        Kind::Deferred | Kind::Floating(_) | Kind::Impure(_) => return Ok(None),
    };
    match path {
        Ok(path) => Ok(Some(path)),
        Err(reason) => digests.malformed(format!("an output of {derivation}: {reason}")),
    }
}
