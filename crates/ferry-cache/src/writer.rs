//! Writing a binary cache.
//!
//! The caller's thread reads and checks NARs; others compress them, several at a time, and one gives
//! what they make its place. Small NARs are handed over in memory, a large one in pieces while it is
//! read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write as _};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{self as channel, Sender, bounded};
use ferry_formats::narinfo::{self, CacheInfo, Narinfo};
use ferry_formats::{NixHash, PathInfo, StoreDir, StorePath, nixbase32};
use ferry_store::admission::Admitted;
use ferry_store::{Error, Result, StoreWriter};
use sha2::{Digest as _, Sha256};

use crate::compression::CompressionSetting;
use crate::directory::{self, Staging, Written};
use crate::pieces::{Piece, Pieces, Sink, Tee};
use crate::place::{CACHE_INFO, Place};
use crate::publish::{Made, Publisher};
use crate::whole::WholeEncoder;
use crate::{CacheError, listing, sweep};

/// NARs up to this size in bytes are handed over in memory.
const SMALL: u64 = 2 << 20;
/// So many of them, or so many bytes, are handed over at a time: waking each other for every one
/// of them would cost more than compressing it.
const GROUP: usize = 64;
const GROUP_BYTES: usize = 256 << 10;
/// Bytes to a piece of a larger one, and pieces that may wait.
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 16;
/// Groups that were made and may wait for their places.
const MADE: usize = 32;

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
    /// NARs that were checked.
    Whole(Vec<(Vec<u8>, PathInfo)>),
    /// A NAR that is being read.
    Pieces(Box<PathInfo>, Receiver<Piece>),
}

/// Where a NAR is that was compressed.
enum Nar {
    /// In a file that is yet to be put.
    ToPut(PathBuf),
    /// In its place, and nobody had it there before.
    New,
    /// In its place since before, at least after this sweep.
    Before(Option<Vec<u8>>),
}

/// What all threads have at hand.
struct Shared {
    place: Arc<Place>,
    store_dir: StoreDir,
    settings: WriteSettings,
    threads: NonZero<usize>,
    staging: Arc<Staging>,
    /// Held while a large NAR is compressed on several threads.
    wide: Mutex<()>,
    /// The first failure.
    failure: Mutex<Option<Error>>,
}

pub(crate) struct CacheWriter {
    shared: Arc<Shared>,
    /// Small NARs that are yet to be handed over, and how many bytes that is.
    group: Vec<(Vec<u8>, PathInfo)>,
    group_bytes: usize,
    jobs: Option<Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
    publishing: Option<JoinHandle<Option<Publisher>>>,
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
            wide: Mutex::new(()),
            failure: Mutex::new(None),
        });
        let (jobs, queue) = bounded(2 * workers);
        let (made, to_publish) = bounded(MADE);
        let workers = (0..workers)
            .map(|_| {
                let (shared, queue, made) = (Arc::clone(&shared), queue.clone(), made.clone());
                thread::spawn(move || shared.work_all(&queue, &made))
            })
            .collect();
        let publishing = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.publish_all(publisher, &to_publish))
        };
        Ok(Self {
            shared,
            group: Vec::new(),
            group_bytes: 0,
            jobs: Some(jobs),
            workers,
            publishing: Some(publishing),
        })
    }

    /// Hands over the small NARs that were gathered.
    fn hand_over_group(&mut self) -> Result<()> {
        self.group_bytes = 0;
        match std::mem::take(&mut self.group) {
            group if group.is_empty() => Ok(()),
            group => self.hand_over(Job::Whole(group)),
        }
    }

    fn hand_over(&mut self, job: Job) -> Result<()> {
        self.go_on()?;
        let taken = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        // Otherwise all of the others have given up.
        if taken { Ok(()) } else { Err(self.failure()) }
    }

    /// Whether all is well so far.
    fn go_on(&self) -> Result<()> {
        let failure = lock(&self.shared.failure).take();
        failure.map_or(Ok(()), Err)
    }

    /// Why the other threads have given up.
    fn failure(&self) -> Error {
        lock(&self.shared.failure).take().unwrap_or_else(|| {
            let action = format!("write to {}", self.shared.place.shown());
            Error::io(action)(io::Error::other("a compressing thread ended"))
        })
    }

    /// Waits until everything handed over is made, and returns what still has to get its place.
    fn join(&mut self) -> Result<Publisher> {
        let handed_over = self.hand_over_group();
        self.jobs = None;
        let ended: Vec<_> = self.workers.drain(..).map(JoinHandle::join).collect();
        let publisher = self.publishing.take().and_then(|thread| thread.join().ok()).flatten();
        handed_over?;
        if ended.iter().any(std::result::Result::is_err) {
            return Err(self.failure());
        }
        self.go_on()?;
        publisher.ok_or_else(|| self.failure())
    }
}

