//! Build logs in a binary cache: `log/NAME.drv`, as plain text.

use std::io::Read;

use ferry_formats::StorePath;
use ferry_store::Result;

use crate::BinaryCache;
use crate::layout::LOGS;

fn name(derivation: &StorePath) -> String {
    format!("{LOGS}/{}", derivation.to_basename())
}

/// Opens a log, if there is one.
pub(crate) fn open(
    cache: &BinaryCache,
    derivation: &StorePath,
) -> Result<Option<Box<dyn Read + Send>>> {
    Ok(cache.place.open(&name(derivation), None)?)
}

/// Whether there is a log.
pub(crate) fn is_there(cache: &BinaryCache, derivation: &StorePath) -> Result<bool> {
    Ok(cache.place.contains(&name(derivation))?)
}

/// Keeps a log.
pub(crate) fn add(cache: &BinaryCache, derivation: &StorePath, log: &mut dyn Read) -> Result<()> {
    Ok(cache.write(&name(derivation), log)?)
}
