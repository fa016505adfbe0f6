//! `ferry cache index`: what is in a binary cache.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::process::ExitCode;

use ferry_cache::{IndexEntry, Indexed};
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, NodeSet};
use serde_json::{Value, json};

use super::open;
use crate::cli::{CacheIndex, SortBy};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;

pub(super) fn run(context: &Context, options: &CacheIndex) -> Result<ExitCode, Failure> {
    let cache = open(context, &options.cache)?;
    let store_dir = context.store_dir()?;
    let indexed = cache.index(options.anew, &*context.bars)?;
    if options.write && !indexed.is_kept {
        cache.write_index(&indexed.index)?;
    }
    let mut entries = indexed.index.entries();
    let all = entries.len() as u64;
    entries.retain(|entry| options.names.iter().all(|name| name.is_match(entry.path.name())));
    let wants_closures = options.closure_size || options.sort == SortBy::ClosureSize;
    let closures = match wants_closures {
        true => closures(&indexed, &store_dir, &entries)?,
        false => Closures::default(),
    };
    match options.sort {
        SortBy::Name => entries.sort_by_key(|entry| (entry.path.name(), entry.path)),
        SortBy::NarSize => entries.sort_by_key(|entry| Reverse(entry.nar_size)),
        SortBy::FileSize => entries.sort_by_key(|entry| Reverse(entry.file_size)),
        SortBy::ClosureSize => entries.sort_by_key(|entry| Reverse(closures.of(entry.path))),
    }
    if context.json {
        output::json(as_json(options, &store_dir, &indexed, &entries, &closures))?;
    } else {
        // With --write alone, that is what was asked for.
        if !options.write || !options.names.is_empty() {
            print(&store_dir, &entries, &closures)?;
        }
    }
    context.talk.say(format!(
        "{}: {} of {all}, {} of NARs in {} of files; {} narinfos were read, the rest was in its \
         index",
        options.cache,
        output::paths(entries.len() as u64),
        output::size(nar_size(&entries)),
        output::size(file_size(&entries)),
        indexed.read,
    ));
    if options.write {
        let done = if indexed.is_kept { "is up to date" } else { "was written" };
        context.talk.say(format!("its index {done}"));
    }
    if indexed.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let reasons = indexed.failed.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>();
    Err(Failure::new("what is damaged is not in the list:")
        .list(reasons)
        .hint("`ferry cache verify` tells what is wrong with a cache, and what to do about it"))
}

fn nar_size(entries: &[IndexEntry<'_>]) -> u64 {
    entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.nar_size))
}

fn file_size(entries: &[IndexEntry<'_>]) -> u64 {
    let sizes = entries.iter().filter_map(|entry| entry.file_size);
    sizes.fold(0, u64::saturating_add)
}

/// How large things are with all that they refer to.
#[derive(Default)]
struct Closures {
    sizes: HashMap<StorePath, u64>,
    /// Of all of them, what they share counted once.
    total: Option<u64>,
}

impl Closures {
    fn of(&self, path: &StorePath) -> Option<u64> {
        self.sizes.get(path).copied()
    }
}

fn closures(
    indexed: &Indexed,
    store_dir: &StoreDir,
    entries: &[IndexEntry<'_>],
) -> Result<Closures, Failure> {
    let mut explorer = Explorer::new(store_dir.clone());
    explorer.add_source(Box::new(indexed.index.facts()));
    let nodes: Vec<_> = entries.iter().map(|entry| explorer.node(entry.path)).collect();
    let report = explorer.sizes(&nodes.iter().copied().collect::<NodeSet>())?;
    let by_node: HashMap<_, _> =
        report.members.iter().map(|sizes| (sizes.node, sizes.closure)).collect();
    let sizes = entries.iter().zip(&nodes);
    let sizes = sizes.filter_map(|(entry, node)| Some((entry.path.clone(), *by_node.get(node)?)));
    Ok(Closures { sizes: sizes.collect(), total: Some(report.closure) })
}

fn print(
    store_dir: &StoreDir,
    entries: &[IndexEntry<'_>],
    closures: &Closures,
) -> Result<(), Failure> {
    let size = |size: Option<u64>| size.map_or_else(|| "?".to_owned(), output::size);
    let row = |nar: &str, file: &str, closure: &str, path: &str| match closures.total {
        Some(_) => format!("{nar:>12} {file:>12} {closure:>12}  {path}"),
        None => format!("{nar:>12} {file:>12}  {path}"),
    };
    let head = std::iter::once(row("NAR", "file", "closure", "path"));
    let rows = entries.iter().map(|entry| {
        let closure = size(closures.of(entry.path));
        let nar = output::size(entry.nar_size);
        row(&nar, &size(entry.file_size), &closure, &store_dir.render_path(entry.path))
    });
    let total = row(
        &output::size(nar_size(entries)),
        &output::size(file_size(entries)),
        &size(closures.total),
        &format!("all {}", output::paths(entries.len() as u64)),
    );
    output::records(head.chain(rows).chain([total]), false)
}

fn as_json(
    options: &CacheIndex,
    store_dir: &StoreDir,
    indexed: &Indexed,
    entries: &[IndexEntry<'_>],
    closures: &Closures,
) -> Value {
    let paths = entries.iter().map(|entry| {
        json!({
            "path": store_dir.render_path(entry.path),
            "narSize": entry.nar_size,
            "fileSize": entry.file_size,
            "closureSize": closures.of(entry.path),
        })
    });
    let failed = indexed.failed.iter();
    let failed = failed.map(|(file, reason)| json!({ "file": file, "reason": reason }));
    json!({
        "cache": options.cache,
        "narinfosRead": indexed.read,
        "narSize": nar_size(entries),
        "fileSize": file_size(entries),
        "closureSize": closures.total,
        "paths": paths.collect::<Vec<_>>(),
        "failed": failed.collect::<Vec<_>>(),
    })
}
