//! What differs between a derivation and the one that has taken its place.
//!
//! Where one derivation changes, every derivation above it gets other hashes. So store paths are
//! compared without their hash parts first: what then is left is what somebody changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferry_formats::derivation::{self, Derivation};
use ferry_formats::{StoreDir, StorePath};

use super::{Difference, parse_name};
use crate::admission::read_single_file;
use crate::{Result, Store};

/// Two derivations of one package, and what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivationChange {
    /// The one in the first set.
    pub before: StorePath,
    /// The one in the second.
    pub after: StorePath,
    /// What differs, hash parts aside.
    pub changes: Vec<Change>,
}

/// One thing that differs: nothing in place of what one of them has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What: `builder`, `system`, `args`, `outputs`, `inputs`, or `env.NAME`.
    pub what: String,
    /// In the first.
    pub before: Option<String>,
    /// In the second.
    pub after: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivationChanges {
    /// Those in which something was changed.
    pub changed: Vec<DerivationChange>,
    /// How many pairs differ in hash parts only: in what they depend on.
    pub only_hashes: usize,
    /// How many derivations have no counterpart, or several.
    pub unpaired: usize,
}

/// Compares the derivations that only one of the sets has, each with the one of its package in
/// the other set, if that is clear.
///
/// # Errors
/// When one of them cannot be read.
pub fn derivation_changes(
    difference: &Difference,
    before: &dyn Store,
    after: &dyn Store,
) -> Result<DerivationChanges> {
    let (pairs, unpaired) = pair(difference);
    let olds: Vec<StorePath> = pairs.iter().map(|(old, _)| old.clone()).collect();
    let news: Vec<StorePath> = pairs.iter().map(|(_, new)| new.clone()).collect();
    let (olds, news) = (read(before, &olds)?, read(after, &news)?);
    let mut found = DerivationChanges { unpaired, ..DerivationChanges::default() };
    for (before, after) in pairs {
        let (Some(old), Some(new)) = (olds.get(&before), news.get(&after)) else { continue };
        let changes = changes(old, new);
        match changes.is_empty() {
            true => found.only_hashes += 1,
            false => found.changed.push(DerivationChange { before, after, changes }),
        }
    }
    Ok(found)
}

/// Derivations that have taken each other's place: those of the same name, then those of the same
/// package. Also how many have none.
fn pair(difference: &Difference) -> (Vec<(StorePath, StorePath)>, usize) {
    let derivations = |paths: &[StorePath]| -> BTreeSet<StorePath> {
        paths.iter().filter(|path| path.is_derivation()).cloned().collect()
    };
    let mut olds = derivations(&difference.only_before);
    let mut news = derivations(&difference.only_after);
    let mut pairs = Vec::new();
    let keys: [fn(&StorePath) -> String; 2] =
        [|path| path.name().to_owned(), |path| parse_name(path).name];
    for key in keys {
        let mut groups: BTreeMap<String, (Vec<&StorePath>, Vec<&StorePath>)> = BTreeMap::new();
        olds.iter().for_each(|path| groups.entry(key(path)).or_default().0.push(path));
        news.iter().for_each(|path| groups.entry(key(path)).or_default().1.push(path));
        let mut found = Vec::new();
        for group in groups.values() {
            if let ([old], [new]) = (group.0.as_slice(), group.1.as_slice()) {
                found.push(((*old).clone(), (*new).clone()));
            }
        }
        for (old, new) in found {
            olds.remove(&old);
            news.remove(&new);
            pairs.push((old, new));
        }
    }
    pairs.sort_by(|a, b| a.1.name().cmp(b.1.name()));
    (pairs, olds.len() + news.len())
}

fn read(store: &dyn Store, paths: &[StorePath]) -> Result<HashMap<StorePath, Derivation>> {
    let infos: Vec<_> = store.path_infos(paths)?.into_iter().flatten().collect();
    let mut found = HashMap::new();
    store.read_nars(&infos, &mut |info, nar| {
        let text = read_single_file(store.store_dir(), info, nar)?;
        let parsed = derivation::parse(store.store_dir(), &info.path, &text)?;
        found.insert(info.path.clone(), parsed);
        Ok(())
    })?;
    Ok(found)
}

