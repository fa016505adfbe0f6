//! Reads derivations that are those of the base with what is different.

use crate::codec::{Malformed, Take};
use crate::derivations::base::Base;
use crate::derivations::counterparts::Counterparts;
use crate::derivations::differences::{code, differs, follow, same_column, string};
use crate::derivations::mentions::{Reader, unzigzag};
use crate::derivations::model::{Recipe, Target, column, column_of};
use crate::derivations::read::Derivations;
use crate::derivations::sheet::Columns;
use crate::derivations::slots::{Slot, slots};
use crate::format::limit;

/// Reads the codes, and keeps account of what has taken the place of what.
pub(super) struct Likes<'a> {
    pub(super) base: Base,
    counterparts: Counterparts,
    codes: Take<'a>,
    /// How many more are as expected, once that is read.
    run: Option<u64>,
}

/// What is known of the next derivation.
pub(super) enum Next {
    /// Like none.
    New,
    Like {
        recipe: Recipe,
        signed: bool,
    },
}

impl<'a> Likes<'a> {
    /// Where no derivation of the base has a code, or there is none.
    pub(super) fn none(base: Base) -> Self {
        let counterparts = Counterparts::new(&base, []);
        Self { base, counterparts, codes: Take::new(&[]), run: None }
    }

    pub(super) fn take(
        base: Base,
        entries: u64,
        numbers: &mut Take<'a>,
    ) -> Result<Self, Malformed> {
        let mut plain = Vec::new();
        let mut next = 0u64;
        for _ in 0..numbers.number()? {
            let of_base = next.checked_add(numbers.number()?);
            let entry = numbers.number()?;
            let of_base = of_base.filter(|of_base| *of_base < u64::from(base.plain));
            let (Some(of_base), true) = (of_base, entry < entries) else {
                return numbers.malformed("a path that is not there");
            };
            next = of_base + 1;
            let number = entry.saturating_add(base.plain.into());
            plain.push((small(of_base), small(number)));
        }
        let length = numbers.length()?;
        let codes = numbers.part(length)?;
        Ok(Self { counterparts: Counterparts::new(&base, plain), base, codes, run: None })
    }

    pub(super) fn finish(self) -> Result<(), Malformed> {
        match self.run {
            Some(more @ 1..) => self.codes.malformed(format!("{more} derivations too many")),
            _ => self.codes.finish(),
        }
    }

