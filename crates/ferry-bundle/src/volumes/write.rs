//! Writing a bundle in volumes: beside their places, and moved there when all are whole.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::{NamedTempFile, TempPath};

use super::header::{self, DIGEST, HEADER, Header, LEAF, Layout, MOST_VOLUMES, leaf_digest};
use super::names::Names;
use super::parity;
use crate::{BundleError, Result};

/// Is told of every temporary file, so that it can be removed when the program is stopped.
pub type Begun = Box<dyn FnMut(&Path) + Send>;

/// A bundle on its way into volumes. Nothing can be seen of it before [`VolumeWriter::finish`].
pub struct VolumeWriter {
    names: Names,
    capacity: u64,
    leaf: u32,
    parity: u32,
    begun: Begun,
    /// Those that hold all they can.
    full: Vec<Written>,
    current: Option<Unfinished>,
    /// What is not a leaf yet.
    buffer: Vec<u8>,
    size: u64,
    digest: Sha256,
}

/// A volume without its header.
pub(super) struct Written {
    path: TempPath,
    root: [u8; DIGEST],
}

/// A volume that is being written.
pub(super) struct Unfinished {
    number: u32,
    file: BufWriter<NamedTempFile>,
    root: Sha256,
    leaves: u64,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct VolumesReport {
    /// The files, in the order of their numbers.
    pub files: Vec<PathBuf>,
    /// How many of them, at the end, hold parity.
    pub parity: u32,
    /// Size of all of them together, in bytes.
    pub size: u64,
}

impl VolumeWriter {
    /// Volumes of the bundle that would be called `file` in one piece: each smaller than `limit`
    /// bytes, with `parity` volumes more.
    ///
    /// # Errors
    /// When so small a volume can hold nothing, or there is too much parity.
    pub fn new(file: &Path, limit: u64, parity: u32, begun: Begun) -> Result<Self> {
        Self::with_leaves(file, limit, parity, LEAF, begun)
    }

    pub(super) fn with_leaves(
        file: &Path,
        limit: u64,
        parity: u32,
        leaf: u32,
        begun: Begun,
    ) -> Result<Self> {
        let names = Names::of_bundle(file);
        let refused = |reason: String| BundleError::Volumes { bundle: names.together(), reason };
        let capacity = header::capacity(limit, leaf).ok_or_else(|| {
            refused(format!("volumes of {limit} bytes are too small; 128K will do"))
        })?;
        if parity >= MOST_VOLUMES {
            return Err(refused(format!("there can be {MOST_VOLUMES} volumes")));
        }
        Ok(Self {
            names,
            capacity,
            leaf,
            parity,
            begun,
            full: Vec::new(),
            current: None,
            buffer: Vec::new(),
            size: 0,
            digest: Sha256::new(),
        })
    }

