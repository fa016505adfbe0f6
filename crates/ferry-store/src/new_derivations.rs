//! Derivations that somebody wrote down, on their way into a store.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use ferry_formats::derivation::{self, Derivation, DerivationError, OutputPaths};
use ferry_formats::derivation_json::GivenDerivation;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath, nar};
use sha2::{Digest as _, Sha256};

use crate::store::NarVisitor;
use crate::{Destination, Error, Result, Store};

/// New derivations in front of a store that has the rest of what they need.
pub struct NewDerivations<'a> {
    base: &'a dyn Store,
    /// Inputs before their dependents.
    infos: Vec<PathInfo>,
    contents: HashMap<StorePath, (usize, Vec<u8>)>,
}

impl<'a> NewDerivations<'a> {
    /// Puts `given` into the order in which they depend on each other, computes the output paths
    /// that are not stated, and checks those that are. `base` is asked for input derivations that
    /// are not among them, if `there` has them, and not for anything else yet.
    ///
    /// # Errors
    /// When a derivation or what is claimed of it is wrong, when an input derivation is nowhere
    /// ([`Error::MissingReference`], [`Error::MissingPaths`]), or when they depend on each other in a circle.
    pub fn settle(
        given: Vec<GivenDerivation>,
        base: &'a dyn Store,
        there: &dyn Destination,
    ) -> Result<Self> {
        let mut waiting = Waiting::new(given, there)?;
        let mut new = Self { base, infos: Vec::new(), contents: HashMap::new() };
        let mut outputs = OutputPaths::default();
        while let Some(given) = waiting.next() {
            let claims = (given.path.clone(), given.outputs.clone());
            let (path, derivation) = outputs.complete(given.derivation, &mut |input| {
                new.derivation_text(input).map_err(|error| error.to_string())
            })?;
            check_claims(base.store_dir(), &claims, &path, &derivation)?;
            waiting.settled(&path);
            new.take_in(path, &derivation);
        }
        waiting.finish(base)?;
        Ok(new)
    }

    fn take_in(&mut self, path: StorePath, derivation: &Derivation) {
        if self.contents.contains_key(&path) {
            return;
        }
        let text = derivation.to_aterm_bytes();
        let nar = nar::of_file(&text);
        let inputs = derivation.input_derivations().keys().chain(derivation.input_sources());
        let mut references: Vec<StorePath> = inputs.cloned().collect();
        references.sort();
        references.dedup();
        let info = PathInfo {
            path: path.clone(),
            nar_hash: NarHash::of(&nar),
            nar_size: nar.len() as u64,
            references: references.into(),
            deriver: None,
            ca: Some(ContentAddress::Text(Sha256::digest(&text).into())),
            signatures: Vec::new(),
        };
        self.contents.insert(path, (self.infos.len(), nar));
        self.infos.push(info);
    }

    /// The new ones, inputs before their dependents.
    #[must_use]
    pub fn path_infos(&self) -> &[PathInfo] {
        &self.infos
    }

    fn own(&self, path: &StorePath) -> Option<&PathInfo> {
        self.contents.get(path).and_then(|(place, _)| self.infos.get(*place))
    }
}

/// What was said about a derivation's own path and its outputs' has to be true.
fn check_claims(
    store_dir: &StoreDir,
    (path, outputs): &(Option<StorePath>, Vec<(String, StorePath)>),
    computed: &StorePath,
    derivation: &Derivation,
) -> Result<()> {
    let wrong = |reason: String| DerivationError::Invalid {
        path: store_dir.render_path(path.as_ref().unwrap_or(computed)),
        reason,
    };
    let render = |path: &StorePath| store_dir.render_path(path);
    let right: BTreeMap<_, _> = derivation::outputs(derivation)?.into_iter().collect();
    for (name, stated) in outputs {
        let right = right.get(name).and_then(Option::as_ref);
        if right != Some(stated) {
            let right = right.map(render).unwrap_or_default();
            let stated = render(stated);
            let reason = format!("its output `{name}` is {stated}, and should be {right}");
            return Err(wrong(reason).into());
        }
    }
    if path.as_ref().is_some_and(|path| path != computed) {
        return Err(wrong(format!("its contents give {}", render(computed))).into());
    }
    Ok(())
}

/// Derivations that wait for each other.
struct Waiting {
    given: Vec<Option<GivenDerivation>>,
    /// How many inputs each waits for.
    unmet: Vec<usize>,
    /// Who waits for a path.
    dependents: HashMap<StorePath, Vec<usize>>,
    ready: VecDeque<usize>,
    /// Where they are, as far as that is known.
    expected: HashSet<StorePath>,
}

