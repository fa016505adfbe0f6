//! `ferry copy`: from one store to another.

use std::collections::BTreeMap;
use std::path::Path;

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_cache::BinaryCache;
use ferry_formats::StoreDir;
use ferry_formats::keys::SecretKey;
use ferry_store::build_logs::{LogReport, copy_build_logs};
use ferry_store::closure::unreferenced;
use ferry_store::shard::Shard;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Destination, Error, Protection, Store, Wanted, copy};
use serde_json::json;

use super::copied;
use crate::cli::{Copy, Trust, What};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::output;
use crate::selected::{Carried, selected};
use crate::sink::Sink;
use crate::sources::{OpenSource, cache_address, everything, is_cache, open_cache};

/// How the name of a bundle ends, where only that tells it from a store.
const BUNDLE: &str = ".ferry";
/// The zstd level of a bundle that is copied to.
const BUNDLE_LEVEL: i32 = 9;

pub(crate) fn run(context: &Context, options: &Copy) -> Result<(), Failure> {
    if options.from == options.to {
        return Err(Failure::usage("it is copied from where it is copied to: name --from or --to"));
    }
    if options.to.ends_with(BUNDLE) {
        Sink::new(Path::new(&options.to), "a bundle")?.apart_from([Path::new(&options.from)])?;
    }
    let source = OpenSource::open(context, &options.from)?;
    let store = source.any_store();
    let carried = if options.all {
        Carried { roots: None, wanted: everything(store)? }
    } else {
        taken(context, &options.what, &options.from, &source)?
    };
    let target = Target {
        address: &options.to,
        no_check_sigs: options.no_check_sigs,
        trust: &options.trust,
        set: if options.all { "all" } else { &options.what.set },
        extras: Extras { with_logs: options.with_logs, shard: options.shard },
    };
    let keys = secret_keys(&options.sign.sign_key)?;
    let sent = send(context, store, &target, carried, keys)?;
    tell(context, &sent, store.store_dir())
}

/// Where it is copied to.
pub(super) struct Target<'a> {
    pub(super) address: &'a str,
    pub(super) no_check_sigs: bool,
    pub(super) trust: &'a Trust,
    /// What a bundle says it holds.
    pub(super) set: &'a str,
    pub(super) extras: Extras,
}

/// What only some destinations know.
#[derive(Clone, Copy, Default)]
pub(super) struct Extras {
    pub(super) with_logs: bool,
    pub(super) shard: Option<Shard>,
}

/// What was copied, and to what.
pub(super) struct Sent {
    pub(super) destination: String,
    pub(super) report: CopyReport,
    logs: Option<LogReport>,
    /// Of a part: how many paths wait for others.
    waiting: Option<usize>,
}

/// Copies to a bundle, a binary cache or a store.
pub(super) fn send(
    context: &Context,
    store: &dyn Store,
    target: &Target<'_>,
    carried: Carried,
    mut keys: Vec<SecretKey>,
) -> Result<Sent, Failure> {
    if target.address.ends_with(BUNDLE) {
        return into_bundle(context, target, store, carried, &keys);
    }
    let wanted = carried.wanted;
    if is_cache(context, target.address) {
        let address = cache_address(context, target.address)?;
        keys.extend(secret_keys(&address.secret_key_files)?);
        let cache = open_cache(context, target.address, &address, store.store_dir())?;
        return into_cache(context, store, cache, wanted, &keys, target.extras);
    }
    if target.extras.shard.is_some() {
        return Err(not_in_parts());
    }
    let trust = match target.no_check_sigs {
        true => TrustPolicy::accept_all(),
        false => context.trust(target.trust)?,
    };
    let given = &target.trust.trusted_public_key;
    let there =
        context.open_store(target.address, Purpose::Write, trust, target.no_check_sigs, given)?;
    deliver(context, store, there.destination(), wanted, &keys, target.extras.with_logs)
}

/// Only in a binary cache parts find together.
fn not_in_parts() -> Failure {
    Failure::usage("--shard takes a binary cache to copy to")
}

