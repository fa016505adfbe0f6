//! What writers and whoever prunes know of each other.
//!
//! A writer relies on what is in a cache: narinfos that its own refer to, NARs that it need not put
//! again. A sweep takes such things away. Neither can do both of "look" and "act" at once, so:
//!
//! - A sweep begins with a new text in [`TOKEN`], and looks at the cache (again) after that. So a
//!   writer that finds the text it began with, after the last file that it has put, knows that
//!   whoever sweeps from now on sees all of them; if it finds another, it looks at everything that
//!   it relies on, and puts again what is gone.
//! - In a directory a sweep holds an exclusive lock on the directory, and writers a shared one while
//!   they give files their places: no narinfo appears whose references or NAR a sweep has just taken.
//! - A bucket has no locks. There a file [`MARKER`]`…` says that a sweep is going on, which writes it
//!   again and again; writers wait for it to go away. One that does not change for [`LEASE`] is of
//!   somebody dead, or of somebody who finds out that he was asleep before he removes more.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::CacheError;
use crate::directory::Staging;
use crate::place::Place;

/// Changes with every sweep.
pub(crate) const TOKEN: &str = ".ferry-prune/last";
/// How the names of files begin that say that a sweep is going on.
const MARKER: &str = ".ferry-prune/sweep-";
/// After so long without a sign a sweep is over.
const LEASE: Duration = Duration::from_secs(60);
/// How often it gives one, and how long after the last it still removes things.
const SIGN: Duration = Duration::from_secs(10);
const SAFE: Duration = Duration::from_secs(30);
/// How often a writer looks.
const LOOK: Duration = Duration::from_millis(500);

/// What a writer compares. On the web nobody can sweep: there is nothing to look at.
pub(crate) fn token(place: &Place) -> Result<Option<Vec<u8>>, CacheError> {
    if matches!(place, Place::Web { .. }) { Ok(None) } else { place.get(TOKEN) }
}

/// No sweep is going on; in a directory none begins as long as this lives.
pub(crate) struct Quiet {
    _lock: Option<File>,
}

/// Waits until no sweep is going on.
pub(crate) fn quiet(place: &Place) -> Result<Quiet, CacheError> {
    match place {
        Place::Web { .. } => Ok(Quiet { _lock: None }),
        Place::Directory(cache) => {
            let lock = match lock(cache, FlockOperation::LockShared) {
                Ok(lock) => Some(lock),
                // Where there are no locks nobody sweeps, and before it is made nobody does either.
                Err(error) => {
                    tracing::debug!(%error, "no lock");
                    None
                }
            };
            Ok(Quiet { _lock: lock })
        }
        Place::Bucket(_) => wait(place, LEASE, LOOK).map(|()| Quiet { _lock: None }),
    }
}

/// Waits until no sweep says that it is going on, or has said so for `lease` without a new sign.
fn wait(place: &Place, lease: Duration, look: Duration) -> Result<(), CacheError> {
    let mut before = Vec::new();
    let mut since = Instant::now();
    loop {
        let mut signs = Vec::new();
        let mut names = Vec::new();
        place.list(MARKER, &mut |file| {
            names.push(file.name);
            Ok(())
        })?;
        for name in names {
            if let Some(sign) = place.get(&name)? {
                signs.push((name, sign));
            }
        }
        signs.sort();
        if signs.is_empty() {
            return Ok(());
        }
        if signs != before {
            (before, since) = (signs, Instant::now());
        } else if since.elapsed() > lease {
            // Nobody has to wait for the same again.
            return before.iter().try_for_each(|(name, _)| place.remove(name));
        }
        thread::sleep(look);
    }
}

fn lock(cache: &Path, operation: FlockOperation) -> io::Result<File> {
    let directory = File::open(cache)?;
    loop {
        match rustix::fs::flock(&directory, operation) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map(|()| directory).map_err(io::Error::from),
        }
    }
}

/// A sweep that is going on.
pub(crate) struct Sweep<'a> {
    place: &'a Place,
    staging: &'a Staging,
    /// The file that says so, where there is no lock.
    marker: Option<String>,
    signs: u64,
    signed: (Instant, SystemTime),
    _lock: Option<File>,
}

impl<'a> Sweep<'a> {
    /// Waits for those who are putting files in their places just now, and begins. What the cache
    /// holds has to be looked at (again) after this.
    pub(crate) fn begin(place: &'a Place, staging: &'a Staging) -> Result<Self, CacheError> {
        let lock = match place {
            Place::Directory(cache) => Some(
                lock(cache, FlockOperation::LockExclusive)
                    .map_err(CacheError::io("lock the directory", cache.display()))?,
            ),
            _ => None,
        };
        let now = (Instant::now(), SystemTime::now());
        let since_epoch = now.1.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}", since_epoch.as_nanos(), staging.name());
        let marker = lock.is_none().then(|| format!("{MARKER}{name}"));
        let mut sweep = Self { place, staging, marker, signs: 0, signed: now, _lock: lock };
        sweep.sign()?;
        place.put(&staging.write(name.as_bytes())?, TOKEN)?;
        Ok(sweep)
    }

    fn sign(&mut self) -> Result<(), CacheError> {
        let now = (Instant::now(), SystemTime::now());
        if let Some(marker) = &self.marker {
            self.signs += 1;
            let file = self.staging.write(self.signs.to_string().as_bytes())?;
            self.place.put(&file, marker)?;
        }
        self.signed = now;
        Ok(())
    }

    /// Has to be called before things are removed, a few hundred at a time.
    pub(crate) fn go_on(&mut self) -> Result<(), CacheError> {
        if self.marker.is_none() {
            return Ok(());
        }
        // One of the two clocks stands still while the machine sleeps.
        let by_clock = self.signed.1.elapsed().unwrap_or(Duration::MAX);
        let since = self.signed.0.elapsed().max(by_clock);
        if since > SAFE {
            return Err(CacheError::Asleep { cache: self.place.shown() });
        }
        if since > SIGN { self.sign() } else { Ok(()) }
    }

    /// It is over.
    pub(crate) fn end(mut self) -> Result<(), CacheError> {
        self.marker.take().map_or(Ok(()), |marker| self.place.remove(&marker))
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        if let Some(marker) = &self.marker
            && let Err(error) = self.place.remove(marker)
        {
            tracing::debug!(%error, "writers will wait for it to expire");
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn writers_do_not_wait_for_ever_for_a_sweep_that_died() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Directory(directory.path().to_owned());
        fs::create_dir(directory.path().join(".ferry-prune")).unwrap();
        let marker = directory.path().join(format!("{MARKER}dead"));
        fs::write(&marker, "1").unwrap();
        wait(&place, Duration::ZERO, Duration::from_millis(1)).unwrap();
        assert!(!marker.exists());
        wait(&place, Duration::MAX, Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn every_sweep_leaves_another_token_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::Directory(directory.path().to_owned());
        let mut tokens = Vec::new();
        for _ in 0..3 {
            let staging = Staging::beside(&place, directory.path()).unwrap();
            let mut sweep = Sweep::begin(&place, &staging).unwrap();
            sweep.go_on().unwrap();
            sweep.end().unwrap();
            drop(quiet(&place).unwrap());
            tokens.push(token(&place).unwrap().unwrap());
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 3);
        let mut left = Vec::new();
        place
            .list(".ferry-prune/", &mut |file| {
                left.push(file.name);
                Ok(())
            })
            .unwrap();
        assert_eq!(left, [TOKEN]);
    }
}
