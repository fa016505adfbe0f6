//! Reading NARs out of a binary cache.
//!
//! Several threads fetch and decompress, each its own NAR, in the order in which they are wanted;
//! the caller's takes them one by one. What is held in memory is capped: [`QUEUE`] pieces of
//! [`CHUNK`] bytes of each NAR under way, and what the decoders hold.
//!
//! The hash and the size of the compressed file are checked, which Nix does not do. The last piece
//! of a NAR is held back until they are, so that nothing is taken for whole that is not.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crossbeam_channel::unbounded;
use ferry_formats::{NixHash, PathInfo};
use ferry_store::{Error, NarVisitor, Result};
use sha2::{Digest as _, Sha256};

use crate::cache::NarFile;
use crate::{BinaryCache, CacheError};

/// Bytes to a piece, and pieces that may wait.
const CHUNK: usize = 128 << 10;
const QUEUE: usize = 8;
/// How many NARs are under way for each thread: small ones wait whole for their turn.
const AHEAD: usize = 4;

enum Message {
    Data(Vec<u8>),
    /// The NAR is whole, or cannot be read.
    End(std::result::Result<(), Error>),
}

struct Job<'a> {
    info: &'a PathInfo,
    file: &'a NarFile,
    sender: SyncSender<Message>,
}

pub(crate) fn read_nars(
    cache: &BinaryCache,
    wanted: &[PathInfo],
    visit: &mut NarVisitor<'_>,
) -> Result<()> {
    let files = cache.nar_files(wanted)?;
    let threads = cache.place.nars_at_a_time().min(wanted.len());
    let (jobs, queue) = unbounded::<Job<'_>>();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let queue = queue.clone();
            scope.spawn(move || {
                for job in queue {
                    let outcome = produce(cache, &job);
                    // Where nobody listens any more, the visitor has failed, and says so itself.
                    let _ = job.sender.send(Message::End(outcome));
                }
            });
        }
        // Owned by this closure, so that a failing visit ends the threads.
        let (jobs, queue) = (jobs, queue);
        let mut coming = wanted.iter().zip(&files);
        let mut under_way: VecDeque<(&PathInfo, Receiver<Message>)> = VecDeque::new();
        let outcome = loop {
            while under_way.len() < threads * AHEAD {
                let Some((info, file)) = coming.next() else { break };
                let (sender, receiver) = sync_channel(QUEUE);
                // The threads live as long as this.
                let _ = jobs.send(Job { info, file, sender });
                under_way.push_back((info, receiver));
            }
            let Some((info, receiver)) = under_way.pop_front() else { break Ok(()) };
            let mut nar = Incoming { receiver, chunk: io::Cursor::default(), end: None };
            let visited = visit(info, &mut nar);
            // A file that cannot be read explains a visitor that got too little; one that is fine
            // may have been left in the middle by a visitor that failed.
            let outcome = match nar.end_so_far() {
                Some(Err(error)) => Err(error),
                _ => visited,
            };
            if outcome.is_err() {
                break outcome;
            }
        };
        // What is queued is not begun.
        queue.try_iter().for_each(drop);
        outcome
    })
}

