//! One conversation with a Nix daemon: greeting, requests, and what it says in between.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::wire::{self, read_string, read_u64, write_bytes, write_u64};
use crate::progress::Progress;
use crate::{Error, Result};

const CLIENT_MAGIC: u64 = 0x6e69_7863;
const DAEMON_MAGIC: u64 = 0x6478_696f;

/// Protocol versions are numbers, `major << 8 | minor`.
const fn version(minor: u64) -> u64 {
    (1 << 8) | minor
}
/// The oldest spoken here: Nix 2.8.
const OLDEST: u64 = version(34);
/// The newest known here: Nix 2.32 to 2.36. With a newer daemon this one is agreed on.
const NEWEST: u64 = version(38);

/// Messages that a daemon may send before its answer.
mod message {
    pub(super) const NEXT: u64 = 0x6f6c_6d67;
    pub(super) const LAST: u64 = 0x616c_7473;
    pub(super) const ERROR: u64 = 0x6378_7470;
    pub(super) const START_ACTIVITY: u64 = 0x5354_5254;
    pub(super) const STOP_ACTIVITY: u64 = 0x5354_4f50;
    pub(super) const RESULT: u64 = 0x5253_4c54;
}

/// Requests, numbered as in `worker-protocol.hh`.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    AddTempRoot = 11,
    AddIndirectRoot = 12,
    SetOptions = 19,
    QueryAllValidPaths = 23,
    QueryPathInfo = 26,
    QueryValidDerivers = 33,
    NarFromPath = 38,
    RegisterDrvOutput = 42,
    QueryRealisation = 43,
    AddMultipleToStore = 44,
    AddPermRoot = 47,
}

/// How much a daemon trusts us, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// It does not say (before protocol 1.35).
    Unknown,
    /// We may skip signature checks and set its settings.
    Yes,
    /// We may not.
    No,
}

/// What a daemon says.
pub(super) type Reader = BufReader<Box<dyn Read + Send>>;
/// What is said to it.
pub(super) type Writer = BufWriter<Box<dyn Write + Send>>;

/// An open conversation.
pub(super) struct Connection {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    describe: String,
    minor: u64,
    pub(super) nix_version: String,
    pub(super) trusted: Trusted,
    /// Hears what the daemon logs.
    log: Log,
    peer: Peer,
}

/// Who hears what a daemon logs.
pub(super) type Log = Arc<dyn Progress + Send>;

/// What is on the other end. Dropped after the two directions of a conversation, it ends it.
pub(super) enum Peer {
    /// A socket, hung up on.
    Socket(UnixStream),
    /// A command, waited for: the pipe to it was closed just before.
    Command(Child),
}

impl Connection {
    /// Connects to a daemon's socket.
    pub(super) fn connect(socket: &Path, describe: &str, log: Log) -> Result<Self> {
        let action = || format!("connect to the Nix daemon at {}", socket.display());
        let stream = UnixStream::connect(socket).map_err(Error::io(action()))?;
        let reader = stream.try_clone().map_err(Error::io(action()))?;
        let writer = stream.try_clone().map_err(Error::io(action()))?;
        Self::greet(Box::new(reader), Box::new(writer), Peer::Socket(stream), describe, log)
    }

    /// Runs a command that speaks the protocol on its standard streams.
    pub(super) fn spawn(command: &[String], describe: &str, log: Log) -> Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(Error::BadUri {
                uri: describe.to_owned(),
                reason: "it names no command".to_owned(),
            });
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("run `{}`", command.join(" "))))?;
        let (Some(reader), Some(writer)) = (child.stdout.take(), child.stdin.take()) else {
            return Err(Error::Protocol {
                daemon: describe.to_owned(),
                reason: "its standard streams are not there".to_owned(),
            });
        };
        Self::greet(Box::new(reader), Box::new(writer), Peer::Command(child), describe, log)
    }

    fn greet(
        reader: Box<dyn Read + Send>,
        writer: Box<dyn Write + Send>,
        peer: Peer,
        describe: &str,
        log: Log,
    ) -> Result<Self> {
        let mut connection = Self {
            reader: BufReader::with_capacity(128 << 10, reader),
            writer: BufWriter::with_capacity(128 << 10, writer),
            describe: describe.to_owned(),
            minor: 0,
            nix_version: String::new(),
            trusted: Trusted::Unknown,
            log,
            peer,
        };
        let (theirs, magic) = connection.talk(|connection| {
            write_u64(&mut connection.writer, CLIENT_MAGIC)?;
            write_u64(&mut connection.writer, NEWEST)?;
            connection.writer.flush()?;
            let magic = read_u64(&mut connection.reader)?;
            Ok((read_u64(&mut connection.reader)?, magic))
        })?;
        if magic != DAEMON_MAGIC {
            return Err(
                connection.protocol(format!("it greets with {magic:#x}, as no Nix daemon does"))
            );
        }
        if theirs < OLDEST || theirs >> 8 != 1 {
            return Err(connection.protocol(format!(
                "it speaks protocol {}.{}; Nix 2.8 (protocol 1.34) is the oldest that is supported",
                theirs >> 8,
                theirs & 0xff
            )));
        }
        connection.minor = theirs.min(NEWEST) & 0xff;
        connection.talk(|connection| {
            if connection.minor >= 38 {
                // Features: none is needed here, so none is agreed on.
                wire::write_strings(&mut connection.writer, std::iter::empty::<&str>())?;
                connection.writer.flush()?;
                wire::read_strings(&mut connection.reader)?;
            }
            write_u64(&mut connection.writer, 0)?; // CPU affinity, obsolete
            write_u64(&mut connection.writer, 0)?; // reserve space, obsolete
            connection.writer.flush()?;
            connection.nix_version = read_string(&mut connection.reader)?;
            if connection.minor >= 35 {
                connection.trusted = match read_u64(&mut connection.reader)? {
                    1 => Trusted::Yes,
                    2 => Trusted::No,
                    _ => Trusted::Unknown,
                };
            }
            Ok(())
        })?;
        connection.answer()?;
        Ok(connection)
    }

    /// Runs one exchange; a failing stream becomes an error that names the daemon.
    pub(super) fn talk<T>(
        &mut self,
        exchange: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T> {
        exchange(self).map_err(|error| stream_error(&self.describe, error))
    }

    pub(super) fn protocol(&self, reason: String) -> Error {
        Error::Protocol { daemon: self.describe.clone(), reason }
    }

    /// Sends a request whose arguments are strings, and waits until its answer begins.
    pub(super) fn request(&mut self, operation: Operation, arguments: &[&str]) -> Result<()> {
        self.send(operation, arguments)?;
        self.talk(|connection| connection.writer.flush())?;
        self.answer()
    }

    /// Writes a request without waiting.
    pub(super) fn send(&mut self, operation: Operation, arguments: &[&str]) -> Result<()> {
        self.talk(|connection| {
            write_u64(&mut connection.writer, operation as u64)?;
            arguments
                .iter()
                .try_for_each(|argument| write_bytes(&mut connection.writer, argument.as_bytes()))
        })
    }

    /// Reads what the daemon says until its answer begins.
    pub(super) fn answer(&mut self) -> Result<()> {
        await_answer(&mut self.reader, &self.describe, &*self.log)
    }
}

