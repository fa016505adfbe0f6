//! Noticing that a server sends next to nothing.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// A server that sends fewer bytes than this in the time that it may take for the next ones
/// ([`HttpTimeouts::read`](super::HttpTimeouts::read)) counts as silent.
const LEAST: u64 = 256;

/// A body that fails where a server keeps a connection open and sends next to nothing. Only the
/// time counts in which somebody waits for it.
pub(super) struct Metered<R> {
    body: R,
    patience: Duration,
    waited: Duration,
    brought: u64,
}

impl<R: Read> Metered<R> {
    pub(super) fn new(body: R, patience: Duration) -> Self {
        Self { body, patience, waited: Duration::ZERO, brought: 0 }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        let count = self.body.read(buffer)?;
        self.waited += begun.elapsed();
        self.brought += count as u64;
        if self.waited > self.patience {
            if self.brought < LEAST && count > 0 {
                let silent = "the server sends next to nothing";
                return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
            }
            (self.waited, self.brought) = (Duration::ZERO, 0);
        }
        Ok(count)
    }
}
