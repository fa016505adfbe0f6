//! What is looked at in an object before anything works with it. It needs no signature to be valid,
//! so whoever made it may be nobody to be trusted.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::name;

/// No settings of a repository in the fetchers' cache are longer, in bytes.
const MAX_SETTINGS: u64 = 64 << 10;

/// Settings of a repository that have nothing run: those that `git init --bare` and libgit2 write, and
/// where it was fetched from.
const HARMLESS: &[&str] = &[
    "bare",
    "compatobjectformat",
    "fetch",
    "filemode",
    "ignorecase",
    "logallrefupdates",
    "objectformat",
    "precomposeunicode",
    "refstorage",
    "repositoryformatversion",
    "symlinks",
    "url",
];

/// Whether an unpacked object is what it has to be; otherwise, why not.
///
/// A link where a file or directory of ours is to be would have files elsewhere written and read.
/// In the fetchers' cache are repositories that Nix runs Git in: their hooks and settings would be
/// obeyed.
pub(super) fn check(tree: &Path) -> Result<(), String> {
    let kind = |name: &str| tree.join(name).symlink_metadata().ok().map(|found| found.file_type());
    if !tree.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Err("it is not a directory".to_owned());
    }
    for (name, is_needed) in [(name::DESCRIPTION, true), (name::TRACE, false)] {
        match kind(name) {
            Some(kind) if kind.is_file() => {}
            None if !is_needed => {}
            _ => return Err(format!("`{name}` in it is not a file")),
        }
    }
    for name in [name::FILES, name::CACHE] {
        if kind(name).is_some_and(|kind| !kind.is_dir()) {
            return Err(format!("`{name}` in it is not a directory"));
        }
    }
    for name in [name::OBJECT, name::REGISTRY] {
        if kind(name).is_some() {
            return Err(format!("`{name}` is in it, which is to be made where it is laid out"));
        }
    }
    match kind(name::CACHE) {
        Some(_) => check_cache(&tree.join(name::CACHE)),
        None => Ok(()),
    }
}

/// Whether a directory of the fetchers' cache holds what Git has run, if its parent is a repository.
pub(super) fn is_hooks(directory: &Path) -> bool {
    directory.file_name().is_some_and(|name| name == "hooks")
        && directory.parent().is_some_and(is_repository)
}

fn is_repository(directory: &Path) -> bool {
    ["objects", "HEAD"].iter().any(|name| directory.join(name).symlink_metadata().is_ok())
}

fn check_cache(directory: &Path) -> Result<(), String> {
    let is_repository = is_repository(directory);
    let unreadable = |error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(unreadable)?);
        if kind.is_symlink() {
            return Err(format!("{} in the fetchers' cache is a link", path.display()));
        }
        if is_hooks(&path) {
            return Err(format!("{} in the fetchers' cache may be run by Git", path.display()));
        }
        // Both lead to a repository elsewhere, with settings that nobody has looked at.
        let name = entry.file_name();
        if name == ".git" || (is_repository && name == "commondir") {
            return Err(format!(
                "{} in the fetchers' cache may lead Git elsewhere",
                path.display()
            ));
        }
        if kind.is_dir() {
            check_cache(&path)?;
        } else if is_repository && name.to_string_lossy().starts_with("config") {
            check_settings(&path)?;
        }
    }
    Ok(())
}

fn check_settings(file: &Path) -> Result<(), String> {
    let unreadable = |error| format!("{}: {error}", file.display());
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    opened.take(MAX_SETTINGS + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_SETTINGS {
        return Err(format!(
            "{} in the fetchers' cache has more than {MAX_SETTINGS} bytes",
            file.display()
        ));
    }
    let is_harmless = |line: &str| {
        let line = line.trim();
        let is_section = matches!(line, "[core]" | "[extensions]") || is_remote(line);
        let is_setting = line.split_once('=').is_some_and(|(key, value)| {
            // A value that goes on in the next line could hide one; an address `ext::…` is a command.
            HARMLESS.contains(&key.trim().to_ascii_lowercase().as_str())
                && !value.ends_with('\\')
                && !value.contains("::")
        });
        line.is_empty() || is_section || is_setting
    };
    match text.lines().find(|line| !is_harmless(line)) {
        None => Ok(()),
        Some(line) => Err(format!(
            "{} in the fetchers' cache has the setting `{}`, which Git might obey",
            file.display(),
            crate::message::harmless(line.trim())
        )),
    }
}

/// Whether a line begins what is known of a repository that something was fetched from.
fn is_remote(line: &str) -> bool {
    let name = line.strip_prefix("[remote \"").and_then(|rest| rest.strip_suffix("\"]"));
    name.is_some_and(|name| !name.contains(['"', '\\', ']']))
}
