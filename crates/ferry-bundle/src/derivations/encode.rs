//! Takes derivations in, one by one, and codes those that come back byte for byte.

use hashbrown::{HashMap, HashSet};

use ferry_formats::{ContentAddress, PathInfo, StoreDir, StorePath};

use crate::Prerequisites;
use crate::derivations::base::{Base, DerivationBase, Extent};
use crate::derivations::columns;
use crate::derivations::form::{HASH, can_be_read, hash_part, kind_of};
use crate::derivations::given::Given;
use crate::derivations::model::{
    Kind, Known, Recipe, Shape, Tables, Target, Template, column, column_of,
};
use crate::derivations::render::Context;
use crate::derivations::settle::{Settled, nar_size, settle};
use crate::derivations::side_by_side::Earlier;
use crate::derivations::tokens::{Builder, Name, is_text};
use crate::format::limit;
use ferry_formats::derivation::hash_placeholder;
use ferry_formats::derivation_parts::{Parts, split};

/// Characters in a placeholder, its slash not counted.
const PLACEHOLDER: usize = 52;

/// Collects coded derivations.
pub(crate) struct Encoder {
    pub(super) store_dir: StoreDir,
    /// What a store path begins with.
    pub(super) prefix: Vec<u8>,
    /// The sources of the base, all paths of the plan, then the prerequisites.
    pub(super) paths: Vec<StorePath>,
    pub(super) rendered: Vec<Box<str>>,
    /// Derivations by the hash part of their path, and of their outputs' paths.
    pub(super) plain: HashMap<[u8; HASH], Target>,
    pub(super) derivations: HashMap<[u8; HASH], Target>,
    outputs: HashMap<[u8; HASH], Target>,
    placeholders: HashMap<[u8; PLACEHOLDER], Placeholder>,
    pub(super) tables: Tables,
    interned: Interned,
    /// Those of the base, while it is taken in.
    pub(super) recipes: Vec<Recipe>,
    /// Those of the base, those that are given, and those that are coded.
    pub(super) known: Vec<Known>,
    pub(super) base: Base,
    given: Vec<GivenEntry>,
    /// How many prerequisites there are.
    prerequisites: u32,
    /// The place of each in the plan.
    places: Vec<usize>,
}

/// A derivation that is given, and its number among the prerequisites.
pub(crate) type GivenEntry = (Given, u32);

#[derive(Clone, Copy)]
enum Placeholder {
    Word(u32),
    Target(Target),
}

#[derive(Default)]
struct Interned {
    words: HashMap<Vec<u8>, u32>,
    keys: HashMap<Vec<u8>, u32>,
    shapes: HashMap<Shape, u32>,
    columns: Vec<HashMap<Vec<u8>, u32>>,
}

impl Encoder {
    /// One that knows nothing.
    pub(super) fn empty(store_dir: &StoreDir) -> Self {
        let prefix = match store_dir.as_str() {
            "/" => b"/".to_vec(),
            other => format!("{other}/").into_bytes(),
        };
        Self {
            store_dir: store_dir.clone(),
            prefix,
            paths: Vec::new(),
            rendered: Vec::new(),
            plain: HashMap::new(),
            derivations: HashMap::new(),
            outputs: HashMap::new(),
            placeholders: HashMap::new(),
            tables: Tables::default(),
            interned: Interned::default(),
            recipes: Vec::new(),
            known: Vec::new(),
            base: Base::default(),
            given: Vec::new(),
            prerequisites: 0,
            places: Vec::new(),
        }
    }

    /// For derivations among these paths, where the other side has the prerequisites.
    pub(crate) fn new(
        store_dir: &StoreDir,
        infos: &[PathInfo],
        prerequisites: &Prerequisites,
        base: Option<&DerivationBase>,
    ) -> Self {
        let list = prerequisites.list();
        let taken = base.and_then(DerivationBase::take);
        let mut this = taken.unwrap_or_else(|| Self::empty(store_dir));
        this.prerequisites = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let carried = infos.iter().map(|info| &info.path);
        carried.chain(list.iter().map(|one| &one.path)).for_each(|path| this.announce(path));
        let numbers: HashMap<&StorePath, u32> = list.iter().map(|one| &one.path).zip(0..).collect();
        let roots = base.map(DerivationBase::roots).unwrap_or_default();
        this.base.roots = roots.iter().filter_map(|path| numbers.get(path).copied()).collect();
        for given in prerequisites.given() {
            if let Some(number) = numbers.get(&given.path) {
                this.give(given, *number);
            }
        }
        this
    }

    pub(crate) fn base(&self) -> &Base {
        &self.base
    }

    /// There are so many more prerequisites, behind the others.
    pub(crate) fn add_prerequisites(&mut self, more: usize) {
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.prerequisites = self.prerequisites.saturating_add(more);
    }