    /// Reads how the derivation of a number is made.
    pub(super) fn next(
        &mut self,
        read: &mut Derivations,
        current: u32,
        reader: &mut Reader,
        columns: &mut Columns<'a>,
    ) -> Result<Next, Malformed> {
        if self.base.recipes.is_empty() {
            return Ok(Next::New);
        }
        loop {
            let run = match self.run.take() {
                Some(run) => run,
                None => self.codes.number()?,
            };
            let expected = self.counterparts.expected();
            if let Some(left) = run.checked_sub(1) {
                self.run = Some(left);
                let Some(number) = expected else {
                    return self.codes.malformed("more derivations than have to change");
                };
                return self.like(number, false, read, current, reader, columns);
            }
            match (self.codes.number()?, expected) {
                (code::NEW, _) => return Ok(Next::New),
                (code::SKIP, Some(expected)) => self.counterparts.skip(expected),
                (code::EXPECTED, Some(expected)) => {
                    return self.like(expected, true, read, current, reader, columns);
                }
                (code @ code::OTHER.., _) => {
                    let step = unzigzag(code - code::OTHER);
                    let number = step.checked_add(i64::from(self.counterparts.next()));
                    let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
                        return self.codes.malformed("a derivation that is not in the base");
                    };
                    return self.like(number, true, read, current, reader, columns);
                }
                (code, _) => return self.codes.malformed(format!("code {code}")),
            }
        }
    }

    fn like(
        &mut self,
        number: u32,
        differs: bool,
        read: &mut Derivations,
        current: u32,
        reader: &mut Reader,
        columns: &mut Columns<'a>,
    ) -> Result<Next, Malformed> {
        let Some(like) = self.base.recipes.get(number as usize) else {
            return self.codes.malformed(format!("the base has no derivation {number}"));
        };
        let has_output = |derivation, word| read.has_output(derivation, word);
        let like = follow(like, &self.counterparts, &has_output);
        if !self.counterparts.take(number, current) {
            return self.codes.malformed(format!("derivation {number} of the base a second time"));
        }
        if !differs {
            return Ok(Next::Like { recipe: like, signed: false });
        }
        let flags = self.codes.number()?;
        if flags & !differs::ALL != 0 {
            return self.codes.malformed(format!("differences {flags:#x}"));
        }
        let recipe = Changing { codes: &mut self.codes, read, current, reader, columns }
            .recipe(&like, flags)?;
        Ok(Next::Like { recipe, signed: flags & differs::SIGNATURES != 0 })
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One derivation that is being changed.
struct Changing<'a, 'b> {
    codes: &'a mut Take<'b>,
    read: &'a mut Derivations,
    current: u32,
    reader: &'a mut Reader,
    columns: &'a mut Columns<'b>,
}

impl Changing<'_, '_> {
    fn recipe(&mut self, like: &Recipe, flags: u64) -> Result<Recipe, Malformed> {
        let shape = match flags & differs::SHAPE {
            0 => like.shape,
            _ => self.columns.take_shape(&self.read.tables)?,
        };
        let of_shape = self.read.tables.shapes.get(shape as usize);
        let keys = of_shape.map(|shape| shape.keys.as_slice()).unwrap_or_default();
        let keys: Vec<usize> = keys.iter().map(|key| column_of(*key)).collect();
        let others: Vec<(usize, u32, Vec<Target>)> = slots(&self.read.tables, like)
            .map(|slot| (slot.column, slot.value, slot.mentions.to_vec()))
            .collect();
        let others: Vec<Slot<'_>> = others
            .iter()
            .map(|(column, value, mentions)| Slot { column: *column, value: *value, mentions })
            .collect();
        let mut left = match flags & differs::STRINGS {
            0 => 0,
            _ => self.codes.number()?,
        };
        let mut changed = self.next_changed(0, &mut left)?;
        let (mut values, mut mentions) = (Vec::new(), Vec::new());
        for (place, column) in (column::NAME..column::FIRST_KEY).chain(keys).enumerate() {
            let other = same_column(&others, column);
            let is_changed = changed == Some(place as u64);
            if is_changed {
                if let Some(other) = other {
                    self.changed(other, &mut values, &mut mentions)?;
                } else {
                    return self.codes.malformed("a change to a string that is not there");
                }
                changed = self.next_changed(place as u64 + 1, &mut left)?;
            } else if let Some(other) = other {
                values.push(other.value);
                mentions.extend(other.mentions);
            } else {
                let (value, count) = self.columns.take_string(&mut self.read.tables, column)?;
                values.push(value);
                for _ in 0..count {
                    mentions.push(self.columns.take_mention(column, self.current, self.reader)?);
                }
            }
        }
        if changed.is_some() {
            return self.codes.malformed("a change to a string that is not there");
        }
        let (extra, dropped) = match flags & differs::INPUTS {
            0 => (like.extra.clone(), like.dropped.clone()),
            _ => self.columns.take_inputs(self.current, self.reader)?,
        };
        let digest = match flags & differs::DIGEST {
            0 => like.digest.clone(),
            _ => self.columns.take_digest(&self.read.tables, shape)?,
        };
        let (values, mentions) = (values.into(), mentions.into());
        Ok(Recipe { shape, values, mentions, extra, dropped, digest })
    }

    fn next_changed(&mut self, from: u64, left: &mut u64) -> Result<Option<u64>, Malformed> {
        match left.checked_sub(1) {
            None => Ok(None),
            Some(fewer) => {
                *left = fewer;
                Ok(Some(from.saturating_add(self.codes.number()?)))
            }
        }
    }

    fn changed(
        &mut self,
        other: &Slot<'_>,
        values: &mut Vec<u32>,
        mentions: &mut Vec<Target>,
    ) -> Result<(), Malformed> {
        let tables = &mut self.read.tables;
        let (value, count) = match self.codes.number()? {
            string::MENTIONS => {
                let count = u32::try_from(other.mentions.len()).unwrap_or(u32::MAX);
                (other.value, count)
            }
            string::WHOLE => self.columns.take_string(tables, other.column)?,
            string::MIDDLE => {
                let (before, behind) = (self.codes.length()?, self.codes.length()?);
                let column = tables.columns.get(other.column);
                let old = column.and_then(|column| column.get(other.value as usize));
                let old = old.map(|old| &*old.bytes).unwrap_or_default();
                let kept = before
                    .checked_add(behind)
                    .filter(|kept| *kept <= old.len())
                    .and_then(|_| Some((old.get(..before)?, old.get(old.len() - behind..)?)));
                let Some((begin, end)) = kept else {
                    return self.codes.malformed("more of a string than there is");
                };
                let middle = self.columns.take_text(other.column)?;
                let bytes = [begin, middle, end].concat();
                if bytes.len() > limit::DERIVATION {
                    return self.codes.malformed("a string longer than a derivation may be");
                }
                self.columns.add_string(tables, other.column, &bytes)?
            }
            kind => return self.codes.malformed(format!("a change of kind {kind}")),
        };
        values.push(value);
        let mut rest = other.mentions;
        for _ in 0..count {
            let step = self.columns.take_step(other.column)?;
            let Some(place) = step.checked_sub(1) else {
                let target = self.columns.take_mention(other.column, self.current, self.reader)?;
                mentions.push(target);
                continue;
            };
            let place = usize::try_from(place).ok();
            let found = place.and_then(|place| rest.split_at_checked(place)?.1.split_first());
            let Some((target, behind)) = found else {
                return self.codes.malformed("a mention that is not there");
            };
            mentions.push(*target);
            rest = behind;
        }
        Ok(())
    }
}
