//! `ferry copy`: from one store to another.

use std::path::Path;

use ferry_bundle::{BundleWriter, PackOptions};
use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::keys::SecretKey;
use ferry_store::closure::{closure, unreferenced};
use ferry_store::selection::Selection;
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::Purpose;
use ferry_store::{CopyReport, Destination, Error, Protection, Store, copy};
use serde_json::json;

use crate::cli::{Copy, Trust, What};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::output;
use crate::selected::selected;
use crate::sink::Sink;
use crate::sources::OpenSource;

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
        taken(context, &options.what, &options.from, &source)?
    };
    let target = Target {
        address: &options.to,
        no_check_sigs: options.no_check_sigs,
        trust: &options.trust,
        set: if options.all { "all" } else { &options.what.set },
    };
    let keys = secret_keys(&options.sign.sign_key)?;
    let (destination, report) = send(context, store, &target, selection, keys)?;
    tell(context, &destination, &report)
}

/// Where it is copied to.
pub(super) struct Target<'a> {
    pub(super) address: &'a str,
    pub(super) no_check_sigs: bool,
    pub(super) trust: &'a Trust,
    /// What a bundle says it holds.
    pub(super) set: &'a str,
}

/// Copies to a bundle, a binary cache or a store, and returns what that is called, too.
pub(super) fn send(
    context: &Context,
    store: &dyn Store,
    target: &Target<'_>,
    selection: Selection,
    mut keys: Vec<SecretKey>,
) -> Result<(String, CopyReport), Failure> {
    let _protection = protect(context, store, &selection)?;
    if target.address.ends_with(BUNDLE) {
        return into_bundle(context, target, store, selection, &keys);
    }
    let into = |destination: &dyn Destination, keys: &[SecretKey]| {
        let report = copy(store, destination, selection.infos, keys, &*context.bars)?;
        Ok((destination.describe(), report))
    };
    if CacheAddress::is_one(target.address) {
        let address = CacheAddress::parse(target.address)?;
        keys.extend(secret_keys(&address.secret_key_files)?);
        let http = context.http_options(target.address)?;
        let cache = BinaryCache::new(&address, store.store_dir(), &http)?
            .with_scratch_directory(std::env::temp_dir());
        return into(&cache, &keys);
    }
    let trust = match target.no_check_sigs {
        true => TrustPolicy::accept_all(),
        false => context.trust(target.trust)?,
    };
    let given = &target.trust.trusted_public_key;
    let there =
        context.open_store(target.address, Purpose::Write, trust, target.no_check_sigs, given)?;
    into(there.destination(), &keys)
}

/// Copies, and tells what was copied.
pub(super) fn carry(
    context: &Context,
    store: &dyn Store,
    destination: &dyn Destination,
    selection: Selection,
    keys: &[SecretKey],
) -> Result<(), Failure> {
    let _protection = protect(context, store, &selection)?;
    let report = copy(store, destination, selection.infos, keys, &*context.bars)?;
    tell(context, &destination.describe(), &report)
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

/// What the options take out of a source.
pub(super) fn taken(
    context: &Context,
    what: &What,
    address: &str,
    source: &OpenSource,
) -> Result<Selection, Failure> {
    let address = source.nix_address(address);
    selected(context, what, source.any_store(), source.facts(), address)
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
    target: &Target<'_>,
    store: &dyn Store,
    selection: Selection,
    keys: &[SecretKey],
) -> Result<(String, CopyReport), Failure> {
    let pack = PackOptions {
        set: target.set.to_owned(),
        roots: selection.roots.clone(),
        level: BUNDLE_LEVEL,
        sign_with: keys.to_vec(),
        ..PackOptions::default()
    };
    let (report, _) = Sink::new(Path::new(target.address), "a bundle")?.write(|sink| {
        let name = target.address.to_owned();
        let bundle = BundleWriter::new(sink, name, store.store_dir().clone(), pack);
        copy(store, &bundle, selection.infos, keys, &*context.bars)
    })?;
    Ok((format!("bundle {}", target.address), report))
}

fn tell(context: &Context, destination: &str, report: &CopyReport) -> Result<(), Failure> {
    if context.json {
        output::json(json!({
            "added": report.added,
            "present": report.present,
            "narSize": report.nar_size,
        }))?;
    }
    context.talk.say(format!(
        "copied {}, {} of NARs, to {destination} ({} there already)",
        output::paths(report.added as u64),
        output::size(report.nar_size),
        report.present,
    ));
    Ok(())
}
