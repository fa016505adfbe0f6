//! Both directions of one connection, followed from between.
//!
//! Bytes are handed in as they come, from either side, before they are passed on; what comes back
//! is to be passed on instead. The two are the same but for the greeting, in which both sides
//! learn of no version and of no feature that is not understood here. Whatever goes wrong with
//! understanding, bytes are passed on as they are from then on.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::grammar::{Item, TEXTS};
use super::lost_track::{LONGEST_GREETING, LostTrack, MOST_UNANSWERED};
use super::message;
use super::passed::Passed;
use super::{
    BY_PATH, CLIENT_MAGIC, DAEMON_MAGIC, NEWEST, OLDEST, Operation, Reader, Value, Version,
};

/// What was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Both sides have greeted each other.
    Agreed(Version),
    /// The daemon has done what it was asked to do, or has refused.
    Answered {
        /// What it was.
        operation: &'static Operation,
        /// What the client said, in the form of [`Operation::request`].
        arguments: Vec<Value>,
        /// What came of it.
        outcome: Outcome,
    },
    /// Nothing that follows on this connection is understood.
    LostTrack(LostTrack),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the daemon said, in the form of [`Operation::reply`]. Long lists may be cut short.
    Reply {
        /// What it said.
        values: Vec<Value>,
        /// Whether something is left out of its lists.
        is_cut: bool,
    },
    /// What the daemon complained of; nothing if that is too long.
    Error(Vec<u8>),
}

/// The first minor version in which both sides exchange features.
const FEATURES: u8 = 38;

/// One connection.
#[derive(Debug)]
pub struct Conversation {
    client: Side<ClientStep>,
    daemon: Side<DaemonStep>,
    client_minor: Option<u8>,
    daemon_minor: Option<u8>,
    version: Version,
    /// Whether the client can name realisations by paths.
    client_by_path: bool,
    /// Whether the daemon is ready for requests.
    has_greeted: bool,
    asked: VecDeque<Asked>,
    /// How many strings the daemon waits for.
    wanted: u64,
    has_lost_track: bool,
}

#[derive(Debug)]
struct Side<S> {
    step: S,
    /// Made when the first byte comes.
    reader: Option<Reader>,
    /// What has come of a message that is passed on only when it is whole, as it may change.
    held: Vec<u8>,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Asked {
    operation: &'static Operation,
    arguments: Vec<Value>,
}

#[derive(Clone, Copy, Debug)]
enum ClientStep {
    Magic,
    Version,
    Features,
    Settings,
    Operation,
    Request(&'static Operation),
    /// What the daemon has asked for while it works.
    Data,
}

#[derive(Clone, Copy, Debug)]
enum DaemonStep {
    Magic,
    Version,
    Features,
    Itself,
    /// The number of a message, in the greeting or in answer to a request.
    Message,
    Log(&'static [Item]),
    Wants,
    Error,
    Reply(&'static Operation),
}

/// What one step has come to.
enum Step {
    /// The message is not whole.
    NeedsMore,
    Done,
    /// This is to be passed on in place of what the message was.
    Instead(Vec<u8>),
}

type Steps = fn(&mut Conversation, &mut &[u8], &mut Vec<Event>) -> Result<Step, LostTrack>;

impl Default for Conversation {
    fn default() -> Self {
        Self {
            client: Side { step: ClientStep::Magic, reader: None, held: Vec::new() },
            daemon: Side { step: DaemonStep::Magic, reader: None, held: Vec::new() },
            client_minor: None,
            daemon_minor: None,
            version: Version::default(),
            client_by_path: false,
            has_greeted: false,
            asked: VecDeque::new(),
            wanted: 0,
            has_lost_track: false,
        }
    }
}

impl Conversation {
    /// A connection on which nothing has been said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what the client says, and gives what the daemon is to hear.
    pub fn from_client<'a>(&mut self, bytes: &'a [u8], events: &mut Vec<Event>) -> Cow<'a, [u8]> {
        self.follow(bytes, events, Self::client, |this| {
            let is_held = matches!(this.client.step, ClientStep::Version | ClientStep::Features);
            is_held.then_some(&mut this.client.held)
        })
    }

    /// Takes what the daemon says, and gives what the client is to hear.
    pub fn from_daemon<'a>(&mut self, bytes: &'a [u8], events: &mut Vec<Event>) -> Cow<'a, [u8]> {
        self.follow(bytes, events, Self::daemon, |this| {
            let is_held = matches!(this.daemon.step, DaemonStep::Version | DaemonStep::Features);
            is_held.then_some(&mut this.daemon.held)
        })
    }

