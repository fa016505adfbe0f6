//! The stores and files that the facts of the dependency graph come from.

use std::path::PathBuf;

use ferry_bundle::Bundle;
use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::StoreDir;
use ferry_graph::{Explorer, Facts};
use ferry_store::Store;
use ferry_store::facts::{ReferencesGraph, StoreFacts, Trace, Unfinished};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose};

use crate::cli::Sources;
use crate::context::Context;
use crate::failure::Failure;

/// The file that a directory has if it is a binary cache.
const CACHE_INFO: &str = "nix-cache-info";
/// The store that is asked where nothing is named.
const DEFAULT_STORE: &str = "auto";

/// One store, opened.
pub(crate) enum OpenSource {
    Store(OpenStore),
    Bundle(Box<Bundle>),
    Cache(Box<BinaryCache>),
}

impl OpenSource {
    /// Opens the store, bundle or cache with this address; a cache may be named as a directory.
    pub(crate) fn open(context: &Context, address: &str) -> Result<Self, Failure> {
        let file = context.surroundings.working_directory.join(address);
        let is_cache = CacheAddress::is_one(address);
        if is_cache || file.join(CACHE_INFO).is_file() {
            let directory = file.to_string_lossy();
            let parsed = CacheAddress::parse(if is_cache { address } else { &directory })?;
            let options = context.http_options(address)?;
            let cache = BinaryCache::new(&parsed, &context.store_dir()?, &options)?;
            return Ok(Self::Cache(Box::new(cache)));
        }
        if file.is_file() {
            return Ok(Self::Bundle(Box::new(Bundle::open(&file)?)));
        }
        // Nothing is written to it.
        let trust = TrustPolicy::accept_all();
        context.open_store(address, Purpose::Read, trust, false, &[]).map(Self::Store)
    }

    /// As a store whose objects are at hand; from a cache they would have to be fetched.
    pub(crate) fn store(&self) -> Option<&dyn Store> {
        Some(self.any_store()).filter(|_| !matches!(self, Self::Cache(_)))
    }

    /// As a store that can be copied from.
    pub(crate) fn any_store(&self) -> &dyn Store {
        match self {
            Self::Store(store) => store.store(),
            Self::Bundle(bundle) => bundle.as_ref(),
            Self::Cache(cache) => cache.as_ref(),
        }
    }

    /// What it knows.
    pub(crate) fn facts(&self) -> Box<dyn Facts + '_> {
        match self {
            Self::Store(store) => store.facts(),
            Self::Bundle(bundle) => Box::new(StoreFacts::new(bundle.as_ref())),
            Self::Cache(cache) => {
                let kept = Context::cache_directory().map(|cache| cache.join("narinfos"));
                Box::new(cache.facts(kept.as_deref()))
            }
        }
    }

    /// Where Nix puts what it evaluates for it: into a store that Nix knows, which this one may
    /// be; `address` is how it was named.
    pub(crate) fn nix_address<'a>(&self, address: &'a str) -> &'a str {
        if matches!(self, Self::Store(_)) { address } else { DEFAULT_STORE }
    }
}

/// Everything that a query's options name.
pub(crate) struct OpenSources<'o> {
    options: &'o Sources,
    /// In the order in which they are believed.
    pub(crate) stores: Vec<OpenSource>,
    /// The address of the first of them, if it is one where Nix may put what it evaluates.
    pub(crate) address: String,
    pub(crate) store_dir: StoreDir,
}

impl<'o> OpenSources<'o> {
    pub(crate) fn open(context: &Context, options: &'o Sources) -> Result<Self, Failure> {
        let mut addresses = options.store.clone();
        if addresses.is_empty() && options.references_graph.is_empty() {
            addresses.push(DEFAULT_STORE.to_owned());
        }
        let stores = addresses
            .iter()
            .map(|address| OpenSource::open(context, address))
            .collect::<Result<Vec<_>, _>>()?;
        let store_dir = match stores.iter().find_map(OpenSource::store) {
            Some(store) => store.store_dir().clone(),
            None => context.store_dir()?,
        };
        let local = stores.iter().zip(&addresses).find_map(|(source, address)| match source {
            OpenSource::Store(_) => Some(address.clone()),
            _ => None,
        });
        let address = local.unwrap_or_else(|| DEFAULT_STORE.to_owned());
        Ok(Self { options, stores, address, store_dir })
    }

    /// A graph to be filled from all of them.
    pub(crate) fn explorer(&self, context: &Context) -> Result<Explorer<'_>, Failure> {
        let mut explorer = Explorer::new(self.store_dir.clone());
        for store in &self.stores {
            explorer.add_source(store.facts());
        }
        for file in &self.options.references_graph {
            let graph = ReferencesGraph::read(file, &self.store_dir).map_err(Failure::new)?;
            explorer.add_source(Box::new(graph));
        }
        add_traces(&mut explorer, context, &self.options.trace)?;
        Ok(explorer)
    }
}

/// Adds recorded evaluations.
pub(crate) fn add_traces(
    explorer: &mut Explorer<'_>,
    context: &Context,
    files: &[PathBuf],
) -> Result<(), Failure> {
    let store_dir = explorer.graph().store_dir().clone();
    for file in files {
        let trace = Trace::read(file, &store_dir, Unfinished::Refuse).map_err(Failure::new)?;
        if !trace.is_complete() {
            context.talk.say(format!(
                "{}: the recorder missed something: what evaluating needs may be more than this",
                file.display()
            ));
        }
        explorer.add_source(Box::new(trace));
    }
    Ok(())
}
