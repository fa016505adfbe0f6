//! The stores and files that the facts of the dependency graph come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_bundle::{Bundle, BundleError};
use ferry_cache::{BinaryCache, CacheAddress, realised_in};
use ferry_formats::StoreDir;
use ferry_graph::{Explorer, Facts};
use ferry_store::facts::{ReferencesGraph, StoreFacts, Trace, TraceDirectory, Unfinished};
use ferry_store::local::{Layout, UnregisteredStore};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose};
use ferry_store::{NarRanges, Store, Wanted};

use crate::cli::Sources;
use crate::context::Context;
use crate::failure::Failure;
use crate::installables::require_file;
use crate::recording::traces_directory;

/// The store that is asked where nothing is named.
const DEFAULT_STORE: &str = "auto";

/// One store, opened.
pub(crate) enum OpenSource {
    Store(OpenStore),
    Bundle(Box<Bundle>),
    Cache(Box<BinaryCache>),
    /// What references graphs list.
    Listed(Box<UnregisteredStore>),
}

impl OpenSource {
    /// Opens the store, bundle or cache with this address; a cache may be named as a directory.
    pub(crate) fn open(context: &Context, address: &str) -> Result<Self, Failure> {
        if is_cache(context, address) {
            let parsed = cache_address(context, address)?;
            let cache = open_cache(context, address, &parsed, &context.store_dir()?)?;
            return Ok(Self::Cache(Box::new(cache)));
        }
        if let Some(file) = bundle_file(context, address) {
            return Ok(Self::Bundle(Box::new(Bundle::open(&file)?)));
        }
        require_file(context, address)?;
        // Nothing is written to it.
        let trust = TrustPolicy::accept_all();
        context.open_store(address, Purpose::Read, trust, false, &[]).map(Self::Store)
    }

    /// Opens what these references graphs list, read from the files of the system's store; where
    /// there are none, the store with this address.
    pub(crate) fn listed_or_at(
        context: &Context,
        graphs: &[PathBuf],
        address: &str,
    ) -> Result<Self, Failure> {
        if graphs.is_empty() {
            return Self::open(context, address);
        }
        let store_dir = context.store_dir()?;
        let graphs = graphs
            .iter()
            .map(|file| ReferencesGraph::read(file, &store_dir).map_err(Failure::new))
            .collect::<Result<Vec<_>, _>>()?;
        let store = UnregisteredStore::new(Layout::below(None, store_dir), &graphs);
        Ok(Self::Listed(Box::new(store)))
    }

    pub(crate) fn is_listed(&self) -> bool {
        matches!(self, Self::Listed(_))
    }

    /// The NARs of the store at any position, where its files can be seen.
    pub(crate) fn files(&self) -> Option<Arc<dyn NarRanges>> {
        match self {
            Self::Store(store) => store.files(),
            Self::Listed(store) => Some(store.files()),
            Self::Bundle(_) | Self::Cache(_) => None,
        }
    }

    /// Opens all of these. If the derivations of a bundle are coded against others, those are read
    /// from the first of the stores that has them.
    fn open_all(context: &Context, addresses: &[String]) -> Result<Vec<Self>, Failure> {
        let mut others = Vec::new();
        for address in addresses {
            if bundle_file(context, address).is_none() {
                others.push(Self::open(context, address)?);
            }
        }
        let bundle = |file: &Path| {
            let mut opened = Bundle::open(file);
            for store in others.iter().filter_map(Self::store) {
                if !matches!(
                    opened,
                    Err(BundleError::NeedsBase { .. } | BundleError::DerivationBase { .. })
                ) {
                    break;
                }
                opened = Bundle::open_against(file, Some(store));
            }
            opened.map(|bundle| Self::Bundle(Box::new(bundle)))
        };
        let bundles = addresses.iter().filter_map(|address| bundle_file(context, address));
        let bundles = bundles.map(|file| bundle(&file)).collect::<Result<Vec<_>, _>>()?;
        let (mut bundles, mut others) = (bundles.into_iter(), others.into_iter());
        let next = |address: &String| match bundle_file(context, address) {
            Some(_) => bundles.next(),
            None => others.next(),
        };
        Ok(addresses.iter().filter_map(next).collect())
    }

