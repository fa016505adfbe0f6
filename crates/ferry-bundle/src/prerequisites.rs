//! What a thin bundle leaves to the store that receives it.

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::derivation::{InputDerivationHash, OutputPaths};
use ferry_formats::{NarHash, PathInfo, StorePath};
use ferry_store::{Destination, Error, Result, Store, input_hashes};

use crate::derivations::Given;
use crate::{Bundle, DerivationBase};

/// A store path that is not in a bundle, and that the receiving store has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prerequisite {
    /// The path.
    pub path: StorePath,
    /// Hash and size in bytes of its NAR, where the payload of the bundle builds on it.
    pub content: Option<(NarHash, u64)>,
}

impl Prerequisite {
    /// The hash of its NAR, for those who ask only whether there is one.
    pub(crate) fn known_content(&self) -> NarHash {
        self.content.map_or(NarHash([0; 32]), |(hash, _)| hash)
    }
}

/// The prerequisites of a bundle that is to be written.
#[derive(Default)]
pub struct Prerequisites {
    /// In the order of their entries.
    list: Vec<Prerequisite>,
    /// Those that are inputs of derivations in the bundle, in the same order.
    given: Vec<Given>,
    known: OutputPaths,
    /// Its roots are in the list.
    base: Option<DerivationBase>,
}

impl Prerequisites {
    /// Of a bundle that carries `carried` out of `store`, where the other side has
    /// `prerequisites`. What stands for derivations among them is computed from the texts in
    /// `store`, each read once.
    ///
    /// # Errors
    /// When a derivation is not in the store, cannot be read, or is not valid.
    pub fn new(
        store: &dyn Store,
        carried: &BTreeMap<StorePath, PathInfo>,
        prerequisites: &[PathInfo],
    ) -> Result<Self> {
        Self::with_base(store, carried, prerequisites, None)
    }

    /// The same, where derivations are coded against a base that the other side has. What follows
    /// from the base's roots is not listed. (A base has no other way into a bundle: a reader finds
    /// it by its roots, which have to be in the list.)
    ///
    /// # Errors
    /// As for [`Prerequisites::new`].
    pub fn with_base(
        store: &dyn Store,
        carried: &BTreeMap<StorePath, PathInfo>,
        prerequisites: &[PathInfo],
        base: Option<DerivationBase>,
    ) -> Result<Self> {
        let of_base = base.as_ref();
        // What is no derivation has only numbers of the index for what it refers to.
        let by_others: BTreeSet<&StorePath> = carried
            .values()
            .filter(|info| of_base.is_some() && !info.path.is_derivation())
            .flat_map(PathInfo::other_references)
            .collect();
        let in_base = |path: &StorePath| of_base.is_some_and(|base| base.is_known(path));
        let listed = prerequisites
            .iter()
            .map(|info| &info.path)
            .filter(|path| !in_base(path) || by_others.contains(path));
        let mut this = Self::default();
        this.add(listed);
        let inputs: BTreeSet<&StorePath> = carried
            .values()
            .filter(|info| info.path.is_derivation())
            .flat_map(PathInfo::other_references)
            .filter(|path| path.is_derivation() && !carried.contains_key(*path) && !in_base(path))
            .collect();
        let inputs: Vec<StorePath> = inputs.into_iter().cloned().collect();
        this.read_derivations(store, &inputs)?;
        Ok(this.with_roots_of(base))
    }

    /// Those of a bundle that was read, to be named in another one, where `given` of them are
    /// inputs of derivations and have these hashes.
    pub(crate) fn again(
        list: Vec<Prerequisite>,
        given: Vec<Given>,
        hashes: impl Iterator<Item = (StorePath, InputDerivationHash)>,
    ) -> Self {
        let mut known = OutputPaths::default();
        hashes.for_each(|(path, hash)| known.know(&path, hash));
        let mut this = Self { list, given, known, base: None };
        this.sort();
        this
    }

