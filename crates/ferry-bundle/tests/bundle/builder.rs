//! Writes bundles from the description of the format, lies included.
//!
//! Shares no code with the crate under test. Whatever a test changes, the digest of the head and
//! that of the file are computed anew, so that it is not they that notice.

use ferry_formats::keys::SecretKey;
use ferry_formats::{NarHash, nixbase32};
use serde_json::{Value, json};

use super::objects::Object;

pub(crate) const MAGIC: [u8; 8] = [0x89, b'F', b'E', b'R', b'R', b'Y', 0x0d, 0x0a];
/// Bytes of NAR in every block but the last.
pub(crate) const BLOCK_SIZE: usize = 4 * 1024 * 1024;

/// An entry of the index, with the NAR that goes with it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) digest: [u8; 20],
    pub(crate) name: Vec<u8>,
    pub(crate) nar_hash: [u8; 32],
    pub(crate) nar_size: u64,
    pub(crate) references: Vec<u64>,
    pub(crate) deriver: Option<([u8; 20], Vec<u8>)>,
    pub(crate) ca: Vec<u8>,
    pub(crate) signatures: Vec<Vec<u8>>,
    pub(crate) nar: Vec<u8>,
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.digest);
        bytes(out, &self.name);
        out.extend(self.nar_hash);
        number(out, self.nar_size);
        number(out, self.references.len() as u64);
        self.references.iter().for_each(|reference| number(out, *reference));
        match &self.deriver {
            None => out.push(0),
            Some((digest, name)) => {
                out.push(1);
                out.extend(digest);
                bytes(out, name);
            }
        }
        bytes(out, &self.ca);
        number(out, self.signatures.len() as u64);
        self.signatures.iter().for_each(|signature| bytes(out, signature));
    }
}

/// Unsigned LEB128.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend(bytes);
}

/// A bundle that is being thought up.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) version: u32,
    pub(crate) manifest: Value,
    pub(crate) entries: Vec<Entry>,
    /// Signatures of the bundle as a whole.
    pub(crate) signatures: Vec<String>,
}

impl Draft {
    /// An honest bundle of `objects`, which stand in an order that allows it. The last is the
    /// root.
    pub(crate) fn of(objects: &[Object]) -> Self {
        let place = |path| objects.iter().position(|object| object.info.path == path).unwrap();
        let entries: Vec<Entry> = objects
            .iter()
            .map(|Object { info, nar }| Entry {
                digest: *info.path.digest(),
                name: info.path.name().into(),
                nar_hash: info.nar_hash.0,
                nar_size: info.nar_size,
                references: info.references.iter().map(|path| place(path.clone()) as u64).collect(),
                deriver: info.deriver.as_ref().map(|path| (*path.digest(), path.name().into())),
                ca: info.ca.as_ref().map(ToString::to_string).unwrap_or_default().into(),
                signatures: info.signatures.iter().map(|text| text.to_string().into()).collect(),
                nar: nar.clone(),
            })
            .collect();
        let root = objects.last().map(|object| object.info.path.to_basename());
        let manifest = json!({
            "storeDir": "/nix/store",
            "set": "runtime",
            "roots": root.into_iter().collect::<Vec<_>>(),
        });
        Self { version: 0, manifest, entries, signatures: Vec::new() }.counted()
    }

    /// With the sums in the manifest as the entries have them.
    pub(crate) fn counted(mut self) -> Self {
        let sum = self.entries.iter().fold(0u64, |sum, entry| sum.wrapping_add(entry.nar_size));
        self.manifest["paths"] = json!(self.entries.len());
        self.manifest["narSize"] = json!(sum);
        self
    }

    /// The same bundle with another NAR in the last entry, hash and size as they then are.
    pub(crate) fn with_last_nar(mut self, nar: Vec<u8>) -> Self {
        let last = self.entries.last_mut().unwrap();
        last.nar_hash = NarHash::of(&nar).0;
        last.nar_size = nar.len() as u64;
        last.nar = nar;
        self.counted()
    }

