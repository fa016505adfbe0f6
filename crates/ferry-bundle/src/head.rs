//! The head of a bundle: everything that decides what may become valid.

use std::fmt;
use std::io::Read;

use ferry_formats::keys::{PublicKey, SecretKey, Signature, parse_signature};
use ferry_formats::{PathInfo, StoreDir, StorePath, nixbase32};
use sha2::{Digest as _, Sha256};

use crate::codec::{Malformed, Take, put_bytes, put_number};
use crate::format::{Amounts, MAGIC, SIGNED_PREFIX, VERSION, limit, section};
use crate::payload::Input;
use crate::{BundleError, Manifest, Result, index};

/// SHA-256 of magic, version, manifest and index. It covers every NAR hash, so it vouches for
/// the whole content, and it is what a bundle's signatures sign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeadDigest(pub [u8; 32]);

impl fmt::Display for HeadDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", nixbase32::encode(&self.0))
    }
}

impl HeadDigest {
    fn signed_text(self) -> String {
        format!("{SIGNED_PREFIX}{}", nixbase32::encode(&self.0))
    }

    /// Whether one of `signatures` is by one of `keys`.
    pub(crate) fn is_signed_by_any(self, signatures: &[Signature], keys: &[PublicKey]) -> bool {
        let text = self.signed_text();
        signatures.iter().any(|signature| signature.verify(text.as_bytes(), keys).unwrap_or(false))
    }
}

/// A head that was read and found whole.
pub(crate) struct Head {
    pub(crate) manifest: Manifest,
    pub(crate) store_dir: StoreDir,
    pub(crate) infos: Vec<PathInfo>,
    pub(crate) digest: HeadDigest,
    pub(crate) signatures: Vec<Signature>,
}

/// Writes a section's name, length and contents.
pub(crate) fn put_section(out: &mut Vec<u8>, name: [u8; 4], contents: &[u8]) {
    out.extend_from_slice(&name);
    out.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    out.extend_from_slice(contents);
}

/// Everything that stands before the first block.
pub(crate) fn encode(
    manifest: &Manifest,
    infos: &[PathInfo],
    level: i32,
    keys: &[SecretKey],
) -> Result<Vec<u8>> {
    let failed = || BundleError::io("write the head of the bundle");
    let manifest = serde_json::to_vec_pretty(manifest).map_err(|error| failed()(error.into()))?;
    let plain = index::encode(infos);
    let mut packed = (plain.len() as u64).to_le_bytes().to_vec();
    packed.extend(zstd::bulk::compress(&plain, level).map_err(failed())?);
    check_limits(&manifest, &packed, plain.len() as u64, infos)?;

    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_section(&mut out, section::MANIFEST, &manifest);
    put_section(&mut out, section::INDEX, &packed);

    let digest = HeadDigest(Sha256::digest(&out).into());
    let mut signatures = digest.0.to_vec();
    put_number(&mut signatures, keys.len() as u64);
    for key in keys {
        let signature = key.sign(digest.signed_text().as_bytes());
        put_bytes(&mut signatures, signature.to_nix_string().as_bytes());
    }
    put_section(&mut out, section::SIGNATURES, &signatures);
    Ok(out)
}

/// Refuses to write what a reader would refuse to read.
fn check_limits(manifest: &[u8], packed: &[u8], plain: u64, infos: &[PathInfo]) -> Result<()> {
    let size = packed.len() as u64;
    let excess = if manifest.len() as u64 > limit::MANIFEST {
        Some(format!("a manifest of {} bytes", manifest.len()))
    } else if size > limit::INDEX || plain > most_plain(size) {
        Some(format!("an index of {plain} bytes ({size} compressed)"))
    } else {
        index::amounts(infos).excess(Amounts::most(size))
    };
    excess.map_or(Ok(()), |what| Err(BundleError::TooMuch { what }))
}

/// How large an index of so many compressed bytes may be.
fn most_plain(packed: u64) -> u64 {
    (packed.saturating_mul(limit::INDEX_RATIO) + limit::INDEX_SLACK).min(limit::INDEX_PLAIN)
}

