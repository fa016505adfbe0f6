//! What the fuzz targets share: bundles put together from parts that a fuzzer made up, with the
//! digests that make a reader look at them.
//!
//! Written from `docs/bundle-format.md`, and shares no code with the crate under test.

pub mod dialogue;

use std::collections::HashSet;
use std::io::Cursor;
use std::path::Path;

use ferry_bundle::{Bundle, list_nar, verify};
use ferry_formats::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath, nar};
use ferry_store::Store as _;
use ferry_store::export::ExportStream;
use ferry_store::facts::{Trace, Unfinished};
use ferry_store::inventory::Inventory;
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use sha2::{Digest as _, Sha256};

/// The first bytes of a bundle, version included.
pub const BEGINNING: &[u8; 12] = b"\x89FERRY\r\n\x01\0\0\0";

/// A small bundle with derivations and sources.
pub const RECIPE: &[u8] = include_bytes!("../seeds/header/recipe");
/// A small bundle without derivations.
pub const RUNTIME: &[u8] = include_bytes!("../seeds/header/runtime");

/// A part of a bundle.
pub struct Section {
    /// `MANI` and so on.
    pub name: [u8; 4],
    /// What is in it.
    pub contents: Vec<u8>,
}

impl Section {
    /// A section with this name.
    #[must_use]
    pub fn new(name: &[u8; 4], contents: impl Into<Vec<u8>>) -> Self {
        Self { name: *name, contents: contents.into() }
    }
}

/// A manifest that says so much of what follows it.
#[must_use]
pub fn manifest(paths: u64, nar_size: u64) -> Section {
    let text = format!(
        r#"{{"storeDir":"/nix/store","set":"x","roots":[],"paths":{paths},"narSize":{nar_size}}}"#
    );
    Section::new(b"MANI", text)
}

/// Takes a file apart as far as it goes; nothing is said about what stands before the sections.
#[must_use]
pub fn sections(file: &[u8]) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut rest = file.get(BEGINNING.len()..).unwrap_or_default();
    while let Some((header, behind)) = rest.split_first_chunk::<12>() {
        let [a, b, c, d, length @ ..] = *header;
        let length = usize::try_from(u64::from_le_bytes(length)).unwrap_or(usize::MAX);
        let (contents, behind) = behind.split_at(length.min(behind.len()));
        sections.push(Section::new(&[a, b, c, d], contents));
        rest = behind;
    }
    sections
}

/// A bundle with other contents in the sections of a name.
#[must_use]
pub fn with(bundle: &[u8], name: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut parts = sections(bundle);
    for part in parts.iter_mut().filter(|part| part.name == *name) {
        part.contents = contents.to_vec();
    }
    seal(&parts)
}

/// The sections one behind the other. `SIGN` and `TAIL` get the digests that belong into them.
#[must_use]
pub fn seal(sections: &[Section]) -> Vec<u8> {
    let mut out = BEGINNING.to_vec();
    for section in sections {
        let digest = Sha256::digest(&out);
        let mut contents = section.contents.clone();
        if matches!(&section.name, b"SIGN" | b"TAIL")
            && let Some(place) = contents.get_mut(..32)
        {
            place.copy_from_slice(&digest);
        }
        out.extend(section.name);
        out.extend((contents.len() as u64).to_le_bytes());
        out.extend(contents);
    }
    out
}

/// Appends a number as a bundle has it.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Three streams that stand as they are.
#[must_use]
pub fn streams(parts: [&[u8]; 3]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        put_number(&mut out, part.len() as u64);
        put_number(&mut out, part.len() as u64);
    }
    out.extend(parts.concat());
    out
}

/// Takes a number of two bytes off the front.
pub fn take_u16(data: &mut &[u8]) -> usize {
    take(data, 2).iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Takes so many bytes off the front, or all if there are fewer.
pub fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(count.min(data.len()));
    *data = rest;
    taken
}

/// What the fuzzer made up as three streams: the first two with their lengths in front.
#[must_use]
pub fn take_streams(mut data: &[u8]) -> Vec<u8> {
    let first = take_u16(&mut data);
    let first = take(&mut data, first);
    let second = take_u16(&mut data);
    let second = take(&mut data, second);
    streams([first, second, data])
}

/// The other way round, for seeds.
#[must_use]
pub fn give_streams(parts: [&[u8]; 3]) -> Vec<u8> {
    let length = |part: &[u8]| (part.len() as u16).to_le_bytes();
    [&length(parts[0])[..], parts[0], &length(parts[1]), parts[1], parts[2]].concat()
}

