//! Where what was copied into the store came from.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;
use ferry_store::facts::{Need, Why};

use super::cache;
use super::classify::Classifier;
use super::files;
use super::scan::{self, Found};
use super::witness::Origin;

impl Classifier<'_> {
    /// Looks at what was evaluated, for what it names.
    pub(super) fn look_at_expressions(&mut self) {
        let directory = self.evaluation.header.working_directory.clone().unwrap_or_default();
        for text in std::mem::take(&mut self.evaluation.expressions) {
            scan::text(&text, Path::new(&directory), &mut self.found);
        }
        let named = std::mem::take(&mut self.evaluation.files);
        self.witness.evaluated.extend(named);
        let mut wave: Vec<PathBuf> = self.witness.evaluated.iter().cloned().collect();
        while let Some(file) = wave.pop() {
            if self.evaluation.is_pure && self.in_store(&file).is_some() {
                // It can name nothing but what lies beside it.
                continue;
            }
            let mut found = Found::default();
            scan::file(&self.readable(&file), &mut found);
            if !self.witness.has_spoken {
                // Nobody has said what was evaluated: perhaps what this file names.
                for path in found.paths.iter().chain(&found.absolute) {
                    let path = if path.is_dir() { path.join("default.nix") } else { path.clone() };
                    let is_expression = path.extension().is_some_and(|end| end == "nix");
                    if is_expression
                        && path.is_file()
                        && self.witness.evaluated.insert(path.clone())
                    {
                        wave.push(path);
                    }
                }
            }
            self.found.extend(found);
        }
    }

    /// Finds out where everything that was copied came from.
    pub(super) fn find_origins(&mut self) {
        let is_paired = self.witness.copies.len() == self.heard.copies.len();
        if is_paired {
            let pairs = self.heard.copies.iter().zip(&self.witness.copies);
            for (path, origin) in pairs {
                self.origins.entry(path.clone()).or_insert_with(|| origin.clone());
            }
        }
        for (from, to) in &self.witness.copied {
            if let Ok(path) = self.store_dir.parse_path(to.as_bytes()) {
                self.origins.entry(path).or_insert_with(|| Origin::File(from.clone()));
            }
        }
        if is_paired && !self.witness.copies.is_empty() {
            return;
        }
        // By what they are called, or by what is in them.
        let mut candidates = self.witness.directories.clone();
        candidates.extend(self.evaluation.flake.clone());
        let named = self.found.paths.iter().chain(&self.found.absolute);
        candidates.extend(named.filter(|path| files::may_be_source(path)).cloned());
        let mut hashes = HashMap::new();
        let has_fetched = cache::has_fetched(self.cache);
        let copies: BTreeSet<StorePath> = self.heard.copies.iter().cloned().collect();
        let names: Vec<&str> = copies.iter().map(StorePath::name).collect();
        for path in self.seen_candidates(&names) {
            if !candidates.contains(&path) {
                candidates.push(path);
            }
        }
        for path in copies {
            if self.origins.contains_key(&path) || self.inputs.contains_key(&path) {
                continue;
            }
            // A local repository, of which the tracked files were copied.
            let copy = self.real(&path);
            let is_repository = |candidate: &&PathBuf| {
                candidate.join(".git").exists() && files::is_all_of(candidate, &copy)
            };
            let repository = candidates.iter().find(is_repository);
            if let Some(place) = repository.filter(|_| path.name() == "source") {
                let what = format!("«git+file://{}»", place.display());
                self.origins.insert(path, Origin::Cached(what));
                continue;
            }
            let hash = self.heard.paths.get(&path).and_then(|seen| seen.nar_hash);
            let mut is_same = |candidate: &&PathBuf| {
                let found = hashes
                    .entry((*candidate).clone())
                    .or_insert_with(|| files::nar_hash(&self.readable(candidate)));
                hash.is_some() && *found == hash
            };
            let is_called = |candidate: &&PathBuf| {
                candidate.file_name().is_some_and(|name| name == path.name())
            };
            let (called, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
                candidates.iter().partition(is_called);
            // One of another content and the same name was filtered; but fetchers call everything
            // `source`, and so are many directories called.
            let may_be_fetched = path.name() == "source" && has_fetched;
            let filtered = called.first().copied().filter(|_| !may_be_fetched);
            let found = called.iter().copied().find(&mut is_same);
            let found = found.or(filtered.filter(|_| path.name() != "source"));
            let found = found.or_else(|| others.iter().copied().find(&mut is_same)).or(filtered);
            if let Some(from) = found {
                self.origins.insert(path, Origin::File(from.clone()));
            }
        }
    }

    /// Tells where fetches came from, as far as their names say it, or there is but one download
    /// that it can have been.
    pub(super) fn name_downloads(&mut self) {
        let mut downloads = std::mem::take(&mut self.witness.downloads);
        let paths = &self.heard.paths;
        let was_fetched = |path: &StorePath| paths.get(path).is_some_and(|one| one.added.is_some());
        let mut fetched: Vec<&mut Need> = self.facts.needs.iter_mut().collect();
        fetched
            .retain(|need| need.why == Why::Fetch && need.url.is_none() && was_fetched(&need.path));
        fetched.retain_mut(|need| {
            let place = downloads.iter().position(|url| file_name(url) == need.path.name());
            need.url = place.map(|place| downloads.remove(place));
            need.url.is_none()
        });
        for unpacked in [false, true] {
            // Fetchers call everything that they unpack so.
            let mut needs =
                fetched.iter_mut().filter(|need| (need.path.name() == "source") == unpacked);
            let mut urls = downloads.iter().filter(|url| is_archive(url) == unpacked);
            if let (Some(need), None, Some(url), None) =
                (needs.next(), needs.next(), urls.next(), urls.next())
            {
                need.url = Some(url.clone());
            }
        }
    }
}

/// The last part of an address.
fn file_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

fn is_archive(url: &str) -> bool {
    let name = file_name(url);
    [".tar", ".tgz", ".zip"].iter().any(|end| name.ends_with(end)) || name.contains(".tar.")
}
