//! `ferry cache create`: making a binary cache, or adding to one.

use ferry_cache::{CacheAddress, Compression, CompressionSetting};
use ferry_store::Store as _;
use ferry_store::closure::{closure, unreferenced};
use ferry_store::facts::ReferencesGraph;
use ferry_store::local::{Layout, UnregisteredStore};
use ferry_store::selection::Selection;

use crate::cli::CacheCreate;
use crate::commands::copy::{into_cache, selected};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::installables::Installables;
use crate::sources::OpenSource;

pub(crate) fn run(context: &Context, options: &CacheCreate) -> Result<(), Failure> {
    let address = address(context, options)?;
    let mut keys = secret_keys(&options.what.sign_key)?;
    keys.extend(secret_keys(&address.secret_key_files)?);
    let open = |store_dir| super::open(context, &options.to, &address, store_dir);
    if options.references_graph.is_empty() {
        let source = OpenSource::open(context, &options.from)?;
        let selection = selected(context, &options.what, &options.from, &source)?;
        let store = source.any_store();
        let cache = open(store.store_dir())?;
        return into_cache(context, store, cache, selection, &keys, options.shard);
    }
    let store = unregistered(context, options)?;
    let selection = listed(context, options, &store)?;
    into_cache(context, &store, open(store.store_dir())?, selection, &keys, options.shard)
}

/// Where the cache is, and how to write it.
fn address(context: &Context, options: &CacheCreate) -> Result<CacheAddress, Failure> {
    let mut address = super::parse_address(context, &options.to)?;
    let settings = &mut address.settings;
    if options.compression.is_some() || options.compression_level.is_some() {
        let method = match &options.compression {
            None => settings.compression.method(),
            Some(name) => Compression::parse(name).ok_or_else(|| {
                Failure::usage(format!("--compression: `{name}` is no compression that is known"))
            })?,
        };
        settings.compression = CompressionSetting::new(method, options.compression_level)
            .map_err(|reason| Failure::usage(format!("--compression: {reason}")))?;
    }
    settings.write_nar_listing |= options.write_nar_listing;
    settings.priority = options.priority.or(settings.priority);
    settings.want_mass_query = options.want_mass_query.then_some(true).or(settings.want_mass_query);
    Ok(address)
}

/// The files that references graphs list.
fn unregistered(context: &Context, options: &CacheCreate) -> Result<UnregisteredStore, Failure> {
    let store_dir = context.store_dir()?;
    let graphs = options
        .references_graph
        .iter()
        .map(|file| ReferencesGraph::read(file, &store_dir).map_err(Failure::new))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(UnregisteredStore::new(Layout::below(None, store_dir), &graphs))
}

/// What is taken of them: everything, unless something is named.
fn listed(
    context: &Context,
    options: &CacheCreate,
    store: &UnregisteredStore,
) -> Result<Selection, Failure> {
    let paths = if options.what.installables.is_empty() {
        store.all_paths()?.unwrap_or_default()
    } else {
        let installables = Installables { context, store_dir: store.store_dir(), store: "auto" };
        let mut paths = Vec::new();
        for installable in installables.all(&options.what.installables)? {
            match installable {
                ferry_store::installable::Installable::Path(path) => paths.push(path),
                _ => {
                    let reason = "with --references-graph, name store paths";
                    return Err(Failure::usage(reason));
                }
            }
        }
        paths
    };
    let infos = closure(store, &paths)?;
    let all: Vec<_> = infos.values().cloned().collect();
    Ok(Selection { roots: unreferenced(&all), infos })
}
