//! `ferry copy`: from one store to another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::keys::SecretKey;
use ferry_graph::Explorer;
use ferry_store::closure::{closure, unreferenced};
use ferry_store::selection::{self, Selection};
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Destination, Error, Protection, Store, copy};
use serde_json::json;

use crate::cli::{Copy, What};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::installables::Installables;
use crate::output;
use crate::queries::Queries;
use crate::sink::Sink;
use crate::sources::{OpenSource, add_traces};

/// How the name of a bundle ends, where only that tells it from a store.
const BUNDLE: &str = ".ferry";
/// The zstd level of a bundle that is copied to.
const BUNDLE_LEVEL: i32 = 9;

pub(crate) fn run(context: &Context, options: &Copy) -> Result<(), Failure> {
    if options.from == options.to {
        return Err(Failure::usage("it is copied from where it is copied to: name --from or --to"));
    }
    let source = OpenSource::open(context, &options.from)?;
    let store = source.any_store();
    let selection = if options.all {
        everything(store)?
    } else {
        selected(context, &options.what, &options.from, &source)?
    };
    let mut keys = secret_keys(&options.what.sign_key)?;
    if options.to.ends_with(BUNDLE) {
        not_in_parts(options.shard)?;
        return into_bundle(context, options, store, selection, &keys);
    }
    if CacheAddress::is_one(&options.to) {
        let address = CacheAddress::parse(&options.to)?;
        keys.extend(secret_keys(&address.secret_key_files)?);
        let http = context.http_options(&options.to)?;
        let cache = BinaryCache::new(&address, store.store_dir(), &http)?
            .with_scratch_directory(std::env::temp_dir());
        return into_cache(context, store, cache, selection, &keys, options.shard);
    }
    not_in_parts(options.shard)?;
    let trust = if options.no_check_sigs {
        TrustPolicy::accept_all()
    } else {
        context.trust(&options.trust)?
    };
    let given = &options.trust.trusted_public_key;
    let there =
        context.open_store(&options.to, Purpose::Write, trust, options.no_check_sigs, given)?;
    carry(context, store, there.destination(), selection, &keys)
}

/// Copies, and tells what was copied.
fn carry(
    context: &Context,
    store: &dyn Store,
    destination: &dyn Destination,
    selection: Selection,
    keys: &[SecretKey],
) -> Result<(), Failure> {
    let _protection = protect(context, store, &selection)?;
    let report = copy(store, destination, selection.infos, keys, &*context.bars)?;
    tell(context, &destination.describe(), &report, None)
}

/// Copies into a binary cache, a part of it if one is named, and tells what was copied.
pub(super) fn into_cache(
    context: &Context,
    store: &dyn Store,
    mut cache: BinaryCache,
    mut selection: Selection,
    keys: &[SecretKey],
    shard: Option<Shard>,
) -> Result<(), Failure> {
    if let Some(shard) = shard {
        if !cache.can_be_listed() {
            return Err(Failure::usage(
                "--shard: whoever ends last puts the parts together, for which the cache has to be \
                 listed; on the web it cannot be",
            ));
        }
        let (mine, others) = selection.infos.into_iter().partition(|(path, _)| shard.holds(path));
        selection.infos = mine;
        let others: BTreeMap<_, _> = others;
        cache = cache.awaiting(others.into_keys().collect());
    }
    let _protection = protect(context, store, &selection)?;
    let report = copy(store, &cache, selection.infos, keys, &*context.bars)?;
    tell(context, &Destination::describe(&cache), &report, shard.map(|_| cache.waiting()))?;
    if cache.waiting() > 0 {
        context.talk.say(format!(
            "{} wait for what they refer to, until the other parts are there",
            output::paths(cache.waiting() as u64)
        ));
    }
    Ok(())
}

/// Only in a binary cache parts find together.
fn not_in_parts(shard: Option<Shard>) -> Result<(), Failure> {
    match shard {
        None => Ok(()),
        Some(_) => Err(Failure::usage("--shard takes a binary cache to copy to")),
    }
}

/// Everything that is in a store.
fn everything(store: &dyn Store) -> Result<Selection, Failure> {
    let paths = store.all_paths()?.ok_or_else(|| {
        Failure::new(format!("{} cannot list what is in it", store.describe()))
            .hint("name what to copy, in place of --all")
    })?;
    let infos = closure(store, &paths)?;
    let all: Vec<_> = infos.values().cloned().collect();
    Ok(Selection { roots: unreferenced(&all), infos })
}

/// What the options take out of a store.
pub(super) fn selected(
    context: &Context,
    what: &What,
    address: &str,
    source: &OpenSource,
) -> Result<Selection, Failure> {
    if what.installables.is_empty() {
        return Err(Failure::usage("nothing is named that could be copied"));
    }
    let store = source.any_store();
    // Where there are no stores that Nix knows, it evaluates into its own.
    let address = if matches!(source, OpenSource::Store(_)) { address } else { "auto" };
    let installables = Installables { context, store_dir: store.store_dir(), store: address };
    let named = installables.all(&what.installables)?;
    let also = installables.all(&what.also)?;
    let mut explorer = Explorer::new(store.store_dir().clone());
    source.add_to(&mut explorer)?;
    add_traces(&mut explorer, context, &what.trace)?;
    let mut queries = Queries::new(context, explorer, address);
    let set = queries.evaluate_set(&what.query_file, &what.set, &named)?;
    queries.settle(false)?;
    Ok(selection::select(store, &mut queries.explorer, &set, &named, &also)?)
}

fn protect(
    context: &Context,
    store: &dyn Store,
    selection: &Selection,
) -> Result<Protection, Failure> {
    let paths: Vec<_> = selection.infos.keys().cloned().collect();
    match store.protect(&paths) {
        // Without it a collection meanwhile makes the copy fail, and harms nothing.
        Err(Error::Io { action, source }) => {
            context
                .talk
                .say(format!("the garbage collector is not kept away: cannot {action}: {source}"));
            Ok(Protection::default())
        }
        outcome => Ok(outcome?),
    }
}

fn into_bundle(
    context: &Context,
    options: &Copy,
    store: &dyn Store,
    selection: Selection,
    keys: &[SecretKey],
) -> Result<(), Failure> {
    let _protection = protect(context, store, &selection)?;
    let pack = PackOptions {
        set: if options.all { "all".to_owned() } else { options.what.set.clone() },
        roots: selection.roots.clone(),
        level: BUNDLE_LEVEL,
        sign_with: keys.to_vec(),
        ..PackOptions::default()
    };
    let path = PathBuf::from(&options.to);
    let (report, _) = Sink::new(Path::new(&options.to), "a bundle")?.write(|sink| {
        let name = path.display().to_string();
        let bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack);
        copy(store, &bundle, selection.infos, keys, &*context.bars)
    })?;
    tell(context, &format!("bundle {}", path.display()), &report, None)
}

/// Tells what was copied; of a part, how many paths wait for others.
fn tell(
    context: &Context,
    destination: &str,
    report: &CopyReport,
    waiting: Option<usize>,
) -> Result<(), Failure> {
    if context.json {
        let mut fields = json!({
            "added": report.added,
            "present": report.present,
            "narSize": report.nar_size,
        });
        if let (Some(waiting), Some(fields)) = (waiting, fields.as_object_mut()) {
            fields.insert("waiting".to_owned(), json!(waiting));
        }
        output::json(fields)?;
    }
    context.talk.say(format!(
        "copied {}, {} of NARs, to {destination} ({} there already)",
        output::paths(report.added as u64),
        output::size(report.nar_size),
        report.present,
    ));
    Ok(())
}
