//! The index of version 0: the path info of everything in a bundle, references before their
//! referrers.
//!
//! A reference is the number of an earlier entry, counted from the first; an entry's own number
//! stands for a reference to itself. So a bundle cannot describe a circle or a path whose
//! references it lacks, and nothing that is in it need be searched for.

use ferry_formats::keys::parse_signature;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StorePath};

use crate::codec::{Malformed, Take};
use crate::format::Amounts;

/// How much there is of each kind.
pub(crate) fn amounts<'a>(infos: impl IntoIterator<Item = &'a PathInfo>) -> Amounts {
    let mut amounts = Amounts { entries: 0, references: 0, signatures: 0 };
    for info in infos {
        amounts.entries += 1;
        amounts.references += info.references.len() as u64;
        amounts.signatures += info.signatures.len() as u64;
    }
    amounts
}

/// Decodes an index of no more than `most`; each content has one form that is accepted.
pub(crate) fn decode(bytes: &[u8], most: Amounts) -> Result<Vec<PathInfo>, Malformed> {
    let mut take = Take::new(bytes);
    let count = take.number()?;
    let mut found = Amounts { entries: count, references: 0, signatures: 0 };
    if let Some(excess) = found.excess(most) {
        return take.malformed(excess);
    }
    let mut infos: Vec<PathInfo> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..count {
        let path = take_path(&mut take)?;
        if !seen.insert(path.clone()) {
            return take.malformed(format!("{path} stands in it twice"));
        }
        let info = decode_entry(&mut take, path, &infos, most)?;
        found.references += info.references.len() as u64;
        found.signatures += info.signatures.len() as u64;
        if let Some(excess) = found.excess(most) {
            return take.malformed(excess);
        }
        infos.push(info);
    }
    take.finish()?;
    Ok(infos)
}

fn decode_entry(
    take: &mut Take<'_>,
    path: StorePath,
    earlier: &[PathInfo],
    most: Amounts,
) -> Result<PathInfo, Malformed> {
    let nar_hash = NarHash(take.array()?);
    let nar_size = take.number()?;
    let mut references: Vec<StorePath> = Vec::new();
    for _ in 0..take.number()? {
        let number = take.number()?;
        let reference = match usize::try_from(number) {
            Ok(number) if number == earlier.len() => &path,
            Ok(number) => match earlier.get(number) {
                Some(info) => &info.path,
                None => return take.malformed(format!("{path} refers to a path behind it")),
            },
            Err(_) => return take.malformed(format!("{path} refers to path number {number}")),
        };
        if references.last().is_some_and(|last| last >= reference) {
            return take.malformed(format!("the references of {path} are not sorted"));
        }
        references.push(reference.clone());
    }
    let deriver = match take.array()? {
        [0] => None,
        [1] => Some(take_path(take)?),
        [other] => return take.malformed(format!("{other} where 0 or 1 belongs")),
    };
    let ca = match take.text()? {
        "" => None,
        text => match ContentAddress::parse(text) {
            Ok(ca) => Some(ca),
            Err(source) => return take.malformed(format!("content address of {path}: {source}")),
        },
    };
    let mut signatures = Vec::new();
    let count = take.number()?;
    if count > most.signatures {
        return take.malformed(format!("more than {} signatures", most.signatures));
    }
    for _ in 0..count {
        let text = take.text()?;
        match parse_signature(text) {
            Ok(signature) => signatures.push(signature),
            Err(source) => return take.malformed(format!("signature of {path}: {source}")),
        }
    }
    let references = references.into();
    Ok(PathInfo { path, nar_hash, nar_size, references, deriver, ca, signatures })
}

fn take_path(take: &mut Take<'_>) -> Result<StorePath, Malformed> {
    let digest = take.array()?;
    let name = take.text()?;
    match StorePath::from_parts(digest, name) {
        Ok(path) => Ok(path),
        Err(source) => take.malformed(format!("a store path: {source}")),
    }
}
