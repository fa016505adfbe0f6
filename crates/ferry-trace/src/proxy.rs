//! Stands between evaluators and a daemon, passes on what they say, and hears it.
//!
//! A socket in a directory that only its owner may enter: whoever connects is of the same user,
//! and the daemon decides about that user as it would without us. Each connection has two threads,
//! one for each direction; what is said is understood before it is passed on, so that an answer
//! never overtakes its question. Where something is not understood, it is passed on all the same.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;

use crate::protocol::{Conversation, Event};

/// Bytes that are passed on at a time.
const PIECE: usize = 64 << 10;
/// The longest address that a socket can have, in bytes, on Linux.
const LONGEST_ADDRESS: usize = 107;

/// Where a daemon is.
pub enum Upstream {
    /// A socket that it listens on.
    Socket(PathBuf),
    /// A command that speaks the protocol on its standard streams: one is started for every
    /// connection.
    Command(Box<dyn Fn() -> Command + Send + Sync>),
}

/// Hears what is said: the number of a connection, and what was understood on it.
pub type Observer = dyn Fn(usize, Event) + Send + Sync;

/// Why there is no recorder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The socket cannot be made.
    #[error("cannot make a socket in {directory}: {source}")]
    Io {
        /// Where it was to be.
        directory: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Its address would be too long for the system.
    #[error(
        "the address {address} is too long for a socket ({LONGEST_ADDRESS} bytes): name a \
         shorter directory for temporary files"
    )]
    TooLong {
        /// The address.
        address: String,
    },
}

/// A recorder that is listening.
pub struct Proxy {
    shared: Arc<Shared>,
    directory: TempDir,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: Upstream,
    observer: Box<Observer>,
    socket: PathBuf,
    is_closing: AtomicBool,
    count: AtomicUsize,
    /// Connections that are open.
    open: Mutex<usize>,
    closed: Condvar,
}

impl Proxy {
    /// Whether the address of a socket in a new directory inside `directory` is not too long.
    #[must_use]
    pub fn has_room(directory: &Path) -> bool {
        let name = directory.join("ferry-XXXXXX").join("socket");
        name.as_os_str().len() <= LONGEST_ADDRESS
    }

