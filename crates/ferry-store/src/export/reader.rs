//! An export stream as a store to copy from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ferry_formats::content_address::can_be_proved;
use ferry_formats::{ContentAddress, PathInfo, StoreDir, StorePath};

use super::entry::{self, Counted, Malformed};
use super::{NOTHING, OBJECT};
use crate::store::NarVisitor;
use crate::{Error, Result, Store};

/// A whole export stream, on disk.
pub struct ExportStream {
    name: String,
    store_dir: StoreDir,
    file: File,
    /// In the order of the stream.
    infos: Vec<PathInfo>,
    places: HashMap<StorePath, Place>,
    derivers: HashMap<StorePath, Vec<StorePath>>,
}

struct Place {
    number: usize,
    nar: Range<u64>,
}

/// Whether these first bytes of a file are those of an export stream.
#[must_use]
pub fn is_export(start: &[u8]) -> bool {
    let Some((first, rest)) = start.split_first_chunk::<8>() else { return false };
    // What a NAR begins with: the length of its magic.
    let nar = rest.first_chunk::<8>().is_none_or(|length| u64::from_le_bytes(*length) == 13);
    match u64::from_le_bytes(*first) {
        OBJECT => nar,
        NOTHING => rest.is_empty(),
        _ => false,
    }
}

impl ExportStream {
    /// Reads the file to its end.
    ///
    /// `store_dir` is the directory of an empty stream, which does not say.
    ///
    /// # Errors
    /// When it cannot be read or is not an export stream.
    pub fn open(path: &Path, store_dir: &StoreDir) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(Error::io(format!("open {name}")))?;
        let entries = scan(&file, &name)?;
        Self::new(name, store_dir, file, entries)
    }

    /// Reads a stream that can be read once, and keeps it in an unnamed file in the directory
    /// `scratch`.
    ///
    /// # Errors
    /// As for [`ExportStream::open`], and when there is no room in `scratch`.
    pub fn from_stream(
        stream: impl Read,
        name: &str,
        store_dir: &StoreDir,
        scratch: &Path,
    ) -> Result<Self> {
        let kept = || Error::io(format!("keep {name} in {}", scratch.display()));
        let file = tempfile::tempfile_in(scratch).map_err(kept())?;
        let copy = file.try_clone().map_err(kept())?;
        let entries = scan(Kept { reader: stream, copy }, name)?;
        Self::new(name.to_owned(), store_dir, file, entries)
    }

    fn new(
        name: String,
        store_dir: &StoreDir,
        file: File,
        (found, entries): (Option<StoreDir>, Vec<entry::Entry>),
    ) -> Result<Self> {
        let store_dir = found.unwrap_or_else(|| store_dir.clone());
        let mut stream = Self {
            name,
            store_dir,
            file,
            infos: Vec::new(),
            places: HashMap::new(),
            derivers: HashMap::new(),
        };
        let mut fixed = HashMap::new();
        for entry in entries {
            let path = entry.info.path.clone();
            for (output, ca) in entry.outputs {
                fixed.extend(ca.filter(can_be_proved).map(|ca| (output.clone(), ca)));
                stream.derivers.entry(output).or_default().push(path.clone());
            }
            stream.take_in(entry.info, entry.nar)?;
        }
        stream.claim(&fixed);
        Ok(stream)
    }

    fn take_in(&mut self, info: PathInfo, nar: Range<u64>) -> Result<()> {
        let known = self.places.get(&info.path).and_then(|place| self.infos.get(place.number));
        match known {
            None => {
                let place = Place { number: self.infos.len(), nar };
                self.places.insert(info.path.clone(), place);
                self.infos.push(info);
                Ok(())
            }
            Some(known) if *known == info => Ok(()),
            Some(_) => Err(Error::Export {
                stream: self.name.clone(),
                offset: nar.start,
                reason: format!(
                    "{} stands in it twice, with different contents",
                    self.store_dir.render_path(&info.path)
                ),
            }),
        }
    }

    /// Claims the content addresses that the derivations in the stream give their outputs.
    fn claim(&mut self, fixed: &HashMap<StorePath, ContentAddress>) {
        for info in self.infos.iter_mut().filter(|info| info.ca.is_none()) {
            let ca = fixed.get(&info.path).cloned();
            let claiming = PathInfo { ca: ca.clone(), ..info.clone() };
            if claiming.is_content_addressed(&self.store_dir) {
                info.ca = ca;
            }
        }
    }

    /// Everything in it, in its order.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.infos
    }
}

/// Everything in a stream, with the store directory that it names.
fn scan(stream: impl Read, name: &str) -> Result<(Option<StoreDir>, Vec<entry::Entry>)> {
    let reader = BufReader::with_capacity(256 << 10, stream);
    let mut input = Counted { reader, offset: 0 };
    let mut store_dir = None;
    let mut entries = Vec::new();
    let failed =
        |offset: u64, Malformed(reason)| Error::Export { stream: name.to_owned(), offset, reason };
    loop {
        match entry::read(&mut input, &mut store_dir) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => break,
            Err(malformed) => return Err(failed(input.offset, malformed)),
        }
    }
    let more = input.read(&mut [0]).map_err(Error::io(format!("read {name}")))?;
    if more > 0 {
        let reason = "something follows its end; of several streams in one file, Nix reads the \
                      first alone";
        return Err(failed(input.offset - 1, Malformed(reason.to_owned())));
    }
    Ok((store_dir, entries))
}

/// Writes down what is read.
struct Kept<R> {
    reader: R,
    copy: File,
}

impl<R: Read> Read for Kept<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.copy.write_all(buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

/// A part of a file, whatever else is read of it meanwhile.
struct Part<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let count = self.file.read_at(buffer, self.range.start)?;
        self.range.start += count as u64;
        Ok(count)
    }
}

impl Store for ExportStream {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        format!("export stream {}", self.name)
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        Ok(self.places.get(path).and_then(|place| self.infos.get(place.number)).cloned())
    }

    fn all_paths(&self) -> Result<Option<Vec<StorePath>>> {
        Ok(Some(self.infos.iter().map(|info| info.path.clone()).collect()))
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        Ok(self.derivers.get(path).cloned().unwrap_or_default())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        for info in wanted {
            let place = self.places.get(&info.path).ok_or_else(|| Error::NotValid {
                path: self.store_dir.render_path(&info.path),
                store: self.describe(),
            })?;
            let part = Part { file: &self.file, range: place.nar.clone() };
            visit(info, &mut BufReader::with_capacity(64 << 10, part))?;
        }
        Ok(())
    }
}
