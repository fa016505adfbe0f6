//! Which derivation of the base each new one is like.
//!
//! Both graphs are walked from their roots at the same time: what two derivations that are alike
//! mention at the same place is alike too, if it has the same name, or the same but for the
//! version. What that does not find is looked up by name.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::{HashMap, HashSet};

use ferry_formats::StorePath;

use crate::derivations::base::Base;
use crate::derivations::model::{Recipe, Tables, Target, column};
use crate::derivations::slots::slots;
use crate::derivations::tokens::Name;

/// What is like what. Numbers are those that the writer works with.
#[derive(Default)]
pub(crate) struct Pairs {
    /// For each new derivation, counted from 0.
    pub(crate) of: Vec<Option<u32>>,
    /// For sources of the base, a path in the plan.
    pub(crate) plain: BTreeMap<u32, u32>,
}

/// Pairs new derivations with those of the base. `first` is the number of the first new one, and
/// `paths` are those that plain numbers stand for, the base's first.
pub(crate) fn pair(
    tables: &Tables,
    base: &Base,
    recipes: &[Recipe],
    first: u32,
    paths: &[StorePath],
) -> Pairs {
    let mut search = Search {
        tables,
        base,
        recipes,
        first,
        paths,
        stems: stems(tables),
        used: vec![false; base.recipes.len()],
        used_plain: HashSet::new(),
        pairs: Pairs { of: vec![None; recipes.len()], plain: BTreeMap::new() },
        open: VecDeque::new(),
    };
    if !base.recipes.is_empty() {
        search.run();
    }
    search.pairs
}

struct Search<'a> {
    tables: &'a Tables,
    base: &'a Base,
    recipes: &'a [Recipe],
    first: u32,
    paths: &'a [StorePath],
    /// For each name the first name that has the same letters before the version.
    stems: Vec<u32>,
    used: Vec<bool>,
    used_plain: HashSet<u32>,
    pairs: Pairs,
    open: VecDeque<(usize, u32)>,
}

/// How much two names have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Name,
    Stem,
}

fn stems(tables: &Tables) -> Vec<u32> {
    let mut first: HashMap<&[u8], u32> = HashMap::new();
    let names = tables.columns.get(column::NAME).map(Vec::as_slice).unwrap_or_default();
    let stem = |(name, number)| *first.entry(Name::new(name).stem()).or_insert(number);
    names.iter().map(|template| &*template.bytes).zip(0..).map(stem).collect()
}

impl<'a> Search<'a> {
    fn run(&mut self) {
        let roots = |recipes: &[Recipe], first: u32| -> Vec<u32> {
            let mut is_root = vec![true; recipes.len()];
            let all = recipes.iter().flat_map(|recipe| recipe.mentions.iter().chain(&recipe.extra));
            for number in all.filter_map(|target| target.derivation()?.checked_sub(first)) {
                if let Some(is_root) = is_root.get_mut(number as usize) {
                    *is_root = false;
                }
            }
            (0..).zip(is_root).filter(|(_, is_root)| *is_root).map(|(number, _)| number).collect()
        };
        let base_roots = roots(&self.base.recipes, 0);
        let new_roots: Vec<usize> =
            roots(self.recipes, self.first).iter().rev().map(|number| *number as usize).collect();
        for by in [By::Name, By::Stem] {
            self.by_name(&new_roots, &base_roots, by);
        }
        let all_of_base: Vec<u32> = (0..).take(self.base.recipes.len()).collect();
        // Dependents first: what they mention follows from them.
        let rest: Vec<usize> = (0..self.recipes.len()).rev().collect();
        for by in [By::Name, By::Stem] {
            self.by_name(&rest, &all_of_base, by);
        }
    }

    /// Pairs what is left over by name; the last of the base come first.
    fn by_name(&mut self, new: &[usize], base: &[u32], by: By) {
        let mut candidates: HashMap<u32, Vec<u32>> = HashMap::new();
        for number in base.iter().filter(|number| !self.is_used(**number)) {
            if let Some(name) = self.name(&self.base.recipes, *number as usize, by) {
                candidates.entry(name).or_default().push(*number);
            }
        }
        for new in new {
            if self.pairs.of.get(*new).is_none_or(Option::is_some) {
                continue;
            }
            let Some(name) = self.name(self.recipes, *new, by) else { continue };
            let Some(candidates) = candidates.get_mut(&name) else { continue };
            while let Some(candidate) = candidates.pop() {
                if !self.is_used(candidate) {
                    self.found(*new, candidate);
                    self.follow();
                    break;
                }
            }
        }
    }

