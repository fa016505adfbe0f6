//! A real server that speaks S3.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::world::skip;

/// An s3s-fs on a port of its own, which keeps each bucket in a directory. Dropping it stops it.
///
/// What it does otherwise than S3: keys `x` and `x/y` cannot both be there, and a plus sign in a
/// key is listed as a space.
#[derive(Debug)]
pub struct S3Server {
    // Stopped before its directory goes away.
    process: Process,
    address: SocketAddr,
    root: TempDir,
}

impl S3Server {
    /// Starts one that asks nobody for keys.
    ///
    /// Returns `None` where there is no s3s-fs, so that a test may skip; says so on stderr.
    ///
    /// # Panics
    ///
    /// When it does not start, and in CI (`CI=true`) rather than return `None`.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts one that asks everybody for these keys; otherwise as [`start`](Self::start).
    pub fn with_keys(access_key_id: &str, secret_access_key: &str) -> Option<Self> {
        Self::start_with(&["--access-key", access_key_id, "--secret-key", secret_access_key])
    }

    fn start_with(args: &[&str]) -> Option<Self> {
        let root = tempfile::tempdir()
            .unwrap_or_else(|error| panic!("cannot make a directory for buckets: {error}"));
        let Some(program) = program() else {
            let why = "there is no s3s-fs; tests/run.sh installs it";
            return skip("S3 server", why, "against S3");
        };
        // Between finding a free port and using it somebody else may take it.
        let started = (0..20).find_map(|_| start(&program, root.path(), args));
        let (process, address) = started.unwrap_or_else(|| panic!("s3s-fs does not start"));
        Some(Self { process, address, root })
    }

    /// Its address as a URL, without a slash at the end: what `endpoint` takes.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of a bucket, made if need be.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let directory = self.root.path().join(name);
        fs::create_dir_all(&directory)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", directory.display()));
        directory
    }

    /// Stops it: from now on connections are refused.
    pub fn stop(&mut self) {
        self.process.stop();
    }
}

#[derive(Debug)]
struct Process(Child);

impl Process {
    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts it on some port; nothing if it ends at once.
fn start(program: &Path, root: &Path, args: &[&str]) -> Option<(Process, SocketAddr)> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|error| panic!("there is no free port on loopback: {error}"));
    let child = Command::new(program)
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(args)
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
    let mut process = Process(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline && matches!(process.0.try_wait(), Ok(None)) {
        if TcpStream::connect(address).is_ok() {
            return Some((process, address));
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Where `cargo install` has put it, or wherever else programs are.
fn program() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    directories.map(|directory| directory.join("s3s-fs")).find(|program| program.is_file())
}
