//! Queries of the dependency graph, and what they want from this machine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_formats::StoreDir;
use ferry_graph::query::{self, Outside, Source};
use ferry_graph::{Explorer, FactsError, Kind, Missing, NodeId, NodeSet};
use ferry_store::installable::Installable;
use ferry_store::inventory::Inventory;
use ferry_store::{Error, selection};

use crate::context::Context;
use crate::evaluate::Expression;
use crate::failure::Failure;
use crate::have;
use crate::installables::Installables;
use crate::output;
use crate::sources::OpenSource;

/// Longest query file, in bytes.
const LONGEST_QUERY: u64 = 1 << 20;
/// How many missing facts a person is shown.
const MISSING_SHOWN: usize = 20;
/// How a query that is made for `ferry pack` begins: there `x` is what is packed.
const PACKED: &str = "<what is packed>";
const PACKED_IS_X: &str = "let x = \"<what is packed>\";";

/// A graph, and what its queries may name.
pub(crate) struct Queries<'a> {
    pub(crate) explorer: Explorer<'a>,
    outside: Machine<'a>,
}

impl<'a> Queries<'a> {
    /// Queries of `explorer`. Nix puts what it evaluates into the store at `address`.
    pub(crate) fn new(context: &'a Context, explorer: Explorer<'a>, address: &'a str) -> Self {
        let store_dir = explorer.graph().store_dir().clone();
        let outside = Machine {
            context,
            address,
            store_dir,
            packed: Vec::new(),
            valid: HashMap::new(),
            inventories: HashMap::new(),
        };
        Self { explorer, outside }
    }

    /// The nodes that an installable stands for.
    pub(crate) fn installable(&mut self, text: &str) -> Result<NodeSet, Failure> {
        let found = self.outside.installables().one(text)?;
        nodes(&mut self.explorer, &found)
    }

    /// The nodes that an expression stands for.
    pub(crate) fn evaluated(&mut self, expression: &Expression<'_>) -> Result<NodeSet, Failure> {
        let found = self.outside.installables().evaluated(expression)?;
        nodes(&mut self.explorer, &found)
    }

    /// Answers a query, which stands behind the definitions in `files` or at the end of them.
    pub(crate) fn evaluate(
        &mut self,
        files: &[PathBuf],
        expression: Option<&str>,
    ) -> Result<NodeSet, Failure> {
        let mut texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        texts.extend(expression.map(|text| Source::new("<expression>", text)));
        self.answer(&texts)
    }

    /// Answers what `--set` of `ferry pack` asks for: a named set, or a query about `x`.
    pub(crate) fn evaluate_set(
        &mut self,
        files: &[PathBuf],
        set: &str,
        packed: &[Installable],
    ) -> Result<NodeSet, Failure> {
        self.outside.packed = packed.to_vec();
        let mut texts = files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        // A word alone is a name, known or not.
        let in_name =
            |character: char| character.is_ascii_alphanumeric() || "+-_".contains(character);
        let is_name = set != "x" && set.chars().all(in_name);
        let text = if is_name { format!("set({set}, x)") } else { set.to_owned() };
        texts.push(Source::new("<packed>", PACKED_IS_X));
        texts.push(Source::new("--set", &text));
        self.answer(&texts)
    }

    fn answer(&mut self, texts: &[Source]) -> Result<NodeSet, Failure> {
        let program = query::parse(texts).map_err(|error| Failure::asked(&error))?;
        program
            .evaluate(&mut self.explorer, &mut self.outside)
            .map_err(|error| Failure::asked(&error))
    }

    /// Says what the sources did not agree about. What they do not know is an error, unless a
    /// partial answer is wanted.
    pub(crate) fn settle(&self, partial: bool) -> Result<(), Failure> {
        self.tell_doubts();
        if !partial {
            return Ok(selection::require_facts(&self.explorer)?);
        }
        self.tell_missing(&self.missing());
        Ok(())
    }

    /// Says what the sources did not agree about, or what was not recorded.
    pub(crate) fn tell_doubts(&self) {
        let talk = self.outside.context.talk;
        for disagreement in self.explorer.graph().disagreements() {
            talk.say(format!(
                "the {} of {} differ: {} is believed, and not {}",
                disagreement.about, disagreement.object, disagreement.believed, disagreement.other
            ));
        }
        for derivation in self.explorer.unrecorded() {
            talk.say(format!(
                "no evaluation of {derivation} was recorded: what evaluating it needs is not in \
                 the answer (`ferry trace` records it; --trace names a recording)"
            ));
        }
    }

    /// Says what is missing.
    pub(crate) fn tell_missing(&self, missing: &[String]) {
        let talk = self.outside.context.talk;
        let shown = if self.outside.context.verbose { usize::MAX } else { MISSING_SHOWN };
        for missing in missing.iter().take(shown) {
            talk.say(format!("missing: {missing}"));
        }
        let more = missing.len().saturating_sub(shown);
        if more > 0 {
            talk.say(format!("missing: {more} more facts (--verbose lists all)"));
        }
    }

