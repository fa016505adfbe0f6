//! What strings mention, as numbers.
//!
//! Everything that is mentioned gets a number when that happens first. Derivations stand in an
//! order in which each is mentioned soon after it, mostly as the last that was not yet.

use hashbrown::HashMap;

use crate::codec::{Malformed, Take, put_number};
use crate::derivations::model::Target;

/// How far from the last a derivation may stand among those not mentioned yet.
const REACH: usize = 1024;

/// The forms in which something is mentioned first, in the two low bits of a number.
mod first {
    /// An output of a derivation that was not mentioned yet, counted from the last one.
    pub(super) const UNMENTIONED: u64 = 0;
    /// An output of a derivation, counted backwards.
    pub(super) const OUTPUT: u64 = 1;
    pub(super) const PLAIN: u64 = 2;
    /// A derivation itself, counted backwards.
    pub(super) const DERIVATION: u64 = 3;
}

/// Turns targets into numbers.
#[derive(Default)]
pub(crate) struct Writer {
    numbers: HashMap<Target, u64>,
    unmentioned: Vec<u32>,
    next_plain: u32,
}

impl Writer {
    /// Where the first plain number to be expected is this.
    pub(crate) fn new(next_plain: u32) -> Self {
        Self { next_plain, ..Self::default() }
    }

    /// Appends the number of a target, for a derivation of this number.
    pub(crate) fn put(&mut self, target: Target, current: u32, out: &mut Vec<u8>) {
        if let Some(number) = self.numbers.get(&target) {
            return put_number(out, number + 1);
        }
        self.numbers.insert(target, self.numbers.len() as u64);
        put_number(out, 0);
        let back = |derivation: u32| u64::from(current.saturating_sub(derivation + 1));
        match target {
            Target::Plain(number) => {
                let step = zigzag(i64::from(number) - i64::from(self.next_plain));
                self.next_plain = number.wrapping_add(1);
                put_number(out, step << 2 | first::PLAIN);
            }
            Target::Derivation(number) => put_number(out, back(number) << 2 | first::DERIVATION),
            Target::Output { derivation, word } => {
                let place =
                    self.unmentioned.iter().rev().take(REACH).position(|one| *one == derivation);
                match place {
                    Some(place) => {
                        self.unmentioned.remove(self.unmentioned.len() - 1 - place);
                        put_number(out, (place as u64) << 2 | first::UNMENTIONED);
                    }
                    None => put_number(out, back(derivation) << 2 | first::OUTPUT),
                }
                put_number(out, u64::from(word));
            }
        }
    }

    /// A derivation of this number is complete.
    pub(crate) fn end(&mut self, current: u32) {
        self.unmentioned.push(current);
    }
}

/// Turns numbers into targets.
#[derive(Default)]
pub(crate) struct Reader {
    targets: Vec<Target>,
    unmentioned: Vec<u32>,
    next_plain: u32,
}

impl Reader {
    /// Where the first plain number to be expected is this.
    pub(crate) fn new(next_plain: u32) -> Self {
        Self { next_plain, ..Self::default() }
    }

    pub(crate) fn take(
        &mut self,
        current: u32,
        numbers: &mut Take<'_>,
    ) -> Result<Target, Malformed> {
        let number = numbers.number()?;
        if let Some(known) = number.checked_sub(1) {
            let target = usize::try_from(known).ok().and_then(|known| self.targets.get(known));
            return match target {
                Some(target) => Ok(*target),
                None => numbers.malformed(format!("nothing has the number {known}")),
            };
        }
        let form = numbers.number()?;
        let count = form >> 2;
        let back =
            u32::try_from(count).ok().and_then(|count| current.checked_sub(count.checked_add(1)?));
        let target = match (form & 3, back) {
            (first::UNMENTIONED, _) => {
                let place = usize::try_from(count).ok().filter(|count| *count < REACH);
                let place = place.and_then(|place| self.unmentioned.len().checked_sub(place + 1));
                let Some(place) = place else {
                    return numbers.malformed(format!("no {count} derivations to choose from"));
                };
                let derivation = self.unmentioned.remove(place);
                Target::Output { derivation, word: small(numbers)? }
            }
            (first::PLAIN, _) => {
                let number = unzigzag(count).checked_add(i64::from(self.next_plain));
                match number.and_then(|number| u32::try_from(number).ok()) {
                    Some(number) => {
                        self.next_plain = number.wrapping_add(1);
                        Target::Plain(number)
                    }
                    None => return numbers.malformed("a path that cannot be"),
                }
            }
            (first::OUTPUT, Some(derivation)) => {
                Target::Output { derivation, word: small(numbers)? }
            }
            (_, Some(derivation)) => Target::Derivation(derivation),
            (_, None) => return numbers.malformed(format!("no derivation {count} before it")),
        };
        self.targets.push(target);
        Ok(target)
    }

    pub(crate) fn end(&mut self, current: u32) {
        self.unmentioned.push(current);
    }
}

fn small(numbers: &mut Take<'_>) -> Result<u32, Malformed> {
    let number = numbers.number()?;
    u32::try_from(number).or_else(|_| numbers.malformed(format!("a name of number {number}")))
}

pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}
