//! The head of a bundle: everything that decides what may become valid.

use std::fmt;
use std::io::Read;

use ferry_formats::build_trace::Realisation;
use ferry_formats::keys::{PublicKey, SecretKey, Signature, parse_signature};
use ferry_formats::{PathInfo, StoreDir, StorePath, nixbase32};
use ferry_store::Store;
use hashbrown::HashSet;
use sha2::{Digest as _, Sha256};

use crate::codec::{Malformed, Take, put_bytes, put_number};
use crate::derivations::{self, Derivations, Failure};
use crate::format::{Amounts, MAGIC, VERSION, limit, section, signed_prefix};
use crate::order::{Place, merge};
use crate::payload::Input;
use crate::replaced::Replaced;
use crate::{BundleError, Manifest, Prerequisite, Result, compact_index, index};

/// SHA-256 of magic, version, manifest, index and coded derivations. It covers every NAR hash, so it vouches for
/// the whole content, and it is what a bundle's signatures sign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeadDigest(pub [u8; 32]);

impl fmt::Display for HeadDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", nixbase32::encode(&self.0))
    }
}

impl HeadDigest {
    fn signed_text(self, version: u32) -> String {
        format!("{}{}", signed_prefix(version), nixbase32::encode(&self.0))
    }
}

/// A head that was read and found whole.
pub(crate) struct Head {
    pub(crate) version: u32,
    pub(crate) manifest: Manifest,
    pub(crate) store_dir: StoreDir,
    pub(crate) infos: Vec<PathInfo>,
    pub(crate) realisations: Vec<Realisation>,
    /// What the receiving store has to have.
    pub(crate) prerequisites: Vec<Prerequisite>,
    /// Where each of them stands in the file.
    pub(crate) places: Vec<Place>,
    pub(crate) derivations: Derivations,
    pub(crate) replaced: Replaced,
    /// The derivations that these are coded against, and their sources.
    pub(crate) base: HashSet<StorePath>,
    pub(crate) digest: HeadDigest,
    pub(crate) signatures: Vec<Signature>,
}

impl Head {
    /// Whether one of its signatures is by one of `keys`.
    pub(crate) fn is_signed_by_any(&self, keys: &[PublicKey]) -> bool {
        let text = self.digest.signed_text(self.version);
        self.signatures
            .iter()
            .any(|signature| signature.verify(text.as_bytes(), keys).unwrap_or(false))
    }

    /// Size of the payload in bytes.
    pub(crate) fn payload_size(&self) -> u64 {
        let in_payload = |place: &Place| matches!(place, Place::Index(_));
        let infos = self.infos.iter().zip(&self.places);
        infos.filter(|(_, place)| in_payload(place)).map(|(info, _)| info.nar_size).sum()
    }
}

/// Writes a section's name, length and contents.
pub(crate) fn put_section(out: &mut Vec<u8>, name: [u8; 4], contents: &[u8]) {
    out.extend_from_slice(&name);
    out.extend_from_slice(&(contents.len() as u64).to_le_bytes());
    out.extend_from_slice(contents);
}

/// Everything that stands before the first block. `coded` are the places in `infos` of the
/// derivations in the section `derivations`.
pub(crate) fn encode(
    manifest: &Manifest,
    store_dir: &StoreDir,
    (prerequisites, replaced): (&[Prerequisite], &Replaced),
    infos: &[PathInfo],
    (derivations, coded, base): (&[u8], &[usize], derivations::Amounts),
    level: i32,
    keys: &[SecretKey],
) -> Result<Vec<u8>> {
    let failed = || BundleError::io("write the head of the bundle");
    let manifest = serde_json::to_vec_pretty(manifest).map_err(|error| failed()(error.into()))?;
    let index =
        compact_index::encode(store_dir, prerequisites, infos, coded, level).map_err(failed())?;
    let sizes = (manifest.len() as u64, index.len() as u64, derivations.len() as u64);
    check_limits(sizes, prerequisites.len() as u64, infos, coded, base)?;

    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_section(&mut out, section::MANIFEST, &manifest);
    put_section(&mut out, section::INDEX, &index);
    put_section(&mut out, section::DERIVATIONS, derivations);
    let coded: std::collections::HashSet<usize> = coded.iter().copied().collect();
    let of_index = infos.iter().zip(0..).filter(|(_, place)| !coded.contains(place));
    let entries = prerequisites.iter().map(|one| &one.path);
    let replaced = replaced.encode(entries.chain(of_index.map(|(info, _)| &info.path)));
    put_section(&mut out, section::BASES, &replaced);

    let digest = HeadDigest(Sha256::digest(&out).into());
    let mut signatures = digest.0.to_vec();
    put_number(&mut signatures, keys.len() as u64);
    for key in keys {
        let signature = key.sign(digest.signed_text(VERSION).as_bytes());
        put_bytes(&mut signatures, signature.to_nix_string().as_bytes());
    }
    put_section(&mut out, section::SIGNATURES, &signatures);
    Ok(out)
}