    /// Listens on a socket in a new directory inside `directory`.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub fn start(
        directory: &Path,
        upstream: Upstream,
        observer: Box<Observer>,
    ) -> Result<Self, ProxyError> {
        let failed = |source| ProxyError::Io { directory: directory.display().to_string(), source };
        let own =
            tempfile::Builder::new().prefix("ferry-").tempdir_in(directory).map_err(failed)?;
        let socket = own.path().join("socket");
        if socket.as_os_str().len() > LONGEST_ADDRESS {
            return Err(ProxyError::TooLong { address: socket.display().to_string() });
        }
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let shared = Arc::new(Shared {
            upstream,
            observer,
            socket,
            is_closing: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            open: Mutex::new(0),
            closed: Condvar::new(),
        });
        let listening = Arc::clone(&shared);
        let listener = thread::spawn(move || listening.listen(&listener));
        Ok(Self { shared, directory: own, listener: Some(listener) })
    }

    /// Where evaluators are to connect to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Takes no more connections, and waits for the open ones to end, `patience` at most; tells
    /// how many have not.
    #[must_use]
    pub fn finish(mut self, patience: Duration) -> usize {
        self.close();
        let deadline = Instant::now() + patience;
        let mut open = lock(&self.shared.open);
        while *open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.closed.wait_timeout(open, left);
            open = waited.map_or_else(|error| error.into_inner().0, |(open, _)| open);
        }
        *open
    }

    fn close(&mut self) {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        // Whoever waits for connections is woken by one.
        let woken = UnixStream::connect(&self.shared.socket);
        if let (Ok(_), Some(listener)) = (woken, self.listener.take()) {
            // It does not panic.
            let _ = listener.join();
        }
        tracing::debug!(directory = %self.directory.path().display(), "the recorder is closed");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.listener.is_some() {
            self.close();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The daemon's end of a connection.
enum Daemon {
    Socket(UnixStream),
    Command(Child),
}

impl Shared {
    fn listen(self: &Arc<Self>, listener: &UnixListener) {
        for client in listener.incoming() {
            if self.is_closing.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else {
                // Too many open files, perhaps: some will be closed.
                thread::sleep(Duration::from_millis(50));
                continue;
            };
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            *lock(&self.open) += 1;
            let this = Arc::clone(self);
            thread::spawn(move || {
                if let Err(error) = this.connect(number, &client) {
                    tracing::debug!(number, %error, "a connection ended");
                }
                // An evaluator that waits for a daemon which is not there is told so.
                let _ = client.shutdown(Shutdown::Both);
                *lock(&this.open) -= 1;
                this.closed.notify_all();
            });
        }
    }

    /// Passes on everything between a client and a daemon, until both are done.
    fn connect(self: &Arc<Self>, number: usize, client: &UnixStream) -> io::Result<()> {
        let (mut daemon, from_daemon, to_daemon) = self.daemon()?;
        let conversation = Arc::new(Mutex::new(Conversation::new()));
        let mut from_client = client.try_clone()?;
        let mut to_client = client.try_clone()?;
        let (this, heard) = (Arc::clone(self), Arc::clone(&conversation));
        let upwards = thread::spawn(move || {
            let mut to_daemon = to_daemon;
            let passed = pass(&mut from_client, &mut to_daemon, |bytes, out| {
                let mut conversation = lock(&heard);
                let mut events = Vec::new();
                out.extend_from_slice(&conversation.from_client(bytes, &mut events));
                this.tell(number, events);
            });
            to_daemon.hang_up();
            passed
        });
        let mut from_daemon = from_daemon;
        let passed = pass(&mut from_daemon, &mut to_client, |bytes, out| {
            let mut conversation = lock(&conversation);
            let mut events = Vec::new();
            out.extend_from_slice(&conversation.from_daemon(bytes, &mut events));
            self.tell(number, events);
        });
        // The daemon is done, or nobody listens to it: the other direction has no use any more.
        let _ = client.shutdown(Shutdown::Both);
        let _ = upwards.join();
        match &mut daemon {
            Daemon::Socket(stream) => drop(stream.shutdown(Shutdown::Both)),
            Daemon::Command(child) => drop(child.wait()?),
        }
        passed
    }

    /// Told while the conversation is locked, so that both directions are heard in their order.
    fn tell(&self, number: usize, events: Vec<Event>) {
        events.into_iter().for_each(|event| (self.observer)(number, event));
    }

    fn daemon(&self) -> io::Result<(Daemon, Box<dyn Read + Send>, ToDaemon)> {
        match &self.upstream {
            Upstream::Socket(socket) => {
                let stream = UnixStream::connect(socket)?;
                let (from, to) = (stream.try_clone()?, stream.try_clone()?);
                Ok((Daemon::Socket(stream), Box::new(from), ToDaemon::Socket(to)))
            }
            Upstream::Command(command) => {
                let mut child = command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
                    return Err(io::Error::other("a command without standard streams"));
                };
                Ok((Daemon::Command(child), Box::new(from), ToDaemon::Pipe(to)))
            }
        }
    }
}

/// What is said to a daemon.
enum ToDaemon {
    Socket(UnixStream),
    Pipe(std::process::ChildStdin),
}

impl ToDaemon {
    /// Tells it that nothing more comes.
    fn hang_up(self) {
        if let Self::Socket(stream) = self {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

impl Write for ToDaemon {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.write(bytes),
            Self::Pipe(pipe) => pipe.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Passes on what comes, as `hear` has it, until nothing comes any more.
fn pass(
    from: &mut dyn Read,
    to: &mut dyn Write,
    mut hear: impl FnMut(&[u8], &mut Vec<u8>),
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut out = Vec::with_capacity(PIECE);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        out.clear();
        hear(buffer.get(..count).unwrap_or_default(), &mut out);
        to.write_all(&out)?;
    }
}
