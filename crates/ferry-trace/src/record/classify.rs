//! From what was heard to facts about what the evaluation cannot make again by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ferry_formats::{ContentAddress, PathInfo, StoreDir, StorePath, derivation};
use ferry_store::Store;
use ferry_store::facts::{Added, Need, OutputOf, Recorded, Why};

use super::Evaluation;
use super::cache::{self, Wanted};
use super::heard::{First, Heard, Method, Realised, Seen};
use super::lock::{self, Input};
use super::outside::Outsides;
use super::scan::Found;
use super::witness::{Origin, Witness};

/// The first version that fetches into repositories of its own.
const FETCHES_INTO_REPOSITORIES: (u32, u32) = (2, 20);

pub(super) struct Classifier<'a> {
    pub(super) heard: Heard,
    pub(super) evaluation: Evaluation,
    pub(super) witness: Witness,
    pub(super) store_dir: &'a StoreDir,
    pub(super) store: &'a dyn Store,
    pub(super) cache: &'a Path,
    /// What expressions name.
    pub(super) found: Found,
    /// The inputs in lock files.
    pub(super) inputs: HashMap<StorePath, Input>,
    /// What was copied into the store, and from where.
    pub(super) origins: HashMap<StorePath, Origin>,
    /// Store paths about which something is said.
    pub(super) known: HashSet<StorePath>,
    pub(super) facts: Recorded,
    pub(super) outside: Outsides,
    /// Where names are looked up.
    pub(super) places: Vec<PathBuf>,
    wanted: Wanted,
}

impl<'a> Classifier<'a> {
    pub(super) fn new(
        heard: Heard,
        mut evaluation: Evaluation,
        store: &'a dyn Store,
        cache: &'a Path,
    ) -> Self {
        let witness = evaluation.witness.take().unwrap_or_default();
        Self {
            heard,
            evaluation,
            witness,
            store_dir: store.store_dir(),
            store,
            cache,
            found: Found::default(),
            inputs: HashMap::new(),
            origins: HashMap::new(),
            known: HashSet::new(),
            facts: Recorded::default(),
            outside: Outsides::default(),
            places: Vec::new(),
            wanted: Wanted::default(),
        }
    }

    pub(super) fn facts(mut self) -> Recorded {
        self.take_opened_for_evaluated();
        self.look_at_expressions();
        self.read_locks();
        self.find_origins();
        self.fragments();
        let order = std::mem::take(&mut self.heard.order);
        for path in &order {
            if let Some(seen) = self.heard.paths.get(path).cloned() {
                self.classify(path, &seen);
            }
        }
        self.files();
        self.leave_out_references();
        self.name_downloads();
        let without: Vec<String> =
            self.inputs.values().filter_map(|input| input.repository.clone()).collect();
        for entry in cache::entries(self.cache, self.wanted, &without) {
            self.outside.cached(entry);
        }
        self.warn();
        self.roots(&order);
        let mut header = std::mem::take(&mut self.evaluation.header);
        header.protocol = self.heard.minor.map(|minor| format!("1.{minor}"));
        self.facts.header = header;
        self.facts.needs.sort_by(|one, other| one.path.cmp(&other.path));
        self.facts.added.sort_by(|one, other| one.path.cmp(&other.path));
        self.facts.outside = std::mem::take(&mut self.outside).into_list();
        self.facts.incomplete = std::mem::take(&mut self.evaluation.incomplete);
        self.facts.incomplete.extend(std::mem::take(&mut self.heard.incomplete));
        self.facts
    }

    /// Where a store object's files are.
    pub(super) fn real(&self, path: &StorePath) -> PathBuf {
        let directory = self.evaluation.real_store_dir.as_deref();
        directory.unwrap_or(Path::new(self.store_dir.as_str())).join(path.to_basename())
    }

    /// The store object that a path leads into, if it does.
    pub(super) fn in_store(&self, path: &Path) -> Option<StorePath> {
        let rest = path.strip_prefix(self.store_dir.as_str()).ok()?;
        let name = rest.components().next()?.as_os_str().to_str()?;
        StorePath::from_basename(name.as_bytes()).ok()
    }

    /// Where a path can be read here.
    pub(super) fn readable(&self, path: &Path) -> PathBuf {
        match (&self.evaluation.real_store_dir, path.strip_prefix(self.store_dir.as_str())) {
            (Some(real), Ok(rest)) => real.join(rest),
            _ => path.to_owned(),
        }
    }

    pub(super) fn need(&mut self, need: Need) {
        if self.known.insert(need.path.clone()) {
            self.facts.needs.push(need);
        }
    }

    fn added(&mut self, path: &StorePath, why: Why, from: Option<String>) {
        if self.known.insert(path.clone()) {
            self.facts.added.push(Added { path: path.clone(), why, from });
        }
    }

