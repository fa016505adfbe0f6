//! Taking out of a cache what nobody wants any more.
//!
//! Mark: what is kept, what is recent, what waits for other machines, and all that these refer to.
//! Sweep, in an order in which the cache is closed at every moment: first what only speaks of paths
//! that go (listings, logs, realisations), then narinfos, referrers before what they refer to. NARs
//! that no narinfo names any more are condemned, and removed by a later run: somebody may have read
//! the narinfo just before, and come for the NAR.
//!
//! How this gets on with writers is told in [`crate::sweep`].

mod condemned;
mod scan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use ferry_formats::StorePath;
use ferry_formats::build_trace::Realisation;
use ferry_store::parallel::in_parallel;
use ferry_store::progress::Progress;
use ferry_store::shard::Shard;
use sha2::{Digest as _, Sha256};

use self::condemned::Condemned;
use self::scan::{Scan, Seen};
use crate::sweep::Sweep;
use crate::{BinaryCache, CacheError};

/// So many files are removed between two looks at the clock.
const AT_A_TIME: usize = 500;

/// What to prune, and when.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions {
    /// What was written later than so long ago stays, and so does all that it refers to.
    pub older_than: Duration,
    /// For how long a NAR stays that no narinfo names any more.
    pub grace: Duration,
    /// Look, and remove nothing.
    pub dry_run: bool,
    /// Which part of the NARs is looked at. The first part does all the rest.
    pub shard: Shard,
}

/// Files of NARs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NarFiles {
    /// How many.
    pub count: usize,
    /// Their sizes in bytes.
    pub size: u64,
}

impl NarFiles {
    fn add(&mut self, seen: Option<&Seen>) {
        self.count += 1;
        self.size = self.size.saturating_add(seen.map_or(0, |seen| seen.size));
    }
}

/// What pruning did, or would do.
#[derive(Clone, Debug, Default)]
pub struct PruneReport {
    /// Paths that stay.
    pub kept: usize,
    /// Those of them that stay only because they, or what refers to them, are recent.
    pub recent: usize,
    /// The NARs of the paths that stay.
    pub kept_nars: NarFiles,
    /// Paths that are taken out, in order.
    pub removed: Vec<StorePath>,
    /// NARs that wait for their time of grace to pass.
    pub condemned: NarFiles,
    /// When the first of these may be removed.
    pub next: Option<SystemTime>,
    /// NARs that are removed.
    pub removed_nars: NarFiles,
    /// What was to be kept and is not there.
    pub absent: Vec<StorePath>,
    /// What paths that stay refer to and is not there, by itself or waiting.
    pub dangling: Vec<StorePath>,
}

/// What is to happen, as one look at the cache has it.
struct Verdict {
    report: PruneReport,
    /// Files that go, one after the other: those in one wave in any order.
    waves: Vec<Vec<String>>,
    /// NARs that go, after all of these.
    nars: Vec<String>,
    /// NARs that are condemned from now on.
    condemned: Vec<String>,
    /// NARs that no narinfo names, and that are not too recent to look at.
    orphans: HashSet<String>,
}

impl BinaryCache {
    /// Takes out everything but `keep`, what that refers to, and what is recent.
    ///
    /// # Errors
    /// When the cache cannot be listed, read or written; when something in it is no narinfo, as then
    /// nobody knows what it refers to; when nothing of `keep` is in it.
    pub fn prune(
        &self,
        keep: &[StorePath],
        options: &PruneOptions,
        progress: &dyn Progress,
    ) -> Result<PruneReport, CacheError> {
        self.check()?;
        let now = SystemTime::now();
        let first = self.scan(Scan::default(), progress)?;
        if !keep.is_empty() && !keep.iter().any(|path| first.get(path).is_some()) {
            return Err(CacheError::NothingKept { cache: self.place.shown() });
        }
        if options.dry_run {
            let condemned = Condemned::read(&self.place)?;
            return Ok(self.judge(&first, keep, options, now, &condemned)?.report);
        }
        let staging = self.new_staging()?;
        let mut sweep = Sweep::begin(&self.place, &staging)?;
        let second = self.scan(first, progress)?;
        let mut condemned = Condemned::read(&self.place)?;
        let verdict = self.judge(&second, keep, options, now, &condemned)?;
        for wave in &verdict.waves {
            self.remove(&mut sweep, wave)?;
        }
        // What is to be gone first after a power failure, too, is on the disk.
        staging.flush()?;
        let going: HashSet<&str> = verdict.nars.iter().map(String::as_str).collect();
        let debug = self.debug_files_of(&second, &going)?;
        self.remove(&mut sweep, &debug)?;
        self.remove(&mut sweep, &verdict.nars)?;
        let stays = |name: &str| verdict.orphans.contains(name) && !going.contains(name);
        condemned.update(stays, verdict.condemned, now, &options.shard);
        condemned.write(&self.place, &staging)?;
        sweep.end()?;
        Ok(verdict.report)
    }