/// Reads and checks the head; the input then stands at the first block.
pub(crate) fn read<R: Read>(input: &mut Input<R>) -> Result<Head> {
    let magic: [u8; 8] = input.array("its first bytes")?;
    if magic != MAGIC {
        let reason = match magic.as_slice() {
            [b'\x89', b'F', b'E', b'R', b'R', b'Y', ..] => {
                "its line ends were changed: it was transferred as text, and has to be transferred \
                 as a binary file"
            }
            _ => "it does not begin like one",
        };
        return Err(BundleError::NotABundle { bundle: input.name().to_owned(), reason });
    }
    let version = u32::from_le_bytes(input.array("its version")?);
    if version != VERSION {
        return Err(BundleError::UnknownVersion {
            bundle: input.name().to_owned(),
            found: version,
            known: VERSION,
        });
    }
    let (manifest_at, manifest) = input.section(section::MANIFEST, limit::MANIFEST)?;
    let (index_at, packed) = input.section(section::INDEX, limit::INDEX)?;
    let digest = HeadDigest(input.digest_so_far());
    let (signatures_at, signatures) = input.section(section::SIGNATURES, limit::SIGNATURES)?;

    // The digest first: what is damaged should not be reported as what it happens to look like.
    let mut take = Take::new(&signatures);
    let at = |start: u64, malformed: Malformed| {
        input.damaged(start + malformed.position as u64, malformed.reason)
    };
    let stated: [u8; 32] = take.array().map_err(|error| at(signatures_at, error))?;
    if stated != digest.0 {
        return Err(input.damaged(
            signatures_at,
            format!("the head has the digest {digest}, and should have {}", HeadDigest(stated)),
        ));
    }
    let signatures = read_signatures(take).map_err(|error| at(signatures_at, error))?;
    let manifest: Manifest = serde_json::from_slice(&manifest)
        .map_err(|error| input.damaged(manifest_at, format!("manifest: {error}")))?;
    let plain = decompress_index(&packed).map_err(|reason| input.damaged(index_at, reason))?;
    let infos = index::decode(&plain, Amounts::most(packed.len() as u64)).map_err(|malformed| {
        let Malformed { position, reason } = malformed;
        input.damaged(index_at, format!("index, at byte {position} decompressed: {reason}"))
    })?;
    let store_dir = StoreDir::new(manifest.store_dir.clone())
        .map_err(|error| input.damaged(manifest_at, error.to_string()))?;
    check_manifest(&manifest, &infos).map_err(|reason| input.damaged(manifest_at, reason))?;
    Ok(Head { manifest, store_dir, infos, digest, signatures })
}

fn read_signatures(mut take: Take<'_>) -> std::result::Result<Vec<Signature>, Malformed> {
    let mut signatures = Vec::new();
    for _ in 0..take.number()? {
        let text = take.text()?;
        match parse_signature(text) {
            Ok(signature) => signatures.push(signature),
            Err(source) => return take.malformed(format!("signature: {source}")),
        }
    }
    take.finish()?;
    Ok(signatures)
}

fn decompress_index(packed: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let Some((size, frame)) = packed.split_first_chunk::<8>() else {
        return Err("index: too short".to_owned());
    };
    let size = u64::from_le_bytes(*size);
    if size > most_plain(packed.len() as u64) {
        return Err(format!("index: {} bytes cannot hold {size}", frame.len()));
    }
    let broken = |error: std::io::Error| format!("index: {error}");
    let mut decoder = zstd::Decoder::with_buffer(frame).map_err(broken)?.single_frame();
    let mut plain = Vec::new();
    let read = (&mut decoder).take(size.saturating_add(1)).read_to_end(&mut plain);
    if read.map_err(broken)? as u64 != size {
        return Err(format!("index: it should have {size} bytes"));
    }
    match decoder.finish() {
        [] => Ok(plain),
        more => Err(format!("index: {} bytes too many", more.len())),
    }
}

/// The manifest has to describe the index that follows it.
fn check_manifest(manifest: &Manifest, infos: &[PathInfo]) -> std::result::Result<(), String> {
    let nar_size = infos.iter().try_fold(0u64, |sum, info| sum.checked_add(info.nar_size));
    if manifest.paths != infos.len() as u64 || Some(manifest.nar_size) != nar_size {
        return Err("the manifest does not agree with the index".to_owned());
    }
    let known: std::collections::HashSet<&StorePath> =
        infos.iter().map(|info| &info.path).collect();
    for root in &manifest.roots {
        let path = StorePath::from_basename(root.as_bytes())
            .map_err(|error| format!("the root `{root}`: {error}"))?;
        if !known.contains(&path) {
            return Err(format!("the root {path} is not in the index"));
        }
    }
    Ok(())
}
