//! Working trees of Git: which of their files travel, and what makes them working trees again.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::error::{EvaluationError, Result};

/// Which files of a working tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that Git tracks: no other is there for a flake.
    Tracked,
    /// Those, and the ones that it does not ignore.
    NotIgnored,
}

/// The working tree that a file or directory is in: the next directory above it, or itself, that
/// has a `.git`.
pub(super) fn working_tree(path: &Path) -> Option<&Path> {
    path.ancestors().find(|directory| directory.join(".git").symlink_metadata().is_ok())
}

/// The files of a working tree, relative to it. Some may be gone, and some be directories (other
/// repositories).
pub(super) fn files(tree: &Path, which: Which) -> Result<Vec<PathBuf>> {
    let mut arguments = vec!["ls-files", "-z", "--cached"];
    if which == Which::NotIgnored {
        arguments.extend(["--others", "--exclude-standard"]);
    }
    let output = git(tree, &arguments)?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name))).collect())
}

/// Makes a working tree of a directory again, in which Git tracks every file. There is no commit. A
/// repository that came along stays as it is, as its settings could have anything run.
pub(super) fn track_all(directory: &Path) -> Result<()> {
    if directory.join(".git").symlink_metadata().is_ok() {
        return Ok(());
    }
    git(directory, &["init", "--quiet"])?;
    git(directory, &["add", "--all", "--force"]).map(drop)
}

/// Runs `git` in a directory.
fn git(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let failed = |reason: String| EvaluationError::Git { directory: directory.to_owned(), reason };
    let mut command = Command::new("git");
    for of_another_repository in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(of_another_repository);
    }
    // What the settings of a repository would have run.
    command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]);
    // As it is on the disk: Nix does not change ends of lines either.
    command.args(["-c", "core.autocrlf=false", "-C"]).arg(directory).args(arguments);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot run `git`: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(crate::message::harmless(said.trim())))
}
