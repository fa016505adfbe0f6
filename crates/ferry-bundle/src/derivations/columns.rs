//! Writes coded derivations: strings and numbers of one kind side by side.

use hashbrown::{HashMap, HashSet};

use ferry_formats::keys::Signature;
use ferry_formats::{PathInfo, StoreDir, StorePath};

use crate::codec::put_number;
use crate::derivations::base::Base;
use crate::derivations::differences::Likes;
use crate::derivations::encode::GivenEntry;
use crate::derivations::mentions::Writer;
use crate::derivations::model::{Known, Recipe, Shape, Tables, Target, column, column_of};
use crate::derivations::slots::{Slot, slots};
use crate::derivations::tokens::END;
use crate::derivations::{given, likeness};
use crate::streams;

/// The parts of a column.
#[derive(Default)]
pub(super) struct Column {
    /// Which string, for each derivation: 0 for a new one, or its number and 1.
    pub(super) values: Vec<u8>,
    /// What the strings mention.
    pub(super) mentions: Vec<u8>,
    /// The strings.
    pub(super) texts: Vec<u8>,
    /// How many strings are the base's, which keep their numbers.
    base: u32,
    /// The new numbers of the others.
    numbers: HashMap<u32, u64>,
}

/// What stands beside the coded derivations.
pub(crate) struct Beside {
    pub(crate) store_dir: StoreDir,
    /// Derivations whose numbers stand before theirs.
    pub(crate) given: Vec<GivenEntry>,
    pub(crate) known: Vec<Known>,
    /// How many entries of the index stand before those of the plan.
    pub(crate) prerequisites: u32,
    /// Whose derivations have the first numbers.
    pub(crate) base: Base,
    /// With a base, the paths that plain numbers stand for.
    pub(crate) paths: Vec<StorePath>,
}

impl Beside {
    /// Writes the list of the derivations that are given, with the outputs that are mentioned, and
    /// returns how many outputs those are.
    fn write(&self, recipes: &[Recipe], numbers: &mut Vec<u8>, digests: &mut Vec<u8>) -> u64 {
        let mentioned: HashSet<(&StorePath, u32)> = recipes
            .iter()
            .flat_map(|recipe| recipe.mentions.iter().chain(&recipe.extra))
            .filter_map(|target| match target {
                Target::Output { derivation, word } => {
                    let number = (*derivation as usize).checked_sub(self.base.recipes.len())?;
                    Some((&self.known.get(number)?.path, *word))
                }
                _ => None,
            })
            .collect();
        let given = self.given.iter().zip(&self.known);
        given::write(
            &self.store_dir,
            given.map(|((given, entry), known)| (given, known, *entry)),
            |known, output| mentioned.contains(&(&known.path, output.word)),
            (numbers, digests),
        )
    }
}

/// Writes a section; also returns the places of the derivations in its order.
pub(crate) fn write(
    tables: Tables,
    recipes: Vec<Recipe>,
    beside: &Beside,
    places: &[usize],
    infos: &[PathInfo],
    level: i32,
) -> std::io::Result<(Vec<u8>, Vec<usize>)> {
    let base = &beside.base;
    let before = base.recipes.len() + beside.given.len();
    let first = u32::try_from(before).unwrap_or(u32::MAX);
    let pairs = likeness::pair(&tables, base, &recipes, first, &beside.paths);
    let order = order(&recipes, before, &pairs.of);
    let numbers = Numbers::new(&order, first, places, infos.len(), beside);
    let mut sheet = Sheet::new(&tables, base, numbers, first);
    let mut likes = Likes::new(base, &recipes, first, &pairs);
    for (current, number) in (first..).zip(&order) {
        let (Some(recipe), Some(place)) = (recipes.get(*number), places.get(*number)) else {
            continue;
        };
        sheet.current = current;
        let signed = infos.get(*place).map(|info| info.signatures.as_slice()).unwrap_or_default();
        if !likes.put(*number, recipe, signed, &mut sheet) {
            sheet.put(recipe, signed);
        }
    }

    let mut numbers = Vec::new();
    let mut digests = Vec::new();
    put_number(&mut numbers, beside.given.len() as u64);
    put_number(&mut numbers, order.len() as u64);
    put_number(&mut numbers, (tables.words.len() - base.extent.words) as u64);
    put_number(&mut numbers, (tables.keys.len() - base.extent.keys) as u64);
    base.write_roots(&mut numbers, &mut digests);
    let outputs = beside.write(&recipes, &mut numbers, &mut digests);
    let mut texts = Vec::new();
    for word in tables.words.get(base.extent.words..).unwrap_or_default() {
        texts.extend(word.as_bytes());
        texts.push(END);
    }
    let new_keys = sheet.keys.order.iter().filter(|key| **key as usize >= base.extent.keys);
    for key in new_keys.filter_map(|key| tables.keys.get(*key as usize)) {
        texts.extend(key.iter());
        texts.push(END);
    }
    likes.write(&sheet.numbers, &mut numbers);
    sheet.write(&mut numbers, &mut texts);
    digests.extend(&sheet.digests);
    // Compression has need of the memory.
    drop((sheet, likes));
    drop((tables, recipes, pairs));
    let level = if numbers.len() + texts.len() <= SMALL { level.max(SMALL_LEVEL) } else { level };
    let section = streams::encode(&[&numbers, &texts, &digests], level)?;
    if outputs > given::most_outputs(section.len() as u64) {
        return Err(std::io::Error::other(format!(
            "{outputs} outputs of prerequisites are too many"
        )));
    }
    let places = order.iter().filter_map(|number| places.get(*number).copied()).collect();
    Ok((section, places))
}

