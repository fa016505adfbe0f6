//! A web server that others wrote: nginx, on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/nginx";
/// How long it may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// An nginx of its own, which serves the files of a directory, and takes those that are put to it.
/// Dropping it stops it.
#[derive(Debug)]
pub struct Nginx {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl Nginx {
    /// Starts it.
    ///
    /// Returns `None` where it is not installed, so that a test may skip; says so on stderr.
    ///
    /// # Panics
    ///
    /// When it does not start; in CI (`CI=true`) also rather than return `None`.
    pub fn start(root: &Path) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            let why = format!("there is no {PROGRAM}: tests/run.sh installs it");
            let is_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!is_ci, "{why}, and this is CI");
            eprintln!("\n*** {why}\n*** Tests with it are SKIPPED.\n");
            return None;
        }
        let directory = TempDir::new()
            .unwrap_or_else(|error| panic!("cannot make a directory for nginx: {error}"));
        let port = free_port();
        let own = directory.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {own}/{kind};"))
            .join("\n    ");
        let configuration = format!(
            "daemon off;
master_process off;
pid {own}/pid;
error_log {own}/error.log;
events {{ }}
http {{
    {temporary}
    access_log {own}/access.log;
    client_max_body_size 0;
    default_type application/octet-stream;
    server {{
        listen 127.0.0.1:{port};
        root {};
        location / {{
            dav_methods PUT;
            create_full_put_path on;
        }}
    }}
}}
",
            root.display()
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        let process = Command::new(PROGRAM)
            .args(["-e".as_ref(), directory.path().join("start.log").as_os_str()])
            .args(["-c".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {PROGRAM}: {error}"));
        let mut started = Self { process, port, directory };
        started.await_answer();
        Some(started)
    }

    fn await_answer(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.process.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && begun.elapsed() < PATIENCE, "nginx does not start: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("start.log") + &read("error.log")
    }

    /// Its address as a URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests that it has answered, each with its status: `GET /nix-cache-info 200`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("access.log"));
        let request = |line: &str| {
            let (_, rest) = line.split_once('"')?;
            let (request, rest) = rest.split_once("\" ")?;
            let mut words = request.split(' ');
            let status = rest.split(' ').next()?;
            Some(format!("{} {} {status}", words.next()?, words.next()?))
        };
        log.unwrap_or_default().lines().filter_map(request).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on at this moment.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .unwrap_or_else(|error| panic!("no port is free on loopback: {error}"))
        .port()
}
