//! The streams of a section, taken apart into those that are read side by side.

use ferry_formats::keys::{Signature, parse_signature};

use crate::codec::{Malformed, Take};
use crate::derivations::mentions::Reader;
use crate::derivations::model::{Kind, Tables, Target, Template, column, column_of};
use crate::derivations::tokens::{END, check, is_text};

/// Inputs that no string mentions, and the places of mentions that are no inputs.
type Inputs = (Box<[Target]>, Box<[u32]>);

/// The streams of numbers that are read side by side.
pub(super) struct Columns<'a> {
    pub(super) shapes: Take<'a>,
    differences: Take<'a>,
    signatures: Take<'a>,
    digests: Take<'a>,
    values: Vec<Take<'a>>,
    mentions: Vec<Take<'a>>,
    texts: Vec<Take<'a>>,
}

impl<'a> Columns<'a> {
    pub(super) fn take(
        numbers: &mut Take<'a>,
        texts: &mut Take<'a>,
        digests: Take<'a>,
        by_rank: &[u32],
        has_base: bool,
    ) -> Result<Self, Malformed> {
        let shapes = numbers.length()?;
        let differences = numbers.length()?;
        let signatures = numbers.length()?;
        let count = column::FIRST_KEY + by_rank.len();
        let listed = match has_base {
            true => numbers.number()?,
            false => count as u64,
        };
        let keys = by_rank.iter().map(|key| column_of(*key));
        let mut in_order = (column::NAME..column::FIRST_KEY).chain(keys);
        let mut lengths = Vec::new();
        for _ in 0..listed {
            let left_out = if has_base { numbers.length()? } else { 0 };
            let Some(column) = in_order.nth(left_out) else {
                return numbers.malformed("a column that is not there");
            };
            lengths.push((column, [numbers.length()?, numbers.length()?, numbers.length()?]));
        }
        let shapes = numbers.part(shapes)?;
        let differences = numbers.part(differences)?;
        let signatures = texts.part(signatures)?;
        let parts = |place: usize, stream: &mut Take<'a>| {
            let mut parts: Vec<Take<'a>> = (0..count).map(|_| Take::new(&[])).collect();
            for (column, lengths) in &lengths {
                let length = lengths.get(place).copied().unwrap_or_default();
                if let Some(part) = parts.get_mut(*column) {
                    *part = stream.part(length)?;
                }
            }
            Ok(parts)
        };
        let values = parts(0, numbers)?;
        let mentions = parts(1, numbers)?;
        let texts = parts(2, texts)?;
        Ok(Self { shapes, differences, signatures, digests, values, mentions, texts })
    }

    /// The number of a shape.
    pub(super) fn take_shape(&mut self, tables: &Tables) -> Result<u32, Malformed> {
        let number = self.shapes.number()?;
        match u32::try_from(number).ok().filter(|number| tables.shapes.len() > *number as usize) {
            Some(number) => Ok(number),
            None => self.shapes.malformed(format!("no shape {number}")),
        }
    }

    /// A string of a column: its number, and how many things it mentions.
    pub(super) fn take_string(
        &mut self,
        tables: &mut Tables,
        column: usize,
    ) -> Result<(u32, u32), Malformed> {
        let Some(numbers) = self.values.get_mut(column) else {
            return self.shapes.malformed("a column is missing");
        };
        let Some(number) = numbers.number()?.checked_sub(1) else {
            let text = self.take_text(column)?;
            return self.add_string(tables, column, text);
        };
        let known = tables.columns.get(column).zip(u32::try_from(number).ok());
        match known.and_then(|(all, number)| Some((number, all.get(number as usize)?.mentions))) {
            Some(known) => Ok(known),
            None => numbers.malformed(format!("no string {number}")),
        }
    }

    /// The next of a column's texts.
    pub(super) fn take_text(&mut self, column: usize) -> Result<&'a [u8], Malformed> {
        match self.texts.get_mut(column) {
            Some(texts) => texts.until(END),
            None => self.shapes.malformed("a column is missing"),
        }
    }

    /// Adds a string to a column, if it may stand there.
    pub(super) fn add_string(
        &mut self,
        tables: &mut Tables,
        column: usize,
        bytes: &[u8],
    ) -> Result<(u32, u32), Malformed> {
        let words = tables.words.len();
        let (Some(templates), Some(texts)) =
            (tables.columns.get_mut(column), self.texts.get(column))
        else {
            return self.shapes.malformed("a column is missing");
        };
        let mentions = check(bytes, column, words).or_else(|reason| texts.malformed(reason))?;
        let number = u32::try_from(templates.len()).unwrap_or(u32::MAX);
        templates.push(Template { bytes: bytes.into(), mentions, is_text: is_text(bytes) });
        Ok((number, mentions))
    }

    pub(super) fn take_mention(
        &mut self,
        column: usize,
        current: u32,
        reader: &mut Reader,
    ) -> Result<Target, Malformed> {
        match self.mentions.get_mut(column) {
            Some(mentions) => reader.take(current, mentions),
            None => self.shapes.malformed("a column is missing"),
        }
    }

    /// A number among a column's mentions.
    pub(super) fn take_step(&mut self, column: usize) -> Result<u64, Malformed> {
        match self.mentions.get_mut(column) {
            Some(mentions) => mentions.number(),
            None => self.shapes.malformed("a column is missing"),
        }
    }

    /// The digest of a fixed output.
    pub(super) fn take_digest(
        &mut self,
        tables: &Tables,
        shape: u32,
    ) -> Result<Box<[u8]>, Malformed> {
        let shape = tables.shapes.get(shape as usize);
        match shape.and_then(|shape| shape.outputs.first()) {
            Some((_, Kind::Fixed(by))) => Ok(self.digests.exactly(by.digest_length())?.into()),
            _ => Ok(Box::default()),
        }
    }

    /// Inputs that no string mentions, and mentions that are no inputs.
    pub(super) fn take_inputs(
        &mut self,
        current: u32,
        reader: &mut Reader,
    ) -> Result<Inputs, Malformed> {
        let mut extra = Vec::new();
        for _ in 0..self.differences.number()? {
            extra.push(reader.take(current, &mut self.differences)?);
        }
        let mut dropped = Vec::new();
        for _ in 0..self.differences.number()? {
            let place = self.differences.number()?;
            dropped.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        Ok((extra.into(), dropped.into()))
    }

    pub(super) fn finish(self) -> Result<(), Malformed> {
        [self.shapes, self.differences, self.signatures, self.digests]
            .into_iter()
            .chain(self.values)
            .chain(self.mentions)
            .chain(self.texts)
            .try_for_each(Take::finish)
    }

    /// The signatures of a derivation.
    pub(super) fn take_signatures(&mut self) -> Result<Vec<Signature>, Malformed> {
        let mut signatures = Vec::new();
        for _ in 0..self.differences.number()? {
            let bytes = self.signatures.until(END)?;
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            match parse_signature(text) {
                Ok(signature) => signatures.push(signature),
                Err(source) => return self.signatures.malformed(format!("signature: {source}")),
            }
        }
        Ok(signatures)
    }
}
