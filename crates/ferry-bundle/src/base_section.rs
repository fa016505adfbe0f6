//! The section of the head that says what the payload is packed against.

use ferry_formats::{NarHash, StorePath};

use crate::codec::{Malformed, Take, put_bytes, put_number};
use crate::payload::Base;

/// Digests of store paths: one whose hash part stands in the content of bases, and the one that
/// has taken its place.
pub(crate) type Rename = ([u8; 20], [u8; 20]);

/// Bases and renames.
#[derive(Debug, Default)]
pub(crate) struct BaseSection {
    pub(crate) bases: Vec<Base>,
    pub(crate) renames: Vec<Rename>,
}

impl BaseSection {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, self.bases.len() as u64);
        for base in &self.bases {
            out.extend_from_slice(base.path.digest());
            put_bytes(&mut out, base.path.name().as_bytes());
            out.extend_from_slice(&base.nar_hash.0);
            put_number(&mut out, base.nar_size);
        }
        put_number(&mut out, self.renames.len() as u64);
        for (old, new) in &self.renames {
            out.extend_from_slice(old);
            out.extend_from_slice(new);
        }
        out
    }

    pub(crate) fn decode(section: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take::new(section);
        let mut found = Self::default();
        for _ in 0..take.number()? {
            let digest = take.array()?;
            let name = take.text()?;
            let path = match StorePath::from_parts(digest, name) {
                Ok(path) => path,
                Err(source) => return take.malformed(format!("a base: {source}")),
            };
            let nar_hash = NarHash(take.array()?);
            found.bases.push(Base { path, nar_hash, nar_size: take.number()? });
        }
        for _ in 0..take.number()? {
            found.renames.push((take.array()?, take.array()?));
        }
        take.finish()?;
        Ok(found)
    }
}
