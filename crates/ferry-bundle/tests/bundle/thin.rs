//! Thin bundles: what the other side has is left out, and everything else comes back.

use std::collections::{BTreeMap, BTreeSet};

use ferry_bundle::{BundleError, verify_against};
use ferry_formats::{NarHash, PathInfo, StorePath, nar};
use ferry_store::leave_out::{Thinned, leave_out};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Error, Store as _, copy};
use nix_derivation::InputDerivation;
use proptest::prelude::*;

use crate::derivations::{Random, World, graph, made, random};
use crate::hostile_derivations::rebuilt;
use crate::objects::{Memory, Object, any_path, key, sample};
use crate::packed::{coded, packed, packed_without, streams, take_number};
use crate::receiver::{
    Receiver, assert_agree, count_same_nars, in_the_file, open, refused_because, verify,
};

/// The paths of `objects` at these places, and all that they refer to.
pub(crate) fn closed(objects: &[Object], places: impl Fn(usize) -> bool) -> BTreeSet<StorePath> {
    let infos = infos_of(objects);
    let chosen = objects.iter().enumerate().filter(|(place, _)| places(*place));
    let mut open: Vec<&StorePath> = chosen.map(|(_, object)| object.path()).collect();
    let mut there: BTreeSet<StorePath> = open.iter().copied().cloned().collect();
    while let Some(path) = open.pop() {
        let references = infos[path].references.iter();
        open.extend(references.filter(|path| there.insert((*path).clone())));
    }
    there
}

fn infos_of(objects: &[Object]) -> BTreeMap<StorePath, PathInfo> {
    objects.iter().map(|object| (object.path().clone(), object.info.clone())).collect()
}

fn thinned(objects: &[Object], there: &BTreeSet<StorePath>) -> Thinned {
    leave_out(infos_of(objects), &|path| there.contains(path))
}

/// Packs without what is there, reads, and compares everything that is not.
#[track_caller]
pub(crate) fn the_rest_comes_back(objects: &[Object], there: &BTreeSet<StorePath>) -> Vec<u8> {
    let store = Memory::of(objects);
    let Thinned { carried, prerequisites, left_out } = thinned(objects, there);
    let bundle = packed_without(&store, objects, there);
    let read = open(&bundle).unwrap();
    let found: BTreeMap<StorePath, PathInfo> =
        read.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect();
    assert_eq!(found, carried);
    let named: BTreeSet<&StorePath> = read.prerequisites().iter().map(|one| &one.path).collect();
    assert_eq!(named, prerequisites.iter().map(|info| &info.path).collect());
    assert_eq!(read.manifest().prerequisites, prerequisites.len() as u64);
    assert!(named.iter().all(|path| left_out.contains_key(*path)));
    assert_eq!(count_same_nars(&read, &store), carried.len());
    // By its own word, with no store at hand.
    assert_eq!(verify(&bundle).unwrap().copied.added, carried.len());
    bundle
}

/// A store that has some of `objects`.
pub(crate) fn receiver_with(objects: &[Object], there: &BTreeSet<StorePath>) -> Receiver {
    let receiver = Receiver::new();
    let present: BTreeMap<_, _> =
        infos_of(objects).into_iter().filter(|(path, _)| there.contains(path)).collect();
    copy(&Memory::of(objects), &receiver.store, present, &[], &Silent).unwrap();
    receiver
}

#[test]
fn derivations_of_every_kind_may_be_left_out_at_any_point() {
    let objects = graph();
    for cut in 0..=objects.len() {
        // A prefix is closed: references stand first.
        let there = closed(&objects, |place| place < cut);
        let bundle = the_rest_comes_back(&objects, &there);
        let carried = &objects[cut..];
        let derivations = carried.iter().filter(|object| object.path().is_derivation()).count();
        assert_eq!(coded(&bundle), derivations, "{cut}");
    }
}

#[test]
fn each_object_alone_may_be_left_out_with_what_it_refers_to() {
    for objects in [sample(), graph()] {
        for only in 0..objects.len() {
            let there = closed(&objects, |place| place == only);
            let bundle = the_rest_comes_back(&objects, &there);
            let receiver = receiver_with(&objects, &there);
            let read = open(&bundle).unwrap();
            assert_eq!(read.missing_prerequisites(&receiver.store).unwrap(), []);
            let trust = TrustPolicy::accept_all();
            verify_against(&read, &receiver.store, &trust, &Silent).unwrap();
            receiver.load(&bundle).unwrap();
            let all: Vec<StorePath> = objects.iter().map(|object| object.path().clone()).collect();
            assert_eq!(receiver.valid(&all), all);
        }
    }
}

