//! The index of version 1: what is not a coded derivation, without what follows from the rest.

use std::collections::HashMap;

use ferry_formats::keys::{Signature, parse_signature};
use ferry_formats::{ContentAddress, NarHash, NixHash, PathInfo, StoreDir, StorePath};

use crate::Prerequisite;
use crate::codec::{Malformed, Take, put_number};
use crate::format::Amounts;
use crate::streams;

/// Ends a text.
const END: u8 = 0;

/// What is said about an entry, in one number.
mod flag {
    /// Its path follows from its content address.
    pub(super) const PATH_FOLLOWS: u64 = 1;
    /// Two bits: none, the NAR hash, of a text, or another that is written out.
    pub(super) const ADDRESS: u64 = 3 << 1;
    pub(super) const ADDRESS_NAR: u64 = 1 << 1;
    pub(super) const ADDRESS_TEXT: u64 = 2 << 1;
    pub(super) const ADDRESS_OTHER: u64 = 3 << 1;
    /// Two bits: none, a coded derivation, or a path that is written out.
    pub(super) const DERIVER: u64 = 3 << 3;
    pub(super) const DERIVER_CODED: u64 = 1 << 3;
    pub(super) const DERIVER_PATH: u64 = 2 << 3;
    /// It is not in the bundle: the receiving store has it. Only the next goes with it.
    pub(super) const PREREQUISITE: u64 = 1 << 5;
    /// Hash and size of its NAR are known.
    pub(super) const CONTENT: u64 = 1 << 6;
    pub(super) const ALL: u64 = PATH_FOLLOWS | ADDRESS | DERIVER;
}

