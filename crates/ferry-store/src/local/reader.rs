//! NARs out of the files of a store.
//!
//! One thread walks the files and encodes; the caller's thread takes the bytes. Between them
//! stands a short queue, so memory does not depend on how large an object is. Many small NARs make
//! one message: waking each other for every one of them would cost more than reading it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ferry_formats::{PathInfo, StorePath, nar};

use super::layout::Layout;
use crate::store::NarVisitor;
use crate::{Error, Result};

/// Bytes to a message, and messages that may wait.
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 16;

/// The next bytes, of one NAR or of several.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
    /// Where in them NARs end, and whether each is complete or could not be read.
    ends: VecDeque<(usize, End)>,
}

type End = std::result::Result<(), nar::Error>;

pub(super) fn read_nars(
    layout: &Layout,
    wanted: &[PathInfo],
    visit: &mut NarVisitor<'_>,
) -> Result<()> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut writer = Chunks { sender: &sender, message: Message::default() };
            for info in wanted {
                let outcome = nar::dump(&layout.real_path(&info.path), &mut writer);
                // Nobody listens any more: the visitor has failed, and says so itself.
                if writer.end(outcome).is_err() {
                    return;
                }
            }
            let _ = writer.flush();
        });
        // Owned by this closure, so that a failing visit ends the other thread.
        let mut nars = Nars { receiver, message: Message::default(), position: 0 };
        wanted.iter().try_for_each(|info| {
            let visited = visit(info, &mut nars);
            let read = nars.drain();
            match (visited, read) {
                // A file that cannot be read explains a visitor that got too little.
                (_, Err(error)) => Err(read_error(layout, &info.path, error)),
                (visited, Ok(())) => visited,
            }
        })
    })
}

pub(super) fn read_error(layout: &Layout, path: &StorePath, error: nar::Error) -> Error {
    let real = layout.real_path(path);
    let path = layout.store_dir.render_path(path);
    match error {
        nar::Error::Io(source) => {
            Error::Io { action: format!("read {path} at {}", real.display()), source }
        }
        other => Error::MalformedNar { path, reason: other.to_string() },
    }
}

/// Collects what the encoder writes into messages.
struct Chunks<'a> {
    sender: &'a SyncSender<Message>,
    message: Message,
}

impl Chunks<'_> {
    /// Notes the end of a NAR.
    fn end(&mut self, outcome: End) -> io::Result<()> {
        let is_failure = outcome.is_err();
        self.message.ends.push_back((self.message.bytes.len(), outcome));
        if is_failure || self.message.bytes.len() >= CHUNK { self.flush() } else { Ok(()) }
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.message.bytes.extend_from_slice(bytes);
        if self.message.bytes.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.message.bytes.is_empty() && self.message.ends.is_empty() {
            return Ok(());
        }
        let message = std::mem::take(&mut self.message);
        self.sender.send(message).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// All NARs one behind the other, as a reader that ends where one of them ends.
struct Nars {
    receiver: Receiver<Message>,
    message: Message,
    /// How much of the message was read.
    position: usize,
}

impl Nars {
    /// What is at hand of the NAR that is being read; nothing at its end.
    fn at_hand(&mut self) -> &[u8] {
        loop {
            let end = self.message.ends.front().map(|(end, _)| *end);
            let limit = end.unwrap_or(self.message.bytes.len());
            if self.position < limit || end.is_some() {
                return self.message.bytes.get(self.position..limit).unwrap_or_default();
            }
            self.position = 0;
            self.message = self.receiver.recv().unwrap_or_else(|_| {
                let gone = io::Error::other("the thread that reads the store ended");
                Message { ends: [(0, Err(nar::Error::Io(gone)))].into(), ..Message::default() }
            });
        }
    }

    /// Skips what was not read of a NAR, reports how it ended, and goes on to the next.
    fn drain(&mut self) -> End {
        loop {
            let left = self.at_hand().len();
            if left == 0 {
                break;
            }
            self.position += left;
        }
        self.message.ends.pop_front().map_or(Ok(()), |(_, outcome)| outcome)
    }
}

impl Read for Nars {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.at_hand().read(buffer)?;
        self.position += count;
        Ok(count)
    }
}
