//! A recorded evaluation: `docs/trace-format.md`.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Facts, FactsError, Ledger, NodeId, Question};
use thiserror::Error;

use super::trace_line::{self, BadHeader, Line, VERSION};
pub use super::trace_line::{Added, Need, OutputOf, Outside, TraceHeader, Warning, Why};

/// No line is longer, in bytes.
const MAX_LINE: u64 = 1 << 20;

/// No evaluation needs more. A fact takes some hundred bytes of memory.
const MAX_LINES: u64 = 4_000_000;

/// Why a file is not a trace, or not a whole one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TraceError {
    /// It cannot be read.
    #[error("cannot read {file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the recorded evaluation {file}: {source}")]
    Unwritten {
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// It does not begin as a trace does.
    #[error("{file} is not a recorded evaluation: its first line is not `{{\"ferryTrace\":…}}`")]
    NotATrace {
        /// The file.
        file: String,
    },
    /// It is of a version that is not known here.
    #[error("{file} is a recorded evaluation of version {found}; known is {VERSION}")]
    UnknownVersion {
        /// The file.
        file: String,
        /// Its version.
        found: String,
    },
    /// It is of another store.
    #[error("{file} is about paths below {found}, not below {expected}")]
    OtherStore {
        /// The file.
        file: String,
        /// The directory that its paths begin with.
        found: String,
        /// The directory that they should begin with.
        expected: String,
    },
    /// A line that does not belong there.
    #[error("{file}, line {line} (byte {offset}): {reason}")]
    Line {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: u64,
        /// Where the line begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// It has no end, so nobody can tell what is missing.
    #[error(
        "{file} ends too early, after {line} lines ({offset} bytes): the recording was cut short"
    )]
    Truncated {
        /// The file.
        file: String,
        /// How many whole lines there are.
        line: u64,
        /// How many bytes those have.
        offset: u64,
    },
}

/// What to do with a trace that has no last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It is an error.
    Refuse,
    /// Take what is there. It is not [complete](Trace::is_complete).
    Accept,
}

/// What is known about one evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// About the recording.
    pub header: TraceHeader,
    /// What the evaluation resulted in.
    pub roots: Vec<StorePath>,
    /// The store objects that it needed, and cannot make again by itself.
    pub needs: Vec<Need>,
    /// Those that it made by itself, derivations left out.
    pub added: Vec<Added>,
    /// What it needed besides, which no set of store paths can hold.
    pub outside: Vec<Outside>,
    /// Why it may have another result some other day.
    pub warnings: Vec<Warning>,
    /// What the recorder says about what it did not see.
    pub incomplete: Vec<String>,
}

/// What one evaluation needed before its derivations could exist.
#[derive(Clone, Debug)]
pub struct Trace {
    file: String,
    store_dir: StoreDir,
    recorded: Recorded,
    complete: bool,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be opened, and as [`parse`](Self::parse).
    pub fn read(
        file: &Path,
        store_dir: &StoreDir,
        unfinished: Unfinished,
    ) -> Result<Self, TraceError> {
        let name = file.display().to_string();
        let open =
            File::open(file).map_err(|source| TraceError::Io { file: name.clone(), source })?;
        Self::parse(&name, BufReader::new(open), store_dir, unfinished)
    }

    /// Reads a trace line by line; `name` is what to call it in messages.
    ///
    /// # Errors
    /// When it is not a trace, is of another version or store, has a line that is wrong or
    /// longer than a mebibyte, or more than four million lines; and when it has no end, unless
    /// that is accepted.
    pub fn parse(
        name: &str,
        input: impl BufRead,
        store_dir: &StoreDir,
        unfinished: Unfinished,
    ) -> Result<Self, TraceError> {
        let mut lines = Lines { file: name, input, number: 0, offset: 0, line: Vec::new() };
        if !lines.next()? {
            return Err(TraceError::NotATrace { file: name.to_owned() });
        }
        let header = trace_line::header(&lines.line, store_dir).map_err(|bad| match bad {
            BadHeader::NotATrace => TraceError::NotATrace { file: name.to_owned() },
            BadHeader::Version(found) => {
                TraceError::UnknownVersion { file: name.to_owned(), found }
            }
            BadHeader::StoreDir(found) => TraceError::OtherStore {
                file: name.to_owned(),
                found,
                expected: store_dir.as_str().to_owned(),
            },
            BadHeader::Reason(reason) => lines.error(reason),
        })?;
        let mut trace = Self {
            file: name.to_owned(),
            store_dir: store_dir.clone(),
            recorded: Recorded { header, ..Recorded::default() },
            complete: false,
        };
        if !trace.take(&mut lines)? && unfinished == Unfinished::Refuse {
            let Lines { number, offset, .. } = lines;
            return Err(TraceError::Truncated { file: trace.file, line: number, offset });
        }
        Ok(trace)
    }

