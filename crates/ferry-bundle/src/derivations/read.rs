//! Reads coded derivations, and computes what was left out.

use crossbeam_channel::Sender;
use ferry_formats::derivation::InputDerivationHash;
use ferry_formats::keys::{Signature, parse_signature};
use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath, nar};

use crate::codec::{Malformed, Take};
use crate::derivations::amounts::Amounts;
use crate::derivations::given;
use crate::derivations::mentions::Reader;
use crate::derivations::model::{
    Identity, Kind, Known, Recipe, Shape, Tables, Target, Template, column, column_of,
};
use crate::derivations::render::Context;
use crate::derivations::settle::{settle, text_of};
use crate::derivations::tokens::{END, check, is_text};
use crate::format;
use crate::streams;

/// The coded derivations of a bundle.
#[derive(Default)]
pub(crate) struct Derivations {
    tables: Tables,
    recipes: Vec<Recipe>,
    /// Those that are not in the bundle, then those that are coded.
    known: Vec<Known>,
    given: usize,
    plain: Vec<Box<str>>,
}

impl Derivations {
    /// The NAR of a derivation that was decoded.
    pub(crate) fn nar(&self, number: usize) -> Result<Vec<u8>, String> {
        let known = self.known.get(self.given + number);
        let (Some(recipe), Some(known)) = (self.recipes.get(number), known) else {
            return Err(format!("no derivation {number}"));
        };
        let context = Context { tables: &self.tables, plain: &self.plain, known: &self.known };
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
        self.known.iter().take(self.given).map(|known| {
            let hash = match known.identity {
                Identity::Regular(hash) => InputDerivationHash::Regular(hash),
                Identity::Fixed(hash) => InputDerivationHash::FixedOutput(hash),
                Identity::Deferred => InputDerivationHash::Deferred,
            };
            (&known.path, hash)
        })
    }

    /// The kind of path that each mentions: `plain` for entries of the index.
    fn path<'a>(&'a self, target: Target, plain: &'a [StorePath]) -> Option<&'a StorePath> {
        match target {
            Target::Plain(number) => plain.get(number as usize),
            Target::Derivation(number) => self.known.get(number as usize).map(|known| &known.path),
            Target::Output { .. } => None,
        }
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
}

/// How many bytes of text go to be hashed at a time, and how many times that may wait.
const BATCH: usize = 128 << 10;
const AHEAD: usize = 4;

/// The streams of numbers that are read side by side.
struct Columns<'a> {
    shapes: Take<'a>,
    differences: Take<'a>,
    signatures: Take<'a>,
    digests: Take<'a>,
    values: Vec<Take<'a>>,
    mentions: Vec<Take<'a>>,
    texts: Vec<Take<'a>>,
}

/// Decodes a section: the derivations and their path infos, in order. `plain` are the paths in
/// the index, and `prerequisite` tells which of them are not in the bundle.
pub(crate) fn decode(
    section: &[u8],
    store_dir: &StoreDir,
    plain: &[StorePath],
    prerequisite: impl Fn(usize) -> bool,
) -> Result<Decoded, Malformed> {
    let [numbers, texts, digests] = streams::decode::<3>(section)?;
    let mut take = Take::new(&numbers);
    let given = take.number()?;
    let count = take.number()?;
    let paths = format::Amounts { entries: count, references: 0, signatures: 0 };
    if let Some(excess) = Amounts::new(paths, 0).excess(section.len() as u64) {
        return take.malformed(excess);
    }
    let mut texts = Take::new(&texts);
    let mut decoded = Decoded::default();
    decoded.derivations.plain =
        plain.iter().map(|path| store_dir.render_path(path).into()).collect();
    let tables = &mut decoded.derivations.tables;
    take_names(tables, &mut take, &mut texts)?;
    let mut digests = Take::new(&digests);
    let prerequisite = |entry: u64| {
        let entry = usize::try_from(entry).ok().filter(|entry| prerequisite(*entry))?;
        plain.get(entry)
    };
    let size = section.len() as u64;
    let both = (&mut take, &mut digests);
    let known = given::take(given, store_dir, prerequisite, &tables.words, size, both)?;
    take_shapes(count, tables, &mut take)?;
    decoded.derivations.given = known.len();
    decoded.derivations.known = known;
    let mut columns = Columns::take(&mut take, &mut texts, digests, &decoded.derivations.tables)?;
    take.finish()?;
    texts.finish()?;
    // The hashes of the NARs are needed by nothing here: another thread computes them.
    let (texts, hashed) = crossbeam_channel::bounded::<Vec<Vec<u8>>>(AHEAD);
    let (taken, hashes) = std::thread::scope(|scope| {
        let hasher = scope.spawn(move || {
            let texts = hashed.iter().flatten();
            texts.map(|text| NarHash::of(&nar::of_file(&text))).collect::<Vec<_>>()
        });
        let taken = decoded.take_all(count, store_dir, plain, &mut columns, size, &texts);
        drop(texts);
        (taken, hasher.join().unwrap_or_default())
    });
    taken?;
    columns.finish()?;
    if hashes.len() != decoded.infos.len() {
        return Err(Malformed { position: 0, reason: "a thread that hashes ended".to_owned() });
    }
    for (info, hash) in decoded.infos.iter_mut().zip(hashes) {
        info.nar_hash = hash;
    }
    Ok(decoded)
}