impl StoreWriter for CacheWriter {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        if admitted.info().nar_size <= SMALL {
            let (nar, verified) = admitted.read_whole()?;
            self.group_bytes += nar.len();
            self.group.push((nar, verified.into_info()));
            // Whoever waits for a server wants as many others as possible to wait as well.
            let is_enough = self.group.len() >= GROUP || self.group_bytes >= GROUP_BYTES;
            let is_enough = is_enough || self.shared.place.is_remote();
            return if is_enough { self.hand_over_group() } else { Ok(()) };
        }
        let info = admitted.info().clone();
        let path = self.shared.store_dir.render_path(&info.path);
        let reading = || Error::reading(format!("read the NAR of {path}"));
        self.hand_over_group()?;
        let (pieces, receiver): (SyncSender<Piece>, _) = sync_channel(QUEUE);
        self.hand_over(Job::Pieces(Box::new(info), receiver))?;
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
        Ok(self.join()?.finish()?)
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // What was made before something went wrong elsewhere is whole, and need not be made again.
        if self.jobs.is_some()
            && let Ok(mut publisher) = self.join()
            && let Err(error) = publisher.publish()
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
    /// Does what there is to do, until there is no more of it or something fails.
    fn work_all(&self, jobs: &channel::Receiver<Job>, made: &Sender<Vec<(StorePath, Made)>>) {
        let mut encoder = WholeEncoder::new(self.settings.compression);
        for job in jobs {
            match self.work(job, &mut encoder) {
                Ok(done) => {
                    if made.send(done).is_err() {
                        // Whoever gives files their places has said why that went wrong.
                        return;
                    }
                }
                Err(error) => {
                    lock(&self.failure).get_or_insert(error);
                    return;
                }
            }
        }
    }

    /// Gives what was made its place, while more is made.
    fn publish_all(
        &self,
        mut publisher: Publisher,
        made: &channel::Receiver<Vec<(StorePath, Made)>>,
    ) -> Option<Publisher> {
        for (path, made) in made.iter().flatten() {
            if let Err(error) = publisher.take(&path, made) {
                lock(&self.failure).get_or_insert(error.into());
                return None;
            }
        }
        Some(publisher)
    }

    fn work(&self, job: Job, encoder: &mut WholeEncoder) -> Result<Vec<(StorePath, Made)>> {
        match job {
            Job::Whole(nars) => {
                let mut done = Vec::with_capacity(nars.len());
                for (nar, info) in nars {
                    let path = info.path.clone();
                    let made = self.make_whole(info, &nar, encoder)?;
                    done.push((path, self.put_early(made)?));
                }
                Ok(done)
            }
            Job::Pieces(info, receiver) => {
                let mut pieces = Pieces::new(receiver);
                let path = info.path.clone();
                let made = self.make(*info, &mut pieces);
                if pieces.end == Some(true) {
                    return Ok(vec![(path, self.put_early(made?)?)]);
                }
                // Whoever reads it has found out what is wrong with it, or will hear from us.
                match (pieces.end, made) {
                    (None, Err(error)) => Err(error),
                    _ => Ok(Vec::new()),
                }
            }
        }
    }

    /// To the web all but the narinfo goes at once: what no narinfo speaks of is not looked at.
    fn put_early(&self, mut made: Made) -> Result<Made> {
        if self.place.is_remote() {
            let narinfo = made.files.pop();
            for (file, name) in std::mem::take(&mut made.files) {
                self.place.put(&file, &name)?;
            }
            made.files.extend(narinfo);
        }
        Ok(made)
    }

