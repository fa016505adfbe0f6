//! A store on disk with damage in it, and one that changes while it is asked.

use std::fs;

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, Facts, FactsError, GraphError, Kind, Ledger, NodeSet, Question};
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::objects::{Numbers, Objects};
use crate::local::{Layout, LocalStore, new_database};
use crate::trust::TrustPolicy;

/// More than a fair share of any store here.
const MANY: u8 = 100;

struct Fixture {
    _directory: TempDir,
    store: LocalStore,
    database: Connection,
}

impl Fixture {
    /// A store with nothing in it.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::chroot(directory.path());
        let database = new_database(&layout).unwrap();
        let store = LocalStore::new(layout, TrustPolicy::accept_all());
        Self { _directory: directory, store, database }
    }

    /// A chain of paths, each of which refers to the one before it.
    fn with_chain() -> Self {
        let fixture = Self::new();
        fixture.register(&path(0), &[]);
        for number in 1..MANY {
            fixture.register(&path(number), &[path(number - 1)]);
        }
        fixture
    }

    fn register(&self, path: &StorePath, references: &[StorePath]) {
        self.database
            .execute(
                "insert into ValidPaths (path, hash, registrationTime, narSize) \
                 values (?, 'sha256:0', 0, 112)",
                [render(path)],
            )
            .unwrap();
        for reference in references {
            self.database
                .execute(
                    "insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b \
                     where a.path = ? and b.path = ?",
                    params![render(path), render(reference)],
                )
                .unwrap();
        }
    }

    /// Writes a file into the store's directory.
    fn write(&self, path: &StorePath, text: &str) {
        fs::write(self.store.layout().real_path(path), text).unwrap();
    }

    fn explorer(&self) -> Explorer<'_> {
        let mut explorer = Explorer::new(StoreDir::default());
        explorer.add_source(Box::new(self.store.facts()));
        explorer
    }
}

fn path(number: u8) -> StorePath {
    StorePath::from_parts([number; 20], &format!("n{number}")).unwrap()
}

fn derivation(number: u8) -> StorePath {
    StorePath::from_parts([number; 20], &format!("n{number}.drv")).unwrap()
}

fn render(path: &StorePath) -> String {
    StoreDir::default().render_path(path)
}

/// A derivation with an output whose path is not known before it is built.
const FLOATING: &str = r#"Derive([("out","","r:sha256","")],[],[],"x","/b",[],[("out","")])"#;

fn closure(explorer: &mut Explorer<'_>, path: &StorePath) -> Result<NodeSet, GraphError> {
    let root = NodeSet::from_iter([explorer.node(path)]);
    explorer.closure(&[Kind::Run], &root, None, None)
}

fn missing(explorer: &Explorer<'_>) -> Vec<String> {
    explorer.missing().map(|fact| fact.tell("the store")).collect()
}

#[test]
fn a_reference_to_nothing_is_an_error_for_those_who_need_it_and_for_nobody_else() {
    let fixture = Fixture::with_chain();
    fixture.database.execute_batch("pragma foreign_keys = 0").unwrap();
    let id = "select id from ValidPaths where path = ?";
    let lose = format!("insert into Refs values (({id}), 7777)");
    fixture.database.execute(&lose, [render(&path(60))]).unwrap();

    let complaint = format!("a reference of {}: it is to something that is not", render(&path(60)));
    let mut whole = fixture.explorer();
    // From the other end: all of the table is read.
    let error = closure(&mut whole, &path(MANY - 1)).unwrap_err().to_string();
    assert!(error.contains(&complaint), "{error}");
    assert!(error.contains("nix/var/nix/db/db.sqlite"), "{error}");
    let error = fixture.explorer().everything().unwrap_err().to_string();
    assert!(error.contains(&complaint), "{error}");
    // Alone: it is looked up.
    let error = closure(&mut fixture.explorer(), &path(60)).unwrap_err().to_string();
    assert!(error.contains(&complaint), "{error}");

    let mut below = fixture.explorer();
    assert_eq!(closure(&mut below, &path(59)).unwrap().len(), 60);
    assert_eq!(missing(&below), [""; 0]);
}

