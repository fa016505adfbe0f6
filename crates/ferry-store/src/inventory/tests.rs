//! Inventories in compact form: their size, how often they are wrong, and what is done about it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ferry_formats::{NarHash, PathInfo, StoreDir, StorePath};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// The path of a number, as Nix makes them: its hash part looks random.
fn path(seed: u64) -> StorePath {
    let digest: [u8; 32] = Sha256::digest(seed.to_le_bytes()).into();
    let kind = if seed.is_multiple_of(3) { ".drv" } else { "" };
    let name = format!("package-{}-1.{}{kind}", seed % 977, seed % 13);
    StorePath::from_parts(digest[..20].try_into().unwrap(), &name).unwrap()
}

fn paths(seeds: std::ops::Range<u64>) -> Vec<StorePath> {
    seeds.into_par_iter().map(path).collect()
}

fn encoded(paths: &[StorePath], bits: u8) -> Vec<u8> {
    compact::encode(paths, &StoreDir::default(), bits).unwrap()
}

fn read(bytes: &[u8]) -> Result<Inventory> {
    Inventory::read("island.inv", bytes, &StoreDir::default())
}

/// A path with references, all by number.
fn info(seed: u64, references: &[u64]) -> PathInfo {
    let mut references: Vec<StorePath> = references.iter().map(|seed| path(*seed)).collect();
    references.sort();
    PathInfo {
        path: path(seed),
        nar_hash: NarHash::of(b""),
        nar_size: 0,
        references: Arc::from(references),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    }
}

#[test]
fn a_hundred_thousand_paths_take_less_than_four_hundred_thousand_bytes() {
    let there = paths(0..100_000);
    let mut bytes = Vec::new();
    write(&mut bytes, &there, &StoreDir::default()).unwrap();
    assert!(bytes.len() <= 400_000, "{}", bytes.len());
    // The limit for this certainty is 30 + 1.44 bits a path.
    assert!(bytes.len() >= 393_000, "{}", bytes.len());

    let inventory = read(&bytes).unwrap();
    assert_eq!((inventory.len(), inventory.bits()), (there.len(), Some(30)));
    assert!(there.par_iter().all(|path| inventory.has(path)));
}

#[test]
fn a_path_that_is_not_there_is_claimed_as_often_as_is_stated() {
    let there = paths(0..100_000);
    let lookups = 1 << 21;
    let [some, hardly_any] = [10, BITS].map(|bits| read(&encoded(&there, bits)).unwrap());
    let (found, found_hardly) = (1_000_000..1_000_000 + lookups)
        .into_par_iter()
        .map(path)
        .map(|path| (u64::from(some.has(&path)), u64::from(hardly_any.has(&path))))
        .reduce(|| (0, 0), |one, other| (one.0 + other.0, one.1 + other.1));
    // 2,097,152 / 2^10 are 2,048, with a standard deviation of 45.
    assert!((2048 - 180..2048 + 180).contains(&found), "{found}");
    // 2,097,152 / 2^30 are 0.002.
    assert_eq!(found_hardly, 0);
}

#[test]
fn the_order_of_the_paths_and_paths_that_stand_twice_do_not_matter() {
    let mut there = paths(0..500);
    let bytes = encoded(&there, BITS);
    there.reverse();
    there.push(path(7));
    assert_eq!(encoded(&there, BITS), bytes);
}

#[test]
fn few_paths_and_none_are_an_inventory_as_well() {
    for count in 0..20 {
        let there = paths(0..count);
        for bits in [8, 30, 36] {
            let inventory = read(&encoded(&there, bits)).unwrap();
            assert_eq!(inventory.len(), there.len());
            assert!(there.iter().all(|path| inventory.has(path)));
        }
    }
    assert!(!read(&encoded(&[], BITS)).unwrap().has(&path(0)));
}

