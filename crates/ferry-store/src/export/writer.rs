//! An export stream as a destination.

use std::io::{self, BufReader, Read, Write};
use std::sync::{Mutex, PoisonError};

use ferry_formats::{NarHash, StoreDir, StorePath, nar};

use super::{MAGIC, NOTHING, OBJECT};
use crate::admission::{Admitted, Plan};
use crate::daemon::wire::{write_bytes, write_strings, write_u64};
use crate::{Destination, Error, Result, SignatureCheck, StoreWriter};

/// An export stream to be written to `W`, as a destination for one copy.
pub struct ExportWriter<W> {
    store_dir: StoreDir,
    name: String,
    sink: Mutex<Option<W>>,
}

impl<W: Write> ExportWriter<W> {
    /// A stream of paths in `store_dir`; `name` is what to call it in messages.
    pub fn new(sink: W, name: String, store_dir: StoreDir) -> Self {
        Self { store_dir, name, sink: Mutex::new(Some(sink)) }
    }
}

impl<W: Write> Destination for ExportWriter<W> {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        format!("export stream {}", self.name)
    }

    fn activity(&self) -> &'static str {
        "exporting"
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        Ok(vec![None; paths.len()])
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        // Closed under references, a stream gets every input before its dependents.
        Err(Error::NotValid { path: self.store_dir.render_path(path), store: self.describe() })
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        SignatureCheck::NotNeeded
    }

    fn writer<'a>(&'a self, _plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sink = sink.ok_or_else(|| Error::Io {
            action: format!("write {}", self.name),
            source: io::Error::other("it has been written already"),
        })?;
        Ok(Box::new(ObjectWriter { stream: self, sink }))
    }
}

struct ObjectWriter<'a, W> {
    stream: &'a ExportWriter<W>,
    sink: W,
}

impl<W: Write> StoreWriter for ObjectWriter<'_, W> {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let Self { stream, sink } = self;
        let store_dir = &stream.store_dir;
        let failed = || Error::io(format!("write {}", stream.name));
        write_u64(sink, OBJECT).map_err(failed())?;
        let path = store_dir.render_path(&admitted.info().path);
        // What is wrong with a NAR is noticed behind it. What an importer needs to make it valid
        // comes still later, and then never does.
        let verified = admitted.verify(|nar| {
            let passing = Passing { nar, sink: &mut *sink, name: &stream.name };
            let mut passing = BufReader::with_capacity(64 << 10, passing);
            nar::decode(&mut passing, |_| Ok(())).map_err(|error| match error {
                nar::Error::Io(source) => Error::reading(format!("export {path}"))(source),
                other => Error::MalformedNar { path, reason: other.to_string() },
            })
        })?;
        let info = verified.info();
        let render = |path: &StorePath| store_dir.render_path(path);
        let deriver = info.deriver.as_ref().map(render).unwrap_or_default();
        write_u64(sink, MAGIC)
            .and_then(|()| write_bytes(sink, render(&info.path).as_bytes()))
            .and_then(|()| write_strings(sink, info.references.iter().map(render)))
            .and_then(|()| write_bytes(sink, deriver.as_bytes()))
            .and_then(|()| write_u64(sink, NOTHING))
            .map_err(failed())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        write_u64(&mut self.sink, NOTHING)
            .and_then(|()| self.sink.flush())
            .map_err(Error::io(format!("write {}", self.stream.name)))
    }
}

/// Passes a NAR on while it is decoded.
struct Passing<'a, W> {
    nar: &'a mut dyn Read,
    sink: &'a mut W,
    name: &'a str,
}

impl<W: Write> Read for Passing<'_, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.nar.read(buffer)?;
        // Carried as the error type that comes out again where the NAR is read.
        self.sink.write_all(buffer.get(..count).unwrap_or_default()).map_err(|source| {
            io::Error::other(Error::Io { action: format!("write {}", self.name), source })
        })?;
        Ok(count)
    }
}
