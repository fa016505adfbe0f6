//! Computes what follows from derivations on all cores: side by side those that need nothing of
//! one another.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ferry_formats::{StoreDir, StorePath, nar};
use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _,
};

use crate::derivations::model::{Known, Recipe, Target};
use crate::derivations::render::Context;
use crate::derivations::settle::{Settled, settle};

/// Fewer are not worth being given to another core.
const FEW: usize = 4;

/// What follows from a derivation, or why nothing does.
pub(super) type Outcome = Result<Settled, String>;

/// The derivations that one may be made of.
#[derive(Clone, Copy)]
pub(crate) struct Earlier<'a> {
    /// Those that were there before.
    known: &'a [Known],
    /// Those that stand behind them, as far as they are computed.
    lot: &'a [OnceLock<Outcome>],
    /// How many of all may be used.
    count: usize,
}

impl<'a> Earlier<'a> {
    /// Those that are known.
    pub(crate) fn new(known: &'a [Known]) -> Self {
        Self { known, lot: &[], count: known.len() }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&'a Known> {
        let number = Some(number as usize).filter(|number| *number < self.count)?;
        self.known.get(number).or_else(|| {
            let outcome = self.lot.get(number - self.known.len())?.get()?;
            outcome.as_ref().ok().map(|settled| &settled.known)
        })
    }
}

/// Derivations that stand one behind the other.
pub(super) struct Lot<'a> {
    pub(super) store_dir: &'a StoreDir,
    /// With the other derivations.
    pub(super) context: Context<'a>,
    /// The paths that are no derivations.
    pub(super) plain: &'a [StorePath],
    pub(super) recipes: &'a [Recipe],
    /// How many bytes of NAR they may have.
    pub(super) most: u64,
}

impl Lot<'_> {
    /// Computes all of them, in their order; `None` for some where they are more than they may be.
    pub(super) fn settle(&self) -> Vec<Option<Outcome>> {
        let lot: Vec<OnceLock<Outcome>> = self.recipes.iter().map(|_| OnceLock::new()).collect();
        let left = AtomicU64::new(self.most);
        let waves = self.waves();
        rayon::scope(|_| {
            for wave in waves.chunk_by(|(a, _), (b, _)| a == b) {
                let wave = wave.par_iter().with_min_len(FEW);
                wave.for_each_init(Vec::new, |text, (_, place)| {
                    let is_enough = left.load(Ordering::Relaxed) == 0;
                    let (Some(slot), false) = (lot.get(*place), is_enough) else { return };
                    let outcome = self.one(*place, &lot, text);
                    let size = outcome.as_ref().map_or(0, |settled| settled.nar_size);
                    let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        Some(left.saturating_sub(size))
                    });
                    // Each is computed once.
                    let _ = slot.set(outcome);
                });
            }
        });
        lot.into_iter().map(OnceLock::into_inner).collect()
    }

    fn one(&self, place: usize, lot: &[OnceLock<Outcome>], text: &mut Vec<u8>) -> Outcome {
        let Some(recipe) = self.recipes.get(place) else { return Err("it is missing".to_owned()) };
        let known = self.context.known.known;
        let known = Earlier { known, lot, count: known.len() + place };
        let path = |target| match target {
            Target::Plain(number) => self.plain.get(number as usize).cloned(),
            Target::Derivation(number) => known.get(number).map(|known| known.path.clone()),
            Target::Output { .. } => None,
        };
        let context = Context { known, ..self.context };
        let mut settled = settle(self.store_dir, &path, &context, recipe, text)?;
        settled.nar_hash = nar::hash_of_file(text);
        Ok(settled)
    }

    /// The places of all, with the wave that each is in: behind everything that it is made of.
    fn waves(&self) -> Vec<(u32, usize)> {
        let first = self.context.known.count;
        let mut waves: Vec<(u32, usize)> = Vec::with_capacity(self.recipes.len());
        for (place, recipe) in self.recipes.iter().enumerate() {
            let mentioned = recipe.mentions.iter().chain(&recipe.extra);
            let inputs = mentioned.filter_map(|target| target.derivation());
            let inputs = inputs.filter_map(|number| (number as usize).checked_sub(first));
            let waves_of_inputs = inputs.filter_map(|number| waves.get(number));
            let wave = waves_of_inputs.map(|(wave, _)| wave + 1).max().unwrap_or(0);
            waves.push((wave, place));
        }
        waves.sort_unstable();
        waves
    }
}