    /// What is missing, a sentence each: for programs that take a partial answer.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.sentences(self.explorer.missing())
    }

    /// What is missing of derivations, a sentence each.
    pub(crate) fn missing_of_derivations(&self) -> Vec<String> {
        self.sentences(selection::missing_of_derivations(&self.explorer))
    }

    fn sentences<'m>(&self, missing: impl Iterator<Item = &'m Missing>) -> Vec<String> {
        let sources = self.explorer.describe_sources();
        missing.map(|missing| missing.tell(&sources)).collect()
    }

    /// Prints nodes and the edges between them for Graphviz.
    pub(crate) fn print_dot(&mut self, set: &NodeSet, kinds: &[Kind]) -> Result<(), Failure> {
        let drawing = self.explorer.dot(set, kinds, &HashMap::new())?;
        output::line(drawing.to_string().trim_end().as_bytes())
    }
}

fn nodes(explorer: &mut Explorer<'_>, found: &[Installable]) -> Result<NodeSet, Failure> {
    let mut set = NodeSet::default();
    for installable in found {
        set.extend(installable.nodes(explorer)?);
    }
    Ok(set)
}

fn read(file: &Path) -> Result<Source, Failure> {
    let name = file.display().to_string();
    let size = fs::metadata(file).map_err(Error::io(format!("read {name}")))?.len();
    if size > LONGEST_QUERY {
        return Err(Failure::usage(format!("{name} is too long for a query file: {size} bytes")));
    }
    let text = fs::read_to_string(file).map_err(Error::io(format!("read {name}")))?;
    Ok(Source::new(&name, &text))
}

/// What the words of a query mean on this machine.
struct Machine<'a> {
    context: &'a Context,
    address: &'a str,
    store_dir: StoreDir,
    packed: Vec<Installable>,
    /// The stores that `valid` has asked.
    valid: HashMap<String, OpenSource>,
    /// The inventories that `have` has asked about something.
    inventories: HashMap<String, Inventory>,
}

impl Machine<'_> {
    fn installables(&self) -> Installables<'_> {
        Installables { context: self.context, store_dir: &self.store_dir, store: self.address }
    }

    fn those_valid(
        &mut self,
        store: &str,
        of: &NodeSet,
        explorer: &Explorer<'_>,
    ) -> Result<NodeSet, Failure> {
        let opened = match self.valid.entry(store.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(OpenSource::open(self.context, store)?),
        };
        // A graph of its own: what that store does not have must not be known from elsewhere.
        let mut there = Explorer::new(self.store_dir.clone());
        there.add_source(opened.facts());
        let pairs: Vec<(NodeId, NodeId)> = of
            .iter()
            .filter_map(|node| Some((node, there.node(&explorer.graph().path(node)?))))
            .collect();
        let known = there.known(&pairs.iter().map(|(_, node)| *node).collect::<Vec<_>>())?;
        Ok(pairs
            .into_iter()
            .filter(|(_, node)| known.contains(*node))
            .map(|(node, _)| node)
            .collect())
    }
}

impl Outside for Machine<'_> {
    fn installable(
        &mut self,
        text: &str,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        if text == PACKED {
            return Ok(nodes(explorer, &self.packed)?);
        }
        let found = self.installables().one(text)?;
        Ok(nodes(explorer, &found)?)
    }

    fn valid(
        &mut self,
        store: &str,
        nodes: &NodeSet,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        Ok(self.those_valid(store, nodes, explorer)?)
    }

    fn have(&mut self, file: &str, explorer: &mut Explorer<'_>) -> Result<NodeSet, FactsError> {
        let inventory = have::inventory(self.context, file, &self.store_dir, None)?;
        let Some(paths) = inventory.paths() else {
            let reason = "is in compact form, which tells whether a path is there, and lists none";
            let failure = Failure::usage(format!("{file} {reason}")).hint(
                "ask for `X - have(FILE)` or `X & have(FILE)`, or make a list there: ferry query \
                 'all()' > FILE",
            );
            return Err(failure.into());
        };
        Ok(paths.iter().map(|path| explorer.node(path)).collect())
    }

    fn had(
        &mut self,
        file: &str,
        nodes: &NodeSet,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        let inventory = match self.inventories.entry(file.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(have::inventory(self.context, file, &self.store_dir, None)?)
            }
        };
        let graph = explorer.graph();
        let has = |node: &NodeId| graph.path(*node).is_some_and(|path| inventory.has(&path));
        let had: NodeSet = nodes.iter().filter(has).collect();
        let absent = (nodes.len() - had.len()) as u64;
        have::tell_certainty(self.context, file, inventory, absent);
        Ok(had)
    }
}