    pub(crate) fn index(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        number(&mut plain, self.entries.len() as u64);
        self.entries.iter().for_each(|entry| entry.encode(&mut plain));
        plain
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with_index(&self.index())
    }

    /// With these bytes as the index, whatever the entries say.
    pub(crate) fn build_with_index(&self, plain: &[u8]) -> Vec<u8> {
        let mut sections = self.sections();
        sections[1].contents = packed_index(plain);
        assemble(&self.beginning(), &sections)
    }

    /// What stands before the first section.
    pub(crate) fn beginning(&self) -> Vec<u8> {
        [&MAGIC[..], &self.version.to_le_bytes()].concat()
    }

    /// `MANI`, `INDX`, `SIGN`, the `BLCK`s, `TAIL`; the digests in them are filled in by
    /// [`assemble`].
    pub(crate) fn sections(&self) -> Vec<Section> {
        let mut signatures = vec![0; 32];
        number(&mut signatures, self.signatures.len() as u64);
        self.signatures.iter().for_each(|text| bytes(&mut signatures, text.as_bytes()));
        let payload: Vec<u8> =
            self.entries.iter().flat_map(|entry| &entry.nar).copied().collect::<Vec<_>>();
        let mut sections = vec![
            Section::new(b"MANI", serde_json::to_vec_pretty(&self.manifest).unwrap()),
            Section::new(b"INDX", packed_index(&self.index())),
            Section::new(b"SIGN", signatures),
        ];
        sections.extend(
            payload.chunks(BLOCK_SIZE).map(|block| Section::new(b"BLCK", compressed_block(block))),
        );
        sections.push(Section::new(b"TAIL", vec![0; 32]));
        sections
    }

    /// What the keys of a bundle sign.
    pub(crate) fn signed_text(&self) -> String {
        let head = framed(&self.beginning(), &self.sections()[..2]);
        format!("ferry-bundle-0;sha256:{}", nixbase32::encode(&NarHash::of(&head).0))
    }

    pub(crate) fn signed_by(mut self, key: &SecretKey) -> Self {
        let signature = key.sign(self.signed_text().as_bytes());
        self.signatures.push(signature.to_string());
        self
    }
}

pub(crate) fn packed_index(plain: &[u8]) -> Vec<u8> {
    let mut packed = (plain.len() as u64).to_le_bytes().to_vec();
    packed.extend(zstd::bulk::compress(plain, 3).unwrap());
    packed
}

pub(crate) fn compressed_block(plain: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.compress(plain).unwrap()
}

/// A section, and what it says of itself.
#[derive(Clone)]
pub(crate) struct Section {
    pub(crate) name: [u8; 4],
    pub(crate) contents: Vec<u8>,
    /// Another length than that of the contents.
    pub(crate) claims: Option<u64>,
}

impl Section {
    pub(crate) fn new(name: &[u8; 4], contents: Vec<u8>) -> Self {
        Self { name: *name, contents, claims: None }
    }
}

fn framed(beginning: &[u8], sections: &[Section]) -> Vec<u8> {
    let mut out = beginning.to_vec();
    for section in sections {
        out.extend(section.name);
        out.extend(section.claims.unwrap_or(section.contents.len() as u64).to_le_bytes());
        out.extend(&section.contents);
    }
    out
}

/// Puts sections one after the other, each `SIGN` with the digest of what stands before it, each
/// `TAIL` likewise.
pub(crate) fn assemble(beginning: &[u8], sections: &[Section]) -> Vec<u8> {
    let mut out = beginning.to_vec();
    for section in sections {
        let mut section = section.clone();
        if matches!(&section.name, b"SIGN" | b"TAIL")
            && let Some(digest) = section.contents.get_mut(..32)
        {
            digest.copy_from_slice(&NarHash::of(&out).0);
        }
        out = framed(&out, &[section]);
    }
    out
}