/// Reads one NAR and hands it over.
fn produce(cache: &BinaryCache, job: &Job<'_>) -> Result<()> {
    let url = || match job.file.url.contains("://") {
        true => ferry_store::message::harmless(&job.file.url),
        false => cache.place.shown_file(&job.file.url),
    };
    let path = || cache.store_dir.render_path(&job.info.path);
    let bad = |reason: String| CacheError::BadNar { path: path(), url: url(), reason };
    let Some(file) = cache.place.open(&job.file.url, job.file.size)? else {
        return Err(CacheError::NoNar { path: path(), url: url() }.into());
    };
    let limit = job.file.size.unwrap_or_else(|| longest(job.info.nar_size));
    let state = FileState { file, hasher: Sha256::new(), size: 0, limit, failure: None };
    let state = Rc::new(RefCell::new(state));
    let ended_early = |state: &RefCell<FileState>, found: String| {
        let mut state = state.borrow_mut();
        // What the network says is said better by itself.
        if let Some(failure) = state.failure.take() {
            return CacheError::Unread { path: path(), reason: failure };
        }
        match job.file.size {
            Some(expected) if state.size < expected => {
                bad(format!("it ends after {} of {expected} bytes", state.size))
            }
            _ => bad(found),
        }
    };
    let mut decoder = job
        .file
        .compression
        .decoder(FileReader(Rc::clone(&state)))
        .map_err(|error| bad(error.to_string()))?;
    let mut left = job.info.nar_size;
    let mut held_back: Option<Vec<u8>> = None;
    let gone = |data: Option<Vec<u8>>| match data {
        Some(data) => job.sender.send(Message::Data(data)).is_err(),
        None => false,
    };
    loop {
        // One byte more than there should be.
        let limit = left.saturating_add(1).min(CHUNK as u64);
        let mut chunk = Vec::with_capacity(usize::try_from(limit).unwrap_or(CHUNK));
        let read = decoder.by_ref().take(limit).read_to_end(&mut chunk);
        if let Err(error) = read {
            return Err(ended_early(&state, error.to_string()).into());
        }
        if chunk.is_empty() {
            break;
        }
        left = left.checked_sub(chunk.len() as u64).ok_or_else(|| {
            bad(format!("it decompresses to more than the {} bytes promised", job.info.nar_size))
        })?;
        if gone(held_back.replace(chunk)) {
            return Ok(());
        }
    }
    drop(decoder);
    let mut rest = FileReader(Rc::clone(&state));
    io::copy(&mut rest, &mut io::sink()).map_err(|error| ended_early(&state, error.to_string()))?;
    let size = state.borrow().size;
    if job.file.size.is_some_and(|expected| expected != size) {
        let expected = job.file.size.unwrap_or_default();
        return Err(ended_early(
            &state,
            format!("it has {size} bytes, and should have {expected}"),
        )
        .into());
    }
    if let Some(expected) = &job.file.hash {
        let found = NixHash::Sha256(state.borrow().hasher.clone().finalize().into());
        let is_known = matches!(expected, NixHash::Sha256(_));
        if is_known && found != *expected {
            let (found, expected) =
                (found.to_nix_nixbase32_string(), expected.to_nix_nixbase32_string());
            return Err(bad(format!("it has hash {found}, and should have {expected}")).into());
        }
    }
    gone(held_back);
    Ok(())
}

/// What compresses badly gets longer; nothing gets this much longer, in bytes.
fn longest(nar_size: u64) -> u64 {
    nar_size.saturating_add(nar_size / 4).saturating_add(1 << 20)
}

/// A compressed file, and what was read of it.
struct FileState {
    file: Box<dyn Read + Send>,
    hasher: Sha256,
    size: u64,
    /// It may not be longer.
    limit: u64,
    /// Why it could not be read further.
    failure: Option<String>,
}

struct FileReader(Rc<RefCell<FileState>>);

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let count = match state.file.read(buffer) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    state.failure = Some(error.to_string());
                }
                return Err(error);
            }
        };
        state.hasher.update(buffer.get(..count).unwrap_or_default());
        state.size += count as u64;
        if state.size > state.limit {
            let limit = state.limit;
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(count)
    }
}

/// The pieces of one NAR as a reader.
struct Incoming {
    receiver: Receiver<Message>,
    chunk: io::Cursor<Vec<u8>>,
    end: Option<std::result::Result<(), Error>>,
}

impl Incoming {
    /// How the NAR ended, if all of it that there is was read. Waits where only the end is left.
    fn end_so_far(mut self) -> Option<std::result::Result<(), Error>> {
        let is_read = self.chunk.position() >= self.chunk.get_ref().len() as u64;
        if self.end.is_none() && is_read {
            self.next();
        }
        self.end
    }

    fn next(&mut self) {
        match self.receiver.recv() {
            Ok(Message::Data(bytes)) => self.chunk = io::Cursor::new(bytes),
            Ok(Message::End(outcome)) => self.end = Some(outcome),
            Err(_) => {
                let gone = io::Error::other("the thread that reads the cache ended");
                self.end = Some(Err(Error::io("read a NAR")(gone)));
            }
        }
    }
}

impl Read for Incoming {
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
