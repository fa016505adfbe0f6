//! What became of the outputs of derivations, as a store's database has it.
//!
//! Nix makes the tables for this when it is first used with `ca-derivations`.

use std::collections::{BTreeMap, HashMap};

use ferry_formats::build_trace::{DrvKey, DrvOutput, Realisation};
use ferry_formats::keys::parse_signature;
use ferry_formats::{StoreDir, StorePath, realisation};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::database::{ReadError, database_error};
use super::layout::Layout;
use super::locks::StoreLock;
use super::schema;
use super::tables::parse_path;

type Result<T> = std::result::Result<T, ReadError>;

/// As in Nix's `ca-specific-schema.sql`, up to 2.34.
const BY_HASH: &str = "
create table if not exists Realisations (
    id         integer primary key autoincrement not null,
    drvPath    text not null,
    outputName text not null,
    outputPath integer not null,
    signatures text,
    foreign key (outputPath) references ValidPaths(id) on delete cascade
);
create index if not exists IndexRealisations on Realisations(drvPath, outputName);
create trigger if not exists DeleteSelfRefsViaRealisations before delete on ValidPaths
  begin
    delete from RealisationsRefs where realisationReference in (
      select id from Realisations where outputPath = old.id
    );
  end;
create table if not exists RealisationsRefs (
    referrer             integer not null,
    realisationReference integer,
    foreign key (referrer) references Realisations(id) on delete cascade,
    foreign key (realisationReference) references Realisations(id) on delete restrict
);
create index if not exists IndexRealisationsRefsRealisationReference
  on RealisationsRefs(realisationReference);
create index if not exists IndexRealisationsRefs on RealisationsRefs(referrer);
create index if not exists IndexRealisationsRefsOnOutputPath on Realisations(outputPath);
";

/// The same from 2.35 on.
const BY_PATH: &str = "
create table if not exists BuildTraceV3 (
    id         integer primary key autoincrement not null,
    drvPath    text not null,
    outputName text not null,
    outputPath text not null,
    signatures text
);
create index if not exists IndexBuildTraceV3 on BuildTraceV3(drvPath, outputName);
";

/// Where Nix keeps what became of outputs that have no path before they are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RealisationTable {
    /// `Realisations`, up to Nix 2.34: by the derivation's hash, see
    /// [`ferry_formats::realisation`].
    ByHash,
    /// `BuildTraceV3`, from Nix 2.35: by the name of the derivation's file, which has no output
    /// of a derivation among its inputs any more.
    ByPath,
}

impl RealisationTable {
    const ALL: [Self; 2] = [Self::ByHash, Self::ByPath];

    fn name(self) -> &'static str {
        match self {
            Self::ByHash => "Realisations",
            Self::ByPath => "BuildTraceV3",
        }
    }

    /// How a row finds its output.
    fn joined(self) -> &'static str {
        match self {
            Self::ByHash => "v.id = r.outputPath",
            Self::ByPath => "v.path = r.outputPath",
        }
    }

    /// Those that are there and have something in them. Nix makes them when it first builds such
    /// an output.
    pub(crate) fn in_use(connection: &Connection) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for table in Self::ALL {
            let name = table.name();
            let exists = connection.table_exists(Some("main"), name)?;
            let query = format!("select exists (select 1 from {name})");
            if exists && connection.query_row(&query, [], |row| row.get(0))? {
                found.push(table);
            }
        }
        Ok(found)
    }

    /// The valid path that an output of a derivation got.
    pub(crate) fn find(
        self,
        connection: &Connection,
        derivation: &str,
        output: &str,
    ) -> Result<Option<String>> {
        let query = format!(
            "select v.path from {} r join ValidPaths v on {} \
             where r.drvPath = ? and r.outputName = ? order by r.id",
            self.name(),
            self.joined()
        );
        let mut statement = connection.prepare_cached(&query)?;
        Ok(statement.query_row([derivation, output], |row| row.get(0)).optional()?)
    }
}

/// Everything in the tables of which the output is among `wanted`.
pub(super) fn of_paths(
    connection: &Connection,
    store_dir: &StoreDir,
    wanted: &dyn Fn(&StorePath) -> bool,
) -> Result<Vec<Realisation>> {
    let mut found = Vec::new();
    for table in RealisationTable::in_use(connection)? {
        found.extend(table.read(connection, store_dir, wanted)?);
    }
    Ok(found)
}

impl RealisationTable {
    fn read(
        self,
        connection: &Connection,
        store_dir: &StoreDir,
        wanted: &dyn Fn(&StorePath) -> bool,
    ) -> Result<Vec<Realisation>> {
        let query = format!(
            "select r.id, r.drvPath, r.outputName, v.path, r.signatures from {} r \
             join ValidPaths v on {} order by r.id",
            self.name(),
            self.joined()
        );
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query([])?;
        let mut found: Vec<Realisation> = Vec::new();
        let mut places: HashMap<i64, usize> = HashMap::new();
        while let Some(row) = rows.next()? {
            let path: String = row.get(3)?;
            let path = parse_path(store_dir, path.as_bytes())?;
            if !wanted(&path) {
                continue;
            }
            let id = id(row.get::<_, String>(1)?, row.get::<_, String>(2)?)?;
            let text: Option<String> = row.get(4)?;
            let text = text.unwrap_or_default();
            let signatures = text.split(' ').filter_map(|text| parse_signature(text).ok());
            let (signatures, dependencies) = (signatures.collect(), BTreeMap::new());
            places.insert(row.get(0)?, found.len());
            found.push(Realisation { id, path, signatures, dependencies });
        }
        if self == Self::ByHash {
            let mut statement = connection.prepare(
                "select f.referrer, r.drvPath, r.outputName, v.path from RealisationsRefs f \
                 join Realisations r on r.id = f.realisationReference \
                 join ValidPaths v on v.id = r.outputPath",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let place = places.get(&row.get(0)?).and_then(|place| found.get_mut(*place));
                let Some(referrer) = place else { continue };
                let path: String = row.get(3)?;
                let path = parse_path(store_dir, path.as_bytes())?;
                let id = id(row.get::<_, String>(1)?, row.get::<_, String>(2)?)?;
                referrer.dependencies.insert(id, path);
            }
        }
        Ok(found)
    }
}