fn changes(old: &Derivation, new: &Derivation) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |what: String, before: Option<String>, after: Option<String>| {
        if before != after {
            changes.push(Change { what, before, after });
        }
    };
    let plain = |it: &Derivation, text: &[u8]| Some(without_hashes(it.store_dir(), text));
    let words = |it: &Derivation| plain(it, it.arguments().join("\n").as_bytes());
    compare(
        "system".to_owned(),
        plain(old, old.system().as_bytes()),
        plain(new, new.system().as_bytes()),
    );
    compare(
        "builder".to_owned(),
        plain(old, old.builder().as_bytes()),
        plain(new, new.builder().as_bytes()),
    );
    compare("args".to_owned(), words(old), words(new));
    let outputs =
        |it: &Derivation| Some(it.outputs().keys().cloned().collect::<Vec<_>>().join(" "));
    compare("outputs".to_owned(), outputs(old), outputs(new));
    let (gone, come) = inputs(old, new);
    for (before, after) in [(gone, false), (come, true)] {
        for input in before {
            let (before, after) = if after { (None, Some(input)) } else { (Some(input), None) };
            compare("inputs".to_owned(), before, after);
        }
    }
    let names: BTreeSet<&String> =
        old.environment().keys().chain(new.environment().keys()).collect();
    for name in names {
        let value = |it: &Derivation| {
            it.environment().get(name).map(|value| without_hashes(it.store_dir(), value))
        };
        compare(format!("env.{name}"), value(old), value(new));
    }
    let structured = |it: &Derivation| {
        it.structured_attrs().map(|attrs| {
            let attrs = attrs.iter().map(|(name, value)| {
                (name.to_owned(), without_hashes(it.store_dir(), value.to_string().as_bytes()))
            });
            attrs.collect::<BTreeMap<String, String>>()
        })
    };
    let (before, after) =
        (structured(old).unwrap_or_default(), structured(new).unwrap_or_default());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        compare(format!("env.{name}"), before.get(name).cloned(), after.get(name).cloned());
    }
    changes
}

/// Inputs that only one has, by name: sources, and outputs of derivations.
fn inputs(old: &Derivation, new: &Derivation) -> (Vec<String>, Vec<String>) {
    let all = |it: &Derivation| -> Vec<String> {
        let sources = it.input_sources().iter().map(|path| path.name().to_owned());
        let outputs = it.input_derivations().iter().flat_map(|(path, input)| {
            input.outputs().iter().map(|output| format!("{}^{output}", path.name()))
        });
        sources.chain(outputs).collect()
    };
    let (mut gone, mut come) = (all(old), all(new));
    // Several may have one name.
    gone.retain(|input| match come.iter().position(|other| other == input) {
        Some(place) => {
            come.swap_remove(place);
            false
        }
        None => true,
    });
    gone.sort();
    come.sort();
    (gone, come)
}

/// Text with `…` in place of the hash part of each store path.
fn without_hashes(store_dir: &StoreDir, text: &[u8]) -> String {
    const HASH: usize = 32;
    let text = String::from_utf8_lossy(text);
    let start = format!("{store_dir}/");
    let mut parts = text.split(start.as_str());
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(&start);
        match part.split_at_checked(HASH) {
            Some((hash, rest))
                if rest.starts_with('-')
                    && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
            {
                out.push('…');
                out.push_str(rest);
            }
            _ => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_parts_of_store_paths_do_not_count() {
        let dir = StoreDir::default();
        let one = format!("a /nix/store/{}-x/bin /nix/store/y", "0".repeat(32));
        let other = format!("a /nix/store/{}-x/bin /nix/store/y", "1".repeat(32));
        let plain = without_hashes(&dir, one.as_bytes());
        assert_eq!(plain, "a /nix/store/…-x/bin /nix/store/y");
        assert_eq!(plain, without_hashes(&dir, other.as_bytes()));
    }
}
