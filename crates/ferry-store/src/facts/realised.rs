//! The paths that outputs got which have none before they are built.

use ferry_formats::StorePath;
use ferry_formats::realisation::{self, RealisationHashes};
use ferry_graph::{DerivationFacts, Ledger, NodeId};

use super::derivations;
use crate::Result;
use crate::local::Layout;
use crate::local::database::Database;
use crate::local::realisations::RealisationTable;

/// What is remembered from derivation to derivation.
#[derive(Default)]
pub(super) struct Realised {
    /// The tables that the store uses, once that was looked up. Most stores use none.
    tables: Option<Vec<RealisationTable>>,
    hashes: RealisationHashes,
}

impl Realised {
    /// Enters the paths of a derivation's outputs that have none in `facts`.
    pub(super) fn enter(
        &mut self,
        layout: &Layout,
        database: &Database,
        (node, path): (NodeId, &StorePath),
        facts: &DerivationFacts,
        ledger: &mut Ledger<'_>,
    ) -> Result<()> {
        let open = || facts.outputs.iter().filter(|(_, path)| path.is_none());
        if open().next().is_none() {
            return Ok(());
        }
        let tables = match &self.tables {
            Some(tables) => tables.clone(),
            None => self.tables.insert(database.query(RealisationTable::in_use)?).clone(),
        };
        for table in tables {
            let Some(key) = self.key(table, layout, path)? else { continue };
            for (name, _) in open() {
                let found = database.query(|connection| table.find(connection, &key, name))?;
                if let Some(found) = found {
                    let parsed = layout.store_dir.parse_path(found.as_bytes());
                    let parsed = parsed
                        .map_err(|source| database.damaged(format!("`{found}`: {source}")))?;
                    let output = ledger.node(&parsed);
                    ledger.realised(node, name, output);
                }
            }
        }
        Ok(())
    }

    /// What a derivation is filed under.
    fn key(
        &mut self,
        table: RealisationTable,
        layout: &Layout,
        path: &StorePath,
    ) -> Result<Option<String>> {
        if table == RealisationTable::ByPath {
            return Ok(Some(path.to_basename()));
        }
        let mut text = Vec::new();
        let mut read = |path: &StorePath| derivations::read_one(layout, path, &mut text);
        let Some(derivation) = read(path)? else { return Ok(None) };
        let hash = self.hashes.of(&derivation, &mut read)?;
        Ok(hash.as_ref().map(realisation::render))
    }
}
