//! Adding paths through a daemon: one request for all of them.
//!
//! The daemon reads a framed stream of path infos and NARs, checks each and makes it valid before
//! it goes on to the next. While it reads it may talk, and what it says has to be read, or both
//! sides wait for ever; so a thread of its own listens, and tells the sender when the daemon has
//! failed.

use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ferry_formats::{PathInfo, StoreDir, nar};

use super::connection::{Connection, Operation, Peer, Writer, await_answer, stream_error};
use super::wire::{Frames, write_bytes, write_strings, write_u64};
use super::{DaemonStore, Store as _};
use crate::admission::{Admitted, Plan};
use crate::{Error, Result, StoreWriter};

pub(super) struct DaemonWriter {
    store_dir: StoreDir,
    describe: String,
    frames: Frames<Writer>,
    failed: Arc<AtomicBool>,
    listener: Option<JoinHandle<Result<()>>>,
    _peer: Peer,
}

impl DaemonWriter {
    pub(super) fn begin(
        store: &DaemonStore,
        connection: Connection,
        plan: &Plan,
        no_check_signatures: bool,
    ) -> Result<Self> {
        let describe = store.describe();
        let (mut reader, mut writer, log, peer) = connection.split();
        let failed = Arc::new(AtomicBool::new(false));
        let listener = {
            let (failed, describe) = (Arc::clone(&failed), describe.clone());
            std::thread::spawn(move || {
                let outcome = await_answer(&mut reader, &describe, &*log);
                failed.store(outcome.is_err(), Ordering::Release);
                outcome
            })
        };
        let begun = (|| {
            write_u64(&mut writer, Operation::AddMultipleToStore as u64)?;
            write_u64(&mut writer, 0)?; // repair
            write_u64(&mut writer, u64::from(no_check_signatures))?;
            let mut frames = Frames::new(writer);
            write_u64(&mut frames, plan.infos().len() as u64)?;
            Ok(frames)
        })();
        let frames = begun.map_err(|error| stream_error(&describe, error))?;
        Ok(Self {
            store_dir: store.store_dir.clone(),
            describe,
            frames,
            failed,
            listener: Some(listener),
            _peer: peer,
        })
    }

    /// What the daemon said, where it failed; else `error`.
    fn explain(&mut self, error: Error) -> Error {
        let stopped =
            matches!(error, Error::Protocol { .. }) || self.failed.load(Ordering::Acquire);
        if !stopped {
            return error;
        }
        match self.listener.take().map(JoinHandle::join) {
            Some(Ok(Err(said))) => said,
            _ => error,
        }
    }

    fn send(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let describe = self.describe.clone();
        let stream = |error| stream_error(&describe, error);
        write_info(&mut self.frames, &self.store_dir, admitted.info()).map_err(stream)?;
        let path = self.store_dir.render_path(&admitted.info().path);
        let (frames, failed) = (&mut self.frames, &self.failed);
        admitted.verify(|nar| {
            let passing = Passing { nar, frames, failed, describe: &describe, behind: Vec::new() };
            let mut passing = BufReader::with_capacity(64 << 10, passing);
            nar::decode(&mut passing, |_| Ok(())).map_err(|error| match error {
                nar::Error::Io(source) => Error::reading(format!("send {path}"))(source),
                other => Error::MalformedNar { path, reason: other.to_string() },
            })?;
            passing.into_inner().pass_on().map_err(stream)
        })?;
        Ok(())
    }
}

/// Passes a NAR on while it is decoded, one piece behind: the daemon never gets the end of one
/// that is malformed, so that nothing depends on what it would make of it.
struct Passing<'a> {
    nar: &'a mut dyn Read,
    frames: &'a mut Frames<Writer>,
    failed: &'a AtomicBool,
    describe: &'a str,
    behind: Vec<u8>,
}

impl Passing<'_> {
    fn pass_on(&mut self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.frames.write_all(&self.behind)?;
        self.behind.clear();
        Ok(())
    }
}

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.nar.read(buffer)?;
        if count > 0 {
            // Carried as the error type that comes out again where the NAR is read.
            self.pass_on().map_err(|error| io::Error::other(stream_error(self.describe, error)))?;
            self.behind.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

impl StoreWriter for DaemonWriter {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        self.send(admitted).map_err(|error| self.explain(error))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let ended = self.frames.finish().map_err(|error| stream_error(&self.describe, error));
        match self.listener.take().map(JoinHandle::join) {
            Some(Ok(said)) => said.and(ended),
            _ => ended,
        }
    }
}

/// A path info in the form of protocol 1.16, which this operation always uses.
fn write_info(writer: &mut impl Write, store_dir: &StoreDir, info: &PathInfo) -> io::Result<()> {
    let path = |path| store_dir.render_path(path);
    write_bytes(writer, path(&info.path).as_bytes())?;
    write_bytes(writer, info.deriver.as_ref().map(path).unwrap_or_default().as_bytes())?;
    write_bytes(writer, info.nar_hash.to_base16().as_bytes())?;
    write_strings(writer, info.references.iter().map(path))?;
    write_u64(writer, 0)?; // registration time: now
    write_u64(writer, info.nar_size)?;
    write_u64(writer, 0)?; // not built by this daemon
    write_strings(writer, info.signatures.iter().map(ToString::to_string))?;
    let ca = info.ca.as_ref().map(ToString::to_string).unwrap_or_default();
    write_bytes(writer, ca.as_bytes())
}
