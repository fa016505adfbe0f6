//! Rows of a store's database as objects of a graph.

use ferry_formats::StoreDir;
use ferry_graph::{Ledger, NodeId, ObjectFacts};
use hashbrown::HashMap;
use rusqlite::Connection;

use crate::local::database::ReadError;
use crate::local::tables::{self, Lookup, NOT_REGISTERED, PathRow, parse_path};

type Result<T> = std::result::Result<T, ReadError>;

/// Which rows are which nodes, as far as it was met with.
#[derive(Default)]
pub(super) struct Numbers {
    generation: u64,
    nodes: HashMap<i64, NodeId>,
    ids: HashMap<NodeId, i64>,
}

impl Numbers {
    fn put(&mut self, id: i64, node: NodeId) {
        self.nodes.insert(id, node);
        self.ids.insert(node, id);
    }

    fn forget_other_generations(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }
}

/// What was read about some paths. It is entered only once all of it is known to be of one state
/// of the database.
#[derive(Default)]
pub(super) struct Objects {
    objects: Vec<Object>,
    references: Vec<NodeId>,
}

struct Object {
    id: i64,
    node: NodeId,
    nar_size: Option<u64>,
    deriver: Option<NodeId>,
    content_addressed: bool,
    /// Where its references end; they begin where those of the one before it end.
    end: usize,
    is_damaged: bool,
}

impl Objects {
    /// Looks the valid ones of `wanted` up, one by one; `None` where that takes more than
    /// `budget` rows. What is read is taken off it.
    pub(super) fn look_up(
        (connection, generation): (&Connection, u64),
        wanted: &[NodeId],
        numbers: &mut Numbers,
        budget: &mut usize,
        ledger: &mut Ledger<'_>,
    ) -> Result<Option<Self>> {
        numbers.forget_other_generations(generation);
        let store_dir = ledger.store_dir().clone();
        let mut lookup = Lookup::new(connection)?;
        let mut found = Self::default();
        let mut ids = Vec::new();
        for &node in wanted {
            let Some(path) = ledger.path(node) else { continue };
            let Some(left) = budget.checked_sub(1) else { return Ok(None) };
            *budget = left;
            let mut read = |row: PathRow<'_>| Object::of(&row, node, &store_dir, ledger);
            let row = match numbers.ids.get(&node) {
                Some(&id) => lookup.row_of(id, &mut read)?,
                None => None,
            };
            // One that was made valid again has another id.
            let row = match row {
                Some(row) => Some(row),
                None => lookup.row(&store_dir.render_path(&path), read)?,
            };
            let Some(mut object) = row else { continue };
            numbers.put(object.id, node);
            lookup.references(object.id, &mut ids)?;
            for &id in &ids {
                let known = numbers.nodes.get(&id).copied();
                let reference = match known {
                    Some(reference) => reference,
                    None => {
                        let Some(left) = budget.checked_sub(1) else { return Ok(None) };
                        *budget = left;
                        let parse = |text: &[u8]| Ok(ledger.node(&parse_path(&store_dir, text)?));
                        // Without its name, what the path refers to would be left out in silence.
                        let reference = lookup.path_of(id, parse)?.ok_or_else(|| {
                            let path = store_dir.render_path(&path);
                            ReadError::Contents(format!("a reference of {path}: {NOT_REGISTERED}"))
                        })?;
                        numbers.put(id, reference);
                        reference
                    }
                };
                found.references.push(reference);
            }
            object.end = found.references.len();
            found.objects.push(object);
        }
        Ok(Some(found))
    }

    /// Reads everything. What is damaged is noted, and has to be looked up by who wants it.
    pub(super) fn read_all(connection: &Connection, ledger: &mut Ledger<'_>) -> Result<Self> {
        let store_dir = ledger.store_dir().clone();
        let mut nodes: HashMap<i64, NodeId> = HashMap::new();
        let mut found = Self::default();
        tables::each_path(connection, |row| {
            // A path that nobody can name; what refers to it is damaged, below.
            let Ok(path) = store_dir.parse_path(row.path) else { return Ok(()) };
            let node = ledger.node(&path);
            let object = Object::of(&row, node, &store_dir, ledger);
            nodes.insert(row.id, node);
            found.objects.push(object.unwrap_or_else(|_| Object::damaged(row.id, node)));
            Ok(())
        })?;
        let Self { objects, references } = &mut found;
        let mut objects = objects.iter_mut();
        let mut current = objects.next();
        tables::each_reference(connection, |referrer, reference| {
            while let Some(object) = current.take_if(|object| object.id < referrer) {
                object.end = references.len();
                current = objects.next();
            }
            let Some(object) = current.as_mut().filter(|object| object.id == referrer) else {
                return;
            };
            match nodes.get(&reference) {
                Some(reference) => references.push(*reference),
                None => object.is_damaged = true,
            }
        })?;
        for object in current.into_iter().chain(objects) {
            object.end = references.len();
        }
        Ok(found)
    }

    /// The nodes that were found.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.objects.iter().map(|object| object.node)
    }

    /// Those of which not everything could be read.
    pub(super) fn damaged(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.objects.iter().filter(|object| object.is_damaged).map(|object| object.node)
    }

    /// Enters all but the damaged.
    pub(super) fn enter(&self, ledger: &mut Ledger<'_>) {
        let mut start = 0;
        for object in &self.objects {
            let references = self.references.get(start..object.end).unwrap_or_default();
            start = object.end;
            if !object.is_damaged {
                ledger.object(
                    object.node,
                    &ObjectFacts {
                        references,
                        nar_size: object.nar_size,
                        deriver: object.deriver,
                        content_addressed: Some(object.content_addressed),
                    },
                );
            }
        }
    }
}

impl Object {
    fn of(
        row: &PathRow<'_>,
        node: NodeId,
        store_dir: &StoreDir,
        ledger: &mut Ledger<'_>,
    ) -> Result<Self> {
        let nar_size = row.nar_size.map(u64::try_from).transpose().map_err(|error| {
            let path = String::from_utf8_lossy(row.path);
            ReadError::Contents(format!("narSize of {path}: {error}"))
        })?;
        let deriver = match row.deriver {
            Some(deriver) => Some(ledger.node(&parse_path(store_dir, deriver)?)),
            None => None,
        };
        Ok(Self {
            id: row.id,
            node,
            // No NAR has no bytes: Nix writes 0 where it does not know.
            nar_size: nar_size.filter(|size| *size > 0),
            deriver,
            content_addressed: row.content_addressed,
            end: 0,
            is_damaged: false,
        })
    }

    fn damaged(id: i64, node: NodeId) -> Self {
        Self {
            id,
            node,
            nar_size: None,
            deriver: None,
            content_addressed: false,
            end: 0,
            is_damaged: true,
        }
    }
}
