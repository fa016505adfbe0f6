//! Writes derivations as those of the base with what is different.

use hashbrown::HashSet;

use ferry_formats::keys::Signature;

use crate::codec::put_number;
use crate::derivations::base::Base;
use crate::derivations::columns::{Numbers, Sheet, text};
use crate::derivations::counterparts::Counterparts;
use crate::derivations::likeness::Pairs;
use crate::derivations::mentions::zigzag;
use crate::derivations::model::{Recipe, Tables, Target};
use crate::derivations::slots::{Slot, slots};
use crate::derivations::tokens::END;

/// What follows a run of derivations that are as expected.
pub(super) mod code {
    /// A derivation that is like none.
    pub(crate) const NEW: u64 = 0;
    /// The expected one has no counterpart.
    pub(crate) const SKIP: u64 = 1;
    /// Like the expected one, with differences.
    pub(crate) const EXPECTED: u64 = 2;
    /// Like another, which is this number less and counted from the one behind the last.
    pub(crate) const OTHER: u64 = 3;
}

/// What is different, as bits.
pub(super) mod differs {
    pub(crate) const SHAPE: u64 = 1;
    pub(crate) const STRINGS: u64 = 2;
    pub(crate) const INPUTS: u64 = 4;
    pub(crate) const DIGEST: u64 = 8;
    pub(crate) const SIGNATURES: u64 = 16;
    pub(crate) const ALL: u64 = 31;
}

/// What is different about a string.
pub(super) mod string {
    /// Only what it mentions.
    pub(crate) const MENTIONS: u64 = 0;
    /// All of it: it stands in its column as any other.
    pub(crate) const WHOLE: u64 = 1;
    /// What lies between a beginning and an end that are as they were.
    pub(crate) const MIDDLE: u64 = 2;
}

/// So many bytes in common are worth being said.
const WORTH: usize = 12;

/// Chooses for each derivation how it is written, and writes those that are like one of the base.
pub(super) struct Likes<'a> {
    base: &'a Base,
    recipes: &'a [Recipe],
    first: u32,
    pairs: &'a Pairs,
    /// Those of the base that a derivation is like.
    paired: HashSet<u32>,
    counterparts: Counterparts,
    /// How many stood there as expected since the last code.
    run: u64,
    out: Vec<u8>,
}

impl<'a> Likes<'a> {
    pub(super) fn new(base: &'a Base, recipes: &'a [Recipe], first: u32, pairs: &'a Pairs) -> Self {
        Self {
            base,
            recipes,
            first,
            pairs,
            paired: pairs.of.iter().flatten().copied().collect(),
            counterparts: Counterparts::new(base, pairs.plain.iter().map(|(a, b)| (*a, *b))),
            run: 0,
            out: Vec::new(),
        }
    }

    /// Writes a derivation, or returns `false` for one that is like none.
    pub(super) fn put(
        &mut self,
        place: usize,
        recipe: &Recipe,
        signed: &[Signature],
        sheet: &mut Sheet<'_>,
    ) -> bool {
        if self.base.recipes.is_empty() {
            return false;
        }
        let of_base = self.pairs.of.get(place).copied().flatten();
        let found =
            of_base.and_then(|number| Some((number, self.base.recipes.get(number as usize)?)));
        let Some((number, like)) = found else {
            self.code(code::NEW);
            return false;
        };
        let like = self.follow(like, sheet.tables);
        let differences = Differences::new(sheet.tables, &like, recipe, signed);
        let expected = loop {
            match self.counterparts.expected() {
                Some(expected) if expected < number && !self.paired.contains(&expected) => {
                    self.code(code::SKIP);
                    self.counterparts.skip(expected);
                }
                expected => break expected,
            }
        };
        if expected != Some(number) {
            let step = i64::from(number) - i64::from(self.counterparts.next());
            self.code(code::OTHER.saturating_add(zigzag(step)));
            differences.write(&like, recipe, signed, &mut self.out, sheet);
        } else if differences.flags != 0 {
            self.code(code::EXPECTED);
            differences.write(&like, recipe, signed, &mut self.out, sheet);
        } else {
            self.run += 1;
        }
        let this = u32::try_from(place).unwrap_or(u32::MAX).saturating_add(self.first);
        self.counterparts.take(number, this);
        true
    }

    fn code(&mut self, code: u64) {
        put_number(&mut self.out, std::mem::take(&mut self.run));
        put_number(&mut self.out, code);
    }

    /// A derivation of the base with everything that it mentions replaced by its counterpart.
    fn follow(&self, like: &Recipe, tables: &Tables) -> Recipe {
        follow(like, &self.counterparts, &|derivation, word| {
            let recipe = derivation.checked_sub(self.first);
            let recipe = recipe.and_then(|place| self.recipes.get(place as usize));
            let shape = recipe.and_then(|recipe| tables.shapes.get(recipe.shape as usize));
            shape.is_some_and(|shape| shape.outputs.iter().any(|(own, _)| *own == word))
        })
    }

    /// Writes which paths have taken the place of others, and the codes.
    pub(super) fn write(&mut self, numbers: &Numbers, out: &mut Vec<u8>) {
        if self.base.recipes.is_empty() {
            return;
        }
        put_number(out, self.pairs.plain.len() as u64);
        let mut next = 0;
        for (base, new) in &self.pairs.plain {
            put_number(out, u64::from(base - next));
            next = base + 1;
            put_number(out, numbers.entry(*new).into());
        }
        if self.run > 0 {
            put_number(&mut self.out, self.run);
        }
        put_number(out, self.out.len() as u64);
        out.extend(&self.out);
    }
}

