//! What is intact comes out of a damaged bundle, and what does not is named.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;

use ferry_bundle::{BundleError, DamagedBundle, Loss, Salvage};
use ferry_formats::keys::PublicKey;
use ferry_formats::{StorePath, nar};
use ferry_store::Store;
use ferry_store::progress::Silent;

use crate::builder::BLOCK_SIZE;
use crate::objects::{Object, any_path, key, public, sample};
use crate::packed::packed;
use crate::receiver::open;

fn salvage_with(bundle: &[u8], keys: &[PublicKey]) -> Result<Salvage, BundleError> {
    damaged(bundle, None)?.salvage(keys, &Silent)
}

pub(crate) fn damaged(
    bundle: &[u8],
    store: Option<&dyn Store>,
) -> Result<DamagedBundle, BundleError> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(bundle).unwrap();
    DamagedBundle::open(file, "test.ferry".to_owned(), store)
}

pub(crate) fn salvage(bundle: &[u8]) -> Salvage {
    salvage_with(bundle, &[]).unwrap()
}

pub(crate) fn paths(salvage: &Salvage) -> BTreeSet<StorePath> {
    salvage.path_infos().iter().map(|info| info.path.clone()).collect()
}

/// Bytes in which nothing repeats.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(count).collect()
}

/// A bundle of several blocks, with where its blocks lie in the file and its NARs in the payload.
struct Large {
    bundle: Vec<u8>,
    blocks: Vec<Range<usize>>,
    nars: Vec<(StorePath, Range<usize>)>,
}

impl Large {
    fn new() -> Self {
        let objects: Vec<Object> = (0..6)
            .map(|number| {
                let contents = noise(number, 1_900_000 + 7 * number as usize);
                let path = any_path(&format!("{number}"), "large");
                Object::output(&path, nar::of_file(&contents), &[])
            })
            .collect();
        let bundle = packed(&objects);
        let mut position = 0;
        let opened = open(&bundle).unwrap();
        let nars = opened.path_infos().iter().map(|info| {
            let start = position;
            position += info.nar_size as usize;
            (info.path.clone(), start..position)
        });
        let nars = nars.collect();
        Self { blocks: blocks(&bundle), bundle, nars }
    }

    /// What has nothing in the blocks that are hit.
    fn untouched(&self, hit: &[usize]) -> BTreeSet<StorePath> {
        let touches = |range: &Range<usize>, block: usize| {
            range.start < (block + 1) * BLOCK_SIZE && range.end > block * BLOCK_SIZE
        };
        let whole = self.nars.iter().filter(|(_, range)| !hit.iter().any(|it| touches(range, *it)));
        whole.map(|(path, _)| path.clone()).collect()
    }

    #[track_caller]
    fn saves(&self, bundle: &[u8], hit: &[usize], what: &str) {
        let salvage = salvage(bundle);
        let untouched = self.untouched(hit);
        assert_eq!(paths(&salvage), untouched, "{what}");
        let lost: BTreeSet<StorePath> =
            salvage.lost().iter().map(|(path, _)| path.clone()).collect();
        let all: BTreeSet<StorePath> = self.nars.iter().map(|(path, _)| path.clone()).collect();
        assert_eq!(lost, all.difference(&untouched).cloned().collect(), "{what}");
        assert!(salvage.lost().iter().all(|(_, loss)| *loss == Loss::Damaged), "{what}");
    }
}

/// Where the sections of the blocks lie, names and lengths included.
pub(crate) fn blocks(bundle: &[u8]) -> Vec<Range<usize>> {
    let mut at = 12;
    let mut found = Vec::new();
    while at < bundle.len() {
        let length = u64::from_le_bytes(bundle[at + 4..at + 12].try_into().unwrap()) as usize;
        let end = at + 12 + length;
        if bundle[at..].starts_with(b"BLCK") {
            found.push(at..end);
        }
        at = end;
    }
    found
}

#[test]
fn what_does_not_touch_a_damaged_block_is_saved_wherever_the_block_was_hit() {
    let large = Large::new();
    assert!(large.blocks.len() >= 3, "{:?}", large.blocks);
    for (number, block) in large.blocks.iter().enumerate() {
        let middle = (block.start + block.end) / 2;
        for (place, what) in [
            (block.start, "its name"),
            (block.start + 5, "its length"),
            (middle, "the middle"),
            (block.end - 1, "the checksum"),
        ] {
            let mut bundle = large.bundle.clone();
            bundle[place] ^= 0x55;
            large.saves(&bundle, &[number], &format!("block {number}, {what}"));
        }
    }
}

#[test]
fn a_block_that_is_gone_takes_only_its_own_along() {
    let large = Large::new();
    for (number, block) in large.blocks.iter().enumerate() {
        let mut bundle = large.bundle.clone();
        bundle.drain(block.clone());
        large.saves(&bundle, &[number], &format!("without block {number}"));
    }
}