/// The numbers that things have in the file.
pub(super) struct Numbers {
    base_plain: u32,
    plain: Vec<u32>,
    derivations: Vec<u32>,
}

impl Numbers {
    fn new(order: &[usize], first: u32, places: &[usize], plan: usize, beside: &Beside) -> Self {
        let before = first as usize;
        let mut derivations: Vec<u32> = (0..).take(before + order.len()).collect();
        for (old, new) in order.iter().zip(first..) {
            if let Some(number) = derivations.get_mut(before + *old) {
                *number = new;
            }
        }
        let plain = plain_numbers(places, plan, beside.prerequisites);
        Self { base_plain: beside.base.plain, plain, derivations }
    }

    /// The number of a path, counted from the first entry of the index.
    pub(super) fn entry(&self, plain: u32) -> u32 {
        let place = plain.checked_sub(self.base_plain);
        place.and_then(|place| self.plain.get(place as usize)).copied().unwrap_or(u32::MAX)
    }

    fn target(&self, target: Target) -> Target {
        match target {
            Target::Plain(number) if number < self.base_plain => target,
            Target::Plain(number) => {
                Target::Plain(self.entry(number).saturating_add(self.base_plain))
            }
            Target::Derivation(number) => Target::Derivation(self.derivation(number)),
            Target::Output { derivation, word } => {
                Target::Output { derivation: self.derivation(derivation), word }
            }
        }
    }

    fn derivation(&self, number: u32) -> u32 {
        self.derivations.get(number as usize).copied().unwrap_or(u32::MAX)
    }
}

/// The streams of a section in the making.
pub(super) struct Sheet<'a> {
    pub(super) tables: &'a Tables,
    pub(super) numbers: Numbers,
    /// The number of the derivation that is written.
    current: u32,
    keys: Keys,
    shapes: Shapes,
    writer: Writer,
    shape_numbers: Vec<u8>,
    pub(super) differences: Vec<u8>,
    pub(super) digests: Vec<u8>,
    signatures: Vec<u8>,
    columns: Vec<Column>,
    has_base: bool,
}

impl<'a> Sheet<'a> {
    fn new(tables: &'a Tables, base: &Base, numbers: Numbers, first: u32) -> Self {
        let of_base = |column| base.extent.templates.get(column).copied().unwrap_or(0);
        let column = |column| Column {
            base: u32::try_from(of_base(column)).unwrap_or(u32::MAX),
            ..Column::default()
        };
        Self {
            tables,
            numbers,
            current: first,
            keys: Keys::sorted(tables),
            shapes: Shapes { base: base.extent.shapes as u64, ..Shapes::default() },
            writer: Writer::new(base.plain),
            shape_numbers: Vec::new(),
            differences: Vec::new(),
            digests: Vec::new(),
            signatures: Vec::new(),
            columns: (0..column_count(tables)).map(column).collect(),
            has_base: !base.recipes.is_empty(),
        }
    }

    /// Adds a derivation that is like none of the base.
    fn put(&mut self, recipe: &Recipe, signed: &[Signature]) {
        self.put_shape(recipe.shape);
        for slot in slots(self.tables, recipe) {
            self.put_string(&slot);
            slot.mentions.iter().for_each(|target| self.put_mention(slot.column, *target));
        }
        self.put_inputs(recipe);
        self.put_signatures(signed);
        self.digests.extend(&recipe.digest);
        self.writer.end(self.current);
    }