/// A bundle with one store path that has this NAR.
///
/// # Panics
/// Where zstd does.
#[must_use]
pub fn one_nar(nar: &[u8]) -> Vec<u8> {
    // An entry: no flags, NAR size, no references, no signatures.
    let mut numbers = vec![1, 0];
    put_number(&mut numbers, nar.len() as u64);
    numbers.extend([0, 0]);
    let digests = [&[7; 20][..], &Sha256::digest(nar)].concat();
    let mut parts = vec![
        manifest(1, nar.len() as u64),
        Section::new(b"INDX", streams([&numbers, b"a\0", &digests])),
    ];
    let others = sections(RUNTIME).into_iter();
    parts.extend(others.filter(|part| matches!(&part.name, b"DRVS" | b"BASE" | b"SIGN")));
    for block in nar.chunks(4 << 20) {
        let mut compressor = zstd::bulk::Compressor::new(1).expect("level 1 is there");
        compressor.include_checksum(true).expect("there are checksums");
        let frame = compressor.compress(block).expect("memory for a block");
        // No ranges, and the frame.
        parts.push(Section::new(b"BLCK", [&[0], frame.as_slice()].concat()));
    }
    parts.push(Section::new(b"TAIL", [0; 32]));
    seal(&parts)
}

/// Reads a bundle in all the ways there are, and says whether it is whole. Whatever it holds: no
/// panic, no path twice, and what is coded as a derivation is one, with the path that follows
/// from its text.
pub fn read_all(bytes: &[u8]) -> bool {
    let open = || Bundle::from_stream(Cursor::new(bytes.to_vec()), "fuzz");
    let Ok(bundle) = open() else { return false };
    let store_dir = bundle.store_dir();
    let mut seen = HashSet::new();
    for info in bundle.path_infos() {
        assert!(seen.insert(&info.path), "{} twice", info.path);
    }
    let coded = bundle.path_infos().iter().filter(|info| info.path.is_derivation());
    for info in coded.filter(|info| matches!(info.ca, Some(ContentAddress::Text(_)))).take(8) {
        let Ok(text) = open().and_then(|again| Ok(again.derivation_text(&info.path))) else {
            panic!("it does not open a second time");
        };
        if let Ok(text) = text {
            assert_eq!(Sha256::digest(&text)[..], address(info)[..], "{}", info.path);
            assert!(info.is_content_addressed(store_dir), "{}", info.path);
        }
    }
    match verify(&bundle, &TrustPolicy::accept_all(), &Silent) {
        Ok(report) => {
            assert_eq!(report.copied.added, seen.len());
            true
        }
        Err(_) => false,
    }
}

fn address(info: &PathInfo) -> [u8; 32] {
    match &info.ca {
        Some(ContentAddress::Text(digest)) => *digest,
        other => panic!("{other:?} is not that of a text"),
    }
}

/// Lists what is in a NAR.
///
/// # Errors
/// Where it is malformed.
pub fn list(bytes: &[u8]) -> Result<usize, nar::Error> {
    let mut entries = 0;
    let mut rest = bytes;
    list_nar(&mut rest, &mut |_| entries += 1)?;
    Ok(entries)
}

/// Reads an inventory, and makes sure that what it has does not depend on who asks.
pub fn inventory(bytes: &[u8]) {
    let store_dir = StoreDir::default();
    let Ok(inventory) = Inventory::read("fuzz", bytes, &store_dir) else { return };
    let path = StorePath::from_parts([7; 20], "a").expect("a path");
    let info = PathInfo {
        path: path.clone(),
        nar_hash: NarHash([0; 32]),
        nar_size: 0,
        references: [].into(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    let claims = inventory.claimed([&info]);
    assert_eq!(claims.paths.contains(&path), inventory.has(&path));
}

/// Reads an export stream to its end.
pub fn export_stream(bytes: &[u8]) {
    let scratch = Path::new("/dev/shm");
    let opened = ExportStream::from_stream(bytes, "fuzz", &StoreDir::default(), scratch);
    let Ok(stream) = opened else { return };
    let infos = stream.path_infos().to_vec();
    let read = stream.read_nars(&infos, &mut |info, nar| {
        let mut digest = Sha256::new();
        std::io::copy(nar, &mut digest).expect("what was read once");
        assert_eq!(digest.finalize()[..], info.nar_hash.0);
        Ok(())
    });
    assert!(read.is_ok(), "{read:?}");
}

/// Reads a recorded evaluation. One that is whole is the same where it may be unfinished; and what
/// is cut off of it makes it no other that is whole.
pub fn trace(bytes: &[u8]) {
    let read = |bytes, unfinished| Trace::parse("fuzz", bytes, &StoreDir::default(), unfinished);
    let taken = read(bytes, Unfinished::Accept);
    let Ok(whole) = read(bytes, Unfinished::Refuse) else {
        assert!(!taken.is_ok_and(|taken| taken.is_complete()));
        return;
    };
    assert_eq!(format!("{whole:?}"), format!("{:?}", taken.expect("whole is more than enough")));
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let facts = whole.needs().len() + whole.outside().len() + whole.roots().len();
    assert!(facts + whole.incomplete_reasons().len() + 1 <= lines);
    let last = bytes.trim_ascii_end().iter().rposition(|byte| *byte == b'\n').expect("two lines");
    assert!(read(&bytes[..=last], Unfinished::Refuse).is_err());
}