#[test]
fn a_thin_bundle_is_smaller_and_the_same_each_time() {
    let objects = graph();
    let there = closed(&objects, |place| place < objects.len() - 2);
    let store = Memory::of(&objects);
    let thin = packed_without(&store, &objects, &there);
    assert_eq!(thin, packed_without(&store, &objects, &there));
    assert!(thin.len() < packed(&objects).len() * 2 / 3, "{} bytes", thin.len());
}

#[test]
fn a_bundle_of_nothing_still_names_what_has_to_be_there() {
    let objects = sample();
    let there = closed(&objects, |_| true);
    let bundle = the_rest_comes_back(&objects, &there);
    let read = open(&bundle).unwrap();
    assert_eq!(read.path_infos(), []);
    assert_eq!(read.manifest().root_paths(), [objects.last().unwrap().path().clone()]);
    let receiver = receiver_with(&objects, &there);
    assert_eq!(read.missing_prerequisites(&receiver.store).unwrap(), []);
    assert_eq!(receiver.load(&bundle).unwrap().added, 0);
}

#[test]
fn every_prerequisite_that_is_missing_is_named() {
    let objects = sample();
    let there = closed(&objects, |place| place < 5);
    let bundle = the_rest_comes_back(&objects, &there);
    let read = open(&bundle).unwrap();
    let mut all: Vec<StorePath> =
        thinned(&objects, &there).prerequisites.iter().map(|info| info.path.clone()).collect();
    all.sort();
    assert!(all.len() > 2);
    let nobody = Receiver::new();
    assert_eq!(read.missing_prerequisites(&nobody.store).unwrap(), all);
    nobody.load(&bundle).unwrap_err();
    assert!(nobody.objects().is_empty());
    // And one that is missing alone.
    let only = objects[0].path().clone();
    let others = there.iter().filter(|path| **path != only).cloned().collect();
    let receiver = receiver_with(&objects, &others);
    assert_eq!(read.missing_prerequisites(&receiver.store).unwrap(), [only]);
}

/// What a bundle says about a derivation that it does not have decides nothing: the paths of its
/// dependents' outputs are checked against the derivation that is there.
#[test]
fn a_lie_about_a_derivation_that_is_left_out_is_found_out_by_who_has_it() {
    let mut world = World::new("/nix/store");
    let input = world.add(world.builder("input").input_addressed_output("out"));
    let output = world.output(&input, "out");
    let builder = world
        .builder("dependent")
        .input_addressed_output("out")
        .input_derivation(input.clone(), InputDerivation::new(["out"]))
        .environment("input", output);
    world.add(builder);
    let objects = world.objects;
    let there = closed(&objects, |place| place == 0);
    let bundle = the_rest_comes_back(&objects, &there);
    let receiver = receiver_with(&objects, &there);
    // The hash that stands for it comes first among the digests. (Another path of its output would
    // be another text, which may stand in any derivation.)
    for at in [0, 17, 31] {
        refused_because(&rebuilt(&bundle, |streams| streams[2][at] ^= 1), "is not in the index");
        let lie = unrooted(&rebuilt(&bundle, |streams| streams[2][at] ^= 1));
        let read = open(&lie).unwrap();
        // It is consistent in itself: another derivation, with another path.
        assert_ne!(read.path_infos()[0].path, *objects[1].path());
        let before = receiver.objects();
        let loaded = receiver.load(&lie).unwrap_err();
        let trust = TrustPolicy::accept_all();
        let verified = verify_against(&read, &receiver.store, &trust, &Silent).unwrap_err();
        assert_agree(&verified, &loaded);
        assert_eq!(receiver.objects(), before, "{at}");
    }
    receiver.load(&bundle).unwrap();
}

/// A bundle whose manifest names no roots.
fn unrooted(bundle: &[u8]) -> Vec<u8> {
    let mut sections = crate::packed::sections(bundle);
    let manifest = sections.iter_mut().find(|section| &section.name == b"MANI").unwrap();
    let mut said: serde_json::Value = serde_json::from_slice(&manifest.contents).unwrap();
    said["roots"] = serde_json::json!([]);
    manifest.contents = serde_json::to_vec(&said).unwrap();
    crate::hostile_derivations::assembled(&sections)
}