    fn is_used(&self, base: u32) -> bool {
        self.used.get(base as usize).copied().unwrap_or(true)
    }

    fn name(&self, recipes: &[Recipe], number: usize, by: By) -> Option<u32> {
        let name = *recipes.get(number)?.values.get(column::NAME)?;
        match by {
            By::Name => Some(name),
            By::Stem => self.stems.get(name as usize).copied(),
        }
    }

    fn found(&mut self, new: usize, base: u32) {
        if let (Some(of), Some(used)) =
            (self.pairs.of.get_mut(new), self.used.get_mut(base as usize))
        {
            *of = Some(base);
            *used = true;
            self.open.push_back((new, base));
        }
    }

    /// Walks on from what was paired.
    fn follow(&mut self) {
        while let Some((new, base)) = self.open.pop_front() {
            let (Some(new), Some(base)) =
                (self.recipes.get(new), self.base.recipes.get(base as usize))
            else {
                continue;
            };
            let of_base: HashMap<usize, &[Target]> =
                slots(self.tables, base).map(|slot| (slot.column, slot.mentions)).collect();
            for slot in slots(self.tables, new) {
                if let Some(mentions) = of_base.get(&slot.column) {
                    self.align(slot.mentions, mentions);
                }
            }
            self.align(&new.extra, &base.extra);
        }
    }

    /// Pairs what two places mention.
    fn align(&mut self, new: &[Target], base: &[Target]) {
        if new.len() == base.len() {
            for (new, base) in new.iter().zip(base) {
                self.compare(*new, *base, By::Stem);
            }
        }
        for by in [By::Name, By::Stem] {
            let mut candidates: HashMap<Key<'_>, VecDeque<Target>> = HashMap::new();
            for target in base.iter().filter(|target| self.is_free(**target)) {
                if let Some(key) = self.key(*target, by) {
                    candidates.entry(key).or_default().push_back(*target);
                }
            }
            if candidates.is_empty() {
                return;
            }
            for target in new {
                if !self.is_new(*target) {
                    continue;
                }
                let Some(key) = self.key(*target, by) else { continue };
                while let Some(candidate) = candidates.get_mut(&key).and_then(VecDeque::pop_front) {
                    if self.compare(*target, candidate, by) {
                        break;
                    }
                }
            }
        }
    }

    /// Whether something of the base has no counterpart yet.
    fn is_free(&self, base: Target) -> bool {
        match base {
            Target::Plain(number) => !self.pairs.plain.contains_key(&number),
            Target::Derivation(number) | Target::Output { derivation: number, .. } => {
                !self.is_used(number)
            }
        }
    }

    /// Whether something is in the bundle and is no counterpart yet.
    fn is_new(&self, new: Target) -> bool {
        match new {
            Target::Plain(number) => {
                number >= self.base.plain && !self.used_plain.contains(&number)
            }
            Target::Derivation(number) | Target::Output { derivation: number, .. } => {
                let place = number.checked_sub(self.first);
                place.is_some_and(|place| self.pairs.of.get(place as usize) == Some(&None))
            }
        }
    }

    fn key(&self, target: Target, by: By) -> Option<Key<'a>> {
        match target {
            Target::Plain(number) => {
                let path = self.paths.get(number as usize)?;
                Some(Key::Path(match by {
                    By::Name => path.name().as_bytes(),
                    By::Stem => Name::new(path.name().as_bytes()).stem(),
                }))
            }
            Target::Derivation(number) | Target::Output { derivation: number, .. } => {
                let (recipes, number) = match number.checked_sub(self.first) {
                    Some(place) => (self.recipes, place),
                    None => (self.base.recipes.as_slice(), number),
                };
                Some(Key::Derivation(self.name(recipes, number as usize, by)?))
            }
        }
    }

    /// Pairs the two if they are new and alike.
    fn compare(&mut self, new: Target, base: Target, by: By) -> bool {
        let alike = self.is_new(new)
            && self.is_free(base)
            && self.key(new, by).is_some_and(|key| self.key(base, by) == Some(key));
        match (new, base) {
            _ if !alike => {}
            (Target::Plain(new), Target::Plain(base)) => {
                self.pairs.plain.insert(base, new);
                self.used_plain.insert(new);
            }
            _ => {
                if let (Some(new), Some(base)) = (new.derivation(), base.derivation()) {
                    self.found(new.saturating_sub(self.first) as usize, base);
                }
            }
        }
        alike
    }
}

/// What things that are alike have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Path(&'a [u8]),
    Derivation(u32),
}