/// Refuses to write what a reader would refuse to read.
fn check_limits(
    (manifest, index, derivations): (u64, u64, u64),
    prerequisites: u64,
    infos: &[PathInfo],
    coded: &[usize],
    base: derivations::Amounts,
) -> Result<()> {
    let coded_infos = || coded.iter().filter_map(|place| infos.get(*place));
    let all = index::amounts(infos);
    let of_coded = index::amounts(coded_infos());
    let mut in_index = all.less(of_coded);
    in_index.entries += prerequisites;
    let text = coded_infos().map(|info| info.nar_size).sum();
    let excess = if manifest > limit::MANIFEST {
        Some(format!("a manifest of {manifest} bytes"))
    } else if index > limit::INDEX {
        Some(format!("an index of {index} bytes"))
    } else if derivations > limit::DERIVATIONS {
        Some(format!("derivations of {derivations} bytes"))
    } else {
        let of_coded = derivations::Amounts::new(of_coded, text);
        let excess = in_index.excess(Amounts::most(index));
        excess.or_else(|| of_coded.excess(derivations, base))
    };
    excess.map_or(Ok(()), |what| Err(BundleError::TooMuch { what }))
}

/// How large an index of so many compressed bytes may be.
fn most_plain(packed: u64) -> u64 {
    packed
        .saturating_mul(limit::INDEX_RATIO)
        .saturating_add(limit::INDEX_SLACK)
        .min(limit::INDEX_PLAIN)
}

/// A head of which nothing but the digest was looked at.
pub(crate) struct RawHead {
    version: u32,
    pub(crate) digest: HeadDigest,
    /// Whether this is the digest that it should have.
    whole: bool,
    manifest: Section,
    index: Section,
    derivations: Option<Section>,
    replaced: Option<Section>,
    signatures: Vec<Signature>,
}

/// Reads and checks the head; the input then stands at the first block. Derivations that are coded
/// against others have those read from `store`.
pub(crate) fn read<R: Read>(input: &mut Input<R>, store: Option<&dyn Store>) -> Result<Head> {
    read_raw(input)?.look_into(input, store)
}

/// Reads a head as far as it has the form of one, and says whether it is whole.
pub(crate) fn read_even_damaged<R: Read>(
    input: &mut Input<R>,
    store: Option<&dyn Store>,
) -> Result<(Head, bool)> {
    let raw = read_if(input, false)?;
    let whole = raw.whole;
    Ok((raw.look_into(input, store)?, whole))
}

