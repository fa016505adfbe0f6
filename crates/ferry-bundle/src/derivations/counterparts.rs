//! What has taken the place of what in the base, and which of its derivations change by that.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use crate::derivations::base::Base;
use crate::derivations::model::Target;

/// Kept by writer and reader alike, derivation by derivation.
pub(crate) struct Counterparts {
    /// For each derivation of the base.
    derivations: Vec<Option<u32>>,
    plain: HashMap<u32, u32>,
    /// The derivations of the base that mention each of its derivations.
    dependents: Vec<Vec<u32>>,
    /// Those that mention something that has a counterpart, and have none themselves.
    changed: BTreeSet<u32>,
    /// Behind the one that was taken last.
    next: u32,
}

impl Counterparts {
    /// `plain` are the sources of the base that have a counterpart.
    pub(crate) fn new(base: &Base, plain: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let plain: HashMap<u32, u32> = plain.into_iter().collect();
        let mut dependents = vec![Vec::new(); base.recipes.len()];
        let mut changed = BTreeSet::new();
        for (recipe, number) in base.recipes.iter().zip(0..) {
            for target in recipe.mentions.iter().chain(&recipe.extra) {
                match target {
                    Target::Plain(path) if plain.contains_key(path) => {
                        changed.insert(number);
                    }
                    Target::Plain(_) => {}
                    Target::Derivation(derivation) | Target::Output { derivation, .. } => {
                        if let Some(dependents) = dependents.get_mut(*derivation as usize)
                            && dependents.last() != Some(&number)
                        {
                            dependents.push(number);
                        }
                    }
                }
            }
        }
        Self { derivations: vec![None; base.recipes.len()], plain, dependents, changed, next: 0 }
    }

    /// The first that has to change behind the one that was taken last.
    pub(crate) fn expected(&self) -> Option<u32> {
        self.changed.range(self.next..).next().copied()
    }

    /// Where the derivation that was taken last is followed by the next.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// There is none for this one.
    pub(crate) fn skip(&mut self, base: u32) {
        self.changed.remove(&base);
    }

    /// This derivation of the base has this counterpart; `false` if it had one already.
    pub(crate) fn take(&mut self, base: u32, number: u32) -> bool {
        let Some(place @ None) = self.derivations.get_mut(base as usize) else { return false };
        *place = Some(number);
        self.changed.remove(&base);
        self.next = base + 1;
        for dependent in self.dependents.get(base as usize).into_iter().flatten() {
            if self.derivations.get(*dependent as usize) == Some(&None) {
                self.changed.insert(*dependent);
            }
        }
        true
    }

    /// What stands for something that a derivation of the base mentions. `has_output` tells
    /// whether a derivation has an output of this name.
    pub(crate) fn of(&self, target: Target, has_output: impl Fn(u32, u32) -> bool) -> Target {
        let derivation = |number: u32| self.derivations.get(number as usize).copied().flatten();
        match target {
            Target::Plain(number) => {
                Target::Plain(self.plain.get(&number).copied().unwrap_or(number))
            }
            Target::Derivation(number) => Target::Derivation(derivation(number).unwrap_or(number)),
            Target::Output { derivation: number, word } => match derivation(number) {
                Some(other) if has_output(other, word) => {
                    Target::Output { derivation: other, word }
                }
                _ => target,
            },
        }
    }
}
