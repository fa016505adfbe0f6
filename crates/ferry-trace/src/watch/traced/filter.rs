//! Which system calls a command stops at, as a program for the kernel's packet filter.
//!
//! A filter sees numbers, and no text: it can tell an `open` for reading from one for writing, but
//! not what is opened. Whatever is of another architecture is let through.

use nix::libc;
use seccompiler::sock_filter;

use crate::watch::seen::Act;

/// How audit and seccomp call the architecture (`linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Instructions (`linux/bpf_common.h`).
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Where things are in what a filter looks at, `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Answers (`linux/seccomp.h`).
const ALLOW: u32 = 0x7fff_0000;
const TRACE: u32 = 0x7ff0_0000;

/// Flags with which nothing is read: opened for writing, or only to be named.
const NOT_FOR_READING: i32 = libc::O_WRONLY | libc::O_RDWR | libc::O_PATH;
/// With this a name may be empty, and stand for something that is open already.
const OPEN_ALREADY: i32 = libc::AT_EMPTY_PATH;

/// A system call that has to do with a file, and where its arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    number: i64,
    /// Which argument is the directory that a relative name starts from, if any is.
    pub(super) directory: Option<usize>,
    /// Which argument is the name; where there is none, it is about the directory itself.
    pub(super) name: Option<usize>,
    /// What becomes of the file.
    pub(super) act: Act,
    /// It is let through where this argument has any of these bits.
    unless: Option<(u32, i32)>,
}

const fn at(number: i64, act: Act, unless: Option<(u32, i32)>) -> Call {
    Call { number, directory: Some(0), name: Some(1), act, unless }
}

#[cfg(target_arch = "x86_64")]
const fn by_name(number: i64, act: Act, unless: Option<(u32, i32)>) -> Call {
    Call { number, directory: None, name: Some(0), act, unless }
}

const CALLS: &[Call] = &[
    at(libc::SYS_newfstatat, Act::LookAt, Some((3, OPEN_ALREADY))),
    at(libc::SYS_openat, Act::Open, Some((2, NOT_FOR_READING))),
    at(libc::SYS_statx, Act::LookAt, Some((2, OPEN_ALREADY))),
    at(libc::SYS_readlinkat, Act::LookAt, None),
    at(libc::SYS_faccessat, Act::LookAt, None),
    at(libc::SYS_faccessat2, Act::LookAt, None),
    at(libc::SYS_openat2, Act::Open, None),
    // Opened is a directory for many reasons.
    Call { name: None, ..at(libc::SYS_getdents64, Act::List, None) },
    #[cfg(target_arch = "x86_64")]
    by_name(libc::SYS_open, Act::Open, Some((1, NOT_FOR_READING))),
    #[cfg(target_arch = "x86_64")]
    by_name(libc::SYS_stat, Act::LookAt, None),
    #[cfg(target_arch = "x86_64")]
    by_name(libc::SYS_lstat, Act::LookAt, None),
    #[cfg(target_arch = "x86_64")]
    by_name(libc::SYS_readlink, Act::LookAt, None),
    #[cfg(target_arch = "x86_64")]
    by_name(libc::SYS_access, Act::LookAt, None),
];

/// The system call with a number, if it is one of those that are stopped at.
pub(super) fn call(number: i64) -> Option<Call> {
    CALLS.iter().find(|call| call.number == number).copied()
}

/// The program.
pub(super) fn program() -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, 0, 0, ARCH),
        step(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE),
        step(RETURN, 0, 0, ALLOW),
        step(LOAD, 0, 0, NUMBER),
    ];
    for call in CALLS {
        // No number is negative, or that large.
        let number = u32::try_from(call.number).unwrap_or(u32::MAX);
        match call.unless {
            None => program.extend([step(JUMP_IF_EQUAL, 0, 1, number), step(RETURN, 0, 0, TRACE)]),
            Some((argument, bits)) => program.extend([
                step(JUMP_IF_EQUAL, 0, 4, number),
                // The lower half of 64 bits.
                step(LOAD, 0, 0, ARGUMENTS + 8 * argument),
                step(JUMP_IF_ANY, 0, 1, bits.cast_unsigned()),
                step(RETURN, 0, 0, ALLOW),
                step(RETURN, 0, 0, TRACE),
            ]),
        }
    }
    program.push(step(RETURN, 0, 0, ALLOW));
    program
}

fn step(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}
