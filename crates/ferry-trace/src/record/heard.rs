//! What the store was asked for, path by path.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ferry_formats::{NarHash, StoreDir, StorePath};

use crate::protocol::{Event, Operation, Outcome, Value};

/// Reasons that a recording may have missed something; no more are kept.
const MOST_REASONS: usize = 100;

/// How a path first came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// It was added without a question.
    Added,
    /// It was protected from the garbage collector: its name was known already, by what the
    /// evaluator remembers of this evaluation.
    Rooted,
    /// It was asked whether it is valid: its name was known by a hash, or from the user.
    Asked,
}

/// What was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Derivation,
    Text,
    /// A file, by its own hash; copied by the evaluator, or fetched by it.
    Flat {
        fetched: bool,
    },
    /// A tree.
    Tree,
}

/// What happened about one path.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) first: First,
    /// It was there before this evaluation added it, or it was never added.
    pub(super) was_valid: bool,
    /// Somebody insisted that it be there.
    pub(super) was_ensured: bool,
    /// Somebody asked whether it is.
    pub(super) was_checked: bool,
    pub(super) added: Option<Method>,
    /// It was made on the way to another path, and nobody asks for it if that one is there.
    pub(super) is_intermediate: bool,
    pub(super) nar_hash: Option<NarHash>,
}

/// Outputs that were realised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Realised {
    pub(super) derivation: StorePath,
    /// The names of the outputs, `*` for all. Several lists for the output of an output.
    pub(super) outputs: Vec<Vec<String>>,
}

#[derive(Debug, Default)]
struct Connection {
    /// The command has done with evaluating, as far as is known.
    is_over: bool,
    /// What it said that it will build.
    announced: HashSet<Vec<u8>>,
    /// The file that was added last, if nothing was added since.
    last_file: Option<StorePath>,
}

/// Everything that was heard of an evaluation.
#[derive(Debug)]
pub(super) struct Heard {
    store_dir: StoreDir,
    connections: HashMap<usize, Connection>,
    pub(super) paths: HashMap<StorePath, Seen>,
    /// In the order in which they came up.
    pub(super) order: Vec<StorePath>,
    /// Derivations that others refer to.
    pub(super) referred: HashSet<StorePath>,
    /// Files and trees that were added by copying, in that order, repetitions included.
    pub(super) copies: Vec<StorePath>,
    pub(super) realised: BTreeSet<Realised>,
    /// What a command asked to be built.
    pub(super) asked: BTreeSet<StorePath>,
    pub(super) outputs: HashMap<StorePath, BTreeMap<String, StorePath>>,
    /// The minor version of the protocol.
    pub(super) minor: Option<u8>,
    pub(super) incomplete: BTreeSet<String>,
}

impl Heard {
    pub(super) fn new(store_dir: StoreDir) -> Self {
        Self {
            store_dir,
            connections: HashMap::new(),
            paths: HashMap::new(),
            order: Vec::new(),
            referred: HashSet::new(),
            copies: Vec::new(),
            realised: BTreeSet::new(),
            asked: BTreeSet::new(),
            outputs: HashMap::new(),
            minor: None,
            incomplete: BTreeSet::new(),
        }
    }

    /// Takes in what was said on a connection.
    pub(super) fn hear(&mut self, connection: usize, event: Event) {
        match event {
            Event::Agreed(version) => self.minor = Some(version.minor),
            Event::LostTrack(lost) => {
                self.miss(format!("a connection to the store was not understood: {lost}"));
            }
            Event::Answered { operation, arguments, outcome } => {
                self.answered(connection, operation, &arguments, &outcome);
            }
        }
    }

    /// Notes why something may be missing.
    pub(super) fn miss(&mut self, reason: String) {
        if self.incomplete.len() < MOST_REASONS {
            self.incomplete.insert(reason);
        }
    }