    pub(super) fn put_shape(&mut self, shape: u32) {
        self.shapes.put(shape, &mut self.shape_numbers);
    }

    pub(super) fn put_string(&mut self, slot: &Slot<'_>) {
        if let (Some(column), Some(text)) =
            (self.columns.get_mut(slot.column), text(self.tables, slot))
        {
            column.put(slot.value, text);
        }
    }

    pub(super) fn column(&mut self, column: usize) -> Option<&mut Column> {
        self.columns.get_mut(column)
    }

    pub(super) fn put_mention(&mut self, column: usize, target: Target) {
        if let Some(column) = self.columns.get_mut(column) {
            let target = self.numbers.target(target);
            self.writer.put(target, self.current, &mut column.mentions);
        }
    }

    pub(super) fn put_inputs(&mut self, recipe: &Recipe) {
        put_number(&mut self.differences, recipe.extra.len() as u64);
        for extra in &recipe.extra {
            let target = self.numbers.target(*extra);
            self.writer.put(target, self.current, &mut self.differences);
        }
        put_number(&mut self.differences, recipe.dropped.len() as u64);
        let dropped = recipe.dropped.iter();
        dropped.for_each(|place| put_number(&mut self.differences, u64::from(*place)));
    }

    pub(super) fn put_signatures(&mut self, signed: &[Signature]) {
        put_number(&mut self.differences, signed.len() as u64);
        for signature in signed {
            self.signatures.extend(signature.to_nix_string().as_bytes());
            self.signatures.push(END);
        }
    }

    /// The columns in the order of their keys.
    fn in_order(&self) -> impl Iterator<Item = &Column> {
        let keys = self.keys.order.iter().map(|key| column_of(*key));
        (column::NAME..column::FIRST_KEY).chain(keys).filter_map(|column| self.columns.get(column))
    }

    fn write(&self, numbers: &mut Vec<u8>, texts: &mut Vec<u8>) {
        self.shapes.write(self.tables, &self.keys, numbers);
        put_number(numbers, self.shape_numbers.len() as u64);
        put_number(numbers, self.differences.len() as u64);
        put_number(numbers, self.signatures.len() as u64);
        let parts =
            |column: &Column| [column.values.len(), column.mentions.len(), column.texts.len()];
        let is_used = |column: &Column| parts(column) != [0, 0, 0];
        if self.has_base {
            // Most are empty.
            put_number(numbers, self.in_order().filter(|column| is_used(column)).count() as u64);
        }
        let mut left_out = 0;
        for column in self.in_order() {
            if self.has_base {
                if !is_used(column) {
                    left_out += 1;
                    continue;
                }
                put_number(numbers, std::mem::take(&mut left_out));
            }
            parts(column).into_iter().for_each(|length| put_number(numbers, length as u64));
        }
        numbers.extend(&self.shape_numbers);
        numbers.extend(&self.differences);
        self.in_order().for_each(|column| numbers.extend(&column.values));
        self.in_order().for_each(|column| numbers.extend(&column.mentions));
        texts.extend(&self.signatures);
        self.in_order().for_each(|column| texts.extend(&column.texts));
    }
}

pub(super) fn text<'a>(tables: &'a Tables, slot: &Slot<'_>) -> Option<&'a [u8]> {
    Some(&tables.columns.get(slot.column)?.get(slot.value as usize)?.bytes)
}

/// Up to so many bytes the best compression takes next to no time.
const SMALL: usize = 2 << 20;
const SMALL_LEVEL: i32 = 19;

impl Column {
    /// The number of a string that a reader knows.
    pub(super) fn number(&self, value: u32) -> Option<u64> {
        match value < self.base {
            true => Some(value.into()),
            false => self.numbers.get(&value).copied(),
        }
    }

    /// A reader knows a string from now on.
    pub(super) fn learn(&mut self, value: u32) {
        let number = u64::from(self.base) + self.numbers.len() as u64;
        self.numbers.insert(value, number);
    }

    fn put(&mut self, value: u32, text: &[u8]) {
        if let Some(number) = self.number(value) {
            return put_number(&mut self.values, number + 1);
        }
        self.learn(value);
        put_number(&mut self.values, 0);
        self.texts.extend(text);
        self.texts.push(END);
    }
}

fn column_count(tables: &Tables) -> usize {
    column::FIRST_KEY + tables.keys.len()
}

