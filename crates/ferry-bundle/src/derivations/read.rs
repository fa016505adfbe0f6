//! Reads coded derivations, and computes what was left out.

use ferry_formats::derivation::InputDerivationHash;
use ferry_formats::{PathInfo, StoreDir, StorePath, nar};
use ferry_store::Store;

use crate::codec::{Malformed, Take};
use crate::derivations::amounts::Amounts;
use crate::derivations::base::DerivationBase;
use crate::derivations::encode::Encoder;
use crate::derivations::given::{self, Given};
use crate::derivations::lots::Lots;
use crate::derivations::mentions::Reader;
use crate::derivations::model::{Kind, Known, Recipe, Shape, Tables, column, column_of};
use crate::derivations::render::Context;
use crate::derivations::resolve::Likes;
use crate::derivations::settle::text_of;
use crate::derivations::sheet::Columns;
use crate::derivations::side_by_side::Earlier;
use crate::derivations::tokens::{END, check};
use crate::format;
use crate::streams;

/// The coded derivations of a bundle.
#[derive(Default)]
pub(crate) struct Derivations {
    pub(super) tables: Tables,
    pub(super) recipes: Vec<Recipe>,
    /// Those that are not in the bundle (of the base, and given), then those that are coded.
    pub(super) known: Vec<Known>,
    given: usize,
    /// What is said of the given ones, to be said again.
    pub(crate) of_given: Vec<Given>,
    /// The derivations that the base is the closure of.
    pub(crate) base_roots: Vec<StorePath>,
    /// The sources of the base, then the entries of the index.
    pub(super) plain: Vec<Box<str>>,
}

impl Derivations {
    /// The NAR of a derivation that was decoded.
    pub(crate) fn nar(&self, number: usize) -> Result<Vec<u8>, String> {
        let known = self.known.get(self.given + number);
        let (Some(recipe), Some(known)) = (self.recipes.get(number), known) else {
            return Err(format!("no derivation {number}"));
        };
        let earlier = Earlier::new(&self.known);
        let context = Context { tables: &self.tables, plain: &self.plain, known: earlier };
        text_of(&context, recipe, &known.outputs).map(|text| nar::of_file(&text))
    }

    /// The outputs of a derivation with a path known before building.
    pub(crate) fn outputs(&self, number: usize) -> impl Iterator<Item = &str> {
        self.known
            .get(self.given + number)
            .into_iter()
            .flat_map(|known| known.outputs.iter())
            .filter(|output| output.is_path)
            .map(|output| &*output.text)
    }

    /// What stands for derivations that are not in the bundle in those that are.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&StorePath, InputDerivationHash)> {
        self.known.iter().take(self.given).map(|known| (&known.path, known.identity.hash()))
    }

    /// How many were read, with those that are not in the bundle.
    pub(super) fn count(&self) -> usize {
        self.recipes.len() + self.given
    }

    /// Whether a derivation has this output.
    pub(super) fn has_output(&self, derivation: u32, word: u32) -> bool {
        let number = derivation as usize;
        if let Some(known) = self.known.get(number) {
            return known.outputs.iter().any(|output| output.word == word);
        }
        // It was read, and nothing was computed yet.
        let recipe = number.checked_sub(self.given).and_then(|place| self.recipes.get(place));
        let shape = recipe.and_then(|recipe| self.tables.shapes.get(recipe.shape as usize));
        shape.is_some_and(|shape| shape.outputs.iter().any(|(own, _)| *own == word))
    }
}

/// A section that was decoded.
#[derive(Default)]
pub(crate) struct Decoded {
    pub(crate) derivations: Derivations,
    /// Their path infos, in order.
    pub(crate) infos: Vec<PathInfo>,
    /// How many entries of the index have to stand before each.
    pub(crate) paths_before: Vec<u64>,
    /// The paths that the base consists of.
    pub(crate) base_paths: Vec<StorePath>,
    /// What the base adds to what the section may hold.
    pub(super) base: Amounts,
}

