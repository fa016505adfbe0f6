//! Unpacking a NAR into a store, in the one form that store objects have.
//!
//! Nix calls this form canonical (`posix-fs-canonicalise.cc`): files are `0444` or `0555`,
//! directories `0555`, everything was last changed one second into the epoch. Objects are
//! created, never opened, below directory descriptors that are held open, so that neither a link
//! in the NAR nor one put there meanwhile leads a write astray; nothing is ever hard-linked, so a
//! mode set here is set on nothing else.

use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ferry_formats::nar::{self, Event};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

/// The root directory of an object stays writable until it has been moved into place: renaming a
/// directory writes to it.
pub(super) const ROOT_DIRECTORY_WHILE_MOVING: u32 = 0o755;

/// What a file tree may be used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As Nix keeps store objects: nothing may be written to, and no time is told.
    Canonical,
    /// To be worked on.
    Writable,
}

impl Form {
    /// The mode of what may be entered or run, or of what may only be read.
    fn mode(self, executable: bool) -> u32 {
        let mode = if executable { 0o555 } else { 0o444 };
        if self == Self::Writable { mode | 0o200 } else { mode }
    }
}

/// What an object turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    Other,
}

/// Unpacks the NAR on `reader` as `name` in `parent`. On an error part of it may be left there.
pub(crate) fn restore(
    reader: &mut impl BufRead,
    parent: BorrowedFd<'_>,
    name: &str,
    form: Form,
) -> Result<Kind, nar::Error> {
    let mut open: Vec<OwnedFd> = Vec::new();
    let mut kind = Kind::Other;
    nar::decode(reader, |event| {
        let place = open.last().map_or(parent, AsFd::as_fd);
        // The root has no name of its own in a NAR.
        let name_of = |child: Option<&'_ [u8]>| child.unwrap_or(name.as_bytes()).to_vec();
        match event {
            Event::DirectoryStart { name: child } => {
                let child = name_of(child);
                if open.is_empty() {
                    kind = Kind::Directory;
                }
                open.push(create_directory(place, &child)?);
            }
            Event::DirectoryEnd { .. } => {
                if let Some(directory) = open.pop() {
                    let mode =
                        if open.is_empty() { ROOT_DIRECTORY_WHILE_MOVING } else { form.mode(true) };
                    settle(&directory, mode, form)?;
                }
            }
            Event::Regular { name: child, executable, mut contents } => {
                let child = name_of(child);
                let mut file = create_file(place, &child)?;
                contents.copy_to(&mut file)?;
                file.flush()?;
                settle(&file, form.mode(executable), form)?;
            }
            Event::Symlink { name: child, target } => {
                let child = name_of(child);
                create_symlink(place, &child, target, form)?;
            }
        }
        Ok(())
    })?;
    Ok(kind)
}

fn create_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn create_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<std::fs::File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    Ok(file.into())
}

fn create_symlink(
    parent: BorrowedFd<'_>,
    name: &[u8],
    target: &[u8],
    form: Form,
) -> io::Result<()> {
    rustix::fs::symlinkat(target, parent, name)?;
    if form == Form::Canonical {
        let time = one_second_into_the_epoch();
        rustix::fs::utimensat(parent, name, &time, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Gives a finished file or directory its mode (no setuid) and its time.
fn settle(object: impl AsFd, mode: u32, form: Form) -> io::Result<()> {
    rustix::fs::fchmod(&object, Mode::from_raw_mode(mode))?;
    if form == Form::Canonical {
        rustix::fs::futimens(&object, &one_second_into_the_epoch())?;
    }
    Ok(())
}

fn one_second_into_the_epoch() -> Timestamps {
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
