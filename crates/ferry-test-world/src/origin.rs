//! The internet: an HTTP server on loopback.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::files;

/// How long requests are held for others that do not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP/1.1 server on a port of its own, which serves bytes by path and counts requests.
///
/// Commands must be [`online`](crate::MachineCommand::online) to reach it. Dropping it stops it.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    gathered: Arc<Condvar>,
    listener: Option<JoinHandle<()>>,
}

/// An answer that is not simply a file.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status line without the version, such as `503 Service Unavailable`, then headers and a
    /// body.
    Status(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing at all, until the client gives up.
    Silence,
    /// The connection ends in the middle of the file.
    Cut,
    /// The connection ends after so many bytes of what was asked for.
    CutAfter(usize),
    /// The file, a byte now and then for as long as the client waits.
    Drip(Duration),
    /// The same before the file, too.
    DripAll(Duration),
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<[u8]>>,
    requests: BTreeMap<String, usize>,
    answers: BTreeMap<String, VecDeque<Answer>>,
    connections: Vec<TcpStream>,
    accepted: usize,
    /// Requests that wait for their answer, and how many of them there were at most.
    under_way: usize,
    most_under_way: usize,
    /// Until how many wait no one is answered.
    hold_for: usize,
    /// How many more are answered all the same.
    let_by: usize,
    /// How long each answer takes.
    delay: Duration,
    /// Whether files may be put.
    takes_files: bool,
    /// Whether a part of a file may be asked for.
    serves_ranges: bool,
    /// The `Range` headers that came.
    ranges: Vec<String>,
    stopped: bool,
}