    /// Makes a path known that is no coded derivation.
    pub(super) fn announce(&mut self, path: &StorePath) {
        let rendered = self.store_dir.render_path(path);
        if !path.is_derivation()
            && let Some(hash) = hash_part(rendered.as_bytes(), &self.prefix)
            && let Ok(number) = u32::try_from(self.paths.len())
        {
            self.plain.insert(hash, Target::Plain(number));
        }
        self.paths.push(path.clone());
        self.rendered.push(rendered.into());
    }

    /// Makes a derivation known that is not in the bundle.
    fn give(&mut self, given: &Given, number: u32) -> Option<()> {
        let words = given.outputs.iter().map(|output| self.word(&output.name));
        let words = words.collect::<Option<Vec<u32>>>()?;
        let known = given.known(&self.store_dir, &words)?;
        self.learn(&known)?;
        self.given.push((given.clone(), number));
        self.known.push(known);
        Some(())
    }

    /// Codes the derivation at a place in the plan, or returns `false` where it cannot be coded.
    /// Inputs come before their dependents.
    pub(crate) fn add(&mut self, place: usize, info: &PathInfo, text: &[u8]) -> bool {
        self.code(place, info, text).is_some()
    }

    fn code(&mut self, place: usize, info: &PathInfo, text: &[u8]) -> Option<()> {
        if info.deriver.is_some() || !can_be_read(text) {
            return None;
        }
        let (recipe, settled) = self.settled(&info.path, text)?;
        // What came into a store by `nix-store --import` has no content address on record there,
        // and gets the one that it has.
        let address = ContentAddress::Text(settled.digest);
        let same = settled.references.as_slice() == &*info.references
            && info.ca.as_ref().is_none_or(|on_record| *on_record == address)
            && info.nar_size == nar_size(text.len());
        if !same {
            return None;
        }
        self.learn(&settled.known)?;
        self.recipes.push(recipe);
        self.known.push(settled.known);
        self.places.push(place);
        Some(())
    }

    /// Takes a text apart, if it comes back byte for byte.
    pub(super) fn settled(&mut self, path: &StorePath, text: &[u8]) -> Option<(Recipe, Settled)> {
        let escaped = |byte: &u8| matches!(byte, b'"' | b'\\') || *byte < b' ';
        if self.prefix.iter().any(escaped) || text.len() > limit::DERIVATION {
            return None;
        }
        let parts = split(text)?;
        let sorted = parts.environment.is_sorted_by(|a, b| a.0 < b.0)
            && parts.outputs.is_sorted_by(|[a, ..], [b, ..]| a < b);
        if !sorted {
            return None;
        }
        let name = path.name().strip_suffix(".drv")?;
        let recipe = self.recipe(name.as_bytes(), &parts)?;
        let mut again = Vec::with_capacity(text.len());
        let settled = {
            let context = self.context();
            settle(&self.store_dir, &|target| self.path(target), &context, &recipe, &mut again)
                .ok()?
        };
        (again == text && settled.known.path == *path).then_some((recipe, settled))
    }

    /// Forgets the strings that came after `before`, which were those of something without a code.
    pub(super) fn forget(&mut self, before: &Extent) {
        let Extent { words, keys, shapes, templates } = before;
        let known = |number: &u32, count: usize| (*number as usize) < count;
        self.tables.words.truncate(*words);
        self.tables.keys.truncate(*keys);
        self.tables.shapes.truncate(*shapes);
        self.interned.words.retain(|_, number| known(number, *words));
        self.interned.keys.retain(|_, number| known(number, *keys));
        self.interned.shapes.retain(|_, number| known(number, *shapes));
        self.placeholders.retain(|_, found| match found {
            Placeholder::Word(number) => known(number, *words),
            Placeholder::Target(_) => true,
        });
        let columns = self.tables.columns.iter_mut().zip(&mut self.interned.columns);
        for (column, (all, interned)) in columns.enumerate() {
            let count = templates.get(column).copied().unwrap_or(0);
            if all.len() > count {
                all.truncate(count);
                interned.retain(|_, number| known(number, count));
            }
        }
    }