    fn read_locks(&mut self) {
        let flake = self.evaluation.flake.iter().cloned();
        let sources = self.heard.order.iter().filter(|path| path.name() == "source");
        let directories: Vec<PathBuf> = flake.chain(sources.map(|path| self.real(path))).collect();
        for directory in directories {
            lock::read(&directory.join("flake.lock"), self.store_dir, &mut self.inputs);
        }
    }

    /// Outputs that were realised for the evaluation.
    fn fragments(&mut self) {
        for Realised { derivation, outputs } in std::mem::take(&mut self.heard.realised) {
            let Some((first, rest)) = outputs.split_first() else { continue };
            let mut paths = self.heard.outputs.get(&derivation).cloned().unwrap_or_default();
            if paths.is_empty() {
                paths = self.declared_outputs(&derivation);
            }
            let is_wanted = |name: &str| first.iter().any(|one| one == name || one == "*");
            let wanted: BTreeMap<&String, &StorePath> =
                paths.iter().filter(|(name, _)| is_wanted(name)).collect();
            if wanted.is_empty() {
                let derivation = self.store_dir.render_path(&derivation);
                self.heard.miss(format!("it is not known what {derivation} was built into"));
            }
            for (name, path) in wanted {
                let why = match rest {
                    [] => Why::ImportFromDerivation,
                    _ => Why::DynamicDerivation,
                };
                let mut need = Need::new(path.clone(), why);
                let outputs = vec![name.clone()];
                need.output_of = Some(OutputOf { derivation: derivation.clone(), outputs });
                self.need(need);
            }
        }
    }

    fn declared_outputs(&self, path: &StorePath) -> BTreeMap<String, StorePath> {
        let outputs = || {
            let text = std::fs::read(self.real(path)).ok()?;
            let parsed = derivation::parse(self.store_dir, path, &text).ok()?;
            derivation::outputs(&parsed).ok()
        };
        let known = outputs().unwrap_or_default().into_iter();
        known.filter_map(|(name, path)| Some((name, path?))).collect()
    }

    /// What a realised output refers to comes with it, and is no need of its own.
    fn leave_out_references(&mut self) {
        let realised = self.facts.needs.iter().filter(|need| need.output_of.is_some());
        let mut wave: Vec<StorePath> = realised.map(|need| need.path.clone()).collect();
        let mut seen: HashSet<StorePath> = HashSet::new();
        while !wave.is_empty() {
            let infos = self.store.path_infos(&wave).unwrap_or_default();
            let references = infos.iter().flatten().flat_map(PathInfo::other_references);
            wave = references.filter(|path| seen.insert((*path).clone())).cloned().collect();
        }
        self.facts.needs.retain(|need| need.output_of.is_some() || !seen.contains(&need.path));
    }

    fn classify(&mut self, path: &StorePath, seen: &Seen) {
        let is_derivation = path.is_derivation() && seen.added.is_none_or(is_text);
        if is_derivation {
            if seen.first == First::Asked && seen.was_ensured && seen.was_valid {
                self.need(Need::new(path.clone(), Why::StorePath));
            }
            return;
        }
        if self.known.contains(path) || seen.is_intermediate {
            return;
        }
        if let Some(input) = self.inputs.get(path) {
            let (node, url, rev) = (input.node.clone(), input.url.clone(), input.rev.clone());
            let node = Some(node);
            self.need(Need { url, rev, node, ..Need::new(path.clone(), Why::FlakeInput) });
            return;
        }
        match (seen.first, seen.added) {
            // Known by a hash, or named: whoever has it does not look anywhere else.
            (First::Asked, added) if seen.was_valid || added.is_some() => {
                let is_named = added.is_none()
                    && (self.names(path)
                        || (seen.was_ensured && !seen.was_checked && !self.is_download(path)));
                let why = if is_named { Why::StorePath } else { Why::Fetch };
                self.need(Need::new(path.clone(), why));
            }
            (_, Some(Method::Text | Method::Derivation)) => self.added(path, Why::Text, None),
            (_, Some(Method::Flat { fetched: true })) => {
                self.wanted.database = true;
                self.unlocked(path);
                self.need(Need::new(path.clone(), Why::Fetch));
            }
            (First::Rooted, added) if added.is_some() || seen.was_valid => {
                self.copied_again(path, seen);
            }
            (First::Added, Some(Method::Tree | Method::Flat { .. })) => self.copied(path, seen),
            _ => {}
        }
    }

    /// Whether an expression names a store path.
    fn names(&self, path: &StorePath) -> bool {
        let place = PathBuf::from(self.store_dir.render_path(path));
        [&self.found.paths, &self.found.absolute, &self.found.mentioned].into_iter().any(|paths| {
            paths.range(place.clone()..).next().is_some_and(|one| one.starts_with(&place))
        })
    }

    /// Whether something is a file that has its path by its own hash.
    fn is_download(&self, path: &StorePath) -> bool {
        let info = self.store.path_info(path).ok().flatten();
        info.is_some_and(|info| matches!(info.ca, Some(ContentAddress::Flat(_))))
    }

