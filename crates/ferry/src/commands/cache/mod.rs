//! `ferry cache`: binary caches, made and looked after.

mod create;
mod index;
mod prune;
mod sign;
mod verify;

use std::process::ExitCode;

use ferry_cache::BinaryCache;
use ferry_formats::{StoreDir, StorePath};
use ferry_store::installable::Installable;

use crate::cli::Cache;
use crate::context::Context;
use crate::failure::Failure;
use crate::installables::Installables;
use crate::sources::{cache_address, open_cache};

pub(super) fn run(context: &Context, command: &Cache) -> Result<ExitCode, Failure> {
    match command {
        Cache::Create(options) => create::run(context, options).map(|()| ExitCode::SUCCESS),
        Cache::Prune(options) => prune::run(context, options).map(|()| ExitCode::SUCCESS),
        Cache::Sign(options) => sign::run(context, options),
        Cache::Index(options) => index::run(context, options),
        Cache::Verify(options) => verify::run(context, options),
    }
}

/// The cache with this address; where it is none, it is a directory.
fn open(context: &Context, text: &str) -> Result<BinaryCache, Failure> {
    open_cache(context, text, &cache_address(context, text)?, &context.store_dir()?)
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