    fn remove(&self, sweep: &mut Sweep<'_>, names: &[String]) -> Result<(), CacheError> {
        for some in names.chunks(AT_A_TIME) {
            sweep.go_on()?;
            in_parallel(some, self.place.puts_at_a_time(), |name| self.place.remove(name))?;
        }
        Ok(())
    }

    /// Decides. What came or changed between two looks is as good as recent.
    fn judge(
        &self,
        scan: &Scan,
        keep: &[StorePath],
        options: &PruneOptions,
        now: SystemTime,
        condemned: &Condemned,
    ) -> Result<Verdict, CacheError> {
        let limit = now.checked_sub(options.older_than).unwrap_or(SystemTime::UNIX_EPOCH);
        let is_recent = |seen: &Seen| seen.modified.is_none_or(|modified| modified > limit);
        let mut report = PruneReport::default();
        let (there, absent): (Vec<_>, Vec<_>) =
            keep.iter().partition(|path| scan.get(path).is_some());
        report.absent = absent.into_iter().cloned().collect();
        let mut marked = HashSet::new();
        scan.mark(&mut marked, there);
        let wanted = marked.len();
        let recent = scan
            .narinfos
            .values()
            .filter(|known| known.is_new || is_recent(&known.seen))
            .map(|known| &known.path);
        let waited_for = scan.waiting.iter().flat_map(|one| one.narinfo.info.references.iter());
        scan.mark(&mut marked, recent.chain(waited_for));
        report.dangling = scan.dangling(&marked);
        marked.retain(|path| scan.get(path).is_some());
        report.kept = marked.len();
        report.recent = marked.len().saturating_sub(wanted);

        let mut waves = Vec::new();
        if options.shard.is_first() {
            let doomed = scan.waves(&marked);
            waves.push(self.speaking_of(scan, &marked, &is_recent)?);
            for wave in doomed {
                waves.push(wave.iter().map(|known| known.name()).collect());
                report.removed.extend(wave.into_iter().map(|known| known.path.clone()));
            }
        }
        let stays = |path: &StorePath| marked.contains(path) || !options.shard.is_first();
        let stay = scan.narinfos.values().filter(|known| stays(&known.path));
        let mut named: HashSet<&str> = stay.map(|known| known.url.as_str()).collect();
        named.extend(scan.waiting.iter().map(|one| one.narinfo.url.as_str()));
        for name in &named {
            if let Some(seen) = scan.nars.get(*name) {
                report.kept_nars.add(Some(seen));
            }
        }
        let mut verdict = Verdict {
            report,
            waves,
            nars: Vec::new(),
            condemned: Vec::new(),
            orphans: HashSet::new(),
        };
        for (name, seen) in &scan.nars {
            if named.contains(name.as_str()) || is_recent(seen) {
                continue;
            }
            verdict.orphans.insert(name.clone());
            // Written again since, it was wanted since.
            let since = condemned.since(name).map(|since| since.max(seen.modified.unwrap_or(now)));
            let end = since.unwrap_or(now).checked_add(options.grace);
            let is_mine = options.shard.holds_digest(&Sha256::digest(name));
            if is_mine && end.is_some_and(|end| end <= now) {
                verdict.report.removed_nars.add(Some(seen));
                verdict.nars.push(name.clone());
                continue;
            }
            if is_mine && since.is_none() {
                verdict.condemned.push(name.clone());
            }
            verdict.report.condemned.add(Some(seen));
            verdict.report.next = [verdict.report.next, end].into_iter().flatten().min();
        }
        Ok(verdict)
    }

