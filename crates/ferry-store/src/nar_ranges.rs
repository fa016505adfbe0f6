//! NARs read at any position.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ferry_formats::{PathInfo, StorePath};

use crate::{Error, Result, Store};

/// Where parts of the NARs of store paths can be read.
pub trait NarRanges: Send + Sync {
    /// What to call it in a message.
    fn describe(&self) -> String;

    /// Fills `buffer` with what stands at `offset` bytes in the NAR of `path`.
    ///
    /// # Errors
    /// When the path is not there, its NAR is shorter, or it cannot be read.
    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

/// NARs out of a store that can only be read from front to back, in a temporary file.
pub struct SpooledNars {
    store: String,
    file: File,
    /// Where each NAR begins and ends.
    places: HashMap<StorePath, (u64, u64)>,
}

impl SpooledNars {
    /// Reads the NARs of `wanted` into a file without a name in `directory`.
    ///
    /// # Errors
    /// When the store cannot be read or the file cannot be written.
    pub fn new(store: &dyn Store, wanted: &[PathInfo], directory: &Path) -> Result<Self> {
        let failed = || Error::io(format!("keep NARs in {}", directory.display()));
        let mut file = tempfile::tempfile_in(directory).map_err(failed())?;
        let mut places = HashMap::new();
        let mut position = 0;
        store.read_nars(wanted, &mut |info, nar| {
            let size = io::copy(nar, &mut file).map_err(failed())?;
            places.insert(info.path.clone(), (position, position + size));
            position += size;
            Ok(())
        })?;
        file.flush().map_err(failed())?;
        Ok(Self { store: store.describe(), file, places })
    }
}

impl NarRanges for SpooledNars {
    fn describe(&self) -> String {
        self.store.clone()
    }

    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let failed = || Error::io(format!("read {path} of {}", self.store));
        let Some((start, end)) = self.places.get(path) else {
            return Err(failed()(io::ErrorKind::NotFound.into()));
        };
        let from = start.saturating_add(offset);
        if from.saturating_add(buffer.len() as u64) > *end {
            return Err(failed()(io::ErrorKind::UnexpectedEof.into()));
        }
        self.file.read_exact_at(buffer, from).map_err(failed())
    }
}
