//! `ferry cache`: binary caches, made and looked after.

mod create;
mod index;
mod sign;
mod verify;

use std::process::ExitCode;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::{StoreDir, StorePath};
use ferry_store::installable::Installable;

use crate::cli::Cache;
use crate::context::Context;
use crate::failure::Failure;
use crate::installables::Installables;

pub(super) fn run(context: &Context, command: &Cache) -> Result<ExitCode, Failure> {
    match command {
        Cache::Create(options) => create::run(context, options).map(|()| ExitCode::SUCCESS),
        Cache::Sign(options) => sign::run(context, options),
        Cache::Index(options) => index::run(context, options),
        Cache::Verify(options) => verify::run(context, options),
    }
}

/// What the address of a cache means; where it is none, it is a directory.
fn address(context: &Context, text: &str) -> Result<CacheAddress, Failure> {
    if CacheAddress::is_one(text) {
        return Ok(CacheAddress::parse(text)?);
    }
    let directory = context.surroundings.working_directory.join(text);
    Ok(CacheAddress::parse(&directory.to_string_lossy())?)
}

/// The cache with this address.
fn open(context: &Context, text: &str) -> Result<BinaryCache, Failure> {
    let http = context.http_options(text)?;
    let cache = BinaryCache::new(&address(context, text)?, &context.store_dir()?, &http)?;
    Ok(cache.with_scratch_directory(std::env::temp_dir()))
}

/// Store paths, or links to some: whatever else an installable is, no cache knows.
fn store_paths(
    context: &Context,
    store_dir: &StoreDir,
    named: &[String],
) -> Result<Vec<StorePath>, Failure> {
    let installables = Installables { context, store_dir, store: "auto" };
    let path = |installable| match installable {
        Installable::Path(path) => Ok(path),
        _ => Err(Failure::usage("what is named here has to be a store path, or a link to one")),
    };
    installables.all(named)?.into_iter().map(path).collect()
}
