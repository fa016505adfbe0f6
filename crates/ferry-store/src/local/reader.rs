//! NARs out of the files of a store.
//!
//! One thread walks the files and encodes; the caller's thread takes the bytes. Between them
//! stands a short queue, so memory does not depend on how large an object is. Small NARs are handed
//! over many at a time: threads that wake each other for every file do little else.

use std::io::{self, Read, Write};
use std::sync::mpsc::{SyncSender, sync_channel};

use ferry_formats::{PathInfo, StorePath, nar};

use super::layout::Layout;
use crate::store::NarVisitor;
use crate::{Error, Result};

/// Bytes that are handed over together, about, messages in which they come, and how many times
/// that may wait.
const CHUNK: usize = 256 << 10;
const MESSAGES: usize = 512;
const QUEUE: usize = 8;

enum Message {
    Data(Vec<u8>),
    /// The NAR is complete, or could not be read.
    End(std::result::Result<(), nar::Error>),
}

pub(super) fn read_nars(
    layout: &Layout,
    wanted: &[PathInfo],
    visit: &mut NarVisitor<'_>,
) -> Result<()> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut lot = Lot { sender: &sender, messages: Vec::new(), size: 0 };
            for info in wanted {
                let mut writer = Chunks { lot: &mut lot, buffer: Vec::new() };
                let outcome = nar::dump(&layout.real_path(&info.path), &mut writer)
                    .and_then(|()| writer.flush().map_err(nar::Error::Io));
                // Nobody listens any more: the visitor has failed, and says so itself.
                if lot.add(Message::End(outcome), 0).is_err() {
                    return;
                }
            }
            let _ = lot.hand_over();
        });
        // Owned by this closure, so that a failing visit ends the other thread.
        let mut messages = receiver.into_iter().flatten();
        wanted.iter().try_for_each(|info| {
            let mut reader = Incoming::new(&mut messages);
            let visited = visit(info, &mut reader);
            let read = reader.drain();
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

/// Messages that are handed over together.
struct Lot<'a> {
    sender: &'a SyncSender<Vec<Message>>,
    messages: Vec<Message>,
    /// Bytes in them.
    size: usize,
}

impl Lot<'_> {
    fn add(&mut self, message: Message, size: usize) -> io::Result<()> {
        self.messages.push(message);
        self.size += size;
        let is_enough = self.size >= CHUNK || self.messages.len() >= MESSAGES;
        if is_enough { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.size = 0;
        let messages = std::mem::take(&mut self.messages);
        self.sender.send(messages).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Collects what the encoder writes into chunks.
struct Chunks<'a, 'b> {
    lot: &'a mut Lot<'b>,
    buffer: Vec<u8>,
}

impl Write for Chunks<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = std::mem::take(&mut self.buffer);
        let size = chunk.len();
        if size == 0 { Ok(()) } else { self.lot.add(Message::Data(chunk), size) }
    }
}

/// The chunks of one NAR as a reader.
struct Incoming<'a, I> {
    messages: &'a mut I,
    chunk: io::Cursor<Vec<u8>>,
    end: Option<std::result::Result<(), nar::Error>>,
}

impl<'a, I: Iterator<Item = Message>> Incoming<'a, I> {
    fn new(messages: &'a mut I) -> Self {
        Self { messages, chunk: io::Cursor::default(), end: None }
    }

    fn next(&mut self) {
        match self.messages.next() {
            Some(Message::Data(bytes)) => self.chunk = io::Cursor::new(bytes),
            Some(Message::End(outcome)) => self.end = Some(outcome),
            None => {
                let gone = io::Error::other("the thread that reads the store ended");
                self.end = Some(Err(nar::Error::Io(gone)));
            }
        }
    }

    /// Skips what was not read and reports how the NAR ended.
    fn drain(mut self) -> std::result::Result<(), nar::Error> {
        loop {
            if let Some(outcome) = self.end.take() {
                return outcome;
            }
            self.next();
        }
    }
}

impl<I: Iterator<Item = Message>> Read for Incoming<'_, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.end.is_some() {
                return Ok(count);
            }
            self.next();
        }
    }
}
