//! Writing a binary cache.
//!
//! The caller's thread reads and checks NARs; others compress them, several at a time. A small NAR
//! is handed over in memory, a large one in pieces while it is read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use ferry_formats::narinfo::{self, CacheInfo, Narinfo};
use ferry_formats::{NixHash, PathInfo, StoreDir, nixbase32};
use ferry_store::admission::Admitted;
use ferry_store::{Error, Result, StoreWriter};
use sha2::{Digest as _, Sha256};

use crate::compression::CompressionSetting;
use crate::directory::Staging;
use crate::place::{CACHE_INFO, Place};
use crate::publish::{Made, Publisher};
use crate::{CacheError, listing};

/// NARs up to this size in bytes are handed over in memory.
const SMALL: u64 = 2 << 20;
/// Bytes to a piece of a larger one, and pieces that may wait.
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 16;

/// How to write to a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSettings {
    /// How NARs are compressed.
    pub compression: CompressionSetting,
    /// Whether to put a `.ls` file beside each narinfo, which lists what is in the NAR.
    pub write_nar_listing: bool,
    /// `Priority` in the `nix-cache-info` of a new cache.
    pub priority: Option<u32>,
    /// `WantMassQuery` in the `nix-cache-info` of a new cache.
    pub want_mass_query: Option<bool>,
    /// How many threads compress; as many as there are cores, unless set.
    pub threads: Option<NonZero<usize>>,
}

enum Job {
    /// A NAR that was checked.
    Whole(Vec<u8>, PathInfo),
    /// A NAR that is being read.
    Pieces(PathInfo, Receiver<Piece>),
}

enum Piece {
    Data(Vec<u8>),
    /// That was all, and it is what it should be. Where this does not come, it is not.
    Verified,
}

/// What all threads have at hand.
struct Shared {
    place: Arc<Place>,
    store_dir: StoreDir,
    settings: WriteSettings,
    threads: NonZero<usize>,
    staging: Arc<Staging>,
    publisher: Mutex<Publisher>,
    /// Held while a large NAR is compressed on several threads.
    wide: Mutex<()>,
    /// The first failure.
    failure: Mutex<Option<Error>>,
}

pub(crate) struct CacheWriter {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

impl CacheWriter {
    /// A writer to `place`, which makes what is to go there in `staging`.
    pub(crate) fn new(
        place: &Arc<Place>,
        staging: Arc<Staging>,
        store_dir: &StoreDir,
        settings: &WriteSettings,
        publisher: Publisher,
    ) -> Result<Self> {
        describe(place, store_dir, settings, &staging)?;
        let threads = settings
            .threads
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZero::<usize>::MIN);
        // Whoever waits for a server keeps no core busy.
        let workers = threads.get().max(place.puts_at_a_time());
        let shared = Arc::new(Shared {
            place: Arc::clone(place),
            store_dir: store_dir.clone(),
            settings: settings.clone(),
            threads,
            staging,
            publisher: Mutex::new(publisher),
            wide: Mutex::new(()),
            failure: Mutex::new(None),
        });
        let (jobs, queue) = bounded(2 * workers);
        let workers = (0..workers)
            .map(|_| {
                let (shared, queue) = (Arc::clone(&shared), queue.clone());
                thread::spawn(move || {
                    for job in queue {
                        if let Err(error) = shared.work(job) {
                            lock(&shared.failure).get_or_insert(error);
                            return;
                        }
                    }
                })
            })
            .collect();
        Ok(Self { shared, jobs: Some(jobs), workers })
    }

    fn hand_over(&mut self, job: Job) -> Result<()> {
        if let Some(error) = lock(&self.shared.failure).take() {
            return Err(error);
        }
        let taken = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        // Otherwise all of the others have given up.
        if taken { Ok(()) } else { Err(self.failure()) }
    }

    /// Why the other threads have given up.
    fn failure(&self) -> Error {
        lock(&self.shared.failure).take().unwrap_or_else(|| {
            let action = format!("write to {}", self.shared.place.shown());
            Error::io(action)(io::Error::other("a compressing thread ended"))
        })
    }