    /// A copy of something whose hash the evaluator knew: of another store object, most likely.
    fn copied_again(&mut self, path: &StorePath, seen: &Seen) {
        let is_same = |other: &&StorePath| {
            let hash = self.heard.paths.get(*other).and_then(|seen| seen.nar_hash);
            let expected =
                hash.and_then(|hash| super::lock::tree_path(self.store_dir, path.name(), hash));
            *other != path && expected.as_ref() == Some(path)
        };
        let other = self.known.iter().filter(is_same).min().cloned();
        match other {
            Some(other) => {
                let from = self.store_dir.render_path(&other);
                self.added(path, Why::Source, Some(from));
            }
            None => self.copied(path, seen),
        }
    }

    /// Something that was copied into the store.
    fn copied(&mut self, path: &StorePath, seen: &Seen) {
        match self.origins.get(path).cloned() {
            Some(Origin::File(from)) => {
                self.added(path, Why::Source, Some(from.display().to_string()));
                match self.in_store(&from) {
                    Some(object) => self.outside.objects.push(object),
                    None => self.source(&from, path, seen),
                }
            }
            Some(Origin::Cached(what)) => self.through_cache(path, &what),
            None if path.name() == "source" => self.through_cache(path, ""),
            None => {
                let rendered = self.store_dir.render_path(path);
                self.heard.miss(format!("it is not known what {rendered} was copied from"));
                self.added(path, Why::Source, None);
            }
        }
    }

    /// A tree that was fetched, and that no hash in the expressions stands for.
    fn through_cache(&mut self, path: &StorePath, what: &str) {
        let url = what.trim_start_matches('«').split('»').next().unwrap_or_default();
        if let Some(directory) = url.strip_prefix("git+file://") {
            let directory = PathBuf::from(directory.split('?').next().unwrap_or_default());
            self.added(path, Why::Source, Some(directory.display().to_string()));
            self.outside.repository(&directory);
            return;
        }
        if self.version() < FETCHES_INTO_REPOSITORIES {
            self.wanted.database = true;
            let url = Some(url.to_owned()).filter(|url| !url.is_empty());
            self.need(Need { url, ..Need::new(path.clone(), Why::Fetch) });
            return;
        }
        let is_git = url.starts_with("git+");
        // Where nobody says what it is, it may be either.
        self.wanted.repositories |= is_git || url.is_empty();
        self.wanted.tarballs |= !is_git;
        self.wanted.database |= !is_git;
        let from = match () {
            () if is_git => Some("nix/gitv3"),
            () if url.is_empty() => None,
            () => {
                self.unlocked(path);
                Some("nix/tarball-cache")
            }
        };
        self.added(path, Why::Source, from.map(str::to_owned));
    }

    fn unlocked(&mut self, path: &StorePath) {
        let text = format!(
            "{} was fetched without a hash: it may be something else some other day",
            self.store_dir.render_path(path)
        );
        self.warning("unlocked-fetch", text);
    }

    /// The evaluator's version, as far as it is a number.
    fn version(&self) -> (u32, u32) {
        let evaluator = self.evaluation.header.evaluator.as_deref().unwrap_or_default();
        let version = evaluator.split_whitespace().last().unwrap_or_default();
        let mut numbers = version.split(['.', '-', '+', 'p']).map(|part| part.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor),
            _ => (u32::MAX, 0),
        }
    }

    /// What it resulted in: what the evaluator said, or else the derivations that stand for
    /// themselves.
    fn roots(&mut self, order: &[StorePath]) {
        if let Some(roots) = self.evaluation.roots.take() {
            self.facts.roots = roots;
            return;
        }
        let mut derivations: Vec<&StorePath> = Vec::new();
        for path in order.iter().filter(|path| path.is_derivation()) {
            let Some(seen) = self.heard.paths.get(path) else { continue };
            if seen.added == Some(Method::Derivation) {
                derivations.push(path);
            } else if seen.was_valid {
                // It was there already, and nobody said what it refers to.
                let text = std::fs::read(self.real(path)).unwrap_or_default();
                if let Ok(parsed) = derivation::parse(self.store_dir, path, &text) {
                    let inputs = parsed.input_derivations().keys().cloned();
                    self.heard.referred.extend(inputs);
                    derivations.push(path);
                }
            }
        }
        let fragments: HashSet<&StorePath> = self
            .facts
            .needs
            .iter()
            .filter_map(|need| Some(&need.output_of.as_ref()?.derivation))
            .collect();
        let is_root =
            |path: &StorePath| !self.heard.referred.contains(path) && !fragments.contains(path);
        let all: BTreeSet<&StorePath> =
            derivations.into_iter().filter(|path| is_root(path)).chain(&self.heard.asked).collect();
        self.facts.roots = all.into_iter().cloned().collect();
    }
}

fn is_text(method: Method) -> bool {
    matches!(method, Method::Derivation | Method::Text)
}
