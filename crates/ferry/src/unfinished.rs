//! Files and directories that are not whole yet, and go away when the user stops the program.
//!
//! Dropping a temporary file removes it, but a signal drops nothing: without this, stopping a
//! long `ferry pack` would leave its gigabytes behind.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What is being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Exit code of an interrupted program, as shells have it for the interrupt from the keyboard.
const INTERRUPTED: i32 = 130;

/// Removes `file` if the program is interrupted before [`finished`].
pub(crate) fn begin(file: &Path) {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(file.to_owned());
    // A handler that cannot be set leaves things as they are: the file is kept.
    let _ = ctrlc::set_handler(|| {
        for file in &*UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = std::fs::remove_file(file).or_else(|_| std::fs::remove_dir_all(file));
        }
        std::process::exit(INTERRUPTED);
    });
}

/// All files have become what they were to be.
pub(crate) fn finished() {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
