//! The index: the path info of everything in a bundle, references before their referrers.
//!
//! A reference is the number of an earlier entry, counted from the first; an entry's own number
//! stands for a reference to itself. So a bundle cannot describe a circle or a path whose
//! references it lacks, and nothing that is in it need be searched for.

use std::collections::HashMap;

use ferry_formats::keys::parse_signature;
use ferry_formats::{ContentAddress, NarHash, PathInfo, StorePath};

use crate::codec::{Malformed, Take, put_bytes, put_number};
use crate::format::Amounts;

/// Encodes path infos, which have to be in reference order and closed under references.
pub(crate) fn encode(infos: &[PathInfo]) -> Vec<u8> {
    let numbers: HashMap<&StorePath, u64> =
        infos.iter().zip(0..).map(|(info, number)| (&info.path, number)).collect();
    let mut out = Vec::new();
    put_number(&mut out, infos.len() as u64);
    for info in infos {
        put_path(&mut out, &info.path);
        out.extend_from_slice(&info.nar_hash.0);
        put_number(&mut out, info.nar_size);
        put_number(&mut out, info.references.len() as u64);
        for reference in info.references.iter() {
            // Admission has checked that nothing outside is referred to.
            put_number(&mut out, numbers.get(reference).copied().unwrap_or(u64::MAX));
        }
        match &info.deriver {
            None => out.push(0),
            Some(deriver) => {
                out.push(1);
                put_path(&mut out, deriver);
            }
        }
        let ca = info.ca.as_ref().map(ContentAddress::to_nix_string).unwrap_or_default();
        put_bytes(&mut out, ca.as_bytes());
        put_number(&mut out, info.signatures.len() as u64);
        for signature in &info.signatures {
            put_bytes(&mut out, signature.to_nix_string().as_bytes());
        }
    }
    out
}

fn put_path(out: &mut Vec<u8>, path: &StorePath) {
    out.extend_from_slice(path.digest());
    put_bytes(out, path.name().as_bytes());
}

/// How much there is of each kind.
pub(crate) fn amounts(infos: &[PathInfo]) -> Amounts {
    let sum =
        |count: &dyn Fn(&PathInfo) -> usize| infos.iter().map(|info| count(info) as u64).sum();
    Amounts {
        entries: infos.len() as u64,
        references: sum(&|info| info.references.len()),
        signatures: sum(&|info| info.signatures.len()),
    }
}

/// Decodes an index, and accepts only what [`encode`] could have written, and no more than `most`.
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
