//! A store on disk as facts: its database, and its `.drv` files.
//!
//! Asked about a few paths, it looks them up one by one. Once what was asked adds up to a fair
//! share of the store, it reads the tables from end to end, which costs a small part of that for
//! each path, and answers every question to come.

use ferry_formats::StorePath;
use ferry_graph::{Facts, FactsError, Ledger, NodeId, NodeSet, Question};

use super::derivations;
use super::objects::{Numbers, Objects};
use super::realised::Realised;
use crate::local::LocalStore;
use crate::local::database::Database;
use crate::local::tables::{self, Lookup, parse_path};
use crate::{Result, Store as _};

/// The facts of a [`LocalStore`], for one graph.
pub struct LocalFacts<'a> {
    store: &'a LocalStore,
    objects: Share,
    derivers: Share,
    validity: Share,
    /// How many rows are a fair share, once that was found out.
    fair: Option<usize>,
    numbers: Numbers,
    /// All valid paths, once they were read.
    valid: Option<NodeSet>,
    /// Paths of which not everything could be read with the others.
    damaged: NodeSet,
    realised: Realised,
}

/// How much of a table was read.
#[derive(Default)]
struct Share {
    rows: usize,
    is_whole: bool,
}

impl<'a> LocalFacts<'a> {
    pub(crate) fn new(store: &'a LocalStore) -> Self {
        Self {
            store,
            objects: Share::default(),
            derivers: Share::default(),
            validity: Share::default(),
            fair: None,
            numbers: Numbers::default(),
            valid: None,
            damaged: NodeSet::default(),
            realised: Realised::default(),
        }
    }

