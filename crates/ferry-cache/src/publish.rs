//! Giving files their places in a cache.
//!
//! Whatever moment the machine stops at: a narinfo that is there is whole, its NAR is there and
//! whole, and so are the narinfos of all that it refers to. So files are made elsewhere, brought to
//! the disk many at a time (a flush for each would take longer than all the rest), and then moved,
//! NARs before their narinfos, references before their referrers.
//! On the web every file is put by itself, whole or not at all, in the same order.
//!
//! What refers to something that another machine brings, and to what in turn waits for such a
//! thing, is put aside ([`pending`]). Where somebody has swept since it was begun, what was counted
//! on is looked at again ([`sweep`]); what has lost its ground then is not put, and the copy finds
//! that out in the end.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use ferry_formats::{PathInfo, StorePath, narinfo};
use ferry_store::parallel::in_parallel;
use hashbrown::HashMap;

use crate::directory::Staging;
use crate::place::Place;
use crate::{CacheError, pending, sweep};

/// After how many paths, or how many bytes, those that are made are given their places. What is
/// made and has no place yet is lost when the program is killed.
const BATCH: usize = 1000;
const BATCH_BYTES: u64 = 32 << 20;
/// The same on the web, where nothing has to be flushed.
const WEB_BATCH: usize = 50;

/// What there is to be put into the cache for one path.
pub(crate) struct Made {
    /// Each with its name in the cache, in the order in which they are to appear.
    /// The last is the narinfo.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// The name of its NAR, which may be there already.
    pub(crate) nar: String,
    /// Size of that in bytes.
    pub(crate) size: u64,
    /// Where the NAR was there already: after which sweep it was.
    pub(crate) found_after: Option<Option<Vec<u8>>>,
}

/// How far a path has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not made yet, or it has no place.
    ToCome,
    /// Its narinfo waits for what others bring.
    Pending,
    There,
}

/// Gives files their places.
pub(crate) struct Publisher {
    place: Arc<Place>,
    staging: Arc<Staging>,
    /// For each path of the plan, what it refers to, as numbers. What refers to itself has lost its
    /// ground.
    references: Vec<Vec<usize>>,
    numbers: HashMap<StorePath, usize>,
    /// What each refers to that is not in the plan, for those that refer to such things.
    outside: HashMap<usize, Vec<StorePath>>,
    /// Those that refer to what others are yet to bring.
    dependent: HashSet<usize>,
    states: Vec<State>,
    /// Which sweep was the last when what is counted on was looked at.
    token: Option<Vec<u8>>,
    /// Whether something has come since that was looked at before another sweep.
    is_older: bool,
    waiting: BTreeMap<usize, Made>,
    /// Paths and bytes since the last time.
    paths: usize,
    bytes: u64,
}

impl Publisher {
    /// Of what is outside of the plan, `is_to_come` tells what is not there yet; all else was there
    /// after the sweep `token`.
    pub(crate) fn new(
        place: Arc<Place>,
        staging: Arc<Staging>,
        infos: &[PathInfo],
        token: Option<Vec<u8>>,
        is_to_come: impl Fn(&StorePath) -> bool,
    ) -> Self {
        let numbers: HashMap<StorePath, usize> =
            infos.iter().enumerate().map(|(number, info)| (info.path.clone(), number)).collect();
        let references = infos
            .iter()
            .map(|info| info.other_references().filter_map(|path| numbers.get(path).copied()))
            .map(Iterator::collect)
            .collect();
        let mut outside = HashMap::new();
        for (number, info) in infos.iter().enumerate() {
            let others = info.other_references().filter(|path| !numbers.contains_key(*path));
            let others: Vec<StorePath> = others.cloned().collect();
            if !others.is_empty() {
                outside.insert(number, others);
            }
        }
        let dependent = outside.iter().filter(|(_, paths)| paths.iter().any(&is_to_come));
        let dependent: HashSet<usize> = dependent.map(|(number, _)| *number).collect();
        outside.values_mut().for_each(|paths| paths.retain(|path| !is_to_come(path)));
        Self {
            place,
            staging,
            references,
            numbers,
            outside,
            dependent,
            states: vec![State::ToCome; infos.len()],
            token,
            is_older: false,
            waiting: BTreeMap::new(),
            paths: 0,
            bytes: 0,
        }
    }

    /// Takes what was made for a path, and gives places to all there is if that is enough by now.
    pub(crate) fn take(&mut self, path: &StorePath, made: Made) -> Result<(), CacheError> {
        let Some(number) = self.numbers.get(path) else { return Ok(()) };
        self.paths += 1;
        self.bytes = self.bytes.saturating_add(made.size);
        self.is_older |= made.found_after.as_ref().is_some_and(|token| *token != self.token);
        self.waiting.insert(*number, made);
        let batch = if self.place.is_remote() { WEB_BATCH } else { BATCH };
        let is_enough = self.paths >= batch || self.bytes >= BATCH_BYTES;
        if is_enough { self.publish() } else { Ok(()) }
    }

