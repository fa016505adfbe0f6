//! A real `nix-daemon`.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Machine, MachineCommand, Running};

/// A running `nix-daemon`; dropping it kills it, and waits for its end.
///
/// Commands talk to it with `NIX_REMOTE=daemon`, online or not: its socket is a file in `/nix`.
#[derive(Debug)]
pub struct Daemon {
    process: Running,
}

impl Daemon {
    pub(crate) fn start(machine: &Machine, command: MachineCommand) -> Self {
        let directory = machine.path("/nix/var/nix/daemon-socket");
        // One that a daemon before this one has left; nobody answers there any more.
        let _ = fs::remove_file(directory.join("socket"));
        let mut process = command.spawn();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            // By way of a descriptor: the path on the host may be too long for a socket.
            let answer = File::open(&directory).and_then(|open| {
                UnixStream::connect(format!("/proc/self/fd/{}/socket", open.as_raw_fd()))
            });
            match answer {
                Ok(_) => return Self { process },
                Err(error) if !process.is_running() || Instant::now() > deadline => panic!(
                    "the nix-daemon of Nix {} does not accept connections: {error}\n{}",
                    machine.version(),
                    process.stderr_so_far()
                ),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// What it has written to stderr by now.
    pub fn log(&self) -> String {
        self.process.stderr_so_far()
    }
}