/// Copies into a binary cache, a part of it if one is named.
pub(super) fn into_cache(
    context: &Context,
    store: &dyn Store,
    mut cache: BinaryCache,
    mut wanted: Wanted,
    keys: &[SecretKey],
    extras: Extras,
) -> Result<Sent, Failure> {
    if let Some(shard) = extras.shard {
        if !cache.can_be_listed() {
            return Err(Failure::usage(
                "--shard: whoever ends last puts the parts together, for which the cache has to be \
                 listed; on the web it cannot be",
            ));
        }
        let (mine, others) = wanted.split(|path| shard.holds(path));
        wanted = mine;
        cache = cache.awaiting(others.paths().into_iter().collect());
    }
    let sent = deliver(context, store, &cache, wanted, keys, extras.with_logs)?;
    if cache.waiting() > 0 {
        context.talk.say(format!(
            "{} wait for what they refer to, until the other parts are there",
            output::paths(cache.waiting() as u64)
        ));
    }
    Ok(Sent { waiting: extras.shard.map(|_| cache.waiting()), ..sent })
}

fn deliver(
    context: &Context,
    store: &dyn Store,
    destination: &dyn Destination,
    mut wanted: Wanted,
    keys: &[SecretKey],
    with_logs: bool,
) -> Result<Sent, Failure> {
    let _protection = protect(context, store, &wanted)?;
    let mut paths = BTreeMap::new();
    if with_logs {
        // Logs are those of derivers, too.
        paths = wanted.infos(store)?;
        wanted = paths.clone().into();
    }
    let report = copy(store, destination, wanted, keys, &*context.bars)?;
    let logs =
        match with_logs {
            true => Some(copy_build_logs(store, destination, &paths, &*context.bars)?.ok_or_else(
                || Failure::new(format!("{} keeps no build logs", destination.describe())),
            )?),
            false => None,
        };
    Ok(Sent { destination: destination.describe(), report, logs, waiting: None })
}

/// What the options take out of a source.
pub(super) fn taken(
    context: &Context,
    what: &What,
    address: &str,
    source: &OpenSource,
) -> Result<Carried, Failure> {
    let address = source.nix_address(address);
    selected(context, what, source.any_store(), source.facts(), address)
}

fn protect(context: &Context, store: &dyn Store, wanted: &Wanted) -> Result<Protection, Failure> {
    match store.protect(&wanted.paths()) {
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
    target: &Target<'_>,
    store: &dyn Store,
    carried: Carried,
    keys: &[SecretKey],
) -> Result<Sent, Failure> {
    if target.extras.with_logs {
        return Err(Failure::usage("a bundle keeps no build logs"));
    }
    if target.extras.shard.is_some() {
        return Err(not_in_parts());
    }
    let Carried { roots, wanted } = carried;
    let _protection = protect(context, store, &wanted)?;
    let infos = wanted.infos(store)?;
    let evaluations = store.evaluations().into_iter();
    let pack = PackOptions {
        evaluations: evaluations.filter(|path| infos.contains_key(path)).collect(),
        set: target.set.to_owned(),
        roots: roots.unwrap_or_else(|| unreferenced(infos.values())),
        level: BUNDLE_LEVEL,
        sign_with: keys.to_vec(),
        ..PackOptions::default()
    };
    let (report, _) = Sink::new(Path::new(target.address), "a bundle")?.write(|sink| {
        let name = target.address.to_owned();
        let bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack);
        copy(store, &bundle, infos, keys, &*context.bars)
    })?;
    Ok(Sent {
        destination: format!("bundle {}", target.address),
        report,
        logs: None,
        waiting: None,
    })
}

/// Tells what was copied.
pub(super) fn tell(context: &Context, sent: &Sent, store_dir: &StoreDir) -> Result<(), Failure> {
    let Sent { destination, report, logs, waiting } = sent;
    if context.json {
        let mut fields = copied::fields(report, store_dir);
        let logs = logs.as_ref().map(|LogReport { added, present, absent }| {
            json!({ "added": added, "present": present, "absent": absent })
        });
        if let Some(object) = fields.as_object_mut() {
            object.insert("realisations".to_owned(), copied::realisations(report));
            object.insert("logs".to_owned(), json!(logs));
            if let Some(waiting) = waiting {
                object.insert("waiting".to_owned(), json!(waiting));
            }
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
