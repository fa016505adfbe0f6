//! The paths that outputs got which have none before they are built, as binary caches know them.

use ferry_formats::StorePath;
use ferry_formats::build_trace::DrvOutput;
use ferry_graph::Facts;
use ferry_store::Store;
use ferry_store::facts::RealisedIn;
use ferry_store::parallel::in_parallel;

use crate::{BinaryCache, CacheError, realisations};

/// The facts of a source of derivations; and of their outputs whose paths it does not know, those
/// paths that caches have, which are asked in their order, as whoever substitutes would.
/// `texts` has the derivations that `facts` knows. Signatures are not looked at: Nix does not look
/// at these.
#[must_use]
pub fn realised_in<'a>(
    facts: Box<dyn Facts + 'a>,
    texts: &'a dyn Store,
    caches: Vec<&'a BinaryCache>,
) -> RealisedIn<'a> {
    let threads = caches.iter().map(|cache| cache.place.connections()).max().unwrap_or(1);
    RealisedIn::new(facts, texts, move |outputs| {
        Ok(in_parallel(outputs, threads, |keys| find(&caches, keys))?)
    })
}

/// The path that the first cache has which knows one.
fn find(
    caches: &[&BinaryCache],
    keys: &[DrvOutput],
) -> std::result::Result<Option<StorePath>, CacheError> {
    for cache in caches {
        for key in keys {
            match realisations::read(cache, key) {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(Some(found.path)),
                // What is none is not there, as with narinfos.
                Err(CacheError::BadRealisation { url, reason, .. }) => {
                    tracing::debug!(url, reason, "a realisation is passed over");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}
