//! Where a bundle or an inventory goes: standard output, a device or pipe, or a file that appears when it is
//! whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_bundle::{VolumeWriter, VolumesReport};
use ferry_store::Result;

use crate::failure::Failure;
use crate::unfinished;

/// Somewhere to write a file to.
pub(crate) enum Sink {
    StandardOutput,
    /// Something that is there and is no file: it is written to, never replaced.
    Device(PathBuf),
    /// A file, new or to be replaced; a link to a file was followed.
    File(PathBuf),
    /// Volumes of a file.
    Volumes {
        file: PathBuf,
        limit: u64,
        parity: u32,
    },
}

/// What was written.
pub(crate) enum Written {
    /// Something that has no size.
    Stream,
    /// A file of so many bytes.
    File(u64),
    /// Several files.
    Volumes(VolumesReport),
}

impl Written {
    /// Size of all of it, where it is files.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Self::Stream => None,
            Self::File(size) => Some(*size),
            Self::Volumes(report) => Some(report.size),
        }
    }

    /// The files, where they are several.
    pub(crate) fn volumes(&self) -> Option<&[PathBuf]> {
        match self {
            Self::Volumes(report) => Some(&report.files),
            _ => None,
        }
    }
}

const BUFFER: usize = 1 << 20;

impl Sink {
    /// What the user means by `output`, where `what` goes.
    pub(crate) fn new(output: &Path, what: &str) -> std::result::Result<Self, Failure> {
        if output == Path::new("-") {
            if io::stdout().is_terminal() {
                return Err(Failure::usage(format!(
                    "{what} is not for a terminal: name a file, or put a pipe behind"
                )));
            }
            return Ok(Self::StandardOutput);
        }
        match fs::metadata(output) {
            Ok(metadata) if metadata.is_dir() => {
                Err(Failure::usage(format!("{} is a directory", output.display())))
            }
            Ok(metadata) if !metadata.is_file() => Ok(Self::Device(output.to_owned())),
            Ok(_) => Ok(Self::File(fs::canonicalize(output).map_err(failed(output))?)),
            Err(_) => {
                let directory = directory_of(output);
                match directory.is_dir() {
                    true => Ok(Self::File(output.to_owned())),
                    false => Err(Failure::new(format!(
                        "cannot write {}: there is no directory {}",
                        output.display(),
                        directory.display()
                    ))),
                }
            }
        }
    }

    /// Makes sure that it replaces none of the files that it is made from.
    pub(crate) fn apart_from<'a>(
        self,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> std::result::Result<Self, Failure> {
        let Self::File(output) = &self else { return Ok(self) };
        let Ok(there) = fs::metadata(output) else { return Ok(self) };
        let is_output = |input: &Path| {
            let found = fs::metadata(input);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (there.dev(), there.ino()))
        };
        match inputs.into_iter().find(|input| is_output(input)) {
            None => Ok(self),
            Some(input) => Err(Failure::usage(format!(
                "{} is read, and cannot be written at the same time",
                input.display()
            ))
            .hint("name another file with -o")),
        }
    }

    /// The same in volumes smaller than `limit` bytes, with `parity` more.
    pub(crate) fn in_volumes(self, limit: u64, parity: u32) -> std::result::Result<Self, Failure> {
        match self {
            Self::File(file) => Ok(Self::Volumes { file, limit, parity }),
            _ => Err(Failure::usage("volumes are files: name one with -o")),
        }
    }

    /// Writes it.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(Box<dyn Write + Send>) -> Result<T>,
    ) -> std::result::Result<(T, Written), Failure> {
        match self {
            Self::StandardOutput => Ok((write(Box::new(io::stdout()))?, Written::Stream)),
            Self::Volumes { file, limit, parity } => into_volumes(file, *limit, *parity, write),
            Self::Device(path) => {
                let device = OpenOptions::new().write(true).open(path).map_err(failed(path))?;
                let handle = device.try_clone().map_err(failed(path))?;
                let report = write(Box::new(BufWriter::with_capacity(BUFFER, device)))?;
                match handle.sync_all() {
                    // A pipe or a terminal keeps nothing back.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    outcome => outcome.map_err(failed(path))?,
                }
                Ok((report, Written::Stream))
            }
            Self::File(path) => into_file(path, write),
        }
    }
}

/// The directory that a file is in.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes beside `path` and moves it there once it is whole and on the disk.
fn into_file<T>(
    path: &Path,
    write: impl FnOnce(Box<dyn Write + Send>) -> Result<T>,
) -> std::result::Result<(T, Written), Failure> {
    let directory = directory_of(path);
    let temporary = tempfile::Builder::new()
        .prefix(".ferry-")
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        // With a temporary file's name in it, which nobody knows.
        .map_err(|error| failed(path)(error.kind().into()))?;
    unfinished::begin(temporary.path());
    let file: File = temporary.as_file().try_clone().map_err(failed(path))?;
    let report = write(Box::new(BufWriter::with_capacity(BUFFER, file)))?;
    temporary.as_file().sync_all().map_err(failed(path))?;
    let size = temporary.as_file().metadata().map_err(failed(path))?.len();
    temporary.persist(path).map_err(|error| failed(path)(error.error))?;
    unfinished::finished();
    // The new name is on the disk when its directory is.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(path))?;
    Ok((report, Written::File(size)))
}

fn into_volumes<T>(
    file: &Path,
    limit: u64,
    parity: u32,
    write: impl FnOnce(Box<dyn Write + Send>) -> Result<T>,
) -> std::result::Result<(T, Written), Failure> {
    let begun = Box::new(|file: &Path| unfinished::begin(file));
    // Only the numbers can be wrong.
    let volumes = VolumeWriter::new(file, limit, parity, begun).map_err(Failure::usage)?;
    let volumes = Arc::new(Mutex::new(volumes));
    let handle = Box::new(Shared(Arc::clone(&volumes)));
    let report = write(Box::new(BufWriter::with_capacity(BUFFER, handle)))?;
    let volumes = Arc::into_inner(volumes).and_then(|volumes| volumes.into_inner().ok());
    let volumes = volumes.ok_or_else(|| Failure::new("the bundle was not written to its end"))?;
    let written = volumes.finish()?;
    unfinished::finished();
    Ok((report, Written::Volumes(written)))
}

/// Volumes that are finished when their writer has let go of them.
struct Shared(Arc<Mutex<VolumeWriter>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
        match error.kind() {
            io::ErrorKind::StorageFull => failure.hint("make room, or write it somewhere else"),
            _ => failure,
        }
    }
}