#[test]
fn a_derivation_is_given_once_and_only_with_outputs_that_are_mentioned() {
    let mut world = World::new("/nix/store");
    let mut several = world.builder("several");
    for output in ["out", "dev", "lib"] {
        several = several.input_addressed_output(output);
    }
    let several = world.add(several);
    for name in ["one", "two"] {
        let dev = world.output(&several, "dev");
        let builder = world
            .builder(name)
            .input_addressed_output("out")
            .input_derivation(several.clone(), InputDerivation::new(["dev"]))
            .environment("dev", dev);
        world.add(builder);
    }
    let objects = world.objects;
    let bundle = the_rest_comes_back(&objects, &closed(&objects, |place| place == 0));
    let sections = crate::packed::sections(&bundle);
    let section = sections.iter().find(|section| &section.name == b"DRVS").unwrap();
    let [numbers, _, digests] = streams(&section.contents);
    assert_eq!(take_number(&mut numbers.as_slice()), 1);
    // The hash that stands for it, and the path of one output.
    assert_eq!(digests.len(), 32 + 20);
}

#[test]
fn content_of_a_prerequisite_that_the_payload_builds_on_is_compared() {
    let objects = sample();
    let there = closed(&objects, |place| place == 0);
    let store = Memory::of(&objects);
    let base = &objects[0].info;
    let bundle = crate::packed::packed_on(&store, &objects, &there, std::slice::from_ref(base));
    let read = open(&bundle).unwrap();
    let named: Vec<_> = read.prerequisites().iter().map(|one| (&one.path, one.content)).collect();
    assert_eq!(named, [(&base.path, Some((base.nar_hash, base.nar_size)))]);
    // A store with another object there.
    let mut other = objects[0].clone();
    other.nar = nar::of_file(b"something else");
    other.info.nar_hash = NarHash::of(&other.nar);
    other.info.nar_size = other.nar.len() as u64;
    other.info.ca = None;
    let receiver = receiver_with(&[other], &there);
    let error = read.missing_prerequisites(&receiver.store).unwrap_err();
    assert!(matches!(&error, Error::Conflict { path, .. } if *path == objects[0].rendered()));
}

#[test]
fn a_prerequisite_that_is_in_the_bundle_too_is_refused() {
    // An index that lists a path both ways, with a manifest that counts as it should.
    let objects = vec![Object::text("note", b"note", &[]), Object::text("other", b"other", &[])];
    let there = closed(&objects, |place| place == 0);
    let bundle = packed_without(&Memory::of(&objects), &objects, &there);
    let twice = index_changed(&bundle, |[_, texts, digests]| {
        // The entry of the other has the name of the note, and its digest: it follows from both.
        let other = Object::text("note", b"note", &[]);
        let end = texts.iter().position(|byte| *byte == 0).unwrap() + 1;
        texts.truncate(end);
        texts.extend(b"note\0");
        digests.truncate(20);
        digests.extend(other.info.nar_hash.0);
        digests.extend(crate::objects::sha256(b"note"));
    });
    refused_because(&twice, "-note stands in it twice");
}

#[test]
fn flags_that_do_not_go_with_a_prerequisite_are_refused() {
    let objects = sample();
    let bundle = packed_without(&Memory::of(&objects), &objects, &closed(&objects, |p| p == 0));
    for flags in [33, 34, 40, 64, 65, 97, 0x7f] {
        let changed = index_changed(&bundle, |[numbers, ..]| {
            assert_eq!(numbers[1], 32);
            numbers[1] = flags;
        });
        refused_because(&changed, "flags");
    }
}

#[test]
fn a_manifest_that_counts_prerequisites_otherwise_is_refused() {
    let objects = sample();
    let bundle = packed_without(&Memory::of(&objects), &objects, &closed(&objects, |p| p == 0));
    let mut sections = crate::packed::sections(&bundle);
    let manifest = sections.iter_mut().find(|section| &section.name == b"MANI").unwrap();
    let text = String::from_utf8(manifest.contents.clone()).unwrap();
    assert!(text.contains("\"prerequisites\": 1"), "{text}");
    manifest.contents = text.replace("\"prerequisites\": 1", "\"prerequisites\": 2").into();
    let changed = crate::hostile_derivations::assembled(&sections);
    refused_because(&changed, "does not agree with the index");
}

fn index_changed(bundle: &[u8], change: impl FnOnce(&mut [Vec<u8>; 3])) -> Vec<u8> {
    let mut sections = crate::packed::sections(bundle);
    let section = sections.iter_mut().find(|section| &section.name == b"INDX").unwrap();
    let mut streams = streams(&section.contents);
    change(&mut streams);
    section.contents = crate::packed::stored(&streams);
    crate::hostile_derivations::assembled(&sections)
}