impl RawHead {
    fn look_into<R: Read>(self, input: &Input<R>, store: Option<&dyn Store>) -> Result<Head> {
        let Self { version, digest, whole, manifest: (manifest_at, manifest), signatures, .. } =
            self;
        let manifest: Manifest = serde_json::from_slice(&manifest)
            .map_err(|error| input.damaged(manifest_at, format!("manifest: {error}")))?;
        let store_dir = StoreDir::new(manifest.store_dir.clone())
            .map_err(|error| input.damaged(manifest_at, error.to_string()))?;
        let contents = match &self.derivations {
            None => Contents::of_version_0(input, &self.index)?,
            Some(derivations) => {
                Contents::read(input, &store_dir, &self.index, derivations, store)?
            }
        };
        if whole {
            check_manifest(&manifest, &contents)
                .map_err(|reason| input.damaged(manifest_at, reason))?;
        }
        let realisations =
            manifest.parse_realisations().map_err(|reason| input.damaged(manifest_at, reason))?;
        let replaced = match &self.replaced {
            None => Replaced::default(),
            Some((at, section)) => Replaced::decode(section, &contents.entries, contents.bases())
                .map_err(|error| {
                input.damaged(at + error.position as u64, format!("bases: {}", error.reason))
            })?,
        };
        let Contents { infos, prerequisites, places, derivations, base, .. } = contents;
        Ok(Head {
            version,
            manifest,
            store_dir,
            infos,
            realisations,
            prerequisites,
            places,
            derivations,
            replaced,
            base,
            digest,
            signatures,
        })
    }
}

/// Reads the head and checks its digest; the input then stands at the first block.
pub(crate) fn read_raw<R: Read>(input: &mut Input<R>) -> Result<RawHead> {
    read_if(input, true)
}

fn read_if<R: Read>(input: &mut Input<R>, only_whole: bool) -> Result<RawHead> {
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
    if version > VERSION {
        return Err(BundleError::UnknownVersion {
            bundle: input.name().to_owned(),
            found: version,
            known: VERSION,
        });
    }
    let manifest = input.section(section::MANIFEST, limit::MANIFEST)?;
    let index = input.section(section::INDEX, limit::INDEX)?;
    let derivations = match version {
        0 => None,
        _ => Some(input.section(section::DERIVATIONS, limit::DERIVATIONS)?),
    };
    let replaced = match version {
        0 => None,
        _ => Some(input.section(section::BASES, limit::BASES)?),
    };
    let digest = HeadDigest(input.digest_so_far());
    let (signatures_at, signatures) = input.section(section::SIGNATURES, limit::SIGNATURES)?;

    // The digest first: what is damaged should not be reported as what it happens to look like.
    let mut take = Take::new(&signatures);
    let at = |start: u64, malformed: Malformed| {
        input.damaged(start + malformed.position as u64, malformed.reason)
    };
    let stated: [u8; 32] = take.array().map_err(|error| at(signatures_at, error))?;
    let whole = stated == digest.0;
    if only_whole && !whole {
        return Err(input.damaged(
            signatures_at,
            format!("the head has the digest {digest}, and should have {}", HeadDigest(stated)),
        ));
    }
    let signatures = read_signatures(take).map_err(|error| at(signatures_at, error))?;
    Ok(RawHead { version, digest, whole, manifest, index, derivations, replaced, signatures })
}

/// A section and where it begins.
type Section = (u64, Vec<u8>);

/// What the sections between manifest and signatures say.
struct Contents {
    infos: Vec<PathInfo>,
    /// The paths of the entries of the index, in its order.
    entries: Vec<StorePath>,
    prerequisites: Vec<Prerequisite>,
    places: Vec<Place>,
    derivations: Derivations,
    base: HashSet<StorePath>,
}

impl Contents {
    /// How many prerequisites have content that the payload is packed against.
    fn bases(&self) -> usize {
        self.prerequisites.iter().filter(|one| one.content.is_some()).count()
    }

    fn of_version_0<R: Read>(input: &Input<R>, (at, packed): &Section) -> Result<Self> {
        let plain = decompress_index(packed).map_err(|reason| input.damaged(*at, reason))?;
        let most = Amounts::most(packed.len() as u64);
        let infos = index::decode(&plain, most).map_err(|malformed| {
            let Malformed { position, reason } = malformed;
            input.damaged(*at, format!("index, at byte {position} decompressed: {reason}"))
        })?;
        let places = (0..infos.len()).map(Place::Index).collect();
        let derivations = Derivations::default();
        Ok(Self {
            infos,
            entries: Vec::new(),
            prerequisites: Vec::new(),
            places,
            derivations,
            base: HashSet::new(),
        })
    }