    /// The files that speak of paths that go, and of nothing that stays.
    fn speaking_of(
        &self,
        scan: &Scan,
        marked: &HashSet<&StorePath>,
        is_recent: &dyn Fn(&Seen) -> bool,
    ) -> Result<Vec<String>, CacheError> {
        let mut names = Vec::new();
        let waiting: HashSet<&str> = scan.waiting.iter().map(|one| one.name.as_str()).collect();
        for (name, seen) in &scan.listings {
            let narinfo = name.replace(".ls", ".narinfo");
            let goes = match scan.narinfos.get(&narinfo) {
                Some(known) => !marked.contains(&known.path),
                None => !waiting.contains(narinfo.as_str()) && !is_recent(seen),
            };
            if goes {
                names.push(name.clone());
            }
        }
        // What was made by a derivation, or is it.
        let (mut stays, mut goes) = (HashSet::new(), HashSet::new());
        for known in scan.narinfos.values() {
            let of = if marked.contains(&known.path) { &mut stays } else { &mut goes };
            of.extend(known.deriver.iter().chain([&known.path]));
        }
        for name in &scan.logs {
            let derivation = name.rsplit('/').next().unwrap_or_default();
            let Ok(derivation) = StorePath::from_basename(derivation.as_bytes()) else { continue };
            if goes.contains(&derivation) && !stays.contains(&derivation) {
                names.push(name.clone());
            }
        }
        let outputs = in_parallel(&scan.realisations, self.place.connections(), |name| {
            let text = self.place.get(name)?.unwrap_or_default();
            // What nobody understands stays.
            Ok::<_, CacheError>(Realisation::of_file(name, &text).ok().map(|found| found.path))
        })?;
        for (name, output) in scan.realisations.iter().zip(outputs) {
            let Some(output) = output else { continue };
            if scan.get(&output).is_some() && !marked.contains(&output) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    /// The entries about debugging information in NARs that go.
    fn debug_files_of(&self, scan: &Scan, nars: &HashSet<&str>) -> Result<Vec<String>, CacheError> {
        let archives = in_parallel(&scan.debug, self.place.connections(), |name| {
            Ok::<_, CacheError>(self.place.get(name)?.and_then(|text| scan::archive_of(&text)))
        })?;
        let files = scan.debug.iter().zip(archives);
        let files = files.filter(|(_, archive)| {
            archive.as_ref().is_some_and(|archive| nars.contains(archive.as_str()))
        });
        Ok(files.map(|(name, _)| name.clone()).collect())
    }
}

/// Puts what has to go into waves: in each, nothing refers to anything that is left. `edges` lists
/// what each node refers to, among those that go.
fn referrers_first(edges: &BTreeMap<&StorePath, Vec<&StorePath>>) -> Vec<Vec<StorePath>> {
    let mut referrers: HashMap<&StorePath, usize> = edges.keys().map(|path| (*path, 0)).collect();
    for path in edges.values().flatten() {
        *referrers.entry(path).or_default() += 1;
    }
    let free = |referrers: &HashMap<&StorePath, usize>, path: &StorePath| {
        referrers.get(path).is_some_and(|count| *count == 0)
    };
    let mut wave: Vec<&StorePath> =
        edges.keys().copied().filter(|path| free(&referrers, path)).collect();
    let mut waves = Vec::new();
    let mut done = HashSet::new();
    while !wave.is_empty() {
        let mut next = Vec::new();
        for path in &wave {
            done.insert(*path);
            for reference in edges.get(path).into_iter().flatten() {
                if let Some(count) = referrers.get_mut(reference) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        next.push(*reference);
                    }
                }
            }
        }
        waves.push(wave.into_iter().cloned().collect());
        wave = next;
    }
    // No store has a circle; what somebody has made up goes at once.
    let circle: Vec<StorePath> =
        edges.keys().filter(|path| !done.contains(**path)).map(|path| (*path).clone()).collect();
    waves.extend(Some(circle).filter(|circle| !circle.is_empty()));
    waves
}

#[cfg(test)]
mod tests;