fn id(derivation: String, output: String) -> Result<DrvOutput> {
    DrvOutput::new(&derivation, &output)
        .map_err(|error| ReadError::Contents(format!("`{derivation}!{output}`: {error}")))
}

/// Adds realisations to a store, in one transaction; answers those that say something else than
/// what is there.
pub(super) fn add(layout: &Layout, offered: &[Realisation]) -> crate::Result<Vec<DrvOutput>> {
    let _lock = StoreLock::hold(&layout.state_dir.join("db/big-lock"))?;
    let mut connection = schema::open_for_writing(layout)?;
    let file = layout.database();
    let sql = |error: rusqlite::Error| database_error(&file, &error);
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let refused = register(&transaction, &layout.store_dir, offered).map_err(sql)?;
    transaction.commit().map_err(sql)?;
    Ok(refused)
}

/// Enters realisations whose paths are valid. One that says something else than what is there is
/// passed over; its signatures are added to one that says the same. Answers those that were
/// passed over.
fn register(
    connection: &Connection,
    store_dir: &StoreDir,
    realisations: &[Realisation],
) -> rusqlite::Result<Vec<DrvOutput>> {
    let mut refused = Vec::new();
    for realisation in realisations {
        let (table, derivation) = match &realisation.id.derivation {
            DrvKey::Hash(hash) => (RealisationTable::ByHash, realisation::render(hash)),
            DrvKey::Path(path) => (RealisationTable::ByPath, path.to_basename()),
        };
        connection.execute_batch(if table == RealisationTable::ByHash {
            BY_HASH
        } else {
            BY_PATH
        })?;
        if !table.enter(connection, store_dir, &derivation, realisation)? {
            refused.push(realisation.id.clone());
        }
    }
    let hashed = realisations.iter().filter(|one| !refused.contains(&one.id));
    for realisation in hashed {
        for (id, path) in &realisation.dependencies {
            let (DrvKey::Hash(referrer), DrvKey::Hash(hash)) =
                (&realisation.id.derivation, &id.derivation)
            else {
                continue;
            };
            // Only what is there, and is the same.
            connection
                .prepare_cached(
                    "insert into RealisationsRefs (referrer, realisationReference) \
                     select r.id, d.id from Realisations r, Realisations d \
                     join ValidPaths v on v.id = d.outputPath \
                     where r.drvPath = ?1 and r.outputName = ?2 and d.drvPath = ?3 \
                     and d.outputName = ?4 and v.path = ?5 and not exists ( \
                     select 1 from RealisationsRefs \
                     where referrer = r.id and realisationReference = d.id)",
                )?
                .execute(params![
                    realisation::render(referrer),
                    realisation.id.output,
                    realisation::render(hash),
                    id.output,
                    store_dir.render_path(path),
                ])?;
        }
    }
    Ok(refused)
}

impl RealisationTable {
    /// Enters one, or its signatures. Answers whether what is there now says the same.
    fn enter(
        self,
        connection: &Connection,
        store_dir: &StoreDir,
        derivation: &str,
        realisation: &Realisation,
    ) -> rusqlite::Result<bool> {
        let path = store_dir.render_path(&realisation.path);
        let output = &realisation.id.output;
        // The newer table may speak of paths that are not valid any more.
        let (there, from) = match self {
            Self::ByHash => ("v.path", " join ValidPaths v on v.id = r.outputPath"),
            Self::ByPath => ("r.outputPath", ""),
        };
        let query = format!(
            "select {there}, r.signatures, r.id from {} r{from} \
             where r.drvPath = ? and r.outputName = ? order by r.id",
            self.name()
        );
        let there: Option<(String, Option<String>, i64)> = connection
            .prepare_cached(&query)?
            .query_row([derivation, output], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let mut merged = realisation.clone();
        let signatures = |merged: &Realisation| {
            let texts: Vec<String> = merged.signatures.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        match there {
            Some((there, ..)) if there != path => return Ok(false),
            Some((_, text, row)) => {
                let text = text.unwrap_or_default();
                let old: Vec<_> =
                    text.split(' ').filter_map(|text| parse_signature(text).ok()).collect();
                merged.add_signatures(&old);
                let update = format!("update {} set signatures = ? where id = ?", self.name());
                connection.prepare_cached(&update)?.execute(params![signatures(&merged), row])?;
            }
            None => {
                let place = match self {
                    Self::ByHash => "(select id from ValidPaths where path = ?)",
                    Self::ByPath => "?",
                };
                let insert = format!(
                    "insert into {} (drvPath, outputName, outputPath, signatures) \
                     values (?, ?, {place}, ?)",
                    self.name()
                );
                connection.prepare_cached(&insert)?.execute(params![
                    derivation,
                    output,
                    path,
                    signatures(&merged)
                ])?;
            }
        }
        Ok(true)
    }
}