    /// Waits until everything handed over is made.
    fn join(&mut self) -> Result<()> {
        self.jobs = None;
        let ended: Vec<_> = self.workers.drain(..).map(JoinHandle::join).collect();
        if ended.iter().any(std::result::Result::is_err) {
            return Err(self.failure());
        }
        lock(&self.shared.failure).take().map_or(Ok(()), Err)
    }
}

impl StoreWriter for CacheWriter {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let info = admitted.info().clone();
        let path = self.shared.store_dir.render_path(&info.path);
        let reading = || Error::reading(format!("read the NAR of {path}"));
        if info.nar_size <= SMALL {
            let mut nar = Vec::with_capacity(usize::try_from(info.nar_size).unwrap_or_default());
            admitted.verify(|reader| reader.read_to_end(&mut nar).map(drop).map_err(reading()))?;
            return self.hand_over(Job::Whole(nar, info));
        }
        let (pieces, receiver): (SyncSender<Piece>, _) = sync_channel(QUEUE);
        self.hand_over(Job::Pieces(info, receiver))?;
        let verified = admitted.verify(|reader| {
            loop {
                let mut chunk = Vec::with_capacity(CHUNK);
                reader.take(CHUNK as u64).read_to_end(&mut chunk).map_err(reading())?;
                if chunk.is_empty() {
                    return Ok(());
                }
                pieces.send(Piece::Data(chunk)).map_err(|_| self.failure())?;
            }
        });
        verified?;
        match pieces.send(Piece::Verified) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure()),
        }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.join()?;
        Ok(lock(&self.shared.publisher).finish()?)
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // What was made before something went wrong elsewhere is whole, and need not be made again.
        if self.jobs.is_some()
            && self.join().is_ok()
            && let Err(error) = lock(&self.shared.publisher).publish()
        {
            tracing::debug!(%error, "what was made is lost");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the `nix-cache-info` of a new cache.
fn describe(
    place: &Place,
    store_dir: &StoreDir,
    settings: &WriteSettings,
    staging: &Staging,
) -> std::result::Result<(), CacheError> {
    if place.get(CACHE_INFO)?.is_some() {
        return Ok(());
    }
    let info = CacheInfo {
        store_dir: Some(store_dir.as_str().to_owned()),
        want_mass_query: settings.want_mass_query,
        priority: settings.priority,
    };
    let file = staging.new_file();
    fs::write(&file, info.render())
        .and_then(|()| File::open(&file)?.sync_all())
        .map_err(CacheError::io("write", file.display()))?;
    place.put(&file, CACHE_INFO)
}

impl Shared {
    fn work(&self, job: Job) -> Result<()> {
        match job {
            Job::Whole(nar, info) => {
                let made = self.make(&info, nar.as_slice())?;
                self.hand_in(&info, made)
            }
            Job::Pieces(info, receiver) => {
                let mut pieces = Pieces { receiver, chunk: io::Cursor::default(), end: None };
                let made = self.make(&info, &mut pieces);
                if pieces.end == Some(true) {
                    return self.hand_in(&info, made?);
                }
                // Whoever reads it has found out what is wrong with it, or will hear from us.
                match (pieces.end, made) {
                    (None, Err(error)) => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Hands what was made to whoever gives it its place. To the web all but the narinfo goes at
    /// once: what no narinfo speaks of is not looked at.
    fn hand_in(&self, info: &PathInfo, mut made: Made) -> Result<()> {
        if self.place.is_remote() {
            let narinfo = made.files.pop();
            for (file, name) in std::mem::take(&mut made.files) {
                self.place.put(&file, &name)?;
            }
            made.files.extend(narinfo);
        }
        Ok(lock(&self.publisher).take(&info.path, made)?)
    }

    /// Makes the files for a path.
    fn make(&self, info: &PathInfo, nar: impl Read) -> Result<Made> {
        let setting = self.settings.compression;
        let is_wide = info.nar_size >= CompressionSetting::WIDE;
        let _alone = is_wide.then(|| lock(&self.wide));
        let threads = u32::try_from(self.threads.get()).unwrap_or(u32::MAX);
        let file = self.staging.new_file();
        let failed = || Error::io(format!("write {}", file.display()));
        let sink = Sink {
            file: BufWriter::with_capacity(CHUNK, File::create_new(&file).map_err(failed())?),
            hasher: Sha256::new(),
            size: 0,
        };
        let encoder = setting.encoder(sink, info.nar_size, threads).map_err(failed())?;
        let mut tee = Tee { nar, encoder, failure: None };
        let listed = if self.settings.write_nar_listing {
            let listed = listing::list(&mut tee);
            listed.map_err(|error| match error {
                ferry_formats::nar::Error::Io(error) => failed()(error),
                other => Error::MalformedNar {
                    path: self.store_dir.render_path(&info.path),
                    reason: other.to_string(),
                },
            })
        } else {
            io::copy(&mut tee, &mut io::sink()).map(|_| None).map_err(failed())
        };
        let Tee { encoder, failure, .. } = tee;
        if let Some(error) = failure {
            return Err(failed()(error));
        }
        let listing = listed?;
        let mut sink = encoder.finish().map_err(failed())?;
        sink.file.flush().map_err(failed())?;
        self.name(info, file.clone(), sink.hasher.finalize().into(), sink.size, listing)
    }

    /// Finds names for what was made.
    fn name(
        &self,
        info: &PathInfo,
        file: PathBuf,
        digest: [u8; 32],
        size: u64,
        listing: Option<Vec<u8>>,
    ) -> Result<Made> {
        let method = self.settings.compression.method();
        let url = format!("nar/{}.nar{}", nixbase32::encode(&digest), method.suffix());
        let narinfo = Narinfo {
            info: info.clone(),
            url: url.clone(),
            compression: narinfo::Compression::parse(method.name()),
            file_hash: Some(NixHash::Sha256(digest)),
            file_size: Some(size),
        };
        let text = narinfo.render(&self.store_dir).map_err(|error| CacheError::Unfit {
            path: self.store_dir.render_path(&info.path),
            reason: error.to_string(),
        })?;
        let mut files = Vec::with_capacity(3);
        // The name is a hash: what is there under it is this, unless somebody has damaged it.
        if self.place.has(&url, size)? {
            fs::remove_file(&file).map_err(CacheError::io("remove", file.display()))?;
        } else {
            files.push((file, url.clone()));
        }
        let name = narinfo::file_name(&info.path);
        if let Some(listing) = listing {
            files.push((self.staging.write(&listing)?, name.replace(".narinfo", ".ls")));
        }
        files.push((self.staging.write(&text)?, name));
        Ok(Made { files, nar: url, size })
    }
}

/// A file being written, with the hash and the size of what is in it.
struct Sink {
    file: BufWriter<File>,
    hasher: Sha256,
    size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses what is read through it.
struct Tee<R, W> {
    nar: R,
    encoder: W,
    failure: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.nar.read(buffer)?;
        if let Err(error) = self.encoder.write_all(buffer.get(..count).unwrap_or_default()) {
            self.failure = Some(error);
            return Err(io::Error::other("what is read cannot be written"));
        }
        Ok(count)
    }
}

/// The pieces of one NAR as a reader.
struct Pieces {
    receiver: Receiver<Piece>,
    chunk: io::Cursor<Vec<u8>>,
    /// Whether it was what it should be, once that is known.
    end: Option<bool>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.chunk.read(buffer)?;
            if count > 0 || buffer.is_empty() || self.end.is_some() {
                return Ok(count);
            }
            match self.receiver.recv() {
                Ok(Piece::Data(bytes)) => self.chunk = io::Cursor::new(bytes),
                Ok(Piece::Verified) => self.end = Some(true),
                Err(_) => self.end = Some(false),
            }
        }
    }
}