/// A derivation of the base with everything that it mentions replaced by its counterpart.
pub(super) fn follow(
    like: &Recipe,
    counterparts: &Counterparts,
    has_output: &dyn Fn(u32, u32) -> bool,
) -> Recipe {
    let all = |targets: &[Target]| {
        targets.iter().map(|target| counterparts.of(*target, has_output)).collect()
    };
    Recipe { mentions: all(&like.mentions), extra: all(&like.extra), ..like.clone() }
}

/// What is different about a derivation.
struct Differences {
    flags: u64,
    /// Which of its strings that the other has too.
    strings: Vec<usize>,
}

impl Differences {
    fn new(tables: &Tables, like: &Recipe, recipe: &Recipe, signed: &[Signature]) -> Self {
        let others: Vec<Slot<'_>> = slots(tables, like).collect();
        let strings: Vec<usize> = slots(tables, recipe)
            .enumerate()
            .filter(|(_, slot)| {
                same_column(&others, slot.column).is_some_and(|other| {
                    (other.value, other.mentions) != (slot.value, slot.mentions)
                })
            })
            .map(|(place, _)| place)
            .collect();
        let extra = |recipe: &Recipe| recipe.extra.iter().copied().collect::<HashSet<Target>>();
        let flag = |differs: bool, flag: u64| if differs { flag } else { 0 };
        let flags = flag(like.shape != recipe.shape, differs::SHAPE)
            | flag(!strings.is_empty(), differs::STRINGS)
            // Their order is of no importance.
            | flag(extra(like) != extra(recipe) || like.dropped != recipe.dropped, differs::INPUTS)
            | flag(like.digest != recipe.digest, differs::DIGEST)
            | flag(!signed.is_empty(), differs::SIGNATURES);
        Self { flags, strings }
    }

    fn write(
        &self,
        like: &Recipe,
        recipe: &Recipe,
        signed: &[Signature],
        out: &mut Vec<u8>,
        sheet: &mut Sheet<'_>,
    ) {
        let tables = sheet.tables;
        put_number(out, self.flags);
        if self.flags & differs::SHAPE != 0 {
            sheet.put_shape(recipe.shape);
        }
        if self.flags & differs::STRINGS != 0 {
            put_number(out, self.strings.len() as u64);
        }
        let others: Vec<Slot<'_>> = slots(tables, like).collect();
        let mut next = 0;
        for (place, slot) in slots(tables, recipe).enumerate() {
            let Some(other) = same_column(&others, slot.column) else {
                sheet.put_string(&slot);
                slot.mentions.iter().for_each(|target| sheet.put_mention(slot.column, *target));
                continue;
            };
            if self.strings.binary_search(&place).is_err() {
                continue;
            }
            put_number(out, (place - next) as u64);
            next = place + 1;
            put_string(other, &slot, out, sheet);
            put_mentions(other, &slot, sheet);
        }
        if self.flags & differs::INPUTS != 0 {
            sheet.put_inputs(recipe);
        }
        if self.flags & differs::DIGEST != 0 {
            sheet.digests.extend(&recipe.digest);
        }
        if self.flags & differs::SIGNATURES != 0 {
            sheet.put_signatures(signed);
        }
    }
}

pub(super) fn same_column<'a>(slots: &'a [Slot<'a>], column: usize) -> Option<&'a Slot<'a>> {
    slots.iter().find(|slot| slot.column == column)
}

fn put_string(other: &Slot<'_>, slot: &Slot<'_>, out: &mut Vec<u8>, sheet: &mut Sheet<'_>) {
    if slot.value == other.value {
        return put_number(out, string::MENTIONS);
    }
    let tables = sheet.tables;
    let texts = text(tables, other).zip(text(tables, slot));
    let known = sheet.column(slot.column).and_then(|column| column.number(slot.value));
    let common = texts.filter(|_| known.is_none()).map(|(old, new)| (common(old, new), new));
    match common {
        Some(((before, behind), new)) if before + behind >= WORTH => {
            put_number(out, string::MIDDLE);
            put_number(out, before as u64);
            put_number(out, behind as u64);
            if let Some(column) = sheet.column(slot.column) {
                column.learn(slot.value);
                column.texts.extend(new.get(before..new.len() - behind).unwrap_or_default());
                column.texts.push(END);
            }
        }
        _ => {
            put_number(out, string::WHOLE);
            sheet.put_string(slot);
        }
    }
}

/// How many bytes two texts have in common at the beginning, and then at the end.
fn common(old: &[u8], new: &[u8]) -> (usize, usize) {
    let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (old.get(before..), new.get(before..));
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    (before, behind)
}

/// What a string mentions: those that the other mentions too are counted on from the last.
fn put_mentions(other: &Slot<'_>, slot: &Slot<'_>, sheet: &mut Sheet<'_>) {
    let mut rest = other.mentions;
    for target in slot.mentions {
        let place = rest.iter().position(|one| one == target);
        let Some(column) = sheet.column(slot.column) else { return };
        put_number(&mut column.mentions, place.map_or(0, |place| place as u64 + 1));
        match place {
            Some(place) => rest = rest.get(place + 1..).unwrap_or_default(),
            None => sheet.put_mention(slot.column, *target),
        }
    }
}
