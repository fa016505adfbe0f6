//! What a derivation is taken apart into.

use ferry_formats::derivation::{ContentAddressMethod, DerivationModuloHash};
use ferry_formats::{HashAlgorithm, StorePath};

/// Something that a string can mention. Numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// An entry of the index.
    Plain(u32),
    /// The `.drv` file of a coded derivation.
    Derivation(u32),
    /// An output of a coded derivation.
    Output {
        derivation: u32,
        /// The output's name, as the number of a word.
        word: u32,
    },
}

impl Target {
    /// The coded derivation that it is or belongs to.
    pub(crate) fn derivation(self) -> Option<u32> {
        match self {
            Self::Plain(_) => None,
            Self::Derivation(derivation) | Self::Output { derivation, .. } => Some(derivation),
        }
    }
}

/// How an output's path comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    InputAddressed,
    Deferred,
    Fixed(Addressing),
    Floating(Addressing),
    Impure(Addressing),
}

/// How content is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Addressing {
    pub(crate) method: ContentAddressMethod,
    pub(crate) algorithm: HashAlgorithm,
}

/// In the order of their numbers, with what stands for them in a derivation.
const METHODS: [(ContentAddressMethod, &str); 4] = [
    (ContentAddressMethod::Flat, ""),
    (ContentAddressMethod::Nar, "r:"),
    (ContentAddressMethod::Text, "text:"),
    (ContentAddressMethod::Git, "git:"),
];
/// In the order of their numbers, with the length of their digests.
const ALGORITHMS: [(HashAlgorithm, usize); 5] = [
    (HashAlgorithm::Sha256, 32),
    (HashAlgorithm::Sha512, 64),
    (HashAlgorithm::Sha1, 20),
    (HashAlgorithm::Md5, 16),
    (HashAlgorithm::Blake3, 32),
];

impl Addressing {
    fn all() -> impl Iterator<Item = Self> {
        METHODS.into_iter().flat_map(|(method, _)| {
            ALGORITHMS.into_iter().map(move |(algorithm, _)| Self { method, algorithm })
        })
    }

    /// What stands before the algorithm.
    pub(crate) fn prefix(self) -> &'static str {
        METHODS.iter().find(|(method, _)| *method == self.method).map_or("", |(_, prefix)| prefix)
    }

    pub(crate) fn digest_length(self) -> usize {
        ALGORITHMS
            .iter()
            .find(|(algorithm, _)| *algorithm == self.algorithm)
            .map_or(0, |(_, length)| *length)
    }

    /// As it stands in a derivation: `r:sha256`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        Self::all().find(|one| {
            text.strip_prefix(one.prefix().as_bytes()) == Some(one.algorithm.as_str().as_bytes())
        })
    }
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        [Self::InputAddressed, Self::Deferred]
            .into_iter()
            .chain(Addressing::all().map(Self::Fixed))
            .chain(Addressing::all().map(Self::Floating))
            .chain(Addressing::all().map(Self::Impure))
    }

    /// Its number in the file.
    pub(crate) fn number(self) -> u64 {
        Self::all().zip(0..).find(|(kind, _)| *kind == self).map_or(u64::MAX, |(_, number)| number)
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Self::all().nth(usize::try_from(number).ok()?)
    }
}

/// What many derivations have in common: their outputs, and which environment variables they set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Names (numbers of words) and kinds, sorted by name.
    pub(crate) outputs: Vec<(u32, Kind)>,
    /// Numbers of keys, sorted by key.
    pub(crate) keys: Vec<u32>,
}

/// A string with tokens in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Template {
    pub(crate) bytes: Box<[u8]>,
    /// How many things it mentions.
    pub(crate) mentions: u32,
    /// Whether it has no tokens at all.
    pub(crate) is_text: bool,
}

/// The columns that every derivation has; those of the environment's keys follow.
pub(crate) mod column {
    pub(crate) const NAME: usize = 0;
    pub(crate) const SYSTEM: usize = 1;
    pub(crate) const BUILDER: usize = 2;
    pub(crate) const ARGUMENTS: usize = 3;
    pub(crate) const FIRST_KEY: usize = 4;
}

/// The column of a key.
pub(crate) fn column_of(key: u32) -> usize {
    column::FIRST_KEY + key as usize
}

/// The strings that all derivations share.
#[derive(Default)]
pub(crate) struct Tables {
    /// Names of outputs.
    pub(crate) words: Vec<String>,
    /// Keys of environments, as they stand in a derivation.
    pub(crate) keys: Vec<Box<[u8]>>,
    pub(crate) shapes: Vec<Shape>,
    /// The different strings of each column.
    pub(crate) columns: Vec<Vec<Template>>,
}

/// One derivation.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) shape: u32,
    /// The template of each of its columns: the four that all have, then one for each key.
    pub(crate) values: Box<[u32]>,
    /// What they mention, one after the other.
    pub(crate) mentions: Box<[Target]>,
    /// Inputs that no string mentions.
    pub(crate) extra: Box<[Target]>,
    /// What strings mention, and is no input: places in the list of different mentions.
    pub(crate) dropped: Box<[u32]>,
    /// The digest of a fixed output.
    pub(crate) digest: Box<[u8]>,
}

/// What stands for a derivation where it is an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Regular(DerivationModuloHash),
    Fixed(DerivationModuloHash),
    Deferred,
}

/// What was computed for a derivation.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) path: StorePath,
    /// The same with the store directory.
    pub(crate) rendered: Box<str>,
    /// The outputs in the order of the shape.
    pub(crate) outputs: Box<[KnownOutput]>,
    pub(crate) identity: Identity,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownOutput {
    /// Its name, as the number of a word.
    pub(crate) word: u32,
    /// The path with the store directory, or the placeholder that dependents use for it.
    pub(crate) text: Box<str>,
    /// Whether it is a path.
    pub(crate) is_path: bool,
}