/// Half of the sample, on a store that has the other half.
fn victim() -> (Vec<Object>, BTreeSet<StorePath>, Vec<u8>) {
    let objects = sample();
    let there = closed(&objects, |place| place < 4);
    let bundle = packed_without(&Memory::of(&objects), &objects, &there);
    (objects, there, bundle)
}

#[test]
fn any_byte_changed_and_any_end_cut_off_is_noticed() {
    let (objects, there, bundle) = victim();
    let receiver = receiver_with(&objects, &there);
    let before = receiver.objects();
    let refused = |damaged: &[u8], what: &str| {
        let Err(verified) = verify(damaged) else { panic!("{what}: verify accepts it") };
        let Err(loaded) = receiver.load(damaged) else { panic!("{what}: load accepts it") };
        assert_agree(&verified, &loaded);
        verified
    };
    for offset in 0..bundle.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = bundle.clone();
            damaged[offset] ^= pattern;
            refused(&damaged, &format!("byte {offset} ^ {pattern:#x}"));
        }
    }
    for length in 0..bundle.len() {
        let error = refused(&bundle[..length], &format!("the first {length} bytes"));
        assert!(matches!(
            in_the_file(&error),
            Some(BundleError::Truncated { offset, .. }) if *offset == length as u64
        ));
    }
    assert_eq!(receiver.objects(), before);
    receiver.load(&bundle).unwrap();
}

/// With digests that are right: no panic, and what is accepted proves itself.
#[test]
fn any_byte_of_any_stream_may_be_anything() {
    let objects = graph();
    let there = closed(&objects, |place| place % 5 == 1);
    let bundle = packed_without(&Memory::of(&objects), &objects, &there);
    let (mut refused, mut tried) = (0, 0);
    for name in [b"DRVS", b"INDX"] {
        let sections = crate::packed::sections(&bundle);
        let section = sections.iter().find(|found| &found.name == name).unwrap();
        let lengths = streams(&section.contents).map(|stream| stream.len());
        for (which, length) in lengths.into_iter().enumerate() {
            for at in (0..length).step_by(1 + length / 400) {
                for value in [0, 1, 2, 0x20, 0x7f, 0x80, 0xff] {
                    let mut sections = sections.clone();
                    let section = sections.iter_mut().find(|found| &found.name == name).unwrap();
                    let mut changed = streams(&section.contents);
                    if std::mem::replace(&mut changed[which][at], value) == value {
                        continue;
                    }
                    section.contents = crate::packed::stored(&changed);
                    let changed = crate::hostile_derivations::assembled(&sections);
                    tried += 1;
                    if let Err(error) = verify(&changed) {
                        refused += 1;
                        assert!(error.to_string().len() < 4096);
                    }
                }
            }
        }
    }
    // Other digests and names are other paths, which the other side is then asked for.
    assert!(refused * 10 > tried * 4, "{refused} of {tried}");
}

#[test]
fn signatures_of_paths_and_of_the_bundle_stay() {
    let (objects, _, bundle) = victim();
    let read = open(&bundle).unwrap();
    read.require_signature(&[crate::objects::public(&key())]).unwrap();
    let result = objects.last().unwrap();
    assert_eq!(read.require(result.path()).unwrap().signatures, result.info.signatures);
}

#[test]
fn a_prerequisite_is_no_path_of_the_bundle() {
    let (objects, there, bundle) = victim();
    let read = open(&bundle).unwrap();
    for path in &there {
        assert_eq!(read.path_info(path).unwrap(), None);
    }
    assert_eq!(read.path_info(&any_path("x", "x")).unwrap(), None);
    let all = read.all_paths().unwrap().unwrap();
    assert_eq!(all.len(), objects.len() - there.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_left_of_derivations_that_were_made_up_comes_back(
        all in prop::collection::vec(random(), 1..12),
        seeds in prop::collection::vec(any::<bool>(), 12),
    ) {
        let all: Vec<Random> = all;
        let mut world = World::new("/nix/store");
        let mut earlier = Vec::new();
        for one in &all {
            made(&mut world, one, &mut earlier);
        }
        let mut seen = BTreeSet::new();
        world.objects.retain(|object| seen.insert(object.path().clone()));
        let there = closed(&world.objects, |place| seeds[place % seeds.len()]);
        the_rest_comes_back(&world.objects, &there);
    }
}