#[test]
fn any_byte_changed_and_any_length_that_is_not_the_whole_is_an_error() {
    let bytes = encoded(&paths(0..300), BITS);
    for place in 0..bytes.len() {
        // The last makes the first byte a `#`.
        for pattern in [0x01, 0x80, 0xff, 0xaa] {
            let mut damaged = bytes.clone();
            damaged[place] ^= pattern;
            assert!(read(&damaged).is_err(), "byte {place} ^ {pattern:#x}");
        }
        // Nothing at all is a list of nothing.
        assert_eq!(read(&bytes[..place]).is_err(), place > 0, "the first {place} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(&longer).is_err());
}

/// A file with a right digest, whatever it says.
fn sealed(bits: u8, store_dir: &str, count: u64, codes: &[u8]) -> Vec<u8> {
    let length = (store_dir.len() as u64).to_le_bytes();
    let count = count.to_le_bytes();
    let parts =
        [MAGIC.as_slice(), &[1, 0, 0, 0, bits], &length, store_dir.as_bytes(), &count, codes];
    let mut bytes = parts.concat();
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

#[test]
fn what_a_file_claims_is_checked_even_if_its_digest_is_right() {
    let refused = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    assert!(read(&sealed(8, "/nix/store", 1, &[0])).is_ok());
    for (bytes, says) in [
        (sealed(7, "/nix/store", 1, &[0]), "7 bits a path"),
        (sealed(37, "/nix/store", 1, &[0; 5]), "37 bits a path"),
        (sealed(8, "/gnu/store", 1, &[0]), "a store in /gnu/store, and not in /nix/store"),
        (sealed(8, "/nix/store", 2, &[0]), "cannot hold 2 paths"),
        (sealed(8, "/nix/store", u64::MAX, &[0; 64]), "cannot hold"),
        (sealed(8, "/nix/store", 1, &[0xff]), "beyond the range"),
        (sealed(8, "/nix/store", 1, &[0xc0, 0]), "beyond the range"),
        (sealed(8, "/nix/store", 2, &[0xff; 2]), "beyond the range"),
        (sealed(8, "/nix/store", 2, &[0x80, 0]), "cut short"),
        (sealed(8, "/nix/store", 1, &[0, 0]), "follows the last path"),
        (sealed(8, "/nix/store", 0, &[1]), "follows the last path"),
        (sealed(8, "/nix/store", 1, &[0x80, 1]), "follows the last path"),
    ] {
        let said = refused(&bytes);
        assert!(said.contains(says), "{said}");
    }
    let as_text: Vec<u8> = encoded(&[], BITS).into_iter().filter(|byte| *byte != b'\r').collect();
    assert!(refused(&as_text).contains("transferred as text"));
    let mut newer = encoded(&[], BITS);
    newer[9] = 2;
    assert!(refused(&newer).contains("it has version 2"));
}

#[test]
fn a_path_is_claimed_only_with_all_that_it_refers_to() {
    // 1 <- 2 <- 3 and 1 <- 4 <- 5 are candidates; 9 is a reference that is none.
    let candidates =
        [info(1, &[]), info(2, &[1, 2]), info(3, &[2, 9]), info(4, &[1]), info(5, &[4])];
    let claimed = |there: &[u64]| {
        let there: Vec<StorePath> = there.iter().map(|seed| path(*seed)).collect();
        let claims = read(&encoded(&there, BITS)).unwrap().claimed(&candidates);
        let seeds = (1..=9).filter(|seed| claims.paths.contains(&path(*seed)));
        assert_eq!(claims.bits, Some(BITS));
        (seeds.collect::<Vec<u64>>(), claims.frontier)
    };
    assert_eq!(claimed(&[1, 2, 3, 4, 5, 9]), (vec![1, 2, 3, 4, 5], 0));
    assert_eq!(claimed(&[]), (vec![], 1));
    assert_eq!(claimed(&[1]), (vec![1], 2));
    assert_eq!(claimed(&[1, 2, 3]), (vec![1, 2], 1));
    // As if 2 and 5 had been claimed falsely.
    assert_eq!(claimed(&[2, 3, 5, 9]), (vec![], 1));
    assert_eq!(claimed(&[1, 2, 3, 5, 9]), (vec![1, 2, 3], 1));
}

#[test]
fn the_stated_bound_holds_for_sets_of_paths() {
    // With 8 bits: about four sets of eight new paths in a hundred and twenty-eight are wrong.
    let there = paths(0..2000);
    let inventory = read(&encoded(&there, 8)).unwrap();
    let (mut wrong, mut bound) = (0_u32, 0.0);
    for set in 0..4000 {
        // Eight sources, and a chain of eight on the first: only its beginning is on the frontier.
        let first = 1_000_000 + set * 16;
        let mut candidates: Vec<PathInfo> = (0..8).map(|place| info(first + place, &[])).collect();
        candidates.extend(
            (8..16).map(|place| {
                info(first + place, &[first + if place == 8 { 0 } else { place - 1 }])
            }),
        );
        let claims = inventory.claimed(&candidates);
        wrong += u32::from(!claims.paths.is_empty());
        bound += claims.chance_of_error();
    }
    // 4000 × 8 / 256 are 125; two in one set, and those behind a wrong one, are rare.
    assert!((95..=150).contains(&wrong), "{wrong}");
    assert!((120.0..=130.0).contains(&bound), "{bound}");
}

#[test]
fn a_list_is_believed_as_it_stands() {
    let there = paths(2..4);
    let text: String = there.iter().map(|path| format!("{path}\n")).collect();
    let inventory = read(text.as_bytes()).unwrap();
    assert_eq!((inventory.len(), inventory.bits()), (2, None));
    let candidates = [info(1, &[]), info(2, &[1]), info(3, &[2])];
    let claims = inventory.claimed(&candidates);
    assert_eq!(claims.paths, there.iter().cloned().collect::<BTreeSet<_>>());
    assert_eq!(claims.chance_of_error(), 0.0);
    let same = Inventory::of(there.clone());
    assert_eq!(same.paths(), inventory.paths());
}