    /// Takes in the lines behind the first, and tells whether there was a last one.
    fn take(&mut self, lines: &mut Lines<'_, impl BufRead>) -> Result<bool, TraceError> {
        let (mut roots, mut needs, mut outside) = (HashSet::new(), HashSet::new(), HashSet::new());
        let (mut added, mut warnings) = (HashSet::new(), HashSet::new());
        let recorded = &mut self.recorded;
        while lines.next()? {
            let line = match trace_line::line(&lines.line, &self.store_dir) {
                Ok(line) => line,
                // A line without its newline is the last one, and was cut short.
                Err(_) if !lines.line.ends_with(b"\n") => {
                    lines.take_back();
                    return Ok(false);
                }
                Err(reason) => return Err(lines.error(reason)),
            };
            match line {
                Line::Root(path) => once(&mut roots, &mut recorded.roots, path),
                Line::Need(need) => once(&mut needs, &mut recorded.needs, need),
                Line::Added(one) => once(&mut added, &mut recorded.added, one),
                Line::Outside(what) => once(&mut outside, &mut recorded.outside, what),
                Line::Warning(one) => once(&mut warnings, &mut recorded.warnings, one),
                Line::Incomplete(reason) => recorded.incomplete.push(reason),
                Line::Unknown => {}
                Line::End { complete, lines: count } => {
                    // Not counting the first line and this one.
                    let found = lines.number - 2;
                    if count.is_some_and(|count| count != found) {
                        return Err(lines.error(format!(
                            "there should be {} lines between the first and this one, and there \
                             are {found}",
                            count.unwrap_or_default()
                        )));
                    }
                    self.complete = complete;
                    if lines.next()? {
                        return Err(lines.error("something follows the last line"));
                    }
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All that it says.
    #[must_use]
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// What is known about the recording.
    #[must_use]
    pub fn header(&self) -> &TraceHeader {
        &self.recorded.header
    }

    /// What the evaluation resulted in, in the order of the file.
    #[must_use]
    pub fn roots(&self) -> &[StorePath] {
        &self.recorded.roots
    }

    /// The store objects that it needed, in the order of the file.
    #[must_use]
    pub fn needs(&self) -> &[Need] {
        &self.recorded.needs
    }

    /// What it needed besides, which no set of store paths can hold.
    #[must_use]
    pub fn outside(&self) -> &[Outside] {
        &self.recorded.outside
    }

    /// Whether the recorder saw everything. If it did not, what is here was needed, and more may
    /// have been.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete && self.recorded.incomplete.is_empty()
    }

    /// What the recorder says about what it did not see.
    #[must_use]
    pub fn incomplete_reasons(&self) -> &[String] {
        &self.recorded.incomplete
    }
}

impl Facts for Trace {
    fn describe(&self) -> String {
        format!("recorded evaluation `{}`", self.file)
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if self.store_dir != *ledger.store_dir() {
            return Err(Box::new(TraceError::OtherStore {
                file: self.file.clone(),
                found: self.store_dir.as_str().to_owned(),
                expected: ledger.store_dir().as_str().to_owned(),
            }));
        }
        let nodes = match question {
            Question::Evaluations(nodes) => nodes,
            Question::Derivers(nodes) => {
                self.enter_outputs(nodes, ledger);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let is_root =
            |node: &&NodeId| ledger.path(**node).is_some_and(|path| self.roots().contains(&path));
        let asked: Vec<NodeId> = nodes.iter().filter(is_root).copied().collect();
        if asked.is_empty() {
            return Ok(());
        }
        let (mut needs, mut fragments) = (Vec::new(), Vec::new());
        for need in self.needs() {
            let node = ledger.node(&need.path);
            needs.push(node);
            if need.why == Why::ImportFromDerivation {
                fragments.push(node);
            }
        }
        for list in [&mut needs, &mut fragments] {
            list.sort_unstable();
            list.dedup();
        }
        for root in asked {
            let others = |list: &[NodeId]| -> Vec<NodeId> {
                list.iter().copied().filter(|node| *node != root).collect()
            };
            ledger.evaluation(root, &others(&needs), &others(&fragments));
        }
        Ok(())
    }
}

impl Trace {
    /// Enters which derivations made what was built for the evaluation.
    fn enter_outputs(&self, nodes: &[NodeId], ledger: &mut Ledger<'_>) {
        let asked: HashSet<StorePath> =
            nodes.iter().filter_map(|node| ledger.path(*node)).collect();
        for need in self.needs().iter().filter(|need| asked.contains(&need.path)) {
            // The output of an output has a derivation that has no path of its own here.
            if let Some(OutputOf { derivation, outputs }) = &need.output_of
                && let [output] = outputs.as_slice()
            {
                let (derivation, path) = (ledger.node(derivation), ledger.node(&need.path));
                ledger.realised(derivation, output, path);
            }
        }
    }
}

/// Adds what was not there yet.
fn once<T: Clone + Eq + std::hash::Hash>(seen: &mut HashSet<T>, list: &mut Vec<T>, one: T) {
    if seen.insert(one.clone()) {
        list.push(one);
    }
}

/// The lines of a file, read one at a time.
struct Lines<'a, R> {
    file: &'a str,
    input: R,
    /// The number of the line that was read last, counted from 1.
    number: u64,
    /// Where the next line begins.
    offset: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// Reads the next line; false at the end of the file.
    fn next(&mut self) -> Result<bool, TraceError> {
        self.line.clear();
        let read = (&mut self.input)
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut self.line)
            .map_err(|source| TraceError::Io { file: self.file.to_owned(), source })?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.offset += read as u64;
        if read as u64 > MAX_LINE {
            return Err(self.error(format!("the line is longer than {MAX_LINE} bytes")));
        }
        if self.number > MAX_LINES {
            return Err(self.error("more lines than an evaluation can have"));
        }
        Ok(true)
    }

    /// Forgets the line that was read last.
    fn take_back(&mut self) {
        self.number -= 1;
        self.offset -= self.line.len() as u64;
    }

    fn error(&self, reason: impl Into<String>) -> TraceError {
        TraceError::Line {
            file: self.file.to_owned(),
            line: self.number,
            offset: self.offset - self.line.len() as u64,
            reason: reason.into(),
        }
    }
}
