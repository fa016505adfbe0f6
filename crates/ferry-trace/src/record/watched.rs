//! What evaluators were seen to do with files outside of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ferry_store::facts::{EntryKind, Why};

use super::classify::Classifier;
use super::files;

/// Directories in which a system keeps what belongs to it. What is read there is read by the
/// evaluator for itself, unless an expression names it or lies there too.
const SYSTEM: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys",
    "/usr",
];
/// Expressions that an evaluator brings along.
const OF_EVALUATOR: &str = "/usr/share/nix";
/// Longer lists of entries have no room in a line of a trace, in bytes.
const LONGEST_ENTRIES: usize = 1_000_000;
/// Directories in which files come and go.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

impl Classifier<'_> {
    /// Takes what was opened for what was evaluated, where no log says better.
    pub(super) fn take_opened_for_evaluated(&mut self) {
        let Some(seen) = &self.evaluation.seen else { return };
        if !self.witness.has_spoken {
            let is_expression = |path: &&PathBuf| path.extension().is_some_and(|end| end == "nix");
            let opened = seen.read.iter().filter(is_expression);
            let opened = opened.filter(|path| !path.starts_with(OF_EVALUATOR));
            self.witness.evaluated.extend(opened.cloned());
            self.witness.has_spoken = true;
        }
    }

    /// Files and directories that were seen, and may have been copied into the store under this
    /// name.
    pub(super) fn seen_candidates(&self, names: &[&str]) -> Vec<PathBuf> {
        let Some(seen) = &self.evaluation.seen else { return Vec::new() };
        let is_called = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| names.iter().any(|one| name == *one))
        };
        let is_top =
            |path: &&PathBuf| path.parent().is_none_or(|parent| !seen.listed.contains_key(parent));
        let directories = seen.listed.keys().filter(|path| is_called(path) || is_top(path));
        let found = directories.chain(&seen.read).map(PathBuf::as_path);
        // Of a repository, only itself may have been read.
        let others = seen.read.iter().chain(&seen.looked_at);
        let found = found.chain(others.filter_map(|path| repository(path)));
        let found: BTreeSet<&Path> =
            found.filter(|path| self.counts(path) && files::may_be_source(path)).collect();
        found.into_iter().map(Path::to_owned).collect()
    }

    /// What has to be there because it was read, listed or looked at.
    pub(super) fn seen(&mut self) {
        let Some(seen) = self.evaluation.seen.take() else { return };
        for path in &seen.read {
            if self.counts(path) && !self.is_told(path) {
                self.read(path);
            }
        }
        for (path, entries) in &seen.listed {
            if !self.counts(path) || self.is_told(path) || self.is_filtered(path) {
                continue;
            }
            if !path.exists() {
                self.is_gone(path);
                continue;
            }
            let names = entries.iter().map(|(name, kind)| Some((name.to_str()?.to_owned(), *kind)));
            match names.collect::<Option<BTreeMap<_, _>>>() {
                Some(entries) if written_size(&entries) <= LONGEST_ENTRIES => {
                    self.outside.put(path, Why::Directory).entries = Some(entries);
                }
                Some(_) => {
                    let shown = path.display();
                    self.heard.miss(format!("the names of the entries of {shown} are too long"));
                }
                None => {
                    let shown = path.display();
                    self.heard.miss(format!("an entry of {shown} has a name that is not text"));
                }
            }
        }
        // What lies in a directory first: the directory is there then.
        for path in seen.looked_at.iter().rev() {
            if self.counts(path) && !self.is_told(path) && !self.follows(path) {
                self.looked_at(path);
            }
        }
        self.evaluation.incomplete.extend(seen.missed);
    }

    fn read(&mut self, path: &Path) {
        if self.leads_into_store(path) {
            return;
        }
        match files::nar_hash(path) {
            Some(hash) => self.outside.put(path, Why::File).nar_hash = Some(hash),
            None if path.is_file() => drop(self.outside.put(path, Why::File)),
            None if !path.exists() => self.is_gone(path),
            None => self.heard.miss(format!("{} was read, and is no file", path.display())),
        }
    }

    /// Something was read, and is not there any more.
    fn is_gone(&mut self, path: &Path) {
        if !self.temporary().any(|place| path.starts_with(place)) {
            self.heard.miss(format!("{} was read, and is gone", path.display()));
        }
    }

    fn temporary(&self) -> impl Iterator<Item = &Path> {
        let own = self.evaluation.temporary_directory.as_deref();
        TEMPORARY.iter().map(Path::new).chain(own)
    }

    fn looked_at(&mut self, path: &Path) {
        if !files::may_be_source(path) || self.leads_into_store(path) {
            return;
        }
        self.outside.put(path, Why::Exists);
    }

    /// Whether something is outside of the store, and not there for the evaluator itself.
    fn counts(&self, path: &Path) -> bool {
        if self.in_store(path).is_some() || repository(path).is_some() {
            return false;
        }
        let names = [&self.found.paths, &self.found.absolute, &self.found.mentioned];
        let is_beside_expression = || {
            let mut directories = self.witness.evaluated.iter().filter_map(|file| file.parent());
            directories
                .any(|place| path.starts_with(place) && !SYSTEM.map(Path::new).contains(&place))
        };
        !is_of_system(path)
            || names.iter().any(|paths| paths.contains(path))
            || is_beside_expression()
    }

    /// Whether there is a line about something, or about all of a directory above it.
    fn is_told(&self, path: &Path) -> bool {
        self.outside.has(path) || self.outside.has_above(path) || self.is_copied(path)
    }

    /// Whether something lies in a directory of which a part was copied.
    fn is_filtered(&self, path: &Path) -> bool {
        path.ancestors().any(|one| self.outside.copy(one).is_some())
    }

    /// Whether a part of a directory was copied, and this with it.
    fn is_copied(&self, path: &Path) -> bool {
        path.ancestors().any(|directory| {
            let rest = path.strip_prefix(directory).unwrap_or(path);
            let copy = self.outside.copy(directory);
            copy.is_some_and(|copy| self.real(copy).join(rest).symlink_metadata().is_ok())
        })
    }

    /// Whether something is there anyway if everything else is: what lies in a listed directory, or
    /// has something in it.
    fn follows(&self, path: &Path) -> bool {
        let working_directory = self.evaluation.header.working_directory.as_deref();
        path.parent().is_some_and(|parent| self.outside.entries(parent).is_some())
            || self.outside.has_below(path)
            || self.is_filtered(path)
            || working_directory.is_some_and(|place| Path::new(place).starts_with(path))
            || self.places.iter().any(|place| place == path)
            || self.temporary().any(|place| place == path)
    }
}

/// How many bytes entries take in a trace.
fn written_size(entries: &BTreeMap<String, EntryKind>) -> usize {
    let size = |name: &String| serde_json::Value::from(name.as_str()).to_string().len();
    entries.keys().map(|name| size(name) + ":\"directory\",".len()).sum()
}

/// The working tree of a repository that something is in.
fn repository(path: &Path) -> Option<&Path> {
    path.ancestors().find(|one| one.file_name().is_some_and(|name| name == ".git"))?.parent()
}

fn is_of_system(path: &Path) -> bool {
    SYSTEM.iter().any(|place| path.starts_with(place))
}