/// The number in the index of everything in the plan that is not coded, then of the prerequisites,
/// whose entries stand first.
fn plain_numbers(coded: &[usize], count: usize, prerequisites: u32) -> Vec<u32> {
    let mut is_coded = vec![false; count];
    for place in coded {
        if let Some(coded) = is_coded.get_mut(*place) {
            *coded = true;
        }
    }
    let mut next = prerequisites;
    let number = |coded: bool| {
        let number = next;
        next += u32::from(!coded);
        number
    };
    is_coded.into_iter().map(number).chain(0..prerequisites).collect()
}

/// Keys in their order.
struct Keys {
    order: Vec<u32>,
    ranks: Vec<usize>,
}

impl Keys {
    fn sorted(tables: &Tables) -> Self {
        let mut order: Vec<u32> = (0..).take(tables.keys.len()).collect();
        order.sort_by_key(|key| tables.keys.get(*key as usize));
        let mut ranks = vec![0; order.len()];
        for (rank, key) in order.iter().enumerate() {
            if let Some(place) = ranks.get_mut(*key as usize) {
                *place = rank;
            }
        }
        Self { order, ranks }
    }

    fn rank(&self, key: u32) -> usize {
        self.ranks.get(key as usize).copied().unwrap_or_default()
    }
}

/// Shapes in the order in which they are met, behind those of the base.
#[derive(Default)]
struct Shapes {
    base: u64,
    order: Vec<u32>,
    numbers: HashMap<u32, u64>,
}

impl Shapes {
    fn put(&mut self, shape: u32, out: &mut Vec<u8>) {
        if u64::from(shape) < self.base {
            return put_number(out, shape.into());
        }
        let next = self.base + self.numbers.len() as u64;
        let number = *self.numbers.entry(shape).or_insert_with(|| {
            self.order.push(shape);
            next
        });
        put_number(out, number);
    }

    fn write(&self, tables: &Tables, keys: &Keys, out: &mut Vec<u8>) {
        put_number(out, self.order.len() as u64);
        for shape in self.order.iter().filter_map(|shape| tables.shapes.get(*shape as usize)) {
            let Shape { outputs, keys: used } = shape;
            put_number(out, outputs.len() as u64);
            for (word, kind) in outputs {
                put_number(out, u64::from(*word));
                put_number(out, kind.number());
            }
            put_number(out, used.len() as u64);
            let mut next = 0;
            for key in used {
                let rank = keys.rank(*key);
                // Sorted, or the derivation would not have come back as it was.
                put_number(out, rank.saturating_sub(next) as u64);
                next = rank + 1;
            }
        }
    }
}

/// An order of those behind the first `before` in which each derivation follows what it mentions,
/// the first mentioned last: so that what is mentioned next is mostly the last that was not. Those
/// that are like one of the base stand in its order as far as that goes.
fn order(recipes: &[Recipe], before: usize, pairs: &[Option<u32>]) -> Vec<usize> {
    let edges = |recipe: &Recipe| -> Vec<usize> {
        let all = recipe.mentions.iter().chain(&recipe.extra);
        let mut seen = HashSet::new();
        let mut edges: Vec<usize> = all
            .filter_map(|target| target.derivation())
            .filter_map(|number| (number as usize).checked_sub(before))
            .filter(|number| seen.insert(*number))
            .collect();
        edges.reverse();
        edges
    };
    let mut is_used = vec![false; recipes.len()];
    for number in recipes.iter().flat_map(&edges) {
        if let Some(used) = is_used.get_mut(number) {
            *used = true;
        }
    }
    let mut paired: Vec<(u32, usize)> =
        pairs.iter().zip(0..).filter_map(|(base, number)| Some(((*base)?, number))).collect();
    paired.sort_unstable();
    let mut done = vec![false; recipes.len()];
    let mut order = Vec::with_capacity(recipes.len());
    let roots = is_used.iter().enumerate().filter(|(_, used)| !**used).map(|(number, _)| number);
    for root in paired.into_iter().map(|(_, number)| number).chain(roots) {
        if done.get_mut(root).is_none_or(|done| std::mem::replace(done, true)) {
            continue;
        }
        let mut open = vec![(root, recipes.get(root).map(edges).unwrap_or_default().into_iter())];
        while let Some((node, next)) = open.last_mut() {
            match next.next() {
                None => {
                    order.push(*node);
                    open.pop();
                }
                Some(input) => {
                    if let (Some(done), Some(recipe)) = (done.get_mut(input), recipes.get(input))
                        && !std::mem::replace(done, true)
                    {
                        open.push((input, edges(recipe).into_iter()));
                    }
                }
            }
        }
    }
    order
}