    /// Gives a place to everything that may have one.
    pub(crate) fn publish(&mut self) -> Result<(), CacheError> {
        (self.paths, self.bytes) = (0, 0);
        if !self.place.is_remote() {
            self.staging.flush()?;
        }
        let _quiet = sweep::quiet(&self.place)?;
        let token = sweep::token(&self.place)?;
        if token != self.token || self.is_older {
            self.look_again()?;
            (self.token, self.is_older) = (token, false);
        }
        if self.place.is_remote() {
            return self.put_in_waves();
        }
        // In the order of the plan references stand before their referrers.
        let numbers: Vec<usize> = self.waiting.keys().copied().collect();
        for number in numbers {
            let Some(next) = self.next_state(number) else { continue };
            let Some(made) = self.waiting.remove(&number) else { continue };
            self.put(&made, next)?;
            self.set(number, next);
        }
        Ok(())
    }

    /// Puts everything that may be there, several at a time, and then what refers to that.
    fn put_in_waves(&mut self) -> Result<(), CacheError> {
        loop {
            let wave: Vec<(usize, State, &Made)> = self
                .waiting
                .iter()
                .filter_map(|(number, made)| Some((*number, self.next_state(*number)?, made)))
                .collect();
            if wave.is_empty() {
                return Ok(());
            }
            in_parallel(&wave, self.place.puts_at_a_time(), |(_, next, made)| {
                self.put(made, *next)
            })?;
            let placed: Vec<_> = wave.iter().map(|(number, next, _)| (*number, *next)).collect();
            for (number, next) in placed {
                self.waiting.remove(&number);
                self.set(number, next);
            }
        }
    }

    /// Puts the files of a path, in order.
    fn put(&self, made: &Made, next: State) -> Result<(), CacheError> {
        let Some(((text, name), others)) = made.files.split_last() else { return Ok(()) };
        others.iter().try_for_each(|(file, name)| self.place.put(file, name))?;
        match next {
            State::Pending => self.place.put(text, &pending::place_of(name)),
            _ => self.place.put(text, name),
        }
    }

    /// What a path that is made becomes now, if everything that it refers to has come as far.
    fn next_state(&self, number: usize) -> Option<State> {
        let references = self.references.get(number).map(Vec::as_slice).unwrap_or_default();
        let mut next = State::There;
        for reference in references {
            match self.states.get(*reference) {
                Some(State::ToCome) => return None,
                Some(State::Pending) => next = State::Pending,
                _ => {}
            }
        }
        Some(if self.dependent.contains(&number) { State::Pending } else { next })
    }

    fn set(&mut self, number: usize, state: State) {
        if let Some(known) = self.states.get_mut(number) {
            *known = state;
        }
    }

    /// Looks at everything that is counted on. What refers to something that is gone, or whose NAR
    /// was there and is gone, is dropped.
    fn look_again(&mut self) -> Result<(), CacheError> {
        let is_there = |name: &str| Ok::<_, CacheError>(self.place.get(name)?.is_some());
        let mut states = self.states.clone();
        let mut gone = HashSet::new();
        for (path, number) in &self.numbers {
            let name = narinfo::file_name(path);
            let found = match self.states.get(*number) {
                Some(State::There) => is_there(&name)?,
                Some(State::Pending) => is_there(&name)? || is_there(&pending::place_of(&name))?,
                _ => true,
            };
            if let (false, Some(state)) = (found, states.get_mut(*number)) {
                *state = State::ToCome;
            }
        }
        for (number, paths) in &self.outside {
            for path in paths {
                if !is_there(&narinfo::file_name(path))? {
                    gone.insert(*number);
                }
            }
        }
        for (number, made) in &self.waiting {
            let is_at_hand = made.files.iter().any(|(_, name)| *name == made.nar);
            if !is_at_hand && !self.place.has(&made.nar, made.size)? {
                gone.insert(*number);
            }
        }
        self.states = states;
        for number in gone {
            self.waiting.remove(&number);
            // Whatever is made for it later has no ground either: it never gets a place.
            if let Some(references) = self.references.get_mut(number) {
                references.push(number);
            }
        }
        Ok(())
    }

    /// Gives a place to the last of them, and sees to it that they keep it.
    pub(crate) fn finish(&mut self) -> Result<(), CacheError> {
        self.publish()?;
        if self.place.is_remote() { Ok(()) } else { self.staging.flush() }
    }
}