    /// Makes the files for a path with a small NAR. The NAR of a cache on a disk gets its place at
    /// once: moving it there would take as long again as writing it, and until there is a narinfo
    /// nobody looks at it.
    fn make_whole(&self, info: PathInfo, nar: &[u8], encoder: &mut WholeEncoder) -> Result<Made> {
        let path = || self.store_dir.render_path(&info.path);
        let packed = encoder
            .encode(nar)
            .map_err(|error| Error::io(format!("compress {}", path()))(error))?;
        let listing = match self.settings.write_nar_listing {
            true => listing::list(nar).map_err(|error| self.malformed(&info, &error))?,
            false => None,
        };
        let digest = Sha256::digest(&packed).into();
        let url = self.url(&digest);
        let size = packed.len() as u64;
        let written = match self.place.as_ref() {
            Place::Directory(cache) => directory::write_new(cache, &url, &packed)?,
            _ => Written::Before,
        };
        let found = match written {
            Written::New => Some(Nar::New),
            Written::Before => self.found(&url, size)?,
            Written::No => None,
        };
        let nar = match found {
            Some(found) => found,
            None => Nar::ToPut(self.staging.write(&packed)?),
        };
        self.describe(info, nar, digest, size, listing)
    }

    /// Makes the files for a path with a large NAR.
    fn make(&self, info: PathInfo, nar: impl Read) -> Result<Made> {
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
                other => self.malformed(&info, &other),
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
        let digest = sink.hasher.finalize().into();
        let nar = match self.found(&self.url(&digest), sink.size)? {
            Some(found) => {
                fs::remove_file(&file).map_err(CacheError::io("remove", file.display()))?;
                found
            }
            None => Nar::ToPut(file),
        };
        self.describe(info, nar, digest, sink.size, listing)
    }

    /// A NAR that is there already. The name is a hash: what is there under it is this, unless
    /// somebody has damaged it. It may be an old one that nothing refers to, which a sweep takes away:
    /// so which sweep was the last is found out before it is looked at.
    fn found(&self, url: &str, size: u64) -> Result<Option<Nar>> {
        if !self.place.has(url, size)? {
            return Ok(None);
        }
        let token = sweep::token(&self.place)?;
        Ok(self.place.has(url, size)?.then_some(Nar::Before(token)))
    }

    fn malformed(&self, info: &PathInfo, error: &ferry_formats::nar::Error) -> Error {
        let path = self.store_dir.render_path(&info.path);
        Error::MalformedNar { path, reason: error.to_string() }
    }

    /// What a NAR is called once it is compressed.
    fn url(&self, digest: &[u8; 32]) -> String {
        let suffix = self.settings.compression.method().suffix();
        format!("nar/{}.nar{suffix}", nixbase32::encode(digest))
    }

    /// Makes what belongs to a NAR of that digest and size: its narinfo, and its listing.
    fn describe(
        &self,
        info: PathInfo,
        nar: Nar,
        digest: [u8; 32],
        size: u64,
        listing: Option<Vec<u8>>,
    ) -> Result<Made> {
        let method = self.settings.compression.method();
        let url = self.url(&digest);
        let narinfo = Narinfo {
            info,
            url: url.clone(),
            compression: narinfo::Compression::parse(method.name()),
            file_hash: Some(NixHash::Sha256(digest)),
            file_size: Some(size),
        };
        let path = &narinfo.info.path;
        let text = narinfo.render(&self.store_dir).map_err(|error| CacheError::Unfit {
            path: self.store_dir.render_path(path),
            reason: error.to_string(),
        })?;
        let (mut files, mut found_after) = (Vec::new(), None);
        match nar {
            Nar::ToPut(file) => files.push((file, url.clone())),
            Nar::Before(token) => found_after = Some(token),
            Nar::New => {}
        }
        let name = narinfo::file_name(path);
        if let Some(listing) = listing {
            files.push((self.staging.write(&listing)?, name.replace(".narinfo", ".ls")));
        }
        files.push((self.staging.write(&text)?, name));
        Ok(Made { files, nar: url, size, found_after })
    }
}
