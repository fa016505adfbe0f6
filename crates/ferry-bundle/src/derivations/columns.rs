//! Writes coded derivations: strings and numbers of one kind side by side.

use hashbrown::{HashMap, HashSet};

use ferry_formats::{PathInfo, StoreDir, StorePath};

use crate::codec::put_number;
use crate::derivations::encode::GivenEntry;
use crate::derivations::given;
use crate::derivations::mentions::Writer;
use crate::derivations::model::{Known, Recipe, Shape, Tables, Target, column, column_of};
use crate::derivations::tokens::END;
use crate::streams;

/// The parts of a column.
#[derive(Default)]
struct Column {
    /// Which string, for each derivation: 0 for a new one, or its number and 1.
    values: Vec<u8>,
    /// What the strings mention.
    mentions: Vec<u8>,
    /// The strings.
    texts: Vec<u8>,
    /// The new numbers of the strings.
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
                    Some((&self.known.get(*derivation as usize)?.path, *word))
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
    let given = beside.given.len();
    let order = order(&recipes, given);
    let plain = plain_numbers(places, infos.len(), beside.prerequisites);
    let mut renumbered: Vec<u32> = (0..).take(given + recipes.len()).collect();
    let first = u32::try_from(given).unwrap_or(u32::MAX);
    for (old, new) in order.iter().zip(first..) {
        if let Some(number) = renumbered.get_mut(given + *old) {
            *number = new;
        }
    }
    let target = |target: Target| match target {
        Target::Plain(number) => {
            Target::Plain(plain.get(number as usize).copied().unwrap_or(u32::MAX))
        }
        Target::Derivation(number) => Target::Derivation(renumber(&renumbered, number)),
        Target::Output { derivation, word } => {
            Target::Output { derivation: renumber(&renumbered, derivation), word }
        }
    };
    let keys = Keys::sorted(&tables);
    let mut columns: Vec<Column> =
        std::iter::repeat_with(Column::default).take(column_count(&tables)).collect();
    let mut shapes = Shapes::default();
    let (mut shape_numbers, mut differences) = (Vec::new(), Vec::new());
    let (mut digests, mut signatures) = (Vec::<u8>::new(), Vec::new());
    let mut writer = Writer::default();
    for (current, number) in (first..).zip(&order) {
        let (Some(recipe), Some(place)) = (recipes.get(*number), places.get(*number)) else {
            continue;
        };
        shapes.put(recipe.shape, &tables, &mut shape_numbers);
        let shape = tables.shapes.get(recipe.shape as usize);
        let key_columns = shape.map(|shape| shape.keys.as_slice()).unwrap_or_default();
        let key_columns = key_columns.iter().map(|key| (column_of(*key), keys.column(*key)));
        let first = (column::NAME..column::FIRST_KEY).map(|column| (column, column));
        let mut mentions = recipe.mentions.iter();
        for ((from, to), value) in first.chain(key_columns).zip(&recipe.values) {
            let template = tables.columns.get(from).and_then(|all| all.get(*value as usize));
            let (Some(column), Some(template)) = (columns.get_mut(to), template) else { continue };
            column.put(*value, &template.bytes);
            for mentioned in mentions.by_ref().take(template.mentions as usize) {
                writer.put(target(*mentioned), current, &mut column.mentions);
            }
        }
        put_number(&mut differences, recipe.extra.len() as u64);
        for extra in &recipe.extra {
            writer.put(target(*extra), current, &mut differences);
        }
        put_number(&mut differences, recipe.dropped.len() as u64);
        recipe.dropped.iter().for_each(|place| put_number(&mut differences, u64::from(*place)));
        let signed = infos.get(*place).map(|info| info.signatures.as_slice()).unwrap_or_default();
        put_number(&mut differences, signed.len() as u64);
        for signature in signed {
            signatures.extend(signature.to_nix_string().as_bytes());
            signatures.push(END);
        }
        digests.extend(&recipe.digest);
        writer.end(current);
    }

