//! NARs out of the files of a store.
//!
//! One thread walks the files and encodes; the caller's thread takes the bytes. Between them
//! stands a short queue, so memory does not depend on how large an object is.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ferry_formats::{PathInfo, StorePath, nar};

use super::layout::Layout;
use crate::store::NarVisitor;
use crate::{Error, Result};

/// Bytes to a message, and messages that may wait.
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 16;

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
            for info in wanted {
                let mut writer = Chunks { sender: &sender, buffer: Vec::new() };
                let outcome = nar::dump(&layout.real_path(&info.path), &mut writer)
                    .and_then(|()| writer.flush().map_err(nar::Error::Io));
                // Nobody listens any more: the visitor has failed, and says so itself.
                if sender.send(Message::End(outcome)).is_err() {
                    return;
                }
            }
        });
        // Owned by this closure, so that a failing visit ends the other thread.
        let receiver = receiver;
        wanted.iter().try_for_each(|info| {
            let mut reader = Incoming::new(&receiver);
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

/// Collects what the encoder writes into chunks.
struct Chunks<'a> {
    sender: &'a SyncSender<Message>,
    buffer: Vec<u8>,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.buffer);
        self.sender.send(Message::Data(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The chunks of one NAR as a reader.
struct Incoming<'a> {
    receiver: &'a Receiver<Message>,
    chunk: io::Cursor<Vec<u8>>,
    end: Option<std::result::Result<(), nar::Error>>,
}

impl<'a> Incoming<'a> {
    fn new(receiver: &'a Receiver<Message>) -> Self {
        Self { receiver, chunk: io::Cursor::default(), end: None }
    }

    fn next(&mut self) {
        match self.receiver.recv() {
            Ok(Message::Data(bytes)) => self.chunk = io::Cursor::new(bytes),
            Ok(Message::End(outcome)) => self.end = Some(outcome),
            Err(_) => {
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

impl Read for Incoming<'_> {
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