    fn read<R: Read>(
        input: &Input<R>,
        store_dir: &StoreDir,
        (index_at, index): &Section,
        (derivations_at, section): &Section,
        store: Option<&dyn Store>,
    ) -> Result<Self> {
        let malformed = |at: u64, what: &str, malformed: Malformed| {
            let Malformed { position, reason } = malformed;
            input.damaged(at, format!("{what}, at byte {position} decompressed: {reason}"))
        };
        let entries = compact_index::decode(index, store_dir, Amounts::most(index.len() as u64))
            .map_err(|error| malformed(*index_at, "index", error))?;
        let plain: Vec<StorePath> = entries.iter().map(|entry| entry.path.clone()).collect();
        let is_prerequisite =
            |entry: usize| entries.get(entry).is_some_and(|entry| entry.prerequisite.is_some());
        let bundle = || input.name().to_owned();
        let decoded = derivations::decode(section, store_dir, &plain, is_prerequisite, store)
            .map_err(|failure| match failure {
                Failure::Malformed(error) => malformed(*derivations_at, "derivations", error),
                Failure::Store(roots, source) => BundleError::DerivationBase {
                    bundle: bundle(),
                    derivations: roots.iter().map(|path| store_dir.render_path(path)).collect(),
                    source,
                },
                Failure::NoStore(roots) => BundleError::NeedsBase {
                    bundle: bundle(),
                    derivations: roots.iter().map(|path| store_dir.render_path(path)).collect(),
                },
            })?;
        let needed: Vec<u64> =
            entries.iter().map(compact_index::Entry::derivations_before).collect();
        let places = merge(&needed, &decoded.paths_before).ok_or_else(|| {
            input.damaged(*index_at, "index: paths and derivations that refer to each other")
        })?;
        let mut entries = entries.into_iter();
        let mut coded = decoded.infos.iter();
        let mut infos = Vec::with_capacity(places.len());
        let mut prerequisites = Vec::new();
        let mut of_objects = Vec::with_capacity(places.len());
        for place in places {
            let info = match place {
                Place::Derivation(_) => coded.next().cloned(),
                Place::Index(_) => match entries.next() {
                    Some(compact_index::Entry { prerequisite: Some(prerequisite), .. }) => {
                        prerequisites.push(prerequisite);
                        None
                    }
                    entry => entry
                        .map(|entry| entry.info(&plain, &decoded.infos))
                        .transpose()
                        .map_err(|reason| input.damaged(*index_at, format!("index: {reason}")))?,
                },
            };
            of_objects.extend(info.is_some().then_some(place));
            infos.extend(info);
        }
        let paths = prerequisites.iter().map(|one| &one.path);
        let mut seen = HashSet::new();
        if let Some(twice) =
            paths.chain(infos.iter().map(|info| &info.path)).find(|path| !seen.insert(*path))
        {
            let reason = format!("index: {twice} stands in it twice");
            return Err(input.damaged(*index_at, reason));
        }
        drop(seen);
        let base = decoded.base_paths.into_iter().collect();
        let derivations = decoded.derivations;
        Ok(Self { infos, entries: plain, prerequisites, places: of_objects, derivations, base })
    }
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
fn check_manifest(manifest: &Manifest, contents: &Contents) -> std::result::Result<(), String> {
    let Contents { infos, prerequisites, base, .. } = contents;
    let nar_size = infos.iter().try_fold(0u64, |sum, info| sum.checked_add(info.nar_size));
    if manifest.paths != infos.len() as u64
        || Some(manifest.nar_size) != nar_size
        || manifest.prerequisites != prerequisites.len() as u64
    {
        return Err("the manifest does not agree with the index".to_owned());
    }
    let known: HashSet<&StorePath> = infos
        .iter()
        .map(|info| &info.path)
        .chain(prerequisites.iter().map(|one| &one.path))
        .collect();
    let roots = manifest.roots.iter().map(|name| ("root", name));
    let evaluations = manifest.evaluations.iter().map(|name| ("evaluation", name));
    for (what, name) in roots.chain(evaluations) {
        let path = StorePath::from_basename(name.as_bytes())
            .map_err(|error| format!("the {what} `{name}`: {error}"))?;
        if !known.contains(&path) && !base.contains(&path) {
            return Err(format!("the {what} {path} is not in the index"));
        }
    }
    Ok(())
}