    /// What was asked, and not answered so far.
    pub fn unanswered(&self) -> impl Iterator<Item = &'static Operation> {
        self.asked.iter().map(|asked| asked.operation)
    }

    /// Takes steps until there are no bytes left. `held` gives where that is put which is not
    /// passed on yet.
    fn follow<'a>(
        &mut self,
        bytes: &'a [u8],
        events: &mut Vec<Event>,
        step: Steps,
        held: fn(&mut Self) -> Option<&mut Vec<u8>>,
    ) -> Cow<'a, [u8]> {
        let mut input = bytes;
        let mut passed = Passed { changed: None, same: bytes };
        // The other side has lost track in the middle of what is held here.
        if self.has_lost_track
            && let Some(held) = held(self)
            && !held.is_empty()
        {
            passed.put(bytes, &std::mem::take(held), bytes);
        }
        while !self.has_lost_track {
            let before = input;
            let outcome = match (step(self, &mut input, events), held(self)) {
                (Ok(Step::NeedsMore), Some(held))
                    if held.len() + before.len() > LONGEST_GREETING =>
                {
                    Err(LostTrack::Greeting)
                }
                (outcome, _) => outcome,
            };
            match outcome {
                Ok(Step::Done) => {}
                Ok(Step::NeedsMore) => {
                    if let Some(held) = held(self)
                        && !before.is_empty()
                    {
                        held.extend_from_slice(before);
                        passed.put(before, &[], input);
                    }
                    break;
                }
                Ok(Step::Instead(new)) => passed.put(before, &new, input),
                Err(lost) => {
                    if let Some(held) = held(self) {
                        passed.put(before, &std::mem::take(held), before);
                    }
                    self.has_lost_track = true;
                    self.asked.clear();
                    events.push(Event::LostTrack(lost));
                }
            }
        }
        passed.finish(bytes)
    }

    fn client(&mut self, input: &mut &[u8], _: &mut Vec<Event>) -> Result<Step, LostTrack> {
        let is_new = self.client.reader.is_none();
        let step = self.client.step;
        if is_new && input.is_empty() && !matches!(step, ClientStep::Request(_)) {
            return Ok(Step::NeedsMore);
        }
        let form: &'static [Item] = match step {
            ClientStep::Magic | ClientStep::Version => &[Item::Number],
            ClientStep::Features if self.version.minor < FEATURES => {
                self.client.step = ClientStep::Settings;
                return Ok(Step::Done);
            }
            ClientStep::Features => &[TEXTS],
            ClientStep::Settings => &[Item::Choice(&[&[], &[Item::Number]]), Item::Number],
            ClientStep::Operation if is_new && self.wanted > 0 => {
                self.wanted -= 1;
                self.client.step = ClientStep::Data;
                return Ok(Step::Done);
            }
            ClientStep::Operation => &[Item::Number],
            ClientStep::Request(operation) => operation.request,
            ClientStep::Data => &[Item::Text],
        };
        let what = match step {
            ClientStep::Request(operation) => operation.name,
            _ => "greeting or data",
        };
        let Some((values, _)) = self.client.read(form, self.version, input, "client", what)? else {
            return Ok(Step::NeedsMore);
        };
        let number = values.first().and_then(Value::number).unwrap_or_default();
        match step {
            ClientStep::Magic if number != CLIENT_MAGIC => return Err(LostTrack::Client),
            ClientStep::Magic => self.client.step = ClientStep::Version,
            ClientStep::Version => {
                self.client_minor = Some(minor(number)?);
                self.client.step = ClientStep::Features;
                let passed = self.greet(number)?;
                self.client.held.clear();
                return Ok(Step::Instead(passed));
            }
            ClientStep::Features => {
                self.client.held.clear();
                self.client_by_path = has_by_path(&values);
                self.client.step = ClientStep::Settings;
                return Ok(Step::Instead(features(self.client_by_path)));
            }
            ClientStep::Settings | ClientStep::Data => self.client.step = ClientStep::Operation,
            ClientStep::Operation => {
                let operation = Operation::find(number).ok_or(LostTrack::Operation(number))?;
                if self.asked.len() >= MOST_UNANSWERED {
                    return Err(LostTrack::Unanswered);
                }
                self.asked.push_back(Asked { operation, arguments: Vec::new() });
                self.client.step = ClientStep::Request(operation);
            }
            ClientStep::Request(_) => {
                if let Some(asked) = self.asked.back_mut() {
                    asked.arguments = values;
                }
                self.client.step = ClientStep::Operation;
            }
        }
        Ok(Step::Done)
    }

    fn daemon(&mut self, input: &mut &[u8], events: &mut Vec<Event>) -> Result<Step, LostTrack> {
        let is_new = self.daemon.reader.is_none();
        let step = self.daemon.step;
        if is_new && input.is_empty() && !matches!(step, DaemonStep::Reply(_) | DaemonStep::Log(_))
        {
            return Ok(Step::NeedsMore);
        }
        let form: &'static [Item] = match step {
            DaemonStep::Features if self.version.minor < FEATURES => {
                self.daemon.step = DaemonStep::Itself;
                return Ok(Step::Done);
            }
            DaemonStep::Features => &[TEXTS],
            DaemonStep::Itself => &[Item::Text, Item::Since(35, &[Item::Number])],
            DaemonStep::Log(items) => items,
            DaemonStep::Error => message::ERROR_ITEMS,
            DaemonStep::Reply(operation) => operation.reply,
            _ => &[Item::Number],
        };
        let what = match step {
            DaemonStep::Reply(operation) => operation.name,
            _ => "greeting or message",
        };
        let read = self.daemon.read(form, self.version, input, "daemon", what)?;
        let Some((values, is_cut)) = read else { return Ok(Step::NeedsMore) };
        let number = values.first().and_then(Value::number).unwrap_or_default();
        self.daemon.step = match step {
            DaemonStep::Magic if number != DAEMON_MAGIC => return Err(LostTrack::Daemon),
            DaemonStep::Magic => DaemonStep::Version,
            DaemonStep::Version => {
                self.daemon_minor = Some(minor(number)?);
                self.daemon.step = DaemonStep::Features;
                let passed = self.greet(number)?;
                self.daemon.held.clear();
                return Ok(Step::Instead(passed));
            }
            DaemonStep::Features => {
                self.daemon.held.clear();
                let by_path = self.client_by_path && has_by_path(&values);
                self.version.realisations_by_path = by_path;
                self.daemon.step = DaemonStep::Itself;
                return Ok(Step::Instead(features(by_path)));
            }
            DaemonStep::Itself => {
                events.push(Event::Agreed(self.version));
                DaemonStep::Message
            }
            DaemonStep::Message => self.message(number)?,
            DaemonStep::Log(_) => DaemonStep::Message,
            DaemonStep::Wants => {
                self.wanted += 1;
                DaemonStep::Message
            }
            DaemonStep::Error => {
                let complaint = values.get(3).and_then(Value::text).unwrap_or_default();
                self.answer(events, Outcome::Error(complaint.to_vec()));
                DaemonStep::Message
            }
            DaemonStep::Reply(_) => {
                self.answer(events, Outcome::Reply { values, is_cut });
                DaemonStep::Message
            }
        };
        Ok(Step::Done)
    }

    /// What follows a kind of message.
    fn message(&mut self, kind: u64) -> Result<DaemonStep, LostTrack> {
        if let Some((_, items)) = message::LOG.iter().find(|(known, _)| *known == kind) {
            return Ok(DaemonStep::Log(items));
        }
        match kind {
            message::READ => Ok(DaemonStep::Wants),
            message::ERROR => Ok(DaemonStep::Error),
            message::LAST if !self.has_greeted => {
                self.has_greeted = true;
                Ok(DaemonStep::Message)
            }
            message::LAST => {
                let asked = self.asked.front().ok_or(LostTrack::Unasked)?;
                Ok(DaemonStep::Reply(asked.operation))
            }
            other => Err(LostTrack::Message(other)),
        }
    }

    fn answer(&mut self, events: &mut Vec<Event>, outcome: Outcome) {
        // A daemon that refuses a greeting was asked nothing.
        if let Some(Asked { operation, arguments }) = self.asked.pop_front() {
            events.push(Event::Answered { operation, arguments, outcome });
        }
    }

    /// Passes on a version that is understood here, and agrees on one when both are known.
    fn greet(&mut self, version: u64) -> Result<Vec<u8>, LostTrack> {
        if let (Some(client), Some(daemon)) = (self.client_minor, self.daemon_minor) {
            self.version.minor = client.min(daemon).min(NEWEST);
            if self.version.minor < OLDEST {
                return Err(LostTrack::Version(0x100 | u64::from(self.version.minor)));
            }
        }
        let passed = version.min(0x100 | u64::from(NEWEST));
        Ok(passed.to_le_bytes().to_vec())
    }
}

