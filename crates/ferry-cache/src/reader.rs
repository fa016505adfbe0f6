//! Reading NARs out of a binary cache.
//!
//! Several threads fetch and decompress, each its own NAR, in the order in which they are wanted;
//! the caller's takes them one by one. From a disk, many small ones are one piece of work. What is
//! held in memory is capped: [`QUEUE`] pieces of [`CHUNK`] bytes of each NAR under way, and what the
//! decoders hold.
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
use crate::whole::WholeDecoder;
use crate::{BinaryCache, CacheError};

/// Bytes to a piece, and pieces that may wait.
const CHUNK: usize = 128 << 10;
const QUEUE: usize = 8;
/// How many NARs, or groups of small ones, are under way for each thread: small ones wait whole
/// for their turn.
const AHEAD: usize = 4;
/// NARs up to this size in bytes are read in groups: so many of them, or so many bytes. Waking
/// each other for every one would cost more than reading it.
const SMALL: u64 = 64 << 10;
const GROUP: usize = 64;
const GROUP_BYTES: u64 = 256 << 10;

enum Message {
    /// NARs that are whole.
    Whole(VecDeque<Vec<u8>>),
    Data(Vec<u8>),
    /// The NAR is whole, or cannot be read.
    End(std::result::Result<(), Error>),
}

/// One NAR, or several small ones.
struct Job<'a> {
    infos: &'a [PathInfo],
    files: &'a [NarFile],
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
                let mut decoder = WholeDecoder::default();
                for job in queue {
                    produce_all(cache, &job, &mut decoder);
                }
            });
        }
        // Owned by this closure, so that a failing visit ends the threads.
        let (jobs, queue) = (jobs, queue);
        let (mut infos, mut files) = (wanted, files.as_slice());
        let mut under_way: VecDeque<(&[PathInfo], Receiver<Message>)> = VecDeque::new();
        let outcome = loop {
            while under_way.len() < threads * AHEAD && !infos.is_empty() {
                let count = group(cache, infos, files);
                let (group, rest) = infos.split_at_checked(count).unwrap_or((infos, &[]));
                let (places, places_left) = files.split_at_checked(count).unwrap_or((files, &[]));
                (infos, files) = (rest, places_left);
                let (sender, receiver) = sync_channel(QUEUE);
                // The threads live as long as this.
                let _ = jobs.send(Job { infos: group, files: places, sender });
                under_way.push_back((group, receiver));
            }
            let Some((group, receiver)) = under_way.pop_front() else { break Ok(()) };
            let mut nars = Incoming::new(receiver);
            let visited = group.iter().enumerate().try_for_each(|(number, info)| {
                let visited = visit(info, &mut nars);
                // A file that cannot be read explains a visitor that got too little; one that is
                // fine may have been left in the middle by a visitor that failed.
                match nars.end_so_far() {
                    Some(Err(error)) => Err(error),
                    None if visited.is_ok() && number + 1 < group.len() => nars.skip(),
                    _ => visited,
                }
            });
            if visited.is_err() {
                break visited;
            }
        };
        // What is queued is not begun.
        queue.try_iter().for_each(drop);
        outcome
    })
}

/// How many of the first NARs to read as one piece of work.
fn group(cache: &BinaryCache, infos: &[PathInfo], files: &[NarFile]) -> usize {
    if cache.place.is_remote() {
        return 1;
    }
    let mut bytes = 0;
    let small = infos.iter().zip(files).take(GROUP).take_while(|(info, file)| {
        bytes += info.nar_size;
        is_small(info, file) && bytes <= GROUP_BYTES
    });
    small.count().max(1)
}

fn is_small(info: &PathInfo, file: &NarFile) -> bool {
    info.nar_size <= SMALL && file.size.is_some_and(|size| size <= SMALL)
}

/// Reads the NARs of a job and hands them over.
fn produce_all(cache: &BinaryCache, job: &Job<'_>, decoder: &mut WholeDecoder) {
    let mut whole = VecDeque::new();
    for (info, file) in job.infos.iter().zip(job.files) {
        let opened = match cache.place.open(&file.url, file.size) {
            Ok(Some(mut read)) if is_small(info, file) => {
                match decoder.decode(&mut read, file, info.nar_size) {
                    Ok(nar) => {
                        whole.push_back(nar);
                        continue;
                    }
                    Err(bytes) => Ok(Some(Box::new(io::Cursor::new(bytes).chain(read)) as _)),
                }
            }
            opened => opened,
        };
        let before = std::mem::take(&mut whole);
        // Where nobody listens any more, the visitor has failed, and says so itself.
        if !before.is_empty() && job.sender.send(Message::Whole(before)).is_err() {
            return;
        }
        let outcome = produce(cache, info, (file, opened), &job.sender);
        if job.sender.send(Message::End(outcome)).is_err() {
            return;
        }
    }
    if !whole.is_empty() {
        let _ = job.sender.send(Message::Whole(whole));
    }
}

