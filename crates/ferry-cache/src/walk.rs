//! Every narinfo of a cache, one after the other.
//!
//! Checking, signing, indexing and pruning all read them all. However many there are, no more of
//! them are held in memory than threads are at work.

use ferry_formats::narinfo::{self, Narinfo};
use ferry_store::parallel::in_parallel_as_it_comes;

use crate::layout::FileKind;
use crate::place::{Listed, Place};
use crate::{BinaryCache, CacheError};

/// A narinfo as it stands in a cache.
pub(crate) struct Found {
    /// What is in the file.
    pub(crate) text: Vec<u8>,
    /// What that says.
    pub(crate) narinfo: Narinfo,
}

/// The narinfos in a cache, in the order of their names.
pub(crate) fn narinfo_files(place: &Place) -> Result<Vec<Listed>, CacheError> {
    let mut files = Vec::new();
    place.list_top(&mut |file| {
        if FileKind::of(&file.name) == FileKind::Narinfo {
            files.push(file);
        }
        Ok(())
    })?;
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

impl BinaryCache {
    /// Reads each of these narinfos and hands it, or what is wrong with it, to `work`, on several
    /// threads, and what that returns to `each`, on this one, in no particular order. Those that
    /// are not there any more are passed over.
    pub(crate) fn for_each_narinfo<R: Send>(
        &self,
        files: &[Listed],
        work: impl Fn(&Listed, Result<Found, CacheError>) -> Result<R, CacheError> + Sync,
        mut each: impl FnMut(R) -> Result<(), CacheError>,
    ) -> Result<(), CacheError> {
        // Whoever waits for a server, or for a disk, keeps no core busy.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.place.connections().max(cores);
        in_parallel_as_it_comes(
            files,
            threads,
            |file| {
                let found = match self.place.get(&file.name) {
                    Ok(None) => return Ok(None),
                    Ok(Some(text)) => self.found(&file.name, text),
                    Err(error) => Err(error),
                };
                work(file, found).map(Some)
            },
            |outcome| outcome.map_or(Ok(()), &mut each),
        )
    }

    /// What the narinfo of this name says, if it is about the path of that hash.
    pub(crate) fn found(&self, name: &str, text: Vec<u8>) -> Result<Found, CacheError> {
        let narinfo = self.parse_any(name, &text)?;
        if narinfo::file_name(&narinfo.info.path) == name {
            return Ok(Found { text, narinfo });
        }
        Err(CacheError::OtherPath {
            url: self.place.shown_file(name),
            found: self.store_dir.render_path(&narinfo.info.path),
            expected: "the path of that hash".to_owned(),
        })
    }
}