#[test]
fn several_damages_leave_what_lies_between() {
    let large = Large::new();
    let last = large.blocks.len() - 1;
    let mut bundle = large.bundle.clone();
    // A hole over the border of two blocks, which takes a name and a length with it.
    let border = large.blocks[1].start;
    bundle[border - 1000..border + 1000].fill(0);
    large.saves(&bundle, &[0, 1], "a hole");
    let mut bundle = large.bundle.clone();
    bundle[large.blocks[0].start] ^= 1;
    bundle[large.blocks[last].start + 5] ^= 0x55;
    large.saves(&bundle, &[0, last], "the first and the last");
}

#[test]
fn a_bundle_that_ends_too_early_gives_what_it_has() {
    let large = Large::new();
    for (number, block) in large.blocks.iter().enumerate() {
        let rest: Vec<usize> = (number..large.blocks.len()).collect();
        for end in [block.start, block.start + 5, block.end - 1] {
            large.saves(&large.bundle[..end], &rest, &format!("{end} bytes"));
        }
    }
    large.saves(&large.bundle[..large.bundle.len() - 1], &[], "no digest at the end");
}

#[test]
fn a_whole_bundle_is_saved_whole() {
    let bundle = packed(&sample());
    let salvage = salvage(&bundle);
    assert_eq!(salvage.lost(), []);
    assert_eq!(salvage.path_infos(), open(&bundle).unwrap().path_infos());
    assert_eq!(salvage.manifest(), Some(open(&bundle).unwrap().manifest()));
    let mut seen = 0;
    salvage
        .read_nars(salvage.path_infos(), &mut |info, nar| {
            let mut bytes = Vec::new();
            nar.read_to_end(&mut bytes).unwrap();
            assert_eq!(ferry_formats::NarHash::of(&bytes), info.nar_hash);
            seen += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, salvage.path_infos().len());
}

#[test]
fn what_refers_to_something_lost_is_lost_with_it() {
    let library =
        Object::output(&any_path("l", "library"), nar::of_file(&noise(1, 5_000_000)), &[]);
    let program =
        Object::output(&any_path("p", "program"), nar::of_file(b"program"), &[library.path()]);
    let other = Object::output(&any_path("o", "other"), nar::of_file(&noise(2, 5_000_000)), &[]);
    let mut bundle = packed(&[library.clone(), other.clone(), program.clone()]);
    let order: Vec<StorePath> =
        open(&bundle).unwrap().path_infos().iter().map(|info| info.path.clone()).collect();
    let first = order[0] == *library.path();
    // The block that holds nothing but a part of the library.
    let blocks = blocks(&bundle);
    let hit = if first { &blocks[0] } else { &blocks[1] };
    bundle[hit.start + 1000] ^= 1;
    let salvage = salvage(&bundle);
    let lost = |path: &StorePath| {
        let lost = salvage.lost().iter().find(|(lost, _)| lost == path);
        lost.map(|(_, loss)| loss.clone())
    };
    assert_eq!(lost(library.path()), Some(Loss::Damaged));
    assert_eq!(lost(program.path()), Some(Loss::RefersTo(library.path().clone())));
}

/// Turns the letter `r` of `runtime` in the manifest into another.
fn with_another_set(mut bundle: Vec<u8>) -> Vec<u8> {
    let place = bundle.windows(7).position(|seven| seven == b"runtime").unwrap();
    bundle[place] = b'R';
    assert!(open(&bundle).is_err());
    bundle
}

#[test]
fn where_the_head_is_damaged_only_what_proves_itself_is_saved() {
    let source = Object::text("source", b"source", &[]);
    let proved = Object::text("proved", b"proved", &[source.path()]);
    let unproved = Object::output(&any_path("u", "unproved"), nar::of_file(b"unproved"), &[]);
    let signed = Object::output(&any_path("s", "signed"), nar::of_file(b"signed"), &[]);
    let signed = signed.signed_by(&key());
    let bundle = with_another_set(packed(&[
        source.clone(),
        unproved.clone(),
        signed.clone(),
        proved.clone(),
    ]));
    let of = |objects: &[&Object]| objects.iter().map(|it| it.path().clone()).collect();

    let left: BTreeSet<StorePath> = of(&[&source, &proved]);
    let without = salvage(&bundle);
    assert_eq!((paths(&without), without.manifest()), (left, None));
    assert!(without.lost().contains(&(unproved.path().clone(), Loss::Unproved)));

    let trusting = salvage_with(&bundle, &[public(&key())]).unwrap();
    assert_eq!(paths(&trusting), of(&[&source, &proved, &signed]));
}

#[test]
fn no_byte_that_is_wrong_makes_it_panic_or_save_what_is_wrong() {
    let bundle = packed(&sample());
    let whole = open(&bundle).unwrap();
    let whole: BTreeSet<_> = whole.path_infos().iter().map(|info| &info.path).collect();
    let mut refused = 0;
    for place in 0..bundle.len() {
        let mut bundle = bundle.clone();
        bundle[place] ^= 0x10;
        match salvage_with(&bundle, &[public(&key())]) {
            Err(_) => refused += 1,
            Ok(salvage) => {
                assert!(paths(&salvage).iter().all(|path| whole.contains(path)), "byte {place}");
            }
        }
    }
    assert!(refused > 0 && refused < bundle.len());
}
