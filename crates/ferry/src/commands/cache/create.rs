//! `ferry cache create`: making binary caches.

use ferry_cache::{CacheAddress, Compression, CompressionSetting};

use crate::cli::CacheCreate;
use crate::commands::copy::{Extras, into_cache, taken, tell};
use crate::context::{Context, secret_keys};
use crate::failure::Failure;
use crate::sources::{OpenSource, cache_address, everything, open_cache};

pub(super) fn run(context: &Context, options: &CacheCreate) -> Result<(), Failure> {
    let address = address(context, options)?;
    let mut keys = secret_keys(&options.sign.sign_key)?;
    keys.extend(secret_keys(&address.secret_key_files)?);
    let source = OpenSource::listed_or_at(context, &options.references_graph, &options.from)?;
    let store = source.any_store();
    let wanted = if options.what.is_empty() && source.is_listed() {
        everything(store)?
    } else {
        taken(context, &options.what, &options.from, &source)?.wanted
    };
    let cache = open_cache(context, &options.to, &address, store.store_dir())?;
    let extras = Extras { with_logs: options.with_logs, shard: options.shard };
    let sent = into_cache(context, store, cache, wanted, &keys, extras)?;
    tell(context, &sent, store.store_dir())
}

/// Where the cache is, and how to write it.
fn address(context: &Context, options: &CacheCreate) -> Result<CacheAddress, Failure> {
    let mut address = cache_address(context, &options.to)?;
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
