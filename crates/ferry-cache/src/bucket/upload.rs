//! Putting files into a bucket: small ones in one piece, others in parts.
//!
//! Whatever the way, a file appears when all of it is there, and not before. Of an upload that is
//! broken off by force the parts stay, invisible, until the bucket's owner has them removed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, bounded};
use ferry_store::parallel::in_parallel;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, ObjectStore as _, PutMultipartOptions, PutOptions, PutPayload,
};

use super::Bucket;
use crate::CacheError;

/// Bytes to a part, unless an address says otherwise. All are of one size, as some servers want it.
/// What is no larger goes in one piece.
pub(super) const PART: u64 = 8 << 20;
/// There are no more parts than this.
const MAX_PARTS: u64 = 10_000;
/// How many parts of a file are under way at a time.
const PARTS_AT_A_TIME: usize = 4;
/// How many parts are, of all files together. Each is held in memory.
const SLOTS: usize = 6;
/// What is no larger, in bytes, needs no slot.
const SMALL: u64 = 256 << 10;

/// The room for parts in memory.
pub(super) struct Slots {
    taken: Sender<()>,
    given_back: Receiver<()>,
}

/// A part's room, until this is dropped.
struct Slot<'a>(&'a Receiver<()>);

impl Slots {
    pub(super) fn new() -> Self {
        let (taken, given_back) = bounded(SLOTS);
        Self { taken, given_back }
    }

    /// Waits for room, where that is needed for so many bytes.
    fn wait_for(&self, size: u64) -> Option<Slot<'_>> {
        if size <= SMALL {
            return None;
        }
        // There is a receiver as long as there is a sender.
        let _ = self.taken.send(());
        Some(Slot(&self.given_back))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl Bucket {
    /// Puts a file under a name, whatever is there.
    pub(crate) fn put(
        &self,
        file: &Path,
        name: &str,
        content_type: &'static str,
    ) -> Result<(), CacheError> {
        let key = self.key(name)?;
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, content_type.into());
        if let Some(class) = &self.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let reading = || CacheError::io("read", file.display());
        let open = File::open(file).map_err(reading())?;
        let size = open.metadata().map_err(reading())?.len();
        if size <= self.in_parts_above {
            let _slot = self.slots.wait_for(size);
            let bytes = fs::read(file).map_err(reading())?;
            let options = PutOptions { attributes, ..PutOptions::default() };
            let put = self.store.put_opts(&key, PutPayload::from(bytes), options);
            return self.run(name, put).map(drop);
        }
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let upload = self.run(name, self.store.create_multipart_opts(&key, options))?;
        let put = self.put_parts(name, &key, &upload, &open, size).and_then(|parts| {
            self.run(name, self.store.complete_multipart(&key, &upload, parts)).map(drop)
        });
        match put {
            // An answer that got lost on its way may have said that it is done.
            Err(CacheError::S3 { ref code, .. })
                if code == "NoSuchUpload" && self.size(name)? == Some(size) =>
            {
                Ok(())
            }
            Err(error) => {
                // What went wrong is said by the error; the parts are removed as far as that goes.
                let _ = self.run(name, self.store.abort_multipart(&key, &upload));
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn put_parts(
        &self,
        name: &str,
        key: &Key,
        upload: &String,
        file: &File,
        size: u64,
    ) -> Result<Vec<PartId>, CacheError> {
        let part = self.part_size.max(size.div_ceil(MAX_PARTS));
        let count = usize::try_from(size.div_ceil(part)).unwrap_or(usize::MAX);
        let numbers: Vec<usize> = (0..count).collect();
        in_parallel(&numbers, PARTS_AT_A_TIME, |number| {
            let start = part.saturating_mul(*number as u64);
            let length = part.min(size.saturating_sub(start));
            let _slot = self.slots.wait_for(length);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(CacheError::io("read", name))?;
            let payload = PutPayload::from(bytes);
            self.run(name, self.store.put_part(key, upload, *number, payload))
        })
    }
}