/// Why a section cannot be decoded.
pub(crate) enum Failure {
    Malformed(Malformed),
    /// It is coded against these derivations, and there is no store to read them from.
    NoStore(Vec<StorePath>),
    /// It is coded against these derivations, and they cannot be read.
    Store(Vec<StorePath>, Box<ferry_store::Error>),
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Decodes a section: the derivations and their path infos, in order. `plain` are the paths in
/// the index, and `prerequisite` tells which of them are not in the bundle. The base is read from
/// `store`.
pub(crate) fn decode(
    section: &[u8],
    store_dir: &StoreDir,
    plain: &[StorePath],
    prerequisite: impl Fn(usize) -> bool,
    store: Option<&dyn Store>,
) -> Result<Decoded, Failure> {
    let [numbers, texts, digests] = streams::decode::<3>(section)?;
    let mut take = Take::new(&numbers);
    let (mut texts, mut digests) = (Take::new(&texts), Take::new(&digests));
    let prerequisite = |entry: u64| {
        let entry = usize::try_from(entry).ok().filter(|entry| prerequisite(*entry))?;
        plain.get(entry)
    };
    let (given, count) = (take.number()?, take.number()?);
    let names = (take.number()?, take.number()?);
    let roots = take_roots(&mut take, &prerequisite)?;
    let base_roots = roots.clone();
    let (base, mut base_paths) = match roots.is_empty() {
        true => (Encoder::empty(store_dir), Vec::new()),
        false => take_base(roots, digests.array()?, store_dir, store)?,
    };
    let Encoder { tables, known, base, paths: sources, rendered, .. } = base;
    base_paths.extend(sources.iter().cloned());
    let mut decoded = Decoded {
        base: Amounts::of_base(&base),
        base_paths,
        derivations: Derivations {
            tables,
            known,
            plain: rendered,
            base_roots,
            ..Derivations::default()
        },
        ..Decoded::default()
    };
    let entries = plain.len() as u64;
    let paths = format::Amounts { entries: count, references: 0, signatures: 0 };
    let size = section.len() as u64;
    if let Some(excess) = Amounts::new(paths, 0).excess(size, decoded.base) {
        return Ok(take.malformed(excess)?);
    }
    let read = &mut decoded.derivations;
    read.plain.extend(plain.iter().map(|path| Box::from(store_dir.render_path(path))));
    let by_rank = take_names(&mut read.tables, names, &mut texts)?;
    let both = (&mut take, &mut digests);
    let words = &read.tables.words;
    for (given, known) in given::take(given, store_dir, prerequisite, words, size, both)? {
        read.of_given.push(given);
        read.known.push(known);
    }
    read.given = read.known.len();
    let has_base = !base.recipes.is_empty();
    let mut likes = match has_base {
        true => Likes::take(base, entries, &mut take)?,
        false => Likes::none(base),
    };
    take_shapes(count, &mut read.tables, &by_rank, &mut take)?;
    let of_base = likes.base.plain as usize;
    let plain: Vec<StorePath> = sources.into_iter().chain(plain.iter().cloned()).collect();
    let mut columns = Columns::take(&mut take, &mut texts, digests, &by_rank, has_base)?;
    take.finish()?;
    texts.finish()?;
    let (columns_of, likes_of) = (&mut columns, &mut likes);
    let lots =
        Lots { store_dir, plain: &plain, columns: columns_of, likes: likes_of, section: size };
    lots.take(count, &mut decoded)?;
    columns.finish()?;
    likes.finish()?;
    for before in &mut decoded.paths_before {
        // Those of the base are no entries.
        *before = before.saturating_sub(of_base as u64);
    }
    Ok(decoded)
}

/// Reads which derivations the base is made of.
fn take_roots<'a>(
    take: &mut Take<'_>,
    prerequisite: &impl Fn(u64) -> Option<&'a StorePath>,
) -> Result<Vec<StorePath>, Malformed> {
    let mut roots = Vec::new();
    for _ in 0..take.number()? {
        let entry = take.number()?;
        match prerequisite(entry).filter(|path| path.is_derivation()) {
            Some(path) => roots.push(path.clone()),
            None => return take.malformed(format!("entry {entry} cannot be a base")),
        }
    }
    Ok(roots)
}

/// Reads the base, and makes sure that it is the one that the writer had.
fn take_base(
    roots: Vec<StorePath>,
    digest: [u8; 32],
    store_dir: &StoreDir,
    store: Option<&dyn Store>,
) -> Result<(Encoder, Vec<StorePath>), Failure> {
    let Some(store) = store.filter(|store| store.store_dir() == store_dir) else {
        return Err(Failure::NoStore(roots));
    };
    let base = match DerivationBase::read(store, &roots) {
        Ok(base) => base,
        Err(error) => return Err(Failure::Store(roots, error.into())),
    };
    let derivations = base.hashes().iter().map(|(path, _)| path.clone()).collect();
    match base.take().filter(|_| base.digest() == digest) {
        Some(encoder) => Ok((encoder, derivations)),
        None => Err(Malformed {
            position: 0,
            reason: "its base is not what those derivations are made of".to_owned(),
        }
        .into()),
    }
}