    /// As a store whose objects are at hand; from a cache they would have to be fetched.
    pub(crate) fn store(&self) -> Option<&dyn Store> {
        Some(self.any_store()).filter(|_| !matches!(self, Self::Cache(_)))
    }

    /// As a binary cache, if it is one.
    pub(crate) fn cache(&self) -> Option<&BinaryCache> {
        match self {
            Self::Cache(cache) => Some(cache),
            _ => None,
        }
    }

    /// As a store that can be copied from.
    pub(crate) fn any_store(&self) -> &dyn Store {
        match self {
            Self::Store(store) => store.store(),
            Self::Bundle(bundle) => bundle.as_ref(),
            Self::Cache(cache) => cache.as_ref(),
            Self::Listed(store) => store.as_ref(),
        }
    }

    /// What it knows.
    pub(crate) fn facts(&self) -> Box<dyn Facts + '_> {
        match self {
            Self::Store(store) => store.facts(),
            Self::Bundle(bundle) => Box::new(StoreFacts::new(bundle.as_ref())),
            Self::Listed(store) => Box::new(StoreFacts::new(store.as_ref())),
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

/// Whether this names a binary cache by its address, or a directory with one.
pub(crate) fn is_cache(context: &Context, place: &str) -> bool {
    let directory = context.surroundings.working_directory.join(place);
    CacheAddress::is_one(place) || CacheAddress::is_directory(&directory)
}

/// Where a binary cache is that is named by its address, or as a directory.
pub(crate) fn cache_address(context: &Context, place: &str) -> Result<CacheAddress, Failure> {
    if CacheAddress::is_one(place) {
        return Ok(CacheAddress::parse(place)?);
    }
    let directory = context.surroundings.working_directory.join(place);
    Ok(CacheAddress::parse(&directory.to_string_lossy())?)
}

/// Opens the binary cache at `address`, which was given as `place`, to read or to write.
pub(crate) fn open_cache(
    context: &Context,
    place: &str,
    address: &CacheAddress,
    store_dir: &StoreDir,
) -> Result<BinaryCache, Failure> {
    let cache = BinaryCache::new(address, store_dir, &context.http_options(place)?)?;
    Ok(cache.with_scratch_directory(std::env::temp_dir()))
}

/// Everything that is in a store.
pub(crate) fn everything(store: &dyn Store) -> Result<Wanted, Failure> {
    Wanted::everything(store)?.ok_or_else(|| {
        Failure::new(format!("{} cannot list what is in it", store.describe()))
            .hint("name what to copy to `ferry copy`")
    })
}

/// The file of a bundle, if that is what an address names.
fn bundle_file(context: &Context, address: &str) -> Option<PathBuf> {
    let file = context.surroundings.working_directory.join(address);
    (!CacheAddress::is_one(address) && file.is_file()).then_some(file)
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
        let stores = OpenSource::open_all(context, &addresses)?;
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
        self.explorer_realised_in(context, &[])
    }

    /// The same, with the paths that these caches know of outputs that have none before they are
    /// built.
    pub(crate) fn explorer_realised_in<'a>(
        &'a self,
        context: &Context,
        caches: &[&'a BinaryCache],
    ) -> Result<Explorer<'a>, Failure> {
        let mut explorer = Explorer::new(self.store_dir.clone());
        for store in &self.stores {
            explorer.add_source(match (caches.is_empty(), store.store()) {
                (false, Some(texts)) => {
                    Box::new(realised_in(store.facts(), texts, caches.to_vec()))
                }
                _ => store.facts(),
            });
        }
        for file in &self.options.references_graph {
            let graph = ReferencesGraph::read(file, &self.store_dir).map_err(Failure::new)?;
            explorer.add_source(Box::new(graph));
        }
        add_traces(&mut explorer, context, &self.options.trace)?;
        Ok(explorer)
    }
}

/// Adds recorded evaluations: those in `files`, and behind them those that are kept.
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
    // Where there is no home, none are kept.
    if let Ok(directory) = traces_directory()
        && directory.is_dir()
    {
        explorer.add_source(Box::new(TraceDirectory::new(directory)));
    }
    Ok(())
}
