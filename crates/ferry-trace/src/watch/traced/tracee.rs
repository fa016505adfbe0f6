//! What is asked of a process that has stopped at a system call.

use std::ffi::OsStr;
use std::fs;
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_store::evaluation::normal;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::filter::{self, Call};
use crate::watch::seen::Act;

/// The longest name that the kernel takes, in bytes, with the zero at its end.
const LONGEST_NAME: usize = 4096;
/// No page of memory is smaller, in bytes.
const PAGE: usize = 4096;

/// A system call that names a file.
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) act: Act,
}

/// The system call that a process has stopped at, if it is one that is of interest.
pub(super) fn named(process: Pid) -> Option<Named> {
    let registers = ptrace::getregs(process).ok()?;
    let (number, arguments) = of_call(&registers);
    let Call { directory, name, act, .. } = filter::call(number)?;
    let name = match name {
        Some(name) => text(process, *arguments.get(name)?).filter(|name| !name.is_empty())?,
        None => Vec::new(),
    };
    let name = Path::new(OsStr::from_bytes(&name));
    if name.is_absolute() {
        return Some(Named { path: normal(name), act });
    }
    let place = match directory {
        None => "cwd".to_owned(),
        Some(place) => match descriptor(*arguments.get(place)?) {
            libc::AT_FDCWD => "cwd".to_owned(),
            number => format!("fd/{number}"),
        },
    };
    let link = |name: &str| fs::read_link(format!("/proc/{process}/{name}")).ok();
    let base = link(&place)?;
    // Seen from another mount namespace, a root that is none has a name.
    let inside = link("root").and_then(|root| base.strip_prefix(root).ok().map(Path::to_owned));
    let base = inside.map_or(base, |inside| Path::new("/").join(inside));
    Some(Named { path: normal(&base.join(name)), act })
}

/// The number of a system call, and its arguments.
#[cfg(target_arch = "x86_64")]
fn of_call(registers: &libc::user_regs_struct) -> (i64, [u64; 4]) {
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    (registers.orig_rax.cast_signed(), arguments)
}

/// The number of a system call, and its arguments.
#[cfg(target_arch = "aarch64")]
fn of_call(registers: &libc::user_regs_struct) -> (i64, [u64; 4]) {
    let [first, second, third, fourth, _, _, _, _, number, ..] = registers.regs;
    (number.cast_signed(), [first, second, third, fourth])
}

/// The lower half of a register, which is all that the kernel looks at.
fn descriptor(register: u64) -> i32 {
    let [a, b, c, d, ..] = register.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// The text at an address, up to its zero.
fn text(process: Pid, address: u64) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut base = usize::try_from(address).ok()?;
    let mut buffer = [0_u8; PAGE];
    while text.len() < LONGEST_NAME {
        // Up to the end of the page: there may be none behind it. Most names are short.
        let wanted = (PAGE - base % PAGE).min(if text.is_empty() { 256 } else { PAGE });
        let piece = buffer.get_mut(..wanted)?;
        let remote = [RemoteIoVec { base, len: wanted }];
        let count = process_vm_readv(process, &mut [IoSliceMut::new(piece)], &remote).ok()?;
        let read = piece.get(..count).filter(|read| !read.is_empty())?;
        if let Some(end) = read.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(read.get(..end)?);
            return Some(text);
        }
        text.extend_from_slice(read);
        base = base.checked_add(count)?;
    }
    None
}

/// The names of what a process runs: the file's, and the one that it was called by.
pub(super) fn names(process: Pid) -> Option<(String, String)> {
    let of = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    let file = fs::read_link(format!("/proc/{process}/exe")).ok()?;
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let called = command.split(|byte| *byte == 0).next().unwrap_or_default();
    Some((of(&file)?, of(Path::new(OsStr::from_bytes(called))).unwrap_or_default()))
}

/// Whether a stopped process has been told to continue.
pub(super) fn is_to_continue(process: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let bit = 1_u64 << (libc::SIGCONT - 1);
    let waiting = status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")))
        .filter_map(|set| u64::from_str_radix(set.trim(), 16).ok());
    waiting.fold(0, std::ops::BitOr::bitor) & bit != 0
}