#[test]
fn a_row_that_nobody_can_name_is_in_the_way_of_nobody() {
    let fixture = Fixture::with_chain();
    let spoil = "update ValidPaths set path = '/nix/store/short' where path = ?";
    fixture.database.execute(spoil, [render(&path(50))]).unwrap();
    let mut below = fixture.explorer();
    assert_eq!(closure(&mut below, &path(49)).unwrap().len(), 50);
    let error = closure(&mut fixture.explorer(), &path(99)).unwrap_err().to_string();
    assert!(error.contains("`/nix/store/short`: "), "{error}");
}

#[test]
fn a_size_below_nothing_is_an_error() {
    let fixture = Fixture::with_chain();
    fixture.database.execute("update ValidPaths set narSize = -1 where id = 1", []).unwrap();
    for from in [0, 99] {
        let error = closure(&mut fixture.explorer(), &path(from)).unwrap_err().to_string();
        assert!(error.contains(&format!("narSize of {}", render(&path(0)))), "{error}");
    }
}

#[test]
fn what_is_made_valid_again_is_found_under_its_new_number() {
    let fixture = Fixture::with_chain();
    fixture.register(&path(200), &[]);
    fixture.register(&path(201), &[path(200)]);
    let mut explorer = fixture.explorer();
    let referrer = NodeSet::from_iter([explorer.node(&path(201))]);
    // Known by its number now, as a reference.
    let reference = explorer.immediate(Kind::Run, &referrer).unwrap();
    for path in [path(201), path(200)] {
        let delete = "delete from ValidPaths where path = ?";
        fixture.database.execute(delete, [render(&path)]).unwrap();
    }
    fixture.register(&path(200), &[path(0)]);
    let found = explorer.immediate(Kind::Run, &reference).unwrap();
    assert_eq!(found, NodeSet::from_iter([explorer.node(&path(0))]));
}

/// Asks one database after the other.
struct Replaced<'a> {
    databases: Vec<&'a Connection>,
    numbers: Numbers,
    generation: u64,
}

impl Facts for Replaced<'_> {
    fn describe(&self) -> String {
        "a database that is replaced".to_owned()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if let (Question::Objects(wanted), Some(database)) = (question, self.databases.pop()) {
            let (at, numbers) = ((database, self.generation), &mut self.numbers);
            let found = Objects::look_up(at, wanted, numbers, &mut 100, ledger);
            found.ok().flatten().expect("it can be read").enter(ledger);
            self.generation += 1;
        }
        Ok(())
    }
}

#[test]
fn numbers_of_a_database_that_was_replaced_mean_nothing() {
    let [first, second] = [Fixture::with_chain(), Fixture::new()];
    // In the other order: every number is another path's.
    for number in (0..MANY).rev() {
        second.register(&path(number), &[]);
    }
    let refer = "insert into Refs select a.id, b.id from ValidPaths a, ValidPaths b \
                 where a.path = ? and b.path = ?";
    second.database.execute(refer, [render(&path(9)), render(&path(90))]).unwrap();
    let databases = vec![&second.database, &first.database];
    let mut explorer = Explorer::new(StoreDir::default());
    let numbers = Numbers::default();
    explorer.add_source(Box::new(Replaced { databases, numbers, generation: 0 }));
    for (from, expected) in [(10, 9), (9, 90)] {
        let node = NodeSet::from_iter([explorer.node(&path(from))]);
        let found = explorer.immediate(Kind::Run, &node).unwrap();
        assert_eq!(found, NodeSet::from_iter([explorer.node(&path(expected))]), "{from}");
    }
}

