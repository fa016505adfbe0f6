//! Files that are there as a whole, or not at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes beside `file` and moves it there once it is whole and on the disk. `mode` is that of the
/// file, but for what the process does not give.
pub(crate) fn write_whole(
    file: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".ferry-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    // The new name is on the disk when its directory is.
    File::open(directory)?.sync_all()
}