impl Origin {
    /// Starts it, with nothing to serve.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap_or_else(|error| panic!("the origin cannot listen on loopback: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("the origin has no address: {error}"));
        let state = Arc::new(Mutex::new(State::default()));
        let gathered = Arc::new(Condvar::new());
        let shared = (Arc::clone(&state), Arc::clone(&gathered));
        let listener = Some(thread::spawn(move || accept(&listener, &shared.0, &shared.1)));
        Self { address, state, gathered, listener }
    }

    /// Serves the files below a directory of the host.
    pub fn serve_files(&self, directory: &Path) {
        for (name, bytes) in files(directory) {
            self.serve(&format!("/{name}"), bytes);
        }
    }

    /// Serves `bytes` at `path`, which starts with a slash.
    pub fn serve(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        assert!(path.starts_with('/'), "{path} does not start with a slash");
        lock(&self.state).files.insert(path.to_owned(), bytes.into().into());
    }

    /// From now on answers each request only after this long, as if it were far away.
    pub fn answer_after(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    /// From now on serves what is put to it, too.
    pub fn take_files(&self) {
        lock(&self.state).takes_files = true;
    }

    /// From now on serves parts of files, where they are asked for by `Range`, and gives every file
    /// an `ETag`.
    pub fn serve_ranges(&self) {
        lock(&self.state).serves_ranges = true;
    }

    /// The `Range` headers of all requests, with `If-Range` behind them.
    pub fn ranges(&self) -> Vec<String> {
        lock(&self.state).ranges.clone()
    }

    /// What it serves.
    pub fn files(&self) -> BTreeMap<String, Arc<[u8]>> {
        lock(&self.state).files.clone()
    }

    /// Gives this answer to the next request for `path`. Several are given in turn; after them
    /// comes the file.
    pub fn answer_next(&self, path: &str, answer: Answer) {
        lock(&self.state).answers.entry(path.to_owned()).or_default().push_back(answer);
    }

    /// Answers nobody until `count` requests wait for their answers; from then on, everybody.
    /// When they do not come within ten seconds, it goes on without them.
    pub fn hold_until(&self, count: usize) {
        lock(&self.state).hold_for = count;
    }

    /// Answers this many requests at once, whoever else is [held](Self::hold_until).
    pub fn let_by(&self, count: usize) {
        lock(&self.state).let_by = count;
    }

    /// How many requests waited for their answers at one time, at most.
    pub fn most_under_way(&self) -> usize {
        lock(&self.state).most_under_way
    }

    /// Its address as a URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests there were for `path`, those it had no answer to included.
    pub fn requests_for(&self, path: &str) -> usize {
        lock(&self.state).requests.get(path).copied().unwrap_or(0)
    }

    /// How many requests there were in all.
    pub fn requests(&self) -> usize {
        lock(&self.state).requests.values().sum()
    }

    /// How many connections there were in all.
    pub fn connections(&self) -> usize {
        lock(&self.state).accepted
    }

    /// Stops it: from now on connections are refused, and those that are open are closed.
    pub fn stop(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        {
            let mut state = lock(&self.state);
            state.stopped = true;
            state.hold_for = 0;
            self.gathered.notify_all();
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        // Wakes the listener, so that it sees that it has to end.
        let _ = TcpStream::connect(self.address);
        let _ = listener.join();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>, gathered: &Arc<Condvar>) {
    for stream in listener.incoming() {
        let mut locked = lock(state);
        if locked.stopped {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        locked.connections.push(handle);
        locked.accepted += 1;
        drop(locked);
        let (state, gathered) = (Arc::clone(state), Arc::clone(gathered));
        thread::spawn(move || {
            let peer = stream.peer_addr().ok();
            // A client that hangs up in the middle is its own business.
            let _ = answer_all(&stream, &state, &gathered);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&state).connections.retain(|other| other.peer_addr().ok() != peer);
        });
    }
}

/// Answers the requests of one connection, until the client closes it.
fn answer_all(stream: &TcpStream, state: &Mutex<State>, gathered: &Condvar) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        let (mut length, mut expects) = (None, false);
        let (mut range, mut if_range) = (None, None);
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            let header = header.trim().to_ascii_lowercase();
            close |= header == "connection: close";
            expects |= header == "expect: 100-continue";
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
            range = header.strip_prefix("range: ").map(str::to_owned).or(range);
            if_range = header.strip_prefix("if-range: ").map(str::to_owned).or(if_range);
            if header.is_empty() {
                break;
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let put = (method == "PUT" && lock(state).takes_files).then_some(length).flatten();
        if let Some(length) = put {
            if expects {
                (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let (_, special) = arrive(path, state, gathered);
            let answered = Answered(state);
            let status = match special {
                Some(Answer::Status(status, ..)) => status,
                Some(_) => return Ok(()),
                None => {
                    lock(state).files.insert(path.to_owned(), body.into());
                    "201 Created"
                }
            };
            drop(answered);
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            (&*stream).write_all(head.as_bytes())?;
            continue;
        }
        let (found, special) = arrive(path, state, gathered);
        let answered = Answered(state);
        let part = Part::of(state, found.as_deref(), range, if_range);
        let mut writer = stream;
        match special {
            None => {}
            Some(Answer::Silence) => {
                while reader.read(&mut [0; 1024])? > 0 {}
                return Ok(());
            }
            Some(cut @ (Answer::Cut | Answer::CutAfter(_))) => {
                let count =
                    if let Answer::CutAfter(count) = cut { count } else { part.body.len() / 2 };
                let sent = part.body.get(..count).unwrap_or_default();
                return writer.write_all(&[part.head("").as_bytes(), sent].concat());
            }
            Some(Answer::Drip(pause) | Answer::DripAll(pause)) => {
                let head = part.head("");
                let slow = match special {
                    Some(Answer::Drip(_)) => {
                        writer.write_all(head.as_bytes())?;
                        part.body.to_vec()
                    }
                    _ => [head.as_bytes(), part.body].concat(),
                };
                for byte in slow {
                    writer.write_all(&[byte])?;
                    thread::sleep(pause);
                }
                continue;
            }
            Some(Answer::Status(status, headers, body)) => {
                let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                writer.write_all(&[head.as_bytes(), b"\r\n", &body].concat())?;
                continue;
            }
        }
        let part = match method {
            "GET" | "HEAD" => part,
            _ => {
                // Its body, if it has one, would be taken for the next request.
                close = true;
                Part { status: "405 Method Not Allowed", headers: String::new(), body: b"" }
            }
        };
        let head = part.head(if close { "Connection: close\r\n" } else { "" });
        let body = part.body;
        drop(answered);
        if method == "HEAD" {
            writer.write_all(head.as_bytes())?;
        } else {
            writer.write_all(&[head.as_bytes(), body].concat())?;
        }
        if close {
            return Ok(());
        }
    }
}

/// What is sent of a file.
struct Part<'a> {
    status: &'static str,
    headers: String,
    body: &'a [u8],
}

impl<'a> Part<'a> {
    /// What is asked for: the whole, unless it is a part that is served.
    fn of(
        state: &Mutex<State>,
        found: Option<&'a [u8]>,
        range: Option<String>,
        if_range: Option<String>,
    ) -> Self {
        let mut state = lock(state);
        let Some(whole) = found else {
            return Self { status: "404 Not Found", headers: String::new(), body: b"not found\n" };
        };
        if let Some(range) = &range {
            state.ranges.push(format!("{range} {}", if_range.as_deref().unwrap_or_default()));
        }
        if !state.serves_ranges {
            return Self { status: "200 OK", headers: String::new(), body: whole };
        }
        let sum = whole.iter().fold(0_u32, |sum, byte| sum.rotate_left(3) ^ u32::from(*byte));
        let tag = format!("\"{sum:x}\"");
        let start = range
            .filter(|_| if_range.is_none_or(|if_range| if_range == tag))
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .filter(|start| *start < whole.len());
        let headers = format!("ETag: {tag}\r\n");
        let Some(start) = start else { return Self { status: "200 OK", headers, body: whole } };
        let (last, length) = (whole.len() - 1, whole.len());
        let headers = format!("{headers}Content-Range: bytes {start}-{last}/{length}\r\n");
        Self { status: "206 Partial Content", headers, body: &whole[start..] }
    }

    fn head(&self, more: &str) -> String {
        let Self { status, headers, body } = self;
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}{more}\r\n", body.len())
    }
}

/// Counts a request, and waits for others where that is wanted. Returns the file, and what to
/// answer instead.
fn arrive(
    path: &str,
    locked: &Mutex<State>,
    gathered: &Condvar,
) -> (Option<Arc<[u8]>>, Option<Answer>) {
    let mut state = lock(locked);
    *state.requests.entry(path.to_owned()).or_default() += 1;
    state.under_way += 1;
    state.most_under_way = state.most_under_way.max(state.under_way);
    gathered.notify_all();
    match state.let_by.checked_sub(1) {
        Some(left) => state.let_by = left,
        None => {
            (state, _) = gathered
                .wait_timeout_while(state, PATIENCE, |state| state.under_way < state.hold_for)
                .unwrap_or_else(PoisonError::into_inner);
            state.hold_for = 0;
        }
    }
    let delay = state.delay;
    if !delay.is_zero() {
        drop(state);
        thread::sleep(delay);
        state = lock(locked);
    }
    let found = state.files.get(path).cloned();
    (found, state.answers.get_mut(path).and_then(VecDeque::pop_front))
}

/// A request that waits for its answer, until this is dropped.
struct Answered<'a>(&'a Mutex<State>);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        lock(self.0).under_way -= 1;
    }
}
