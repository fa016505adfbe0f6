//! How a command comes to be watched: what happens in its process before it runs.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use super::filter;

/// Becomes a command that its parent watches, and returns only if there is no such command.
///
/// The parent is waited for first: this stops itself until the parent lets it go on. If the system
/// does not let itself be asked to tell of system calls, the command is run all the same.
pub fn become_watched(words: &[OsString]) -> io::Error {
    let Some((program, arguments)) = words.split_first() else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    // Whoever is to let this go on may be killed before.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| kill_process(getpid(), Signal::STOP))
        .and_then(|()| set_parent_process_death_signal(None))
    {
        return error.into();
    }
    if seccompiler::apply_filter(&filter::program()).is_ok() {
        // The parent sees this, and so knows that it sees everything.
        let _ = std::fs::symlink_metadata("/");
    }
    Command::new(program).args(arguments).exec()
}
