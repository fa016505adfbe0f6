//! Files and directories that are not whole yet, and go away when the user stops the program.
//!
//! Dropping a temporary file removes it, but a signal drops nothing: without this, stopping a
//! long `ferry pack` would leave its gigabytes behind.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;

/// What is being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Whom signals are for.
static RECEIVER: Mutex<Receiver> = Mutex::new(Receiver::Ourselves);

/// Set when the signals are listened to.
static LISTENING: Once = Once::new();

/// Exit code of an interrupted program, as shells have it for the interrupt from the keyboard.
const INTERRUPTED: i32 = 130;

/// How a signal says that it comes from the terminal, and so to all that runs there: `SI_KERNEL`.
const FROM_TERMINAL: i32 = 0x80;

/// Whom signals are for.
enum Receiver {
    /// They stop this program.
    Ourselves,
    /// They are for the process of a user's own command, and this many have come.
    Command { process: u32, heard: u32 },
    /// It has ended. A signal that it got may be heard of here only now.
    Ended,
}

/// Removes `file` if the program is interrupted before [`finished`].
pub(crate) fn begin(file: &Path) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(file.to_owned());
    LISTENING.call_once(|| {
        // Signals that cannot be listened to leave things as they are: the files are kept.
        if let Ok(mut signals) = SignalsInfo::<WithRawSiginfo>::new([SIGHUP, SIGINT, SIGTERM]) {
            thread::spawn(move || {
                signals.forever().for_each(|signal| interrupted(signal.si_signo, signal.si_code));
            });
        }
    });
}

/// All files have become what they were to be.
pub(crate) fn finished() {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// From now on signals are for a command, which decides what becomes of them.
pub(crate) fn leave_signals_to(process: u32) {
    *receiver() = Receiver::Command { process, heard: 0 };
}

/// The command has ended.
pub(crate) fn take_signals() {
    let mut receiver = receiver();
    *receiver = match *receiver {
        Receiver::Command { heard: 0, .. } => Receiver::Ended,
        _ => Receiver::Ourselves,
    };
}

fn receiver() -> MutexGuard<'static, Receiver> {
    RECEIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupted(signal: i32, code: i32) {
    let mut receiver = receiver();
    match &mut *receiver {
        Receiver::Ourselves => {}
        Receiver::Command { process, heard } => {
            *heard += 1;
            let process = i32::try_from(*process).ok().and_then(Pid::from_raw);
            if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(signal))
                && code != FROM_TERMINAL
            {
                // It may have ended just now.
                let _ = kill_process(process, signal);
            }
            return;
        }
        Receiver::Ended => {
            *receiver = Receiver::Ourselves;
            return;
        }
    }
    for file in &*UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = std::fs::remove_file(file).or_else(|_| std::fs::remove_dir_all(file));
    }
    std::process::exit(INTERRUPTED);
}