    /// The same, where derivations are coded against a base, if there is one: its roots are listed.
    #[must_use]
    pub fn with_roots_of(mut self, base: Option<DerivationBase>) -> Self {
        self.add(base.iter().flat_map(DerivationBase::roots));
        Self { base, ..self }
    }

    /// What derivations are coded against.
    #[must_use]
    pub fn base(&self) -> Option<&DerivationBase> {
        self.base.as_ref()
    }

    /// Lists paths, those that are not listed yet.
    fn add<'a>(&mut self, paths: impl Iterator<Item = &'a StorePath>) {
        let listed: BTreeSet<StorePath> = self.list.iter().map(|one| one.path.clone()).collect();
        let new: BTreeSet<&StorePath> = paths.filter(|path| !listed.contains(path)).collect();
        let new = new.into_iter().map(|path| Prerequisite { path: path.clone(), content: None });
        self.list.extend(new);
        self.sort();
    }

    /// Makes a path one on whose content the payload builds.
    pub fn add_content_base(&mut self, info: &PathInfo) {
        let content = Some((info.nar_hash, info.nar_size));
        match self.list.iter_mut().find(|one| one.path == info.path) {
            Some(known) => known.content = content,
            None => {
                self.list.push(Prerequisite { path: info.path.clone(), content });
                self.sort();
            }
        }
    }

    /// All of them, in the order of their entries.
    #[must_use]
    pub fn list(&self) -> &[Prerequisite] {
        &self.list
    }

    /// What stands for derivations among them in their dependents.
    pub(crate) fn known(&self) -> &OutputPaths {
        &self.known
    }

    pub(crate) fn given(&self) -> &[Given] {
        &self.given
    }

    /// Names that are alike side by side.
    fn sort(&mut self) {
        self.list.sort_by(|a, b| (a.path.name(), &a.path).cmp(&(b.path.name(), &b.path)));
        let rank = |path: &StorePath| (path.name().to_owned(), path.clone());
        self.given.sort_by_cached_key(|given| rank(&given.path));
    }

    /// Computes what stands for `inputs`, from all that they are made of.
    fn read_derivations(&mut self, store: &dyn Store, inputs: &[StorePath]) -> Result<()> {
        let wanted: BTreeSet<&StorePath> = inputs.iter().collect();
        let given = &mut self.given;
        input_hashes::learn(store, inputs, &mut self.known, |known, info, text| {
            if wanted.contains(&info.path)
                && let Some(hash) = known.known(&info.path)
            {
                given.extend(Given::new(&info.path, hash, text));
            }
        })?;
        self.sort();
        // Those below are nobody's input here.
        let mut known = OutputPaths::default();
        for path in inputs {
            let hash = self.known.known(path).unwrap_or(InputDerivationHash::Deferred);
            known.know(path, hash);
        }
        self.known = known;
        Ok(())
    }
}

impl Bundle {
    /// Those of its prerequisites that `destination` does not have.
    ///
    /// # Errors
    /// When the destination cannot be asked, or has other content at a path on whose content the
    /// payload builds ([`Error::Conflict`]).
    pub fn missing_prerequisites(&self, destination: &dyn Destination) -> Result<Vec<StorePath>> {
        let paths: Vec<StorePath> =
            self.prerequisites().iter().map(|one| one.path.clone()).collect();
        let mut missing = Vec::new();
        for (one, there) in self.prerequisites().iter().zip(destination.present(&paths)?) {
            match (there, one.content) {
                (None, _) => missing.push(one.path.clone()),
                (Some(there), Some((hash, _))) if there != hash => {
                    return Err(Error::Conflict {
                        path: destination.store_dir().render_path(&one.path),
                        store: destination.describe(),
                        present: there.to_string(),
                        offered: hash.to_string(),
                    });
                }
                (Some(_), _) => {}
            }
        }
        missing.sort();
        Ok(missing)
    }
}