fn take_names(
    tables: &mut Tables,
    take: &mut Take<'_>,
    texts: &mut Take<'_>,
) -> Result<(), Malformed> {
    let (words, keys) = (take.number()?, take.number()?);
    for _ in 0..words {
        match std::str::from_utf8(texts.until(END)?) {
            Ok(word) => tables.words.push(word.to_owned()),
            Err(_) => return texts.malformed("an output name that is not text"),
        }
    }
    for _ in 0..keys {
        let key: Box<[u8]> = texts.until(END)?.into();
        if tables.keys.last().is_some_and(|last| *last >= key) {
            return texts.malformed("keys that are not sorted");
        }
        if check(&key, column::NAME, 0).is_err() || key.iter().any(|byte| *byte < 9) {
            return texts.malformed("a key that cannot be");
        }
        tables.keys.push(key);
    }
    Ok(())
}

fn take_shapes(
    derivations: u64,
    tables: &mut Tables,
    take: &mut Take<'_>,
) -> Result<(), Malformed> {
    let shapes = take.number()?;
    if shapes > derivations {
        return take.malformed(format!("{shapes} shapes for {derivations} derivations"));
    }
    for _ in 0..shapes {
        let shape = take_shape(tables, take)?;
        tables.shapes.push(shape);
    }
    let columns = column::FIRST_KEY + tables.keys.len();
    tables.columns.resize_with(columns, Vec::new);
    Ok(())
}

fn take_shape(tables: &Tables, take: &mut Take<'_>) -> Result<Shape, Malformed> {
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
        let key = next.checked_add(take.number()?);
        match key.filter(|key| *key < tables.keys.len() as u64) {
            Some(key) => {
                shape.keys.push(u32::try_from(key).unwrap_or(u32::MAX));
                next = key + 1;
            }
            None => return take.malformed("a key that is not there"),
        }
    }
    Ok(shape)
}

impl<'a> Columns<'a> {
    fn take(
        numbers: &mut Take<'a>,
        texts: &mut Take<'a>,
        digests: Take<'a>,
        tables: &Tables,
    ) -> Result<Self, Malformed> {
        let shapes = numbers.length()?;
        let differences = numbers.length()?;
        let signatures = numbers.length()?;
        let mut lengths = Vec::new();
        for _ in &tables.columns {
            lengths.push([numbers.length()?, numbers.length()?, numbers.length()?]);
        }
        let shapes = numbers.part(shapes)?;
        let differences = numbers.part(differences)?;
        let values =
            lengths.iter().map(|[length, ..]| numbers.part(*length)).collect::<Result<_, _>>()?;
        let mentions =
            lengths.iter().map(|[_, length, _]| numbers.part(*length)).collect::<Result<_, _>>()?;
        let signatures = texts.part(signatures)?;
        let texts =
            lengths.iter().map(|[.., length]| texts.part(*length)).collect::<Result<_, _>>()?;
        Ok(Self { shapes, differences, signatures, digests, values, mentions, texts })
    }

    fn finish(self) -> Result<(), Malformed> {
        [self.shapes, self.differences, self.signatures, self.digests]
            .into_iter()
            .chain(self.values)
            .chain(self.mentions)
            .chain(self.texts)
            .try_for_each(Take::finish)
    }
}

