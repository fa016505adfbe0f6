//! Copying build logs: what the builds of derivations have printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use ferry_formats::{PathInfo, StorePath};

use crate::progress::Progress;
use crate::{Destination, Result, Store};

/// No log is longer, in bytes: whoever serves it could go on for ever.
const LONGEST: u64 = 1 << 30;

/// A log that ends with an error where it is too long.
struct Capped {
    log: Box<dyn Read + Send>,
    left: u64,
    name: String,
}

impl Read for Capped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.log.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!("the log of {} has more than {LONGEST} bytes", self.name))
        })?;
        Ok(count)
    }
}

/// What copying build logs did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Logs added.
    pub added: usize,
    /// Logs that were there already.
    pub present: usize,
    /// Derivations of which the source has no log.
    pub absent: usize,
}

/// Copies the logs of the derivations among `paths`, and of those that made them. Nobody vouches
/// for a log: it is a text to be read, and nothing else depends on it. The answer is nothing where
/// the destination keeps no logs.
///
/// # Errors
/// When a log cannot be read or written.
pub fn copy_build_logs(
    source: &dyn Store,
    destination: &dyn Destination,
    paths: &BTreeMap<StorePath, PathInfo>,
    progress: &dyn Progress,
) -> Result<Option<LogReport>> {
    let named = paths.keys().filter(|path| path.is_derivation());
    let derivers = paths.values().filter_map(|info| info.deriver.as_ref());
    let derivations: BTreeSet<&StorePath> = named.chain(derivers).collect();
    let mut report = LogReport::default();
    progress.begin("copying build logs", derivations.len() as u64, 0);
    let copied = derivations.into_iter().try_fold(Some(()), |_, derivation| {
        let Some(has) = destination.has_build_log(derivation)? else { return Ok(None) };
        if has {
            report.present += 1;
        } else if let Some(log) = source.build_log(derivation)? {
            let name = derivation.to_basename();
            destination.add_build_log(derivation, &mut Capped { log, left: LONGEST, name })?;
            report.added += 1;
        } else {
            report.absent += 1;
        }
        progress.path(derivation);
        Ok(Some(()))
    });
    progress.end();
    copied.map(|kept| kept.map(|()| report))
}