    fn context(&self) -> Context<'_> {
        Context { tables: &self.tables, plain: &self.rendered, known: Earlier::new(&self.known) }
    }

    fn path(&self, target: Target) -> Option<StorePath> {
        match target {
            Target::Plain(number) => self.paths.get(number as usize).cloned(),
            Target::Derivation(number) => {
                self.known.get(number as usize).map(|known| known.path.clone())
            }
            Target::Output { .. } => None,
        }
    }

    /// Makes a derivation known to those that follow.
    pub(super) fn learn(&mut self, known: &Known) -> Option<()> {
        let number = u32::try_from(self.known.len()).ok()?;
        let hash = hash_part(known.rendered.as_bytes(), &self.prefix)?;
        self.derivations.insert(hash, Target::Derivation(number));
        for output in &known.outputs {
            let target = Target::Output { derivation: number, word: output.word };
            if output.is_path {
                let hash = hash_part(output.text.as_bytes(), &self.prefix)?;
                self.outputs.insert(hash, target);
            } else {
                let hash = output.text.as_bytes().get(1..)?.try_into().ok()?;
                self.placeholders.insert(hash, Placeholder::Target(target));
            }
        }
        Some(())
    }

    fn recipe(&mut self, name: &[u8], parts: &Parts<'_>) -> Option<Recipe> {
        let mut digest = Box::default();
        let mut outputs = Vec::new();
        for output in &parts.outputs {
            let (kind, fixed) = kind_of(output)?;
            if let Kind::Fixed(_) = kind {
                digest = fixed;
            }
            let [name, ..] = output;
            outputs.push((self.word(name)?, kind));
        }
        let inputs = self.inputs(parts)?;
        let wanted: HashSet<Target> = inputs.iter().copied().collect();
        let named = Name::new(name);
        let mut mentions = Vec::new();
        let mut values = Vec::new();
        let mut builder = Builder::default();
        builder.text(name, None);
        values.push(self.template(column::NAME, std::mem::take(&mut builder), 0)?);
        for (column, text) in [(column::SYSTEM, parts.system), (column::BUILDER, parts.builder)] {
            let before = mentions.len();
            self.tokenise(text, named, &wanted, &mut builder, &mut mentions);
            let count = mentions.len() - before;
            values.push(self.template(column, std::mem::take(&mut builder), count)?);
        }
        for argument in &parts.arguments {
            self.tokenise(argument, named, &wanted, &mut builder, &mut mentions);
            builder.end_argument();
        }
        let before = values.len();
        let count = mentions.len() - self.mentioned(&values)?;
        debug_assert_eq!(before, column::ARGUMENTS);
        values.push(self.template(column::ARGUMENTS, std::mem::take(&mut builder), count)?);
        let mut keys = Vec::new();
        for (key, value) in &parts.environment {
            let key_number = self.key(key)?;
            let own = parts.outputs.iter().find(|[name, ..]| name == key);
            let before = mentions.len();
            match own {
                Some([_, path, ..]) if !path.is_empty() && path == value => builder.own_output(),
                _ => self.tokenise(value, named, &wanted, &mut builder, &mut mentions),
            }
            let count = mentions.len() - before;
            let column = column_of(key_number);
            values.push(self.template(column, std::mem::take(&mut builder), count)?);
            keys.push(key_number);
        }
        let (extra, dropped) = difference(&mentions, &inputs, &wanted)?;
        Some(Recipe {
            shape: self.shape(Shape { outputs, keys })?,
            values: values.into(),
            mentions: mentions.into(),
            extra: extra.into(),
            dropped: dropped.into(),
            digest,
        })
    }

    /// How many things the first columns of a derivation mention.
    fn mentioned(&self, values: &[u32]) -> Option<usize> {
        let context = self.context();
        values
            .iter()
            .enumerate()
            .map(|(column, number)| Some(context.template(column, *number).ok()?.mentions as usize))
            .sum()
    }

    /// The inputs, which have to be coded derivations and paths that are no derivations.
    fn inputs(&self, parts: &Parts<'_>) -> Option<Vec<Target>> {
        let mut inputs = Vec::new();
        for (path, outputs) in &parts.inputs {
            let hash = hash_part(path, &self.prefix)?;
            let derivation = self.derivations.get(&hash)?.derivation()?;
            for output in outputs {
                let word = *self.interned.words.get(*output)?;
                inputs.push(Target::Output { derivation, word });
            }
        }
        for path in &parts.sources {
            let hash = hash_part(path, &self.prefix)?;
            inputs.push(*self.plain.get(&hash).or_else(|| self.derivations.get(&hash))?);
        }
        Some(inputs)
    }

    /// Replaces what is mentioned in a string by tokens.
    fn tokenise(
        &self,
        mut text: &[u8],
        name: Name<'_>,
        wanted: &HashSet<Target>,
        out: &mut Builder,
        mentions: &mut Vec<Target>,
    ) {
        let name = (text.len() <= 4096).then_some(name);
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| memchr::memchr(b'/', rest)) {
            let at = from + at;
            let here = text.get(at..).unwrap_or_default();
            let Some((length, found)) = self.find(here, wanted) else {
                from = at + 1;
                continue;
            };
            out.text(text.get(..at).unwrap_or_default(), name);
            match found {
                Placeholder::Word(word) => out.placeholder(word),
                Placeholder::Target(target) => {
                    out.mention();
                    mentions.push(target);
                }
            }
            text = here.get(length..).unwrap_or_default();
            from = 0;
        }
        out.text(text, name);
    }

    /// What a text begins with, and how long that is.
    fn find(&self, text: &[u8], wanted: &HashSet<Target>) -> Option<(usize, Placeholder)> {
        if let Some(hash) = hash_part(text, &self.prefix) {
            let mut best = None;
            for paths in [&self.outputs, &self.plain, &self.derivations] {
                let Some(target) = paths.get(&hash).copied() else { continue };
                let Ok(path) = self.context().text(target) else { continue };
                if text.starts_with(path.as_bytes()) && (best.is_none() || wanted.contains(&target))
                {
                    best = Some((path.len(), Placeholder::Target(target)));
                }
            }
            if best.is_some() {
                return best;
            }
        }
        let hash: &[u8; PLACEHOLDER] = text.get(1..=PLACEHOLDER)?.try_into().ok()?;
        self.placeholders.get(hash).map(|found| (PLACEHOLDER + 1, *found))
    }

    fn word(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(number) = self.interned.words.get(name) {
            return Some(*number);
        }
        let number = u32::try_from(self.tables.words.len()).ok()?;
        let text = std::str::from_utf8(name).ok()?;
        if name.contains(&0) {
            return None;
        }
        let placeholder = hash_placeholder(text);
        let hash = placeholder.as_bytes().get(1..)?.try_into().ok()?;
        self.placeholders.insert(hash, Placeholder::Word(number));
        self.tables.words.push(text.to_owned());
        self.interned.words.insert(name.to_vec(), number);
        Some(number)
    }

    fn key(&mut self, key: &[u8]) -> Option<u32> {
        if let Some(number) = self.interned.keys.get(key) {
            return Some(*number);
        }
        if key.contains(&0) {
            return None;
        }
        let number = u32::try_from(self.tables.keys.len()).ok()?;
        self.tables.keys.push(key.into());
        self.interned.keys.insert(key.to_vec(), number);
        Some(number)
    }

    fn shape(&mut self, shape: Shape) -> Option<u32> {
        if let Some(number) = self.interned.shapes.get(&shape) {
            return Some(*number);
        }
        let number = u32::try_from(self.tables.shapes.len()).ok()?;
        self.tables.shapes.push(shape.clone());
        self.interned.shapes.insert(shape, number);
        Some(number)
    }

    fn template(&mut self, column: usize, built: Builder, mentions: usize) -> Option<u32> {
        if self.tables.columns.len() <= column {
            self.tables.columns.resize_with(column + 1, Vec::new);
            self.interned.columns.resize_with(column + 1, HashMap::new);
        }
        let known = self.interned.columns.get_mut(column)?;
        if let Some(number) = known.get(&built.0) {
            return Some(*number);
        }
        let templates = self.tables.columns.get_mut(column)?;
        let number = u32::try_from(templates.len()).ok()?;
        let mentions = u32::try_from(mentions).ok()?;
        let is_text = is_text(&built.0);
        templates.push(Template { bytes: built.0.as_slice().into(), mentions, is_text });
        known.insert(built.0, number);
        Some(number)
    }

    /// The section with everything that was coded, and the places in the plan in its order.
    pub(crate) fn finish(
        self,
        infos: &[PathInfo],
        level: i32,
    ) -> std::io::Result<(Vec<u8>, Vec<usize>)> {
        let Self { tables, recipes, places, mut known, rendered, paths, interned, .. } = self;
        let Self { outputs, given, store_dir, prerequisites, base, .. } = self;
        known.truncate(base.recipes.len() + given.len());
        let known = known.split_off(base.recipes.len().min(known.len()));
        let paths = if base.recipes.is_empty() { Vec::new() } else { paths };
        let beside = columns::Beside { store_dir, given, known, prerequisites, base, paths };
        // What follows has need of the memory.
        drop((rendered, interned, outputs));
        columns::write(tables, recipes, &beside, &places, infos, level)
    }
}

/// What is an input without being mentioned, and which mentions are no inputs.
fn difference(
    mentions: &[Target],
    inputs: &[Target],
    wanted: &HashSet<Target>,
) -> Option<(Vec<Target>, Vec<u32>)> {
    let mut seen = HashSet::new();
    let mut dropped = Vec::new();
    for target in mentions {
        let place = u32::try_from(seen.len()).ok()?;
        if seen.insert(*target) && !wanted.contains(target) {
            dropped.push(place);
        }
    }
    let extra = inputs.iter().copied().filter(|target| !seen.contains(target)).collect();
    Some((extra, dropped))
}
