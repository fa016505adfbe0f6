//! Which paths an inventory can be believed to have.

use std::collections::{BTreeSet, HashMap};

use ferry_formats::{PathInfo, StorePath};

use super::{Inventory, Paths};

/// What an inventory says about a set of paths.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Those that are there.
    pub paths: BTreeSet<StorePath>,
    /// How many are not there while all of their references are: only about these can an
    /// inventory in compact form have been wrong.
    pub frontier: u64,
    /// The chance that it is wrong about one such path is 2 to the power of minus this; `None`
    /// for one that is never wrong.
    pub bits: Option<u8>,
}

impl Claims {
    /// A bound on the chance that any of [`Claims::paths`] is not there.
    #[must_use]
    pub fn chance_of_error(&self) -> f64 {
        let once = self.bits.map_or(0.0, |bits| (-f64::from(bits)).exp2());
        // More paths than a float counts exactly do not fit in memory.
        #[allow(clippy::cast_precision_loss)]
        let frontier = self.frontier as f64;
        (frontier * once).min(1.0)
    }
}

pub(super) fn claimed<'a>(
    inventory: &Inventory,
    candidates: impl IntoIterator<Item = &'a PathInfo>,
) -> Claims {
    let candidates = candidates.into_iter();
    let bits = inventory.bits();
    if let Paths::Listed(listed) = &inventory.paths {
        let paths = candidates.map(|info| &info.path).filter(|path| listed.contains(*path));
        return Claims { paths: paths.cloned().collect(), frontier: 0, bits };
    }
    let infos: HashMap<&StorePath, &PathInfo> = candidates.map(|info| (&info.path, info)).collect();
    let mut referrers: HashMap<&StorePath, Vec<&PathInfo>> = HashMap::new();
    // For each candidate, how many of its references are not known to be there.
    let mut open: HashMap<&StorePath, usize> = HashMap::with_capacity(infos.len());
    let mut ready: Vec<&PathInfo> = Vec::new();
    for info in infos.values() {
        let mut absent = 0;
        for reference in info.other_references() {
            if infos.contains_key(reference) {
                referrers.entry(reference).or_default().push(info);
                absent += 1;
            } else if !inventory.has(reference) {
                absent += 1;
            }
        }
        open.insert(&info.path, absent);
        if absent == 0 {
            ready.push(info);
        }
    }
    let mut claims = Claims { bits, ..Claims::default() };
    while let Some(info) = ready.pop() {
        if !inventory.has(&info.path) {
            claims.frontier += 1;
            continue;
        }
        claims.paths.insert(info.path.clone());
        for referrer in referrers.get(&info.path).into_iter().flatten() {
            let Some(absent) = open.get_mut(&referrer.path) else { continue };
            *absent -= 1;
            if *absent == 0 {
                ready.push(referrer);
            }
        }
    }
    claims
}