#[test]
fn a_file_that_is_no_derivation_is_an_error_with_its_path_and_offset() {
    let fixture = Fixture::new();
    let broken = derivation(1);
    fixture.register(&broken, &[]);
    fixture.write(&broken, r#"Derive([("out","","","")],[],[],"x","/b",[],[nonsense])"#);
    let mut explorer = fixture.explorer();
    let root = NodeSet::from_iter([explorer.node(&broken)]);
    let error = explorer.outputs(&root).unwrap_err().to_string();
    assert!(error.contains(&render(&broken)), "{error}");
    assert!(error.contains("at byte 45"), "{error}");
}

#[test]
fn a_link_in_the_place_of_a_derivation_is_not_followed() {
    let fixture = Fixture::new();
    let (link, real) = (derivation(1), derivation(2));
    fixture.register(&link, &[]);
    fixture.write(&real, FLOATING);
    let at = |path: &StorePath| fixture.store.layout().real_path(path);
    std::os::unix::fs::symlink(at(&real), at(&link)).unwrap();
    let mut explorer = fixture.explorer();
    let root = NodeSet::from_iter([explorer.node(&link)]);
    let error = explorer.outputs(&root).unwrap_err().to_string();
    assert!(error.contains("it is a link"), "{error}");
}

#[test]
fn derivations_count_that_are_valid_and_there() {
    let fixture = Fixture::new();
    let [there, no_file, not_valid] = [1, 2, 3].map(derivation);
    for path in [&there, &no_file] {
        fixture.register(path, &[]);
    }
    for path in [&there, &not_valid] {
        fixture.write(path, FLOATING);
    }
    let mut explorer = fixture.explorer();
    let all = [&there, &no_file, &not_valid].map(|path| explorer.node(path));
    let outputs = explorer.outputs(&NodeSet::from_iter(all)).unwrap();
    let outputs: Vec<String> =
        outputs.iter().map(|output| explorer.graph().render(output)).collect();
    assert_eq!(outputs, [format!("{}^out", render(&there))]);
    let missing = missing(&explorer);
    assert_eq!(missing.len(), 2, "{missing:?}");
    for (fact, path) in missing.iter().zip([&no_file, &not_valid]) {
        assert!(fact.contains(&render(path)), "{fact}");
    }
}

#[test]
fn without_a_database_the_files_are_what_counts() {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::chroot(directory.path());
    fs::create_dir_all(&layout.real_store_dir).unwrap();
    fs::write(layout.real_path(&derivation(1)), FLOATING).unwrap();
    let store = LocalStore::new(layout, TrustPolicy::accept_all());
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(store.facts()));
    let root = NodeSet::from_iter([explorer.node(&derivation(1))]);
    assert_eq!(explorer.outputs(&root).unwrap().len(), 1);
    assert_eq!(missing(&explorer), [""; 0]);
}

#[test]
fn where_there_is_no_store_at_all_that_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalStore::new(Layout::chroot(directory.path()), TrustPolicy::accept_all());
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(Box::new(store.facts()));
    let error = closure(&mut explorer, &path(1)).unwrap_err().to_string();
    assert!(error.contains("open the store database"), "{error}");
}

/// The table of Nix 2.35 and its outputs, by `ca-specific-schema.sql` of that version.
#[test]
fn what_newer_versions_file_under_the_derivations_name_is_found() {
    let fixture = Fixture::new();
    let (derivation, output) = (derivation(1), path(2));
    for path in [&derivation, &output] {
        fixture.register(path, &[]);
    }
    fixture.write(&derivation, FLOATING);
    fixture
        .database
        .execute_batch(
            "create table BuildTraceV3 (
                 id integer primary key autoincrement not null,
                 drvPath text not null,
                 outputName text not null,
                 outputPath text not null,
                 signatures text
             );",
        )
        .unwrap();
    let insert = "insert into BuildTraceV3 (drvPath, outputName, outputPath) values (?, 'out', ?)";
    for path in [&path(99), &output] {
        // The first of them was collected, which leaves its row there.
        fixture.database.execute(insert, [derivation.to_basename(), render(path)]).unwrap();
    }
    let mut explorer = fixture.explorer();
    let root = NodeSet::from_iter([explorer.node(&derivation)]);
    let expected = NodeSet::from_iter([explorer.node(&output)]);
    assert_eq!(explorer.outputs(&root).unwrap(), expected);
}
