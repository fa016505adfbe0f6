//! The strings of a coded derivation, one by one.

use crate::derivations::model::{Recipe, Tables, Target, column, column_of};

/// One string.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) column: usize,
    /// Its number in the column.
    pub(crate) value: u32,
    pub(crate) mentions: &'a [Target],
}

/// The strings of a derivation, in the order of its columns.
pub(crate) fn slots<'a>(tables: &'a Tables, recipe: &'a Recipe) -> impl Iterator<Item = Slot<'a>> {
    let keys = tables.shapes.get(recipe.shape as usize).map(|shape| shape.keys.as_slice());
    let keys = keys.unwrap_or_default().iter().map(|key| column_of(*key));
    let mut rest = &*recipe.mentions;
    (column::NAME..column::FIRST_KEY).chain(keys).zip(&recipe.values).map(move |(column, value)| {
        let template = tables.columns.get(column).and_then(|all| all.get(*value as usize));
        let count = template.map_or(0, |template| template.mentions as usize);
        let (mentions, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = behind;
        Slot { column, value: *value, mentions }
    })
}