impl Decoded {
    fn take_all(
        &mut self,
        count: u64,
        store_dir: &StoreDir,
        plain: &[StorePath],
        columns: &mut Columns<'_>,
        section: u64,
        texts: &Sender<Vec<Vec<u8>>>,
    ) -> Result<(), Malformed> {
        let unusual = |byte: &u8| matches!(byte, b'"' | b'\\') || *byte < b' ';
        if count > 0 && store_dir.as_str().as_bytes().iter().any(unusual) {
            return columns.shapes.malformed("coded derivations in a directory of such a name");
        }
        let read = &mut self.derivations;
        let mut reader = Reader::default();
        let mut found = format::Amounts { entries: count, references: 0, signatures: 0 };
        let (mut size, mut batch, mut batched) = (0, Vec::new(), 0);
        let given = read.given as u64;
        for current in given..given + count {
            let current = u32::try_from(current).unwrap_or(u32::MAX);
            let recipe = read.recipe(current, &mut reader, columns)?;
            let context = Context { tables: &read.tables, plain: &read.plain, known: &read.known };
            let path = |target| read.path(target, plain).cloned();
            let mut text = Vec::with_capacity(4096);
            let settled =
                settle(store_dir, &path, &context, &recipe, &mut text).or_else(|reason| {
                    columns.shapes.malformed(format!("derivation number {current}: {reason}"))
                })?;
            let mut info = settled.info(&text);
            info.signatures = take_signatures(columns)?;
            size += info.nar_size;
            found.references += info.references.len() as u64;
            found.signatures += info.signatures.len() as u64;
            if let Some(excess) = Amounts::new(found, size).excess(section) {
                return columns.shapes.malformed(excess);
            }
            // A hasher that is gone is noticed by the number of its hashes.
            batched += text.len();
            batch.push(text);
            if batched >= BATCH {
                batched = 0;
                let _ = texts.send(std::mem::take(&mut batch));
            }
            self.infos.push(info);
            self.paths_before.push(settled.paths_before);
            read.known.push(settled.known);
            read.recipes.push(recipe);
            reader.end(current);
        }
        let _ = texts.send(batch);
        Ok(())
    }
}

impl Derivations {
    fn recipe(
        &mut self,
        current: u32,
        reader: &mut Reader,
        columns: &mut Columns<'_>,
    ) -> Result<Recipe, Malformed> {
        let number = columns.shapes.number()?;
        let found = usize::try_from(number).ok().and_then(|shape| self.tables.shapes.get(shape));
        let (Some(shape), Ok(number)) = (found, u32::try_from(number)) else {
            return columns.shapes.malformed(format!("no shape {number}"));
        };
        let keys = shape.keys.iter().map(|key| column_of(*key));
        let words = self.tables.words.len();
        let mut values = Vec::with_capacity(shape.keys.len() + column::FIRST_KEY);
        let mut mentions = Vec::new();
        for place in (column::NAME..column::FIRST_KEY).chain(keys) {
            let (Some(numbers), Some(targets), Some(texts), Some(templates)) = (
                columns.values.get_mut(place),
                columns.mentions.get_mut(place),
                columns.texts.get_mut(place),
                self.tables.columns.get_mut(place),
            ) else {
                return columns.shapes.malformed("a column is missing");
            };
            let value = numbers.number()?;
            let value = match value.checked_sub(1) {
                Some(value) => value,
                None => {
                    let bytes = texts.until(END)?;
                    let mentions =
                        check(bytes, place, words).or_else(|reason| texts.malformed(reason))?;
                    templates.push(Template {
                        bytes: bytes.into(),
                        mentions,
                        is_text: is_text(bytes),
                    });
                    templates.len() as u64 - 1
                }
            };
            let template = usize::try_from(value).ok().and_then(|value| templates.get(value));
            let (Some(template), Ok(value)) = (template, u32::try_from(value)) else {
                return numbers.malformed(format!("no string {value}"));
            };
            values.push(value);
            for _ in 0..template.mentions {
                mentions.push(reader.take(current, targets)?);
            }
        }
        let digest = match shape.outputs.first() {
            Some((_, Kind::Fixed(by))) => columns.digests.exactly(by.digest_length())?,
            _ => &[],
        };
        let mut extra = Vec::new();
        for _ in 0..columns.differences.number()? {
            extra.push(reader.take(current, &mut columns.differences)?);
        }
        let mut dropped = Vec::new();
        for _ in 0..columns.differences.number()? {
            let place = columns.differences.number()?;
            dropped.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        Ok(Recipe {
            shape: number,
            values: values.into(),
            mentions: mentions.into(),
            extra: extra.into(),
            dropped: dropped.into(),
            digest: digest.into(),
        })
    }
}

fn take_signatures(columns: &mut Columns<'_>) -> Result<Vec<Signature>, Malformed> {
    let mut signatures = Vec::new();
    for _ in 0..columns.differences.number()? {
        let bytes = columns.signatures.until(END)?;
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        match parse_signature(text) {
            Ok(signature) => signatures.push(signature),
            Err(source) => return columns.signatures.malformed(format!("signature: {source}")),
        }
    }
    Ok(signatures)
}
