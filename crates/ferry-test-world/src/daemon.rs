//! A real `nix-daemon`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
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
            let answer = File::open(&directory)
                .and_then(|open| {
                    UnixStream::connect(format!("/proc/self/fd/{}/socket", open.as_raw_fd()))
                })
                .and_then(greet);
            match answer {
                Ok(()) => return Self { process },
                Err(error) if !process.is_running() || Instant::now() > deadline => panic!(
                    "the nix-daemon of Nix {} does not answer: {error}\n{}",
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

/// The first words of the protocol. The daemon answers once it has opened the store, and so
/// made a new one. Without this, the first command could find it still being made, and fail:
/// real Nix, all three versions, then says that its database is busy, and hangs up.
fn greet(mut stream: UnixStream) -> io::Result<()> {
    const CLIENT: u64 = 0x6e69_7863;
    const DAEMON: u64 = 0x6478_696f;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&CLIENT.to_le_bytes())?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    if u64::from_le_bytes(answer) != DAEMON {
        return Err(io::Error::other("that is no nix-daemon"));
    }
    Ok(())
}
