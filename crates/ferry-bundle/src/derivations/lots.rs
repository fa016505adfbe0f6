//! Reads derivations a lot at a time, and computes what follows from each lot.

use ferry_formats::keys::Signature;
use ferry_formats::{StoreDir, StorePath};

use crate::codec::Malformed;
use crate::derivations::amounts::Amounts;
use crate::derivations::mentions::Reader;
use crate::derivations::read::{Decoded, Derivations};
use crate::derivations::render::Context;
use crate::derivations::resolve::{Likes, Next};
use crate::derivations::sheet::Columns;
use crate::derivations::side_by_side::{Earlier, Lot};
use crate::format;

/// How many derivations are read before they are computed, and how many things they may mention:
/// many, as many can be computed side by side then, but what they take is held in memory.
const LOT: usize = 4096;
const LOT_MENTIONS: usize = 1 << 20;

/// What is said of a derivation beside its recipe.
struct Taken {
    /// Where its shape ends.
    position: usize,
    signatures: Vec<Signature>,
}

/// The derivations of a section.
pub(super) struct Lots<'a, 'b> {
    pub(super) store_dir: &'a StoreDir,
    /// The paths that are no derivations.
    pub(super) plain: &'a [StorePath],
    pub(super) columns: &'a mut Columns<'b>,
    pub(super) likes: &'a mut Likes<'b>,
    /// Bytes of the section.
    pub(super) section: u64,
}

impl Lots<'_, '_> {
    /// Reads `count` derivations, and computes what follows from them.
    pub(super) fn take(mut self, count: u64, into: &mut Decoded) -> Result<(), Malformed> {
        let unusual = |byte: &u8| matches!(byte, b'"' | b'\\') || *byte < b' ';
        if count > 0 && self.store_dir.as_str().as_bytes().iter().any(unusual) {
            let shapes = &self.columns.shapes;
            return shapes.malformed("coded derivations in a directory of such a name");
        }
        let mut reader = Reader::new(self.likes.base.plain);
        let mut found = format::Amounts { entries: count, references: 0, signatures: 0 };
        let mut size = 0;
        let mut left = count;
        while left > 0 {
            let mut lot = Vec::new();
            // What is wrong with those that were read comes first.
            let outcome = self.take_lot(left, &mut into.derivations, &mut reader, &mut lot);
            left -= lot.len() as u64;
            self.settle(lot, into, (&mut found, &mut size))?;
            outcome?;
        }
        Ok(())
    }

    fn take_lot(
        &mut self,
        left: u64,
        read: &mut Derivations,
        reader: &mut Reader,
        lot: &mut Vec<Taken>,
    ) -> Result<(), Malformed> {
        let mut mentions = 0;
        while (lot.len() as u64) < left && lot.len() < LOT && mentions < LOT_MENTIONS {
            let current = u32::try_from(read.count()).unwrap_or(u32::MAX);
            let next = self.likes.next(read, current, reader, self.columns)?;
            let (recipe, is_new, signed) = match next {
                Next::New => (read.recipe(current, reader, self.columns)?, true, true),
                Next::Like { recipe, signed } => (recipe, false, signed),
            };
            mentions += recipe.mentions.len() + recipe.extra.len();
            read.recipes.push(recipe);
            let position = self.columns.shapes.position();
            let signatures = match signed {
                true => self.columns.take_signatures(),
                false => Ok(Vec::new()),
            };
            let (signatures, outcome) = match signatures {
                Ok(signatures) => (signatures, Ok(())),
                Err(malformed) => (Vec::new(), Err(malformed)),
            };
            lot.push(Taken { position, signatures });
            outcome?;
            if is_new {
                reader.end(current);
            }
        }
        Ok(())
    }

    fn settle(
        &self,
        lot: Vec<Taken>,
        into: &mut Decoded,
        (found, size): (&mut format::Amounts, &mut u64),
    ) -> Result<(), Malformed> {
        let read = &mut into.derivations;
        let first = read.known.len();
        let recipes = read.recipes.len() - lot.len();
        let known = Earlier::new(&read.known);
        let settled = Lot {
            store_dir: self.store_dir,
            context: Context { tables: &read.tables, plain: &read.plain, known },
            plain: self.plain,
            recipes: read.recipes.get(recipes..).unwrap_or_default(),
            most: Amounts::most_text(self.section, into.base).saturating_sub(*size) + 1,
        };
        let settled = settled.settle();
        for ((taken, settled), current) in lot.into_iter().zip(settled).zip(first..) {
            let malformed = |reason| Malformed { position: taken.position, reason };
            let settled = settled
                .transpose()
                .map_err(|reason| malformed(format!("derivation number {current}: {reason}")))?;
            // What was not computed would be too much.
            *size = settled.as_ref().map_or(u64::MAX, |settled| *size + settled.nar_size);
            let references = settled.as_ref().map_or(0, |settled| settled.references.len());
            found.references += references as u64;
            found.signatures += taken.signatures.len() as u64;
            if let Some(excess) = Amounts::new(*found, *size).excess(self.section, into.base) {
                return Err(malformed(excess));
            }
            let Some(settled) = settled else { continue };
            into.paths_before.push(settled.paths_before);
            let (known, mut info) = settled.known_and_info();
            info.signatures = taken.signatures;
            into.infos.push(info);
            into.derivations.known.push(known);
        }
        Ok(())
    }
}