impl Connection {
    /// Whether the daemon makes permanent roots (protocol 1.36, Nix 2.20) and would for us.
    pub(super) fn makes_permanent_roots(&self) -> bool {
        self.minor >= 36 && self.trusted == Trusted::Yes
    }

    /// The two directions apart, for an exchange in which both are busy at once.
    pub(super) fn split(self) -> (Reader, Writer, Log, Peer) {
        (self.reader, self.writer, self.log, self.peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ended = match self {
            Self::Socket(stream) => stream.shutdown(std::net::Shutdown::Both),
            Self::Command(child) => child.wait().map(drop),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "ending a conversation with a daemon");
        }
    }
}

pub(super) fn stream_error(daemon: &str, error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner,
        Err(error) => Error::Protocol {
            daemon: daemon.to_owned(),
            reason: match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset => "it closed the connection".to_owned(),
                _ => error.to_string(),
            },
        },
    }
}

/// Reads messages until the answer begins; an error message is returned as one.
pub(super) fn await_answer(
    reader: &mut dyn Read,
    daemon: &str,
    progress: &dyn Progress,
) -> Result<()> {
    loop {
        match read_message(reader).map_err(|error| stream_error(daemon, error))? {
            Message::Last => return Ok(()),
            Message::Line(line) => progress.message(line.trim_end()),
            Message::Nothing => {}
            Message::Error(message) => {
                return Err(Error::Daemon { daemon: daemon.to_owned(), message });
            }
        }
    }
}

enum Message {
    Last,
    Line(String),
    Nothing,
    Error(String),
}

/// Activities of this level and above (lower numbers) are worth a line; `lvlInfo` in Nix.
const INFO: u64 = 3;

fn read_message(mut reader: &mut dyn Read) -> io::Result<Message> {
    let reader = &mut reader;
    match read_u64(reader)? {
        message::LAST => Ok(Message::Last),
        message::NEXT => Ok(Message::Line(strip_colours(&read_string(reader)?))),
        message::ERROR => Ok(Message::Error(read_error(reader)?)),
        message::START_ACTIVITY => {
            read_u64(reader)?; // its number
            let level = read_u64(reader)?;
            read_u64(reader)?; // its type
            let text = read_string(reader)?;
            skip_fields(reader)?;
            read_u64(reader)?; // its parent
            let worth_a_line = level <= INFO && !text.is_empty();
            Ok(if worth_a_line { Message::Line(strip_colours(&text)) } else { Message::Nothing })
        }
        message::STOP_ACTIVITY => {
            read_u64(reader)?;
            Ok(Message::Nothing)
        }
        message::RESULT => {
            read_u64(reader)?;
            read_u64(reader)?;
            skip_fields(reader)?;
            Ok(Message::Nothing)
        }
        other => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of the unknown type {other:#x}"),
        )),
    }
}

fn skip_fields(reader: &mut dyn Read) -> io::Result<()> {
    for _ in 0..read_u64(reader)? {
        match read_u64(reader)? {
            0 => drop(read_u64(reader)?),
            1 => drop(wire::read_bytes(reader)?),
            other => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a log field of the unknown type {other}"),
                ));
            }
        }
    }
    Ok(())
}

/// Most traces accepted with an error.
const MAX_TRACES: u64 = 1000;

/// An error as daemons send it since protocol 1.26: type, level, name, message, traces.
fn read_error(reader: &mut dyn Read) -> io::Result<String> {
    read_string(reader)?;
    read_u64(reader)?;
    read_string(reader)?;
    let mut text = strip_colours(&read_string(reader)?);
    read_u64(reader)?; // has a position: never
    let traces = read_u64(reader)?;
    if traces > MAX_TRACES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("an error with {traces} traces (at most {MAX_TRACES} are accepted)"),
        ));
    }
    for _ in 0..traces {
        read_u64(reader)?;
        text.push_str("\n  ");
        text.push_str(&strip_colours(&read_string(reader)?));
    }
    Ok(text)
}

/// Daemons colour parts of their messages; what is shown where is not theirs to decide. Other
/// control characters go too, but for line ends and tabs.
fn strip_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // `ESC [ … m`
            '\u{1b}' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            '\n' | '\t' => plain.push(character),
            other if other.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}