/// A compressed file that was opened, if it is there.
type Opened = std::result::Result<Option<Box<dyn Read + Send>>, CacheError>;

/// Reads one NAR and hands it over in pieces.
fn produce(
    cache: &BinaryCache,
    info: &PathInfo,
    (described, opened): (&NarFile, Opened),
    sender: &SyncSender<Message>,
) -> Result<()> {
    let url = || match described.url.contains("://") {
        true => ferry_store::message::harmless(&described.url),
        false => cache.place.shown_file(&described.url),
    };
    let path = || cache.store_dir.render_path(&info.path);
    let bad = |reason: String| CacheError::BadNar { path: path(), url: url(), reason };
    let Some(file) = opened? else {
        return Err(CacheError::NoNar { path: path(), url: url() }.into());
    };
    let limit = described.size.unwrap_or_else(|| longest(info.nar_size));
    let state = FileState { file, hasher: Sha256::new(), size: 0, limit, failure: None };
    let state = Rc::new(RefCell::new(state));
    let ended_early = |state: &RefCell<FileState>, found: String| {
        let mut state = state.borrow_mut();
        // What the network says is said better by itself.
        if let Some(failure) = state.failure.take() {
            return CacheError::Unread { path: path(), reason: failure };
        }
        match described.size {
            Some(expected) if state.size < expected => {
                bad(format!("it ends after {} of {expected} bytes", state.size))
            }
            _ => bad(found),
        }
    };
    let mut decoder = described
        .compression
        .decoder(FileReader(Rc::clone(&state)))
        .map_err(|error| bad(error.to_string()))?;
    let mut left = info.nar_size;
    let mut held_back: Option<Vec<u8>> = None;
    let gone = |data: Option<Vec<u8>>| match data {
        Some(data) => sender.send(Message::Data(data)).is_err(),
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
            bad(format!("it decompresses to more than the {} bytes promised", info.nar_size))
        })?;
        if gone(held_back.replace(chunk)) {
            return Ok(());
        }
    }
    drop(decoder);
    let mut rest = FileReader(Rc::clone(&state));
    io::copy(&mut rest, &mut io::sink()).map_err(|error| ended_early(&state, error.to_string()))?;
    let size = state.borrow().size;
    if described.size.is_some_and(|expected| expected != size) {
        let expected = described.size.unwrap_or_default();
        return Err(ended_early(
            &state,
            format!("it has {size} bytes, and should have {expected}"),
        )
        .into());
    }
    if let Some(expected) = &described.hash {
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

/// The NARs of one job, one behind the other, as a reader that ends where one of them ends.
struct Incoming {
    receiver: Receiver<Message>,
    /// Whole NARs that come after the one that is being read.
    whole: VecDeque<Vec<u8>>,
    chunk: io::Cursor<Vec<u8>>,
    /// How the NAR ends that is being read, once that is known.
    end: Option<std::result::Result<(), Error>>,
}

impl Incoming {
    fn new(receiver: Receiver<Message>) -> Self {
        Self { receiver, whole: VecDeque::new(), chunk: io::Cursor::default(), end: None }
    }

    /// How the NAR ended, if all of it that there is was read, and goes on to the next. Waits where
    /// only the end is left.
    fn end_so_far(&mut self) -> Option<std::result::Result<(), Error>> {
        let is_read = self.chunk.position() >= self.chunk.get_ref().len() as u64;
        if self.end.is_none() && is_read {
            self.next();
        }
        self.chunk = io::Cursor::default();
        self.end.take()
    }

    /// Skips the rest of a NAR, and goes on to the next.
    fn skip(&mut self) -> Result<()> {
        loop {
            if let Some(end) = self.end.take() {
                self.chunk = io::Cursor::default();
                return end;
            }
            self.next();
        }
    }

    fn next(&mut self) {
        if let Some(nar) = self.whole.pop_front() {
            self.chunk = io::Cursor::new(nar);
            self.end = Some(Ok(()));
            return;
        }
        match self.receiver.recv() {
            Ok(Message::Whole(nars)) => {
                self.whole = nars;
                self.next();
            }
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
