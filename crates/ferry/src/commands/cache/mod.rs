//! `ferry cache`: making binary caches, and looking after them.

mod create;
mod prune;

use std::process::ExitCode;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::StoreDir;

use crate::cli::Cache;
use crate::context::Context;
use crate::failure::Failure;

pub(crate) fn run(context: &Context, command: &Cache) -> Result<ExitCode, Failure> {
    match command {
        Cache::Create(options) => create::run(context, options),
        Cache::Prune(options) => prune::run(context, options),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The address of a cache: a plain directory is one as well.
fn parse_address(context: &Context, given: &str) -> Result<CacheAddress, Failure> {
    if CacheAddress::is_one(given) {
        return Ok(CacheAddress::parse(given)?);
    }
    let directory = context.surroundings.working_directory.join(given);
    Ok(CacheAddress::parse(&directory.to_string_lossy())?)
}

/// The cache at an address.
fn open(
    context: &Context,
    given: &str,
    address: &CacheAddress,
    store_dir: &StoreDir,
) -> Result<BinaryCache, Failure> {
    let cache = BinaryCache::new(address, store_dir, &context.http_options(given)?)?;
    Ok(cache.with_scratch_directory(std::env::temp_dir()))
}