/// Encodes the prerequisites, then the entries of `infos` that are not coded; `coded` are the
/// places of those that are.
pub(crate) fn encode(
    store_dir: &StoreDir,
    prerequisites: &[Prerequisite],
    infos: &[PathInfo],
    coded: &[usize],
    level: i32,
) -> std::io::Result<Vec<u8>> {
    let derivations: HashMap<&StorePath, u64> = coded
        .iter()
        .filter_map(|place| infos.get(*place))
        .zip(0..)
        .map(|(info, number)| (&info.path, number))
        .collect();
    let entries: Vec<&PathInfo> =
        infos.iter().filter(|info| !derivations.contains_key(&info.path)).collect();
    let paths = prerequisites.iter().map(|one| &one.path);
    let numbers_of: HashMap<&StorePath, u64> =
        paths.chain(entries.iter().map(|info| &info.path)).zip(0..).collect();
    let (mut numbers, mut texts, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    put_number(&mut numbers, (prerequisites.len() + entries.len()) as u64);
    for Prerequisite { path, content } in prerequisites {
        digests.extend_from_slice(path.digest());
        put_text(&mut texts, path.name());
        put_number(
            &mut numbers,
            match content {
                None => flag::PREREQUISITE,
                Some(_) => flag::PREREQUISITE | flag::CONTENT,
            },
        );
        if let Some((nar_hash, nar_size)) = content {
            digests.extend_from_slice(&nar_hash.0);
            put_number(&mut numbers, *nar_size);
        }
    }
    for info in entries {
        let mut references: Vec<u64> = info
            .references
            .iter()
            .map(|path| match (numbers_of.get(path), derivations.get(path)) {
                (Some(number), _) => number * 2,
                (_, Some(number)) => number * 2 + 1,
                // Admission has checked that nothing outside is referred to.
                _ => u64::MAX,
            })
            .collect();
        references.sort_unstable();
        let mut flags = 0;
        // A derivation's path is computed only when the paths in the index are known.
        let follows =
            references.iter().all(|number| number % 2 == 0) && info.is_content_addressed(store_dir);
        if follows {
            flags |= flag::PATH_FOLLOWS;
        } else {
            digests.extend_from_slice(info.path.digest());
        }
        put_text(&mut texts, info.path.name());
        digests.extend_from_slice(&info.nar_hash.0);
        match &info.ca {
            None => {}
            Some(ContentAddress::Nar(NixHash::Sha256(digest))) if *digest == info.nar_hash.0 => {
                flags |= flag::ADDRESS_NAR;
            }
            Some(ContentAddress::Text(digest)) => {
                flags |= flag::ADDRESS_TEXT;
                digests.extend_from_slice(digest);
            }
            Some(other) => {
                flags |= flag::ADDRESS_OTHER;
                put_text(&mut texts, &other.to_nix_string());
            }
        }
        let deriver = info.deriver.as_ref().map(|path| (path, derivations.get(path)));
        flags |= match deriver {
            None => 0,
            Some((_, Some(_))) => flag::DERIVER_CODED,
            Some((_, None)) => flag::DERIVER_PATH,
        };
        put_number(&mut numbers, flags);
        match deriver {
            Some((_, Some(number))) => put_number(&mut numbers, *number),
            Some((path, None)) => {
                digests.extend_from_slice(path.digest());
                put_text(&mut texts, path.name());
            }
            None => {}
        }
        put_number(&mut numbers, info.nar_size);
        put_number(&mut numbers, references.len() as u64);
        references.into_iter().for_each(|number| put_number(&mut numbers, number));
        put_number(&mut numbers, info.signatures.len() as u64);
        for signature in &info.signatures {
            put_text(&mut texts, &signature.to_nix_string());
        }
    }
    streams::encode(&[&numbers, &texts, &digests], level)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(END);
}

/// An entry whose references to coded derivations have yet to be looked up.
pub(crate) struct Entry {
    pub(crate) path: StorePath,
    /// Set where that is all that there is of it.
    pub(crate) prerequisite: Option<Prerequisite>,
    nar_hash: NarHash,
    nar_size: u64,
    references: Vec<u64>,
    deriver: Deriver,
    ca: Option<ContentAddress>,
    signatures: Vec<Signature>,
}

enum Deriver {
    None,
    Coded(u64),
    Path(StorePath),
}

/// Decodes an index, of no more than `most`.
pub(crate) fn decode(
    section: &[u8],
    store_dir: &StoreDir,
    most: Amounts,
) -> Result<Vec<Entry>, Malformed> {
    let [numbers, texts, digests] = streams::decode::<3>(section)?;
    let mut numbers = Take::new(&numbers);
    let (mut texts, mut digests) = (Take::new(&texts), Take::new(&digests));
    let count = numbers.number()?;
    let mut found = Amounts { entries: count, references: 0, signatures: 0 };
    let mut entries: Vec<Entry> = Vec::new();
    if let Some(excess) = found.excess(most) {
        return numbers.malformed(excess);
    }
    for _ in 0..count {
        let entry =
            take_entry(&mut numbers, &mut texts, &mut digests, &entries, store_dir, &mut found)?;
        if let Some(excess) = found.excess(most) {
            return numbers.malformed(excess);
        }
        entries.push(entry);
    }
    numbers.finish()?;
    texts.finish()?;
    digests.finish()?;
    Ok(entries)
}

fn take_entry(
    numbers: &mut Take<'_>,
    texts: &mut Take<'_>,
    digests: &mut Take<'_>,
    earlier: &[Entry],
    store_dir: &StoreDir,
    found: &mut Amounts,
) -> Result<Entry, Malformed> {
    let flags = numbers.number()?;
    if flags & !flag::CONTENT == flag::PREREQUISITE {
        return take_prerequisite(flags, numbers, texts, digests);
    }
    if flags & !flag::ALL != 0 || flags & flag::DERIVER == flag::DERIVER {
        return numbers.malformed(format!("flags {flags:#x}"));
    }
    let digest = match flags & flag::PATH_FOLLOWS {
        0 => Some(digests.array()?),
        _ => None,
    };
    let name = take_text(texts)?;
    let nar_hash = NarHash(digests.array()?);
    let ca = match flags & flag::ADDRESS {
        flag::ADDRESS_NAR => Some(ContentAddress::Nar(NixHash::Sha256(nar_hash.0))),
        flag::ADDRESS_TEXT => Some(ContentAddress::Text(digests.array()?)),
        flag::ADDRESS_OTHER => match ContentAddress::parse(take_text(texts)?) {
            Ok(ca) => Some(ca),
            Err(source) => return texts.malformed(format!("content address of {name}: {source}")),
        },
        _ => None,
    };
    let deriver = match flags & flag::DERIVER {
        flag::DERIVER_CODED => Deriver::Coded(numbers.number()?),
        flag::DERIVER_PATH => {
            let digest = digests.array()?;
            match StorePath::from_parts(digest, take_text(texts)?) {
                Ok(path) => Deriver::Path(path),
                Err(source) => return texts.malformed(format!("a deriver: {source}")),
            }
        }
        _ => Deriver::None,
    };
    let nar_size = numbers.number()?;
    let references = take_references(numbers, earlier.len(), name)?;
    found.references += references.len() as u64;
    let path = match digest {
        Some(digest) => StorePath::from_parts(digest, name).map_err(|error| error.to_string()),
        None => path_that_follows(store_dir, name, ca.as_ref(), &references, earlier),
    };
    let path = path.or_else(|reason| texts.malformed(format!("a store path: {reason}")))?;
    let mut signatures = Vec::new();
    for _ in 0..numbers.number()? {
        match parse_signature(take_text(texts)?) {
            Ok(signature) => signatures.push(signature),
            Err(source) => return texts.malformed(format!("signature of {path}: {source}")),
        }
    }
    found.signatures += signatures.len() as u64;
    let prerequisite = None;
    Ok(Entry { path, prerequisite, nar_hash, nar_size, references, deriver, ca, signatures })
}

fn take_prerequisite(
    flags: u64,
    numbers: &mut Take<'_>,
    texts: &mut Take<'_>,
    digests: &mut Take<'_>,
) -> Result<Entry, Malformed> {
    let path = StorePath::from_parts(digests.array()?, take_text(texts)?);
    let path = path.or_else(|error| texts.malformed(format!("a store path: {error}")))?;
    let content = match flags & flag::CONTENT {
        0 => None,
        _ => Some((NarHash(digests.array()?), numbers.number()?)),
    };
    Ok(Entry {
        path: path.clone(),
        prerequisite: Some(Prerequisite { path, content }),
        nar_hash: NarHash([0; 32]),
        nar_size: 0,
        references: Vec::new(),
        deriver: Deriver::None,
        ca: None,
        signatures: Vec::new(),
    })
}

fn take_references(numbers: &mut Take<'_>, own: usize, name: &str) -> Result<Vec<u64>, Malformed> {
    let mut references: Vec<u64> = Vec::new();
    for _ in 0..numbers.number()? {
        let number = numbers.number()?;
        if references.last().is_some_and(|last| *last >= number) {
            return numbers.malformed(format!("the references of {name} are not sorted"));
        }
        if number % 2 == 0 && number / 2 > own as u64 {
            return numbers.malformed(format!("{name} refers to a path behind it"));
        }
        references.push(number);
    }
    Ok(references)
}

fn path_that_follows(
    store_dir: &StoreDir,
    name: &str,
    ca: Option<&ContentAddress>,
    references: &[u64],
    earlier: &[Entry],
) -> Result<StorePath, String> {
    let Some(ca) = ca else { return Err(format!("nothing that {name} follows from")) };
    let mut others = Vec::new();
    let mut itself = false;
    for number in references {
        match usize::try_from(number / 2).ok().filter(|_| number % 2 == 0) {
            Some(own) if own == earlier.len() => itself = true,
            Some(number) => others.extend(earlier.get(number).map(|entry| &entry.path)),
            None => return Err(format!("{name} refers to a derivation")),
        }
    }
    store_dir.build_ca_path(name, ca, others, itself).map_err(|error| error.to_string())
}

fn take_text<'a>(texts: &mut Take<'a>) -> Result<&'a str, Malformed> {
    let bytes = texts.until(END)?;
    std::str::from_utf8(bytes).or_else(|_| texts.malformed("text that is not UTF-8"))
}

