//! `ferry cache prune`: taking out of a cache what nobody wants any more.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use ferry_cache::{BinaryCache, NarFiles, PruneOptions, PruneReport};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::Explorer;
use ferry_store::Store as _;
use ferry_store::installable::Installable;
use ferry_store::shard::Shard;
use serde_json::{Value, json};

use crate::cli::CachePrune;
use crate::context::Context;
use crate::failure::Failure;
use crate::have;
use crate::installables::Installables;
use crate::output;
use crate::queries::Queries;
use crate::sources::OpenSource;

pub(crate) fn run(context: &Context, options: &CachePrune) -> Result<(), Failure> {
    let store_dir = context.store_dir()?;
    let cache = super::open(context, &options.cache)?;
    let keep = kept(context, options, &cache, &store_dir)?;
    let how = PruneOptions {
        older_than: options.older_than.unwrap_or(DAY),
        grace: options.grace,
        dry_run: options.dry_run,
        shard: options.shard.unwrap_or(Shard::WHOLE),
    };
    let report = cache.prune(&keep, &how, &*context.bars)?;
    let waits = options.wait && !options.dry_run && report.condemned.count > 0;
    let later = waits.then(|| wait(context, &cache, &keep, &how)).transpose()?;
    tell(context, &store_dir, options, &report, later.as_ref())
}

/// Days are what is usual here, too.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Waits until the time of grace has passed for all that is condemned now, and removes that.
fn wait(
    context: &Context,
    cache: &BinaryCache,
    keep: &[StorePath],
    how: &PruneOptions,
) -> Result<PruneReport, Failure> {
    context.talk.say(format!("waiting for {}", age(how.grace)));
    // Times are written down in whole seconds.
    std::thread::sleep(how.grace + Duration::from_secs(1));
    Ok(cache.prune(keep, how, &*context.bars)?)
}

/// The paths that are named, or that a list has.
fn kept(
    context: &Context,
    options: &CachePrune,
    cache: &BinaryCache,
    store_dir: &StoreDir,
) -> Result<Vec<StorePath>, Failure> {
    if options.keep.is_empty() && options.older_than.is_none() {
        return Err(Failure::usage(
            "nothing is named that stays: give --keep, or --older-than alone",
        ));
    }
    let mut paths = BTreeSet::new();
    let mut named = Vec::new();
    let installables = Installables { context, store_dir, store: &options.store };
    for keep in &options.keep {
        if is_list(context, keep, store_dir) {
            let list = have::inventory(context, keep, store_dir, None)?;
            match list.paths() {
                Some(listed) => paths.extend(listed.iter().cloned()),
                // In compact form. What it is wrong about stays, which does no harm.
                None => {
                    let there = cache.all_paths()?.unwrap_or_default();
                    paths.extend(there.into_iter().filter(|path| list.has(path)));
                }
            }
        } else {
            named.extend(installables.one(keep)?);
        }
    }
    let is_path = |installable: &Installable| matches!(installable, Installable::Path(_));
    if options.set.is_none() && named.iter().all(is_path) {
        for installable in named {
            if let Installable::Path(path) = installable {
                paths.insert(path);
            }
        }
    } else if !named.is_empty() {
        paths.extend(evaluated(context, options, store_dir, &named)?);
    }
    Ok(paths.into_iter().collect())
}

/// Whether something is a file with a list, or a bundle, and no store path.
fn is_list(context: &Context, keep: &str, store_dir: &StoreDir) -> bool {
    let file = context.surroundings.working_directory.join(keep);
    let target = file.canonicalize().unwrap_or(file);
    have::is_file(context, keep) && !target.starts_with(store_dir.as_str())
}

/// What a set holds of what is named.
fn evaluated(
    context: &Context,
    options: &CachePrune,
    store_dir: &StoreDir,
    named: &[Installable],
) -> Result<Vec<StorePath>, Failure> {
    let source = OpenSource::open(context, &options.store)?;
    let mut explorer = Explorer::new(store_dir.clone());
    explorer.add_source(source.facts());
    let mut queries = Queries::new(context, explorer, &options.store);
    let set = options.set.as_deref().unwrap_or("runtime");
    let set = queries.evaluate_set(&[], set, named)?;
    queries.settle(false)?;
    let graph = queries.explorer.graph();
    Ok(set.iter().filter_map(|node| graph.path(node)).collect())
}

fn tell(
    context: &Context,
    store_dir: &StoreDir,
    options: &CachePrune,
    report: &PruneReport,
    later: Option<&PruneReport>,
) -> Result<(), Failure> {
    let all = || std::iter::once(report).chain(later);
    let last = later.unwrap_or(report);
    let removed: Vec<String> =
        all().flat_map(|report| &report.removed).map(|path| store_dir.render_path(path)).collect();
    let freed = all().fold(NarFiles::default(), |sum, report| NarFiles {
        count: sum.count + report.removed_nars.count,
        size: sum.size.saturating_add(report.removed_nars.size),
    });
    let next = last.next.map(seconds);
    if context.json {
        let files = |nars: NarFiles| json!({ "files": nars.count, "size": nars.size });
        let render = |paths: &[StorePath]| -> Vec<Value> {
            paths.iter().map(|path| json!(store_dir.render_path(path))).collect()
        };
        output::json(json!({
            "dryRun": options.dry_run,
            "kept": { "paths": last.kept, "recent": last.recent, "nars": files(last.kept_nars) },
            "removed": { "paths": removed, "nars": files(freed) },
            "condemned": { "nars": files(last.condemned), "next": next },
            "absent": render(&last.absent),
            "dangling": render(&last.dangling),
        }))?;
    } else {
        output::records(&removed, false)?;
    }
    for (paths, said) in [
        (&last.absent, "of what is to be kept are not in the cache"),
        (&last.dangling, "that stay refer to are not in the cache (`ferry cache verify`)"),
    ] {
        if !paths.is_empty() {
            context.talk.say(format!("{} {said}", output::paths(paths.len() as u64)));
        }
    }
    let removes = if options.dry_run { "would remove" } else { "removed" };
    let nars = |nars: NarFiles| format!("{} in {} NARs", output::size(nars.size), nars.count);
    context.talk.say(format!(
        "kept {} ({} of them only for being recent), {}",
        output::paths(last.kept as u64),
        last.recent,
        nars(last.kept_nars),
    ));
    context.talk.say(format!("{removes} {}, {}", output::paths(removed.len() as u64), nars(freed)));
    let left = last.next.map(|next| next.duration_since(SystemTime::now()).unwrap_or_default());
    if let Some(left) = left {
        context.talk.say(format!(
            "{} that nothing names any more, a run in {} or later removes (--grace)",
            nars(last.condemned),
            age(left),
        ));
    } else if last.condemned.count > 0 || options.dry_run {
        context.talk.say(format!("{} have no narinfo from then on", nars(last.condemned)));
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A time for people.
fn age(time: Duration) -> String {
    let (minutes, hours) = (time.as_secs().div_ceil(60), time.as_secs().div_ceil(3600));
    match hours {
        0..=1 => format!("{minutes} minutes"),
        2..=72 => format!("{hours} hours"),
        _ => format!("{} days", hours.div_ceil(24)),
    }
}