impl Waiting {
    fn new(given: Vec<GivenDerivation>, there: &dyn Destination) -> Result<Self> {
        let mut expected = HashSet::new();
        for given in &given {
            let path = match &given.path {
                Some(path) => path.clone(),
                // Not the last word, where an output's path is still to be computed.
                None => path_of(&given.derivation)?,
            };
            expected.insert(path);
        }
        let inputs = given.iter().flat_map(|given| given.derivation.input_derivations().keys());
        let outside: HashSet<&StorePath> = inputs.filter(|path| !expected.contains(path)).collect();
        let mut outside: Vec<StorePath> = outside.into_iter().cloned().collect();
        outside.sort();
        let present = there.present(&outside)?;
        let found: HashSet<StorePath> = outside
            .into_iter()
            .zip(present)
            .filter_map(|(path, there)| there.map(|_| path))
            .collect();

        let mut waiting = Self {
            unmet: Vec::new(),
            dependents: HashMap::new(),
            ready: VecDeque::new(),
            expected,
            given: Vec::new(),
        };
        for (number, given) in given.into_iter().enumerate() {
            let inputs = given.derivation.input_derivations().keys();
            let inputs = inputs.filter(|path| !found.contains(path));
            // One may read another as a file.
            let sources = given.derivation.input_sources().iter();
            let sources = sources.filter(|path| waiting.expected.contains(path));
            let unmet: HashSet<StorePath> = inputs.chain(sources).cloned().collect();
            if unmet.is_empty() {
                waiting.ready.push_back(number);
            }
            waiting.unmet.push(unmet.len());
            for input in unmet {
                waiting.dependents.entry(input).or_default().push(number);
            }
            waiting.given.push(Some(given));
        }
        Ok(waiting)
    }

    /// One whose inputs are all settled.
    fn next(&mut self) -> Option<GivenDerivation> {
        let number = self.ready.pop_front()?;
        self.given.get_mut(number).and_then(Option::take)
    }

    fn settled(&mut self, path: &StorePath) {
        for number in self.dependents.remove(path).unwrap_or_default() {
            let Some(unmet) = self.unmet.get_mut(number) else { continue };
            *unmet -= 1;
            if *unmet == 0 {
                self.ready.push_back(number);
            }
        }
    }

    /// Makes sure that nothing waits any more.
    fn finish(self, base: &dyn Store) -> Result<()> {
        let store_dir = base.store_dir();
        let expected_path = |given: &GivenDerivation| {
            let path = given.path.clone().map_or_else(|| path_of(&given.derivation), Ok)?;
            Ok::<_, Error>(store_dir.render_path(&path))
        };
        let Some(first) = self.given.iter().flatten().next() else { return Ok(()) };
        let mut missing: Vec<(&StorePath, &Vec<usize>)> =
            self.dependents.iter().filter(|(path, _)| !self.expected.contains(*path)).collect();
        missing.sort();
        match missing.as_slice() {
            [] => Err(DerivationError::Cycle { path: expected_path(first)? }.into()),
            [(reference, dependents)] => {
                let dependent = dependents.first().and_then(|number| self.given.get(*number));
                let dependent = dependent.and_then(Option::as_ref).unwrap_or(first);
                Err(Error::MissingReference {
                    path: expected_path(dependent)?,
                    reference: store_dir.render_path(reference),
                    store: base.describe(),
                })
            }
            several => Err(Error::MissingPaths {
                paths: several.iter().map(|(path, _)| store_dir.render_path(path)).collect(),
                store: base.describe(),
            }),
        }
    }
}

fn path_of(derivation: &Derivation) -> Result<StorePath> {
    let path = derivation.drv_path().map_err(|source| DerivationError::Invalid {
        path: derivation.name().to_owned(),
        reason: source.to_string(),
    });
    Ok(path?)
}

impl Store for NewDerivations<'_> {
    fn store_dir(&self) -> &StoreDir {
        self.base.store_dir()
    }

    fn describe(&self) -> String {
        self.base.describe()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        match self.own(path) {
            Some(info) => Ok(Some(info.clone())),
            None => self.base.path_info(path),
        }
    }

    fn path_infos(&self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>> {
        let others: Vec<StorePath> =
            paths.iter().filter(|path| self.own(path).is_none()).cloned().collect();
        let found = if others.is_empty() { Vec::new() } else { self.base.path_infos(&others)? };
        let mut found = found.into_iter();
        let infos = paths.iter().map(|path| match self.own(path) {
            Some(info) => Some(info.clone()),
            None => found.next().flatten(),
        });
        Ok(infos.collect())
    }

    fn derivers(&self, path: &StorePath) -> Result<Vec<StorePath>> {
        self.base.derivers(path)
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        let is_own = |info: &&PathInfo| self.contents.contains_key(&info.path);
        // Nothing in the store refers to what is not in it yet.
        let others: Vec<PathInfo> = wanted.iter().filter(|info| !is_own(info)).cloned().collect();
        if !others.is_empty() {
            self.base.read_nars(&others, visit)?;
        }
        for info in wanted.iter().filter(is_own) {
            if let Some((_, nar)) = self.contents.get(&info.path) {
                visit(info, &mut nar.as_slice())?;
            }
        }
        Ok(())
    }
}
