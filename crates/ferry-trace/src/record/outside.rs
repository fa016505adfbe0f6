//! What an evaluation needs that is no store object, and what makes it unrepeatable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;
use ferry_store::facts::{EntryKind, Need, Outside, Warning, Why};

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
    /// What `<name>` was found in, links or not.
    looked_up: Vec<PathBuf>,
    /// Store objects from which something was copied.
    pub(super) objects: Vec<StorePath>,
}

impl Outsides {
    pub(super) fn put(&mut self, path: &Path, why: Why) -> &mut Outside {
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

    /// Whether there is a line about a path.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    /// The store object that has what was copied of a directory, if that was not all.
    pub(super) fn copy(&self, path: &Path) -> Option<&StorePath> {
        self.files.get(path)?.copy.as_ref()
    }

    /// The entries of a directory that was listed.
    pub(super) fn entries(&self, path: &Path) -> Option<&BTreeMap<String, EntryKind>> {
        self.files.get(path)?.entries.as_ref()
    }

    /// Whether a directory above a path is taken as a whole.
    pub(super) fn has_above(&self, path: &Path) -> bool {
        let above = path.ancestors().skip(1);
        let is_whole =
            |one: &Outside| one.copy.is_none() && !matches!(one.why, Why::Directory | Why::Exists);
        above.filter_map(|one| self.files.get(one)).any(is_whole)
    }

    /// Whether there is something below a path.
    pub(super) fn has_below(&self, path: &Path) -> bool {
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
        } else if outside.nar_hash.is_none() && !is_flake {
            // Of a flake, the lock file may be newer.
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
            } else if self.leads_into_store(file) {
                continue;
            } else if file.exists() && !self.outside.has_above(file) {
                self.outside.put(file, Why::NixFile).nar_hash = files::nar_hash(file);
            }
        }
        let named = std::mem::take(&mut self.found.paths);
        let absolute = std::mem::take(&mut self.found.absolute);
        let mentioned = std::mem::take(&mut self.found.mentioned);
        for path in named.iter().chain(&absolute).chain(&mentioned) {
            if let Some(object) = self.in_store(path)
                && self.real(&object).exists()
            {
                self.need(Need::new(object, Why::StorePath));
            }
        }
        // A directory that is named from the root on may be any.
        if self.evaluation.seen.is_none() {
            let absolute = absolute.iter().filter(|path| !path.is_dir());
            named.iter().chain(absolute).for_each(|path| self.named(path));
        }
        (self.found.paths, self.found.absolute, self.found.mentioned) =
            (named, absolute, mentioned);
        if let Some(flake) = self.evaluation.flake.clone() {
            self.outside.put(&flake, Why::Flake);
        }
        self.witness.evaluated = evaluated;
        self.seen();
    }

    /// Takes a link that leads into the store, with the object that it leads to, if a path goes
    /// through one.
    pub(super) fn leads_into_store(&mut self, path: &Path) -> bool {
        let real = fs::canonicalize(path).ok();
        let Some(object) = real.and_then(|real| self.in_store(&real)) else { return false };
        self.need(Need::new(object, Why::NixFile));
        // What is looked up is looked up in the store itself, the next time.
        if !self.outside.looked_up.iter().any(|place| path.starts_with(place)) {
            let is_the_link = |one: &&Path| {
                let real = fs::canonicalize(one).ok();
                one.is_symlink() && real.is_some_and(|real| self.in_store(&real).is_some())
            };
            if let Some(link) = path.ancestors().find(is_the_link) {
                self.outside.put(link, Why::Path).nar_hash = files::nar_hash(link);
            }
        }
        true
    }

    /// A file or directory that an expression names, and that may have been read.
    fn named(&mut self, path: &Path) {
        if self.in_store(path).is_none() && path.exists() && self.leads_into_store(path) {
            return;
        }
        let is_directory = path.is_dir() && !path.is_symlink();
        // Whether an expression was evaluated is known.
        let is_expression = path.extension().is_some_and(|end| end == "nix");
        if !files::may_be_source(path)
            || self.in_store(path).is_some()
            || self.outside.has_above(path)
            || (is_directory && self.outside.has_below(path))
            || (is_expression && !is_directory && !path.is_symlink())
        {
            return;
        }
        let hash = if is_directory { None } else { files::nar_hash(path) };
        let outside = self.outside.put(path, Why::Path);
        outside.nar_hash = outside.nar_hash.or(hash);
    }

    /// What `<name>` stood for; and a `NIX_PATH` in which that, and nothing else, is found again.
    fn look_ups(&mut self) {
        let search_path = std::mem::take(&mut self.evaluation.search_path);
        self.places = search_path.iter().map(|(_, place)| place.clone()).collect();
        let mut used: Vec<String> = Vec::new();
        for (name, directory) in self.looked_up(&search_path) {
            let Ok(real) = fs::canonicalize(&directory) else { continue };
            let is_evaluated =
                |place: &Path| self.witness.evaluated.iter().any(|file| file.starts_with(place));
            if self.witness.has_spoken && !is_evaluated(&real) && !is_evaluated(&directory) {
                continue;
            }
            self.outside.looked_up.push(directory.clone());
            let shown = directory.display();
            let (why, what) = match directory.to_string_lossy().contains("/channels") {
                true => ("channel", "a channel"),
                false => ("nix-path", "the search path"),
            };
            let text = format!("<{name}> is {shown}, by {what}, which may say something else");
            self.warning(why, text);
            let place = match self.in_store(&real) {
                Some(object) => {
                    self.need(Need::new(object, Why::NixFile));
                    real
                }
                None => {
                    self.outside.put(&directory, Why::NixPath);
                    directory
                }
            };
            used.push(format!("{name}={}", place.display()));
        }
        // Whoever asks for the whole path gets the whole path.
        if !["nixPath", "findFile"].iter().any(|name| self.found.uses.contains(name)) {
            let environment = &mut self.evaluation.header.environment;
            environment.remove("NIX_PATH");
            if !used.is_empty() {
                environment.insert("NIX_PATH".to_owned(), used.join(":"));
            }
        }
    }

    /// The names that expressions look up, and what is found under each.
    fn looked_up(&self, search_path: &[(String, PathBuf)]) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for name in &self.found.lookups {
            let first = name.split('/').next().unwrap_or_default();
            let place = search_path.iter().find_map(|(prefix, directory)| {
                let inside = directory.join(first);
                match prefix.as_str() {
                    "" if inside.exists() => Some((first.to_owned(), inside)),
                    _ if Path::new(name).starts_with(prefix) && !prefix.is_empty() => {
                        Some((prefix.clone(), directory.clone()))
                    }
                    _ => None,
                }
            });
            found.extend(place);
        }
        found
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
