//! A bundle that is not byte for byte what was written is refused, wherever it was hit.

use std::collections::BTreeMap;

use ferry_bundle::BundleError;
use ferry_store::Error;

use crate::builder::{BLOCK_SIZE, Draft};
use crate::objects::{Object, key, sample};
use crate::packed::packed;
use crate::receiver::{Receiver, assert_agree, damaged_at, in_the_file, refused, verify};
use crate::wire::Wire;

/// The objects of the sample as they lie in a store that got them whole.
fn whole() -> BTreeMap<std::path::PathBuf, String> {
    let receiver = Receiver::new();
    let report = receiver.load(&packed(&sample())).unwrap();
    assert_eq!(report.added, sample().len());
    receiver.objects()
}

/// Where in the file the reason lies, checked to be inside it; or the path that it names.
#[track_caller]
fn names_its_place(error: &Error, size: usize) {
    match (in_the_file(error), error) {
        (Some(BundleError::Damaged { offset, .. } | BundleError::Truncated { offset, .. }), _) => {
            assert!(*offset <= size as u64, "{error}");
        }
        (Some(BundleError::NotABundle { .. } | BundleError::UnknownVersion { .. }), _) => {}
        (
            None,
            Error::WrongNarHash { path, .. }
            | Error::WrongNarSize { path, .. }
            | Error::MalformedNar { path, .. }
            | Error::WrongContentAddress { path, .. },
        ) => assert!(path.starts_with("/nix/store/"), "{error}"),
        _ => panic!("an error that says nothing about the place: {error:?}"),
    }
}

/// One store takes all the attempts: a path that became valid in any of them would be seen in the
/// next.
struct Victim {
    receiver: Receiver,
    sample: Vec<Object>,
    surroundings: BTreeMap<std::path::PathBuf, String>,
}

impl Victim {
    fn new() -> Self {
        let receiver = Receiver::new();
        Self { surroundings: receiver.surroundings(), receiver, sample: sample() }
    }

    /// Verifies and loads a damaged bundle: the same refusal twice, and nothing in the store.
    #[track_caller]
    fn survives(&self, bundle: &[u8], what: &str) -> Error {
        let Err(verified) = verify(bundle) else { panic!("{what}: verify accepts it") };
        let Err(loaded) = self.receiver.load(bundle) else { panic!("{what}: load accepts it") };
        assert_agree(&verified, &loaded);
        assert_eq!(self.receiver.objects(), BTreeMap::new(), "{what}: {loaded}");
        verified
    }

    /// Nothing has become valid, and a whole bundle still loads.
    fn is_well(&self) {
        let paths: Vec<_> = self.sample.iter().map(|object| object.path().clone()).collect();
        assert_eq!(self.receiver.valid(&paths), []);
        assert_eq!(self.receiver.surroundings(), self.surroundings);
        self.receiver.load(&packed(&self.sample)).unwrap();
        assert_eq!(self.receiver.objects(), whole());
    }
}

#[test]
fn the_description_of_the_format_and_the_writer_give_the_same_content() {
    let objects = sample();
    let from_description = Receiver::new();
    from_description.load(&Draft::of(&objects).signed_by(&key()).build()).unwrap();
    assert_eq!(from_description.objects(), whole());
}

#[test]
fn any_byte_changed_is_noticed_and_nothing_is_loaded() {
    let bundle = packed(&sample());
    let victim = Victim::new();
    for offset in 0..bundle.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = bundle.clone();
            damaged[offset] ^= pattern;
            let error = victim.survives(&damaged, &format!("byte {offset} ^ {pattern:#x}"));
            names_its_place(&error, bundle.len());
        }
    }
    victim.is_well();
}

#[test]
fn any_length_that_is_not_the_whole_is_called_truncated_at_that_offset() {
    let bundle = packed(&sample());
    let victim = Victim::new();
    for length in 0..bundle.len() {
        let error = victim.survives(&bundle[..length], &format!("the first {length} bytes"));
        match in_the_file(&error) {
            Some(BundleError::Truncated { offset, .. }) => assert_eq!(*offset, length as u64),
            _ => panic!("the first {length} bytes: {error:?}"),
        }
    }
    victim.is_well();
}

#[test]
fn damage_in_a_later_block_names_that_block_and_leaves_nothing_behind() {
    // Three blocks, so that objects are unpacked before the damage is met.
    let noise = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(BLOCK_SIZE)
        .collect()
    };
    let objects: Vec<Object> = (1..=3)
        .map(|seed| Object::source("large", Wire::new().file(&noise(seed)).0, &[]))
        .collect();
    let mut bundle = packed(&objects);
    let middle = bundle.len() / 2;
    bundle[middle] ^= 0x10;
    let offset = damaged_at(&refused(&bundle));
    assert!(offset < middle as u64 && middle as u64 - offset <= BLOCK_SIZE as u64 + 4096);

    let cut = bundle.len() - 100;
    let error = refused(&packed(&objects)[..cut]);
    assert!(matches!(
        in_the_file(&error),
        Some(BundleError::Truncated { offset, .. }) if *offset == cut as u64
    ));
}
