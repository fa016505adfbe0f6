//! `ferry copy`: from one store to another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_cache::CacheAddress;
use ferry_formats::StoreDir;
use ferry_formats::keys::SecretKey;
use ferry_graph::Explorer;
use ferry_store::build_logs::{LogReport, copy_build_logs};
use ferry_store::selection::{self, Selection};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Destination, Error, Protection, Store, copy};
use serde_json::json;

use super::copied;
use crate::cli::{Copy, What};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::installables::Installables;
use crate::output;
use crate::queries::Queries;
use crate::sink::Sink;
use crate::sources::{OpenSource, add_traces, everything, open_cache};

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
        if options.with_logs {
            return Err(Failure::usage("a bundle keeps no build logs"));
        }
        return into_bundle(context, options, store, selection, &keys);
    }
    if CacheAddress::is_one(&options.to) {
        let address = CacheAddress::parse(&options.to)?;
        keys.extend(secret_keys(&address.secret_key_files)?);
        let cache = open_cache(context, &options.to, &address, store.store_dir())?;
        return carry(context, store, &cache, selection, &keys, options.with_logs);
    }
    let trust = if options.no_check_sigs {
        TrustPolicy::accept_all()
    } else {
        context.trust(&options.trust)?
    };
    let given = &options.trust.trusted_public_key;
    let there =
        context.open_store(&options.to, Purpose::Write, trust, options.no_check_sigs, given)?;
    carry(context, store, there.destination(), selection, &keys, options.with_logs)
}

/// Copies, and tells what was copied.
pub(super) fn carry(
    context: &Context,
    store: &dyn Store,
    destination: &dyn Destination,
    selection: Selection,
    keys: &[SecretKey],
    with_logs: bool,
) -> Result<(), Failure> {
    let _protection = protect(context, store, &selection)?;
    let paths = if with_logs { selection.infos.clone() } else { BTreeMap::new() };
    let report = copy(store, destination, selection.infos, keys, &*context.bars)?;
    let logs =
        match with_logs {
            true => Some(copy_build_logs(store, destination, &paths, &*context.bars)?.ok_or_else(
                || Failure::new(format!("{} keeps no build logs", destination.describe())),
            )?),
            false => None,
        };
    tell(context, &destination.describe(), &report, logs, store.store_dir())
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
    tell(context, &format!("bundle {}", path.display()), &report, None, store.store_dir())
}

fn tell(
    context: &Context,
    destination: &str,
    report: &CopyReport,
    logs: Option<LogReport>,
    store_dir: &StoreDir,
) -> Result<(), Failure> {
    if context.json {
        let mut fields = copied::fields(report, store_dir);
        let logs = logs.map(|LogReport { added, present, absent }| {
            json!({ "added": added, "present": present, "absent": absent })
        });
        if let Some(object) = fields.as_object_mut() {
            object.insert("realisations".to_owned(), copied::realisations(report));
            object.insert("logs".to_owned(), json!(logs));
        }
        output::json(fields)?;
    }
    copied::tell(context, "copied", destination, report, store_dir);
    if let Some(logs) = logs {
        context.talk.say(format!(
            "copied {} build logs ({} there already; of {} derivations there is none)",
            logs.added, logs.present, logs.absent
        ));
    }
    Ok(())
}
