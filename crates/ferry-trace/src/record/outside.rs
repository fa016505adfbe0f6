//! What an evaluation needs that is no store object, and what makes it unrepeatable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;
use ferry_store::facts::{Need, Outside, Warning, Why};

use super::classify::Classifier;
use super::files;
use super::heard::Seen;

/// How many reasons of one kind a trace names.
const MOST_WARNINGS: usize = 20;

/// Files and directories, by their absolute paths, and entries of the fetchers' cache.
#[derive(Debug, Default)]
pub(super) struct Outsides {
    files: BTreeMap<PathBuf, Outside>,
    cached: Vec<Outside>,
    /// Store objects from which something was copied.
    pub(super) objects: Vec<StorePath>,
}

impl Outsides {
    fn put(&mut self, path: &Path, why: Why) -> &mut Outside {
        let fresh = Outside::new(path.display().to_string(), why);
        self.files.entry(path.to_owned()).or_insert(fresh)
    }

    /// A local Git repository.
    pub(super) fn repository(&mut self, directory: &Path) {
        let why = if directory.join("flake.nix").exists() { Why::Flake } else { Why::Source };
        self.put(directory, why);
    }

    pub(super) fn cached(&mut self, entry: String) {
        self.cached.push(Outside::new(entry, Why::FetcherCache));
    }

    /// Whether a directory above a path is taken as a whole.
    fn has_above(&self, path: &Path) -> bool {
        let above = path.ancestors().skip(1);
        above.filter_map(|one| self.files.get(one)).any(|one| one.copy.is_none())
    }

    /// Whether there is something below a path.
    fn has_below(&self, path: &Path) -> bool {
        let mut after = self.files.range(path.to_owned()..).map(|(path, _)| path);
        after.any(|one| one != path && one.starts_with(path))
    }

    /// All of them, but for what lies in a directory that is taken as a whole.
    pub(super) fn into_list(self) -> Vec<Outside> {
        let covered: Vec<PathBuf> =
            self.files.keys().filter(|path| self.has_above(path)).cloned().collect();
        let mut files = self.files;
        for path in covered {
            files.remove(&path);
        }
        files.into_values().chain(self.cached).collect()
    }
}

impl Classifier<'_> {
    /// A file or directory that was copied to `path`.
    pub(super) fn source(&mut self, from: &Path, path: &StorePath, seen: &Seen) {
        let is_flake = path.name() == "source" && from.join("flake.nix").exists();
        let is_whole = files::is_all_of(&self.real(path), from);
        let outside = self.outside.put(from, if is_flake { Why::Flake } else { Why::Source });
        if is_whole {
            outside.nar_hash = seen.nar_hash;
            outside.copy = None;
        } else if outside.nar_hash.is_none() {
            outside.copy = Some(path.clone());
        }
    }

    /// What was evaluated, and what expressions name.
    pub(super) fn files(&mut self) {
        for object in std::mem::take(&mut self.outside.objects) {
            self.need(Need::new(object, Why::StorePath));
        }
        self.look_ups();
        let evaluated = std::mem::take(&mut self.witness.evaluated);
        for file in &evaluated {
            if let Some(object) = self.in_store(file) {
                self.need(Need::new(object, Why::NixFile));
            } else if file.exists() && !self.outside.has_above(file) {
                self.outside.put(file, Why::NixFile).nar_hash = files::nar_hash(file);
            }
        }
        let named = std::mem::take(&mut self.found.paths);
        for path in named.iter().chain(&std::mem::take(&mut self.found.mentioned)) {
            if let Some(object) = self.in_store(path)
                && self.real(&object).exists()
            {
                self.need(Need::new(object, Why::StorePath));
            }
        }
        for path in named {
            if self.in_store(&path).is_some() {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let is_expression = path.extension().is_some_and(|end| end == "nix");
            if self.outside.has_above(&path)
                || (metadata.is_dir() && self.outside.has_below(&path))
                || (metadata.is_file() && is_expression)
                || path.parent().is_none()
            {
                continue;
            }
            let hash = if metadata.is_dir() { None } else { files::nar_hash(&path) };
            let outside = self.outside.put(&path, Why::Path);
            outside.nar_hash = outside.nar_hash.or(hash);
        }
        if let Some(flake) = self.evaluation.flake.clone() {
            self.outside.put(&flake, Why::Flake);
        }
        self.witness.evaluated = evaluated;
    }

    /// What `<name>` stood for.
    fn look_ups(&mut self) {
        let search_path = std::mem::take(&mut self.evaluation.search_path);
        let mut directories: Vec<PathBuf> = Vec::new();
        for name in &self.found.lookups {
            for (prefix, directory) in &search_path {
                let first = name.split('/').next().unwrap_or_default();
                let directory = match prefix.as_str() {
                    "" if directory.join(first).exists() => directory.join(first),
                    _ if prefix == name || name.starts_with(&format!("{prefix}/")) => {
                        directory.clone()
                    }
                    _ => continue,
                };
                directories.push(directory);
                break;
            }
        }
        for directory in directories {
            let Ok(real) = fs::canonicalize(&directory) else { continue };
            let is_used = !self.witness.has_spoken
                || self
                    .witness
                    .evaluated
                    .iter()
                    .any(|file| file.starts_with(&real) || file.starts_with(&directory));
            if !is_used {
                continue;
            }
            let shown = directory.display().to_string();
            let (why, what) = match shown.contains("/channels") {
                true => ("channel", "a channel"),
                false => ("nix-path", "the search path"),
            };
            self.warning(
                why,
                format!(
                    "{shown} was found by {what}, which says something else \
                                       elsewhere"
                ),
            );
            match self.in_store(&real) {
                Some(object) => self.need(Need::new(object, Why::NixFile)),
                None => drop(self.outside.put(&directory, Why::NixPath)),
            }
        }
    }

    /// Says what makes the evaluation unrepeatable, as far as the expressions show it.
    pub(super) fn warn(&mut self) {
        if self.evaluation.is_pure {
            return;
        }
        let said = [
            ("currentTime", "current-time", "an expression asks for the time"),
            ("getEnv", "environment", "an expression asks for variables of the environment"),
            ("fetchGit", "unlocked-fetch", "an expression fetches from Git without a revision"),
        ];
        for (name, why, text) in said {
            if self.found.uses.contains(name) {
                self.warning(why, text.to_owned());
            }
        }
    }

    pub(super) fn warning(&mut self, why: &str, text: String) {
        let same = self.facts.warnings.iter().filter(|one| one.why == why).count();
        let warning = Warning { text, why: why.to_owned() };
        if same < MOST_WARNINGS && !self.facts.warnings.contains(&warning) {
            self.facts.warnings.push(warning);
        }
    }
}
