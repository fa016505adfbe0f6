//! A bad line to a server.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The server is too busy: S3's answer 503, to whatever is asked.
    SlowDown,
    /// It breaks off when so many bytes have come from the server.
    CutAfter(usize),
}

/// Passes connections on to a server, on a port of its own; those that something is wrong with are
/// given in advance. Dropping it stops it.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<Fault>,
    /// Of all connections that none is given for in advance.
    always: Option<Fault>,
    accepted: usize,
    /// What was asked, each as `METHOD TARGET`.
    requests: Vec<String>,
    stopped: bool,
}

impl Relay {
    /// Starts it, with nothing wrong.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap_or_else(|error| panic!("the relay cannot listen on loopback: {error}"));
        let address = listener
            .local_addr()
            .unwrap_or_else(|error| panic!("the relay has no address: {error}"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let listener = Some(thread::spawn(move || accept(&listener, server, &shared)));
        Self { address, state, listener }
    }

    /// Its address as a URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is wrong with the next connection that has nothing wrong so far.
    pub fn next(&self, fault: Fault) {
        lock(&self.state).faults.push_back(fault);
    }

    /// What is wrong with all others.
    pub fn always(&self, fault: Option<Fault>) {
        lock(&self.state).always = fault;
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        lock(&self.state).accepted
    }

    /// What was asked since this was called last, each as `METHOD TARGET`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).requests)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        // Wakes the listener, so that it sees that it has to end.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Mutex<State>>) {
    for stream in listener.incoming() {
        let mut state = lock(shared);
        if state.stopped {
            return;
        }
        let Ok(stream) = stream else { continue };
        state.accepted += 1;
        let fault = state.faults.pop_front().or(state.always);
        let state = Arc::clone(shared);
        thread::spawn(move || {
            // A client or a server that hangs up is its own business.
            let _ = match fault {
                Some(Fault::SlowDown) => refuse(&stream),
                Some(Fault::CutAfter(bytes)) => relay(&stream, server, bytes, state),
                None => relay(&stream, server, usize::MAX, state),
            };
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// What is asked, if a request begins here.
fn request(piece: &[u8]) -> Option<String> {
    let line = piece.split(|byte| *byte == b'\r').next()?.strip_suffix(b" HTTP/1.1")?;
    Some(String::from_utf8_lossy(line).into_owned())
}

fn refuse(mut stream: &TcpStream) -> io::Result<()> {
    // As much of the request as has come; a client that is not listened to at all would see a
    // connection that breaks.
    let _ = stream.read(&mut [0; 64 << 10])?;
    let body =
        "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
    let head = "HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Type: application/xml";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn relay(
    client: &TcpStream,
    server: SocketAddr,
    mut left: usize,
    state: Arc<Mutex<State>>,
) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    thread::spawn(move || {
        let mut buffer = [0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            // A client waits for its answer, so what it asks next begins a piece.
            lock(&state).requests.extend(request(&buffer[..count]));
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = (&upstream, client);
    let mut buffer = [0; 64 << 10];
    while left > 0 {
        let limit = buffer.len().min(left);
        let count = from.read(&mut buffer[..limit])?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count])?;
        left -= count;
    }
    upstream.shutdown(Shutdown::Both)
}