    let mut numbers = Vec::new();
    put_number(&mut numbers, given as u64);
    put_number(&mut numbers, order.len() as u64);
    put_number(&mut numbers, tables.words.len() as u64);
    put_number(&mut numbers, keys.order.len() as u64);
    let mut given_digests = Vec::new();
    let outputs = beside.write(&recipes, &mut numbers, &mut given_digests);
    given_digests.extend(digests);
    let digests = given_digests;
    shapes.write(&tables, &keys, &mut numbers);
    let mut texts = Vec::new();
    for word in &tables.words {
        texts.extend(word.as_bytes());
        texts.push(END);
    }
    for key in keys.order.iter().filter_map(|key| tables.keys.get(*key as usize)) {
        texts.extend(key.iter());
        texts.push(END);
    }
    put_number(&mut numbers, shape_numbers.len() as u64);
    put_number(&mut numbers, differences.len() as u64);
    put_number(&mut numbers, signatures.len() as u64);
    for column in &columns {
        for part in [&column.values, &column.mentions, &column.texts] {
            put_number(&mut numbers, part.len() as u64);
        }
    }
    numbers.extend(shape_numbers);
    numbers.extend(differences);
    columns.iter().for_each(|column| numbers.extend(&column.values));
    columns.iter().for_each(|column| numbers.extend(&column.mentions));
    texts.extend(signatures);
    columns.iter().for_each(|column| texts.extend(&column.texts));
    // Compression has need of the memory.
    drop((columns, tables, recipes, writer));
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

/// Up to so many bytes the best compression takes next to no time.
const SMALL: usize = 2 << 20;
const SMALL_LEVEL: i32 = 19;

impl Column {
    fn put(&mut self, value: u32, text: &[u8]) {
        if let Some(number) = self.numbers.get(&value) {
            return put_number(&mut self.values, number + 1);
        }
        self.numbers.insert(value, self.numbers.len() as u64);
        put_number(&mut self.values, 0);
        self.texts.extend(text);
        self.texts.push(END);
    }
}

fn column_count(tables: &Tables) -> usize {
    column::FIRST_KEY + tables.keys.len()
}

fn renumber(renumbered: &[u32], number: u32) -> u32 {
    renumbered.get(number as usize).copied().unwrap_or(u32::MAX)
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

    fn column(&self, key: u32) -> usize {
        column::FIRST_KEY + self.rank(key)
    }
}

/// Shapes in the order in which they are met.
#[derive(Default)]
struct Shapes {
    order: Vec<u32>,
    numbers: HashMap<u32, u64>,
}

impl Shapes {
    fn put(&mut self, shape: u32, tables: &Tables, out: &mut Vec<u8>) {
        debug_assert!((shape as usize) < tables.shapes.len());
        let next = self.numbers.len() as u64;
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

/// An order of those behind the first `given` in which each derivation follows what it mentions, the first mentioned last: so that
/// what is mentioned next is mostly the last that was not.
fn order(recipes: &[Recipe], given: usize) -> Vec<usize> {
    let edges = |recipe: &Recipe| -> Vec<usize> {
        let all = recipe.mentions.iter().chain(&recipe.extra);
        let mut seen = hashbrown::HashSet::new();
        let mut edges: Vec<usize> = all
            .filter_map(|target| target.derivation())
            .filter_map(|number| (number as usize).checked_sub(given))
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
    let mut done = vec![false; recipes.len()];
    let mut order = Vec::with_capacity(recipes.len());
    let roots = is_used.iter().enumerate().filter(|(_, used)| !**used).map(|(number, _)| number);
    for root in roots {
        let mut open = vec![(root, recipes.get(root).map(edges).unwrap_or_default().into_iter())];
        if let Some(done) = done.get_mut(root) {
            *done = true;
        }
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
