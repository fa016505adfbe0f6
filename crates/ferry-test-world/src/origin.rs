//! The internet: an HTTP server on loopback.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// An HTTP/1.1 server on a port of its own, which serves bytes by path and counts requests.
///
/// Commands must be [`online`](crate::MachineCommand::online) to reach it. Dropping it stops it.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<[u8]>>,
    requests: BTreeMap<String, usize>,
    connections: Vec<TcpStream>,
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
        let shared = Arc::clone(&state);
        let listener = Some(thread::spawn(move || accept(&listener, &shared)));
        Self { address, state, listener }
    }

    /// Serves `bytes` at `path`, which starts with a slash.
    pub fn serve(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        assert!(path.starts_with('/'), "{path} does not start with a slash");
        lock(&self.state).files.insert(path.to_owned(), bytes.into().into());
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

    /// Stops it: from now on connections are refused, and those that are open are closed.
    pub fn stop(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        {
            let mut state = lock(&self.state);
            state.stopped = true;
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

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
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
        drop(locked);
        let state = Arc::clone(state);
        thread::spawn(move || {
            let peer = stream.peer_addr().ok();
            // A client that hangs up in the middle is its own business.
            let _ = answer_all(&stream, &state);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&state).connections.retain(|other| other.peer_addr().ok() != peer);
        });
    }
}

/// Answers the requests of one connection, until the client closes it.
fn answer_all(stream: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut close = false;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
            let header = header.trim().to_ascii_lowercase();
            close |= header == "connection: close";
            if header.is_empty() {
                break;
            }
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let found = {
            let mut state = lock(state);
            *state.requests.entry(path.to_owned()).or_default() += 1;
            state.files.get(path).cloned()
        };
        let (status, body): (_, &[u8]) = match (method, &found) {
            ("GET" | "HEAD", Some(bytes)) => ("200 OK", bytes),
            ("GET" | "HEAD", None) => ("404 Not Found", b"not found\n"),
            _ => {
                // Its body, if it has one, would be taken for the next request.
                close = true;
                ("405 Method Not Allowed", b"")
            }
        };
        let ending = if close { "Connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{ending}\r\n", body.len());
        let mut writer = stream;
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