/// Reads names of outputs and keys; returns the keys in their order.
fn take_names(
    tables: &mut Tables,
    (words, keys): (u64, u64),
    texts: &mut Take<'_>,
) -> Result<Vec<u32>, Malformed> {
    for _ in 0..words {
        match std::str::from_utf8(texts.until(END)?) {
            Ok(word) => tables.words.push(word.to_owned()),
            Err(_) => return texts.malformed("an output name that is not text"),
        }
    }
    let mut last: Option<Box<[u8]>> = None;
    for _ in 0..keys {
        let key: Box<[u8]> = texts.until(END)?.into();
        if last.is_some_and(|last| *last >= *key) {
            return texts.malformed("keys that are not sorted");
        }
        if check(&key, column::NAME, 0).is_err() || key.iter().any(|byte| *byte < 9) {
            return texts.malformed("a key that cannot be");
        }
        tables.keys.push(key.clone());
        last = Some(key);
    }
    let mut by_rank: Vec<u32> = (0..).take(tables.keys.len()).collect();
    by_rank.sort_by_key(|key| tables.keys.get(*key as usize));
    let key = |number: u32| tables.keys.get(number as usize);
    if by_rank.windows(2).any(|pair| matches!(pair, [a, b] if key(*a) == key(*b))) {
        return texts.malformed("a key that the base has");
    }
    Ok(by_rank)
}

fn take_shapes(
    derivations: u64,
    tables: &mut Tables,
    by_rank: &[u32],
    take: &mut Take<'_>,
) -> Result<(), Malformed> {
    let shapes = take.number()?;
    if shapes > derivations {
        return take.malformed(format!("{shapes} shapes for {derivations} derivations"));
    }
    for _ in 0..shapes {
        let shape = take_shape(tables, by_rank, take)?;
        tables.shapes.push(shape);
    }
    let columns = column::FIRST_KEY + tables.keys.len();
    tables.columns.resize_with(columns, Vec::new);
    Ok(())
}

fn take_shape(tables: &Tables, by_rank: &[u32], take: &mut Take<'_>) -> Result<Shape, Malformed> {
    let mut shape = Shape { outputs: Vec::new(), keys: Vec::new() };
    let mut last: Option<&str> = None;
    for _ in 0..take.number()? {
        let (word, kind) = (take.number()?, take.number()?);
        let name = usize::try_from(word).ok().and_then(|word| tables.words.get(word));
        let (Some(name), Ok(word)) = (name, u32::try_from(word)) else {
            return take.malformed(format!("no output name {word}"));
        };
        if last.replace(name).is_some_and(|last| last >= name.as_str()) {
            return take.malformed("outputs that are not sorted");
        }
        match Kind::from_number(kind) {
            Some(kind) => shape.outputs.push((word, kind)),
            None => return take.malformed(format!("outputs of kind {kind}")),
        }
    }
    let mut next: u64 = 0;
    for _ in 0..take.number()? {
        let rank = next.checked_add(take.number()?);
        let key = rank.and_then(|rank| by_rank.get(usize::try_from(rank).ok()?));
        let (Some(rank), Some(key)) = (rank, key) else {
            return take.malformed("a key that is not there");
        };
        shape.keys.push(*key);
        next = rank + 1;
    }
    Ok(shape)
}

impl Derivations {
    pub(super) fn recipe(
        &mut self,
        current: u32,
        reader: &mut Reader,
        columns: &mut Columns<'_>,
    ) -> Result<Recipe, Malformed> {
        let shape = columns.take_shape(&self.tables)?;
        let of_shape = self.tables.shapes.get(shape as usize);
        let keys = of_shape.map(|shape| shape.keys.as_slice()).unwrap_or_default();
        let keys: Vec<usize> = keys.iter().map(|key| column_of(*key)).collect();
        let mut values = Vec::with_capacity(keys.len() + column::FIRST_KEY);
        let mut mentions = Vec::new();
        for column in (column::NAME..column::FIRST_KEY).chain(keys) {
            let (value, count) = columns.take_string(&mut self.tables, column)?;
            values.push(value);
            for _ in 0..count {
                mentions.push(columns.take_mention(column, current, reader)?);
            }
        }
        let digest = columns.take_digest(&self.tables, shape)?;
        let (extra, dropped) = columns.take_inputs(current, reader)?;
        let (values, mentions) = (values.into(), mentions.into());
        Ok(Recipe { shape, values, mentions, extra, dropped, digest })
    }
}