    /// Writes the buffer as a leaf.
    fn put_leaf(&mut self) -> io::Result<()> {
        let number = u32::try_from(self.full.len() + 1).unwrap_or(u32::MAX);
        if self.current.is_none() {
            if number.saturating_add(self.parity) > MOST_VOLUMES {
                return Err(io::Error::other(format!(
                    "there would be more than {MOST_VOLUMES} volumes: choose a larger size"
                )));
            }
            self.current = Some(Unfinished::begin(&self.names, number, &mut self.begun)?);
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        current.put(&self.buffer)?;
        self.buffer.clear();
        if current.leaves * u64::from(self.leaf) >= self.capacity {
            self.full.extend(self.current.take().map(Unfinished::written).transpose()?);
        }
        Ok(())
    }

    /// Adds parity, and moves all volumes to their places, the first one first, once all of them
    /// are whole and on the disk beside those. Stopped while it moves them, it leaves them where
    /// [`Volumes::find`](super::Volumes::find) finds them.
    ///
    /// # Errors
    /// When something cannot be written; then there are none.
    pub fn finish(mut self) -> Result<VolumesReport> {
        let failed = BundleError::io(format!("write {}", self.names.together()));
        self.complete().map_err(failed)
    }

    fn complete(&mut self) -> io::Result<VolumesReport> {
        if !self.buffer.is_empty() {
            self.put_leaf()?;
        }
        self.full.extend(self.current.take().map(Unfinished::written).transpose()?);
        let layout = Layout {
            data: u32::try_from(self.full.len()).unwrap_or(u32::MAX),
            parity: self.parity,
            size: self.size,
            capacity: self.capacity,
            leaf: self.leaf,
        };
        if layout.data == 0 {
            return Err(io::Error::other("there is nothing to write"));
        }
        let parity = self.add_parity(&layout)?;
        self.full.extend(parity);
        let bundle = self.digest.clone().finalize().into();
        for (written, number) in self.full.iter().zip(1..) {
            written.seal(&Header { number, layout, bundle, root: written.root })?;
        }
        let directory = File::open(self.names.directory())?;
        for (written, number) in self.full.drain(..).zip(1..) {
            written.persist(&self.names.waiting(number))?;
        }
        // From the first one that is in its place on, it is these that count, and all are there.
        directory.sync_all()?;
        let mut files = Vec::new();
        for number in 1..=layout.all() {
            let file = self.names.volume(number);
            fs::rename(self.names.waiting(number), &file)?;
            files.push(file);
        }
        directory.sync_all()?;
        self.remove_replaced(layout.all())?;
        let size = (1..=layout.all()).map(|number| layout.file_size(number)).sum();
        Ok(VolumesReport { files, parity: layout.parity, size })
    }

    /// Removes what is left of volumes that stood under these names before, if they were more: they
    /// are of no use without the others, and would be taken for some of this bundle.
    fn remove_replaced(&self, last: u32) -> io::Result<()> {
        for number in last + 1..=MOST_VOLUMES {
            let file = self.names.volume(number);
            let mut start = Vec::new();
            match File::open(&file) {
                Ok(opened) => opened.take(HEADER as u64).read_to_end(&mut start)?,
                Err(_) => return Ok(()),
            };
            match Header::decode(&start) {
                Ok(header) if header.number == number => fs::remove_file(&file)?,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn add_parity(&mut self, layout: &Layout) -> io::Result<Vec<Written>> {
        let mut parity = (layout.data + 1..=layout.all())
            .map(|number| Unfinished::begin(&self.names, number, &mut self.begun))
            .collect::<io::Result<Vec<_>>>()?;
        if parity.is_empty() {
            return Ok(Vec::new());
        }
        let data = self.full.iter().map(|written| File::open(&written.path));
        let data = data.collect::<io::Result<Vec<_>>>()?;
        for stripe in 0..layout.stripes() {
            let leaves = data.iter().zip(1..).map(|(file, number)| {
                let mut leaf = vec![0; layout.leaf_length(number, stripe)];
                if !leaf.is_empty() {
                    file.read_exact_at(&mut leaf, layout.leaf_at(stripe))?;
                }
                Ok(leaf)
            });
            let leaves = leaves.collect::<io::Result<Vec<_>>>()?;
            let made = parity::encode(layout, layout.shard_length(stripe), leaves);
            for (volume, leaf) in parity.iter_mut().zip(made.map_err(io::Error::other)?) {
                volume.put(&leaf)?;
            }
        }
        parity.into_iter().map(Unfinished::written).collect()
    }
}

impl Write for VolumeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (self.leaf as usize).saturating_sub(self.buffer.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        self.digest.update(taken);
        self.size += taken.len() as u64;
        if self.buffer.len() == self.leaf as usize {
            self.put_leaf()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unfinished {
    pub(super) fn begin(names: &Names, number: u32, begun: &mut Begun) -> io::Result<Self> {
        let mut file = tempfile::Builder::new()
            .prefix(".ferry-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(names.directory())?;
        begun(file.path());
        file.seek(SeekFrom::Start(HEADER as u64))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { number, file, root: Sha256::new(), leaves: 0 })
    }

    pub(super) fn put(&mut self, leaf: &[u8]) -> io::Result<()> {
        let digest = leaf_digest(self.number, self.leaves, leaf);
        self.root.update(digest);
        self.leaves += 1;
        self.file.write_all(leaf)?;
        self.file.write_all(&digest)
    }

    pub(super) fn written(self) -> io::Result<Written> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Written { path: file.into_temp_path(), root: self.root.finalize().into() })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Written {
    pub(super) fn root(&self) -> [u8; DIGEST] {
        self.root
    }

    /// Writes the header, and waits until all of it is on the disk.
    pub(super) fn seal(&self, header: &Header) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.path)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()
    }

    pub(super) fn persist(self, file: &Path) -> io::Result<()> {
        self.path.persist(file).map_err(|error| error.error)
    }
}