impl<S> Side<S> {
    fn read(
        &mut self,
        form: &'static [Item],
        version: Version,
        input: &mut &[u8],
        side: &'static str,
        what: &'static str,
    ) -> Result<Option<(Vec<Value>, bool)>, LostTrack> {
        let mut reader = self.reader.take().unwrap_or_else(|| Reader::new(form, version));
        let read = reader.read(input);
        let read = read.map_err(|source| LostTrack::Malformed { side, what, source })?;
        let is_cut = reader.is_cut();
        if read.is_none() {
            self.reader = Some(reader);
        }
        Ok(read.map(|values| (values, is_cut)))
    }
}

/// The minor version, where the major one is 1.
fn minor(version: u64) -> Result<u8, LostTrack> {
    if version >> 8 != 1 {
        return Err(LostTrack::Version(version));
    }
    Ok((version & 0xff) as u8)
}

fn has_by_path(values: &[Value]) -> bool {
    values.first().is_some_and(|features| features.texts().any(|feature| feature == BY_PATH))
}

/// The list of features that are passed on.
fn features(by_path: bool) -> Vec<u8> {
    let mut out = u64::from(by_path).to_le_bytes().to_vec();
    if by_path {
        out.extend_from_slice(&(BY_PATH.len() as u64).to_le_bytes());
        out.extend_from_slice(BY_PATH);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}