    /// The database, or `None` where somebody has kept the files and nothing else.
    fn database(&self) -> Result<Option<&'a Database>> {
        let layout = self.store.layout();
        match layout.database().try_exists() {
            Ok(false) if layout.real_store_dir.is_dir() => Ok(None),
            // One that must not be looked at is not one that is not there.
            _ => self.store.database().map(Some),
        }
    }

    /// How many more rows may be looked up before it is worth while to read all of them.
    fn budget(&mut self, looked_up: usize, database: &Database) -> Result<usize> {
        let fair = match self.fair {
            Some(fair) => fair,
            None => *self.fair.insert(database.query(tables::fair_share)?),
        };
        Ok(fair.saturating_sub(looked_up))
    }

    fn learn_objects(&mut self, wanted: &[NodeId], ledger: &mut Ledger<'_>) -> Result<()> {
        let Some(database) = self.database()? else { return Ok(()) };
        if !self.objects.is_whole {
            if self.look_up(wanted, database, ledger)? {
                return Ok(());
            }
            self.read_objects(database, ledger)?;
        }
        self.refuse_damaged(wanted, database, ledger)
    }

    fn learn_everything(&mut self, ledger: &mut Ledger<'_>) -> Result<()> {
        let Some(database) = self.database()? else { return Ok(()) };
        if !self.objects.is_whole {
            self.read_objects(database, ledger)?;
        }
        let all: Vec<NodeId> = self.damaged.iter().collect();
        self.refuse_damaged(&all, database, ledger)
    }

    /// Looks paths up one by one, unless that would be more than a fair share.
    fn look_up(
        &mut self,
        wanted: &[NodeId],
        database: &Database,
        ledger: &mut Ledger<'_>,
    ) -> Result<bool> {
        let budget = self.budget(self.objects.rows, database)?;
        let numbers = &mut self.numbers;
        let mut left = budget;
        let found = database.query_generation(|connection, generation| {
            left = budget;
            Objects::look_up((connection, generation), wanted, numbers, &mut left, ledger)
        })?;
        self.objects.rows += budget - left;
        if let Some(found) = &found {
            found.enter(ledger);
        }
        Ok(found.is_some())
    }

    fn read_objects(&mut self, database: &Database, ledger: &mut Ledger<'_>) -> Result<()> {
        let objects = database.query(|connection| Objects::read_all(connection, ledger))?;
        objects.enter(ledger);
        let mut valid = NodeSet::default();
        valid.extend(objects.nodes());
        self.valid = Some(valid);
        self.damaged.extend(objects.damaged());
        self.objects.is_whole = true;
        Ok(())
    }

    /// Looked up alone, what is damaged says what is wrong with it.
    fn refuse_damaged(
        &mut self,
        wanted: &[NodeId],
        database: &Database,
        ledger: &mut Ledger<'_>,
    ) -> Result<()> {
        let damaged = wanted.iter().copied().filter(|node| self.damaged.contains(*node));
        for node in damaged.collect::<Vec<_>>() {
            let numbers = &mut self.numbers;
            let found = database.query_generation(|connection, generation| {
                let at = (connection, generation);
                Objects::look_up(at, &[node], numbers, &mut usize::MAX.clone(), ledger)
            })?;
            // It was mended meanwhile.
            found.iter().for_each(|found| found.enter(ledger));
        }
        Ok(())
    }

    fn learn_derivers(&mut self, wanted: &[NodeId], ledger: &mut Ledger<'_>) -> Result<()> {
        let Some(database) = self.database()? else { return Ok(()) };
        if self.derivers.is_whole {
            return Ok(());
        }
        let whole = wanted.len() > self.budget(self.derivers.rows, database)?;
        self.derivers.rows += wanted.len();
        let store_dir = ledger.store_dir().clone();
        let pairs = database.query(|connection| {
            let mut pairs = Vec::new();
            if whole {
                tables::each_output(connection, |derivation, output| {
                    let derivation = ledger.node(&parse_path(&store_dir, derivation)?);
                    pairs.push((ledger.node(&parse_path(&store_dir, output)?), derivation));
                    Ok(())
                })?;
                return Ok(pairs);
            }
            let mut lookup = Lookup::new(connection)?;
            for &node in wanted {
                let Some(path) = ledger.path(node) else { continue };
                lookup.derivers(&store_dir.render_path(&path), |derivation| {
                    pairs.push((node, ledger.node(&parse_path(&store_dir, derivation)?)));
                    Ok(())
                })?;
            }
            Ok(pairs)
        })?;
        for (output, derivation) in pairs {
            ledger.deriver(output, derivation);
        }
        self.derivers.is_whole = whole;
        Ok(())
    }

    fn learn_derivations(&mut self, wanted: &[NodeId], ledger: &mut Ledger<'_>) -> Result<()> {
        let database = self.database()?;
        let valid = match database {
            Some(database) => self.valid_of(wanted, database, ledger)?,
            None => wanted.to_vec(),
        };
        let wanted = valid.into_iter().filter_map(|node| Some((node, ledger.path(node)?)));
        let wanted: Vec<(NodeId, StorePath)> =
            wanted.filter(|(_, path)| path.is_derivation()).collect();
        let (layout, realised) = (self.store.layout(), &mut self.realised);
        derivations::read(layout, &wanted, |node, path, facts| {
            if let Some(database) = database {
                realised.enter(layout, database, (node, path), &facts, ledger)?;
            }
            ledger.derivation(node, &facts);
            Ok(())
        })
    }

    /// Those of `wanted` that are valid.
    fn valid_of(
        &mut self,
        wanted: &[NodeId],
        database: &Database,
        ledger: &mut Ledger<'_>,
    ) -> Result<Vec<NodeId>> {
        let store_dir = ledger.store_dir().clone();
        if self.valid.is_none() {
            let budget = self.budget(self.validity.rows, database)?;
            self.validity.rows += wanted.len();
            if wanted.len() <= budget {
                return database.query(|connection| {
                    let mut lookup = Lookup::new(connection)?;
                    let mut valid = Vec::new();
                    for &node in wanted {
                        let Some(path) = ledger.path(node) else { continue };
                        if lookup.is_valid(&store_dir.render_path(&path))? {
                            valid.push(node);
                        }
                    }
                    Ok(valid)
                });
            }
            self.valid = Some(database.query(|connection| {
                let mut valid = NodeSet::default();
                tables::each_valid_path(connection, |path| {
                    // What nobody can name is asked about by nobody.
                    if let Ok(path) = store_dir.parse_path(path) {
                        valid.insert(ledger.node(&path));
                    }
                    Ok(())
                })?;
                Ok(valid)
            })?);
        }
        let is_valid = |node: &NodeId| self.valid.as_ref().is_some_and(|set| set.contains(*node));
        Ok(wanted.iter().copied().filter(is_valid).collect())
    }
}

impl Facts for LocalFacts<'_> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn learn(
        &mut self,
        question: Question<'_>,
        ledger: &mut Ledger<'_>,
    ) -> std::result::Result<(), FactsError> {
        match question {
            Question::Objects(wanted) => self.learn_objects(wanted, ledger)?,
            Question::Derivations(wanted) => self.learn_derivations(wanted, ledger)?,
            Question::Derivers(wanted) => self.learn_derivers(wanted, ledger)?,
            Question::Everything => self.learn_everything(ledger)?,
            Question::Evaluations(_) => {}
        }
        Ok(())
    }
}
