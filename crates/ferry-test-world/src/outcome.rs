//! What came of a command.

use std::process::ExitStatus;
use std::time::Duration;

/// What a command left behind when it ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended. A command that a signal ended has the code 128 + signal, as in a shell.
    pub status: ExitStatus,
    /// What it wrote to stdout, unless that went to a file.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr; bytes that are not UTF-8 are replaced.
    pub stderr: String,
    /// What it cost.
    pub usage: Usage,
}

impl Outcome {
    /// The exit code.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Stdout as text, without white space at its ends; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

/// What a command cost, with all processes that it started and waited for.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// From start to end. About 10 ms of it go into entering the machine.
    pub wall: Duration,
    /// Time on processors, the kernel's work included.
    pub cpu: Duration,
    /// The most memory that any *one* of its processes held at a time, in bytes.
    pub peak_rss: u64,
    /// Below this, `peak_rss` means nothing: the kernel also counts the process that started
    /// the command, and this is what that one had held by then.
    pub peak_rss_floor: u64,
}