    fn answered(
        &mut self,
        connection: usize,
        operation: &Operation,
        arguments: &[Value],
        outcome: &Outcome,
    ) {
        let (reply, failed): (&[Value], bool) = match outcome {
            Outcome::Reply { values, .. } => (values, false),
            Outcome::Error(_) => (&[], true),
        };
        let argument = |place: usize| arguments.get(place);
        let path = |value: Option<&Value>| self.path(value?.text()?);
        let said_yes = reply.first().and_then(Value::number).is_some_and(|number| number != 0);
        match operation.name {
            "AddToStore" | "AddTextToStore" if !failed => {
                let Some(path) = path(reply.first()) else { return };
                let method = argument(1).and_then(Value::text).unwrap_or_default();
                let is_text = operation.name == "AddTextToStore" || method.starts_with(b"text:");
                let method = match is_text {
                    true if path.is_derivation() => Method::Derivation,
                    true => Method::Text,
                    false if method.starts_with(b"fixed:r:") => Method::Tree,
                    false if method.starts_with(b"fixed:git:") => Method::Tree,
                    false => Method::Flat { fetched: false },
                };
                if let Some(references) = argument(2) {
                    self.refer(references);
                }
                let nar_hash = reply.get(2).and_then(nar_hash);
                self.add(connection, path, method, nar_hash);
            }
            "AddToStoreNar" if !failed => {
                let Some(path) = path(argument(0)) else { return };
                let address = argument(8).and_then(Value::text).unwrap_or_default();
                let method = match () {
                    () if path.is_derivation() => Method::Derivation,
                    () if address.starts_with(b"fixed:r:") => Method::Tree,
                    () if address.starts_with(b"text:") => Method::Text,
                    () => Method::Flat { fetched: true },
                };
                if let Some(references) = argument(3) {
                    self.refer(references);
                }
                self.add(connection, path, method, argument(2).and_then(nar_hash));
            }
            "EnsurePath" => {
                let Some(path) = path(argument(0)) else { return };
                if let Some(seen) = self.touch(connection, path, First::Asked) {
                    seen.was_ensured = true;
                    seen.was_valid |= !failed && seen.added.is_none();
                }
            }
            "IsValidPath" if !failed => {
                let Some(path) = path(argument(0)) else { return };
                if let Some(seen) = self.touch(connection, path, First::Asked) {
                    seen.was_checked = true;
                    seen.was_valid |= said_yes && seen.added.is_none();
                }
            }
            "QueryPathInfo" if !failed => {
                let Some(path) = path(argument(0)) else { return };
                let hash = reply.get(2).and_then(nar_hash);
                if let Some(seen) = self.touch(connection, path, First::Asked) {
                    seen.was_checked = true;
                    seen.was_valid |= said_yes && seen.added.is_none();
                    seen.nar_hash = seen.nar_hash.or(hash);
                }
            }
            "AddTempRoot" if !failed => {
                let Some(path) = path(argument(0)) else { return };
                self.touch(connection, path, First::Rooted);
            }
            "QueryMissing" => {
                let announced = argument(0).into_iter().flat_map(Value::texts).map(<[u8]>::to_vec);
                let connection = self.connections.entry(connection).or_default();
                connection.announced.extend(announced);
                connection.is_over = true;
            }
            "BuildPaths" | "BuildPathsWithResults" if !failed => {
                if let Some(wanted) = argument(0) {
                    self.built(connection, wanted);
                }
            }
            "QueryDerivationOutputMap" if !failed => {
                let Some(derivation) = path(argument(0)) else { return };
                let mut outputs = BTreeMap::new();
                let pairs: Vec<&[u8]> = reply.iter().flat_map(Value::texts).collect();
                for pair in pairs.chunks_exact(2) {
                    if let [name, output] = pair
                        && let Some(output) = self.path(output)
                    {
                        outputs.insert(String::from_utf8_lossy(name).into_owned(), output);
                    }
                }
                self.outputs.insert(derivation, outputs);
            }
            _ => {}
        }
    }

    fn path(&self, text: &[u8]) -> Option<StorePath> {
        self.store_dir.parse_path(text).ok()
    }

    fn refer(&mut self, references: &Value) {
        let paths = references.texts().filter(|text| text.ends_with(b".drv"));
        let paths: Vec<StorePath> = paths.filter_map(|text| self.path(text)).collect();
        self.referred.extend(paths);
    }

    fn entry(&mut self, path: StorePath, first: First) -> &mut Seen {
        if !self.paths.contains_key(&path) {
            self.order.push(path.clone());
        }
        self.paths.entry(path).or_insert(Seen {
            first,
            was_valid: false,
            was_ensured: false,
            was_checked: false,
            added: None,
            is_intermediate: false,
            nar_hash: None,
        })
    }

    /// A question about a path; nothing where the evaluation is over.
    fn touch(&mut self, connection: usize, path: StorePath, first: First) -> Option<&mut Seen> {
        let is_over = self.connections.get(&connection).is_some_and(|one| one.is_over);
        (!is_over).then(|| self.entry(path, first))
    }

    fn add(
        &mut self,
        connection: usize,
        path: StorePath,
        method: Method,
        nar_hash: Option<NarHash>,
    ) {
        let state = self.connections.entry(connection).or_default();
        // Whoever adds something evaluates.
        state.is_over = false;
        let last_file = state.last_file.take();
        if method == (Method::Flat { fetched: true }) {
            state.last_file = Some(path.clone());
        }
        if matches!(method, Method::Tree | Method::Flat { fetched: false }) {
            self.copies.push(path.clone());
        }
        let seen = self.entry(path, First::Added);
        seen.added = seen.added.or(Some(method));
        seen.nar_hash = seen.nar_hash.or(nar_hash);
        // An archive that was unpacked, whose contents are known by a hash.
        let is_unpacked = method == Method::Tree && seen.first == First::Asked;
        if is_unpacked && let Some(file) = last_file.and_then(|file| self.paths.get_mut(&file)) {
            file.is_intermediate = true;
        }
    }

    fn built(&mut self, connection: usize, wanted: &Value) {
        let announced = self.connections.get(&connection).map(|one| &one.announced);
        let mut found = Vec::new();
        for text in wanted.texts() {
            let is_own = announced.is_some_and(|announced| announced.contains(text));
            let text = String::from_utf8_lossy(text);
            let mut parts = text.split(['!', '^']);
            let derivation = parts.next().and_then(|path| self.path(path.as_bytes()));
            let Some(derivation) = derivation.filter(StorePath::is_derivation) else { continue };
            let outputs =
                parts.map(|names| names.split(',').map(str::to_owned).collect()).collect();
            found.push((is_own, Realised { derivation, outputs }));
        }
        for (is_own, realised) in found {
            if is_own {
                self.asked.insert(realised.derivation);
            } else if !realised.outputs.is_empty() {
                self.realised.insert(realised);
            }
        }
    }
}

fn nar_hash(value: &Value) -> Option<NarHash> {
    NarHash::parse(std::str::from_utf8(value.text()?).ok()?).ok()
}