impl Entry {
    /// The path info; `plain` are the paths in the index, `coded` the coded derivations.
    pub(crate) fn info(self, plain: &[StorePath], coded: &[PathInfo]) -> Result<PathInfo, String> {
        let derivation = |number: u64| {
            let found = usize::try_from(number).ok().and_then(|number| coded.get(number));
            found.map(|info| info.path.clone()).ok_or_else(|| format!("no derivation {number}"))
        };
        let mut references: Vec<StorePath> = Vec::with_capacity(self.references.len());
        for number in &self.references {
            references.push(match number % 2 {
                0 => usize::try_from(number / 2)
                    .ok()
                    .and_then(|number| plain.get(number).cloned())
                    .ok_or_else(|| format!("no path {number}"))?,
                _ => derivation(number / 2)?,
            });
        }
        references.sort_unstable();
        let deriver = match self.deriver {
            Deriver::None => None,
            Deriver::Coded(number) => Some(derivation(number)?),
            Deriver::Path(path) => Some(path),
        };
        let Self { path, nar_hash, nar_size, ca, signatures, .. } = self;
        let references = references.into();
        Ok(PathInfo { path, nar_hash, nar_size, references, deriver, ca, signatures })
    }

    /// How many coded derivations have to stand before it.
    pub(crate) fn derivations_before(&self) -> u64 {
        let odd = self.references.iter().filter(|number| *number % 2 == 1);
        odd.map(|number| number / 2 + 1).max().unwrap_or(0)
    }
}
