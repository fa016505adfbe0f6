//! Derivations that are coded against others, which the store that receives them has.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use ferry_bundle::{Bundle, BundleError};
use ferry_formats::{NarHash, PathInfo, StorePath};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Result, Store as _, copy};
use nix_derivation::InputDerivation;
use proptest::prelude::*;

use crate::derivations::{Random, World, graph_in, made, random};
use crate::objects::{Memory, Object, sample};
use crate::packed::{packed, packed_against, sections};
use crate::receiver::{Receiver, count_same_nars, in_the_file};

pub(crate) fn open_against(bundle: &[u8], store: &Memory) -> Result<Bundle> {
    let stream = Cursor::new(bundle.to_vec());
    Ok(Bundle::from_stream_against(stream, "test.ferry", Some(store))?)
}

/// Derivations that no other refers to.
pub(crate) fn roots(objects: &[Object]) -> Vec<StorePath> {
    let referred: BTreeSet<&StorePath> =
        objects.iter().flat_map(|object| object.info.other_references()).collect();
    let paths = objects.iter().map(Object::path);
    paths.filter(|path| path.is_derivation() && !referred.contains(path)).cloned().collect()
}

pub(crate) fn unique(objects: &[&[Object]]) -> Vec<Object> {
    let mut seen = BTreeSet::new();
    let all = objects.iter().copied().flatten();
    all.filter(|object| seen.insert(object.path().clone())).cloned().collect()
}

/// Packs `new` for a store that has `old`, reads it there, and compares everything.
#[track_caller]
fn comes_back(old: &[Object], new: &[Object]) -> Vec<u8> {
    let store = Memory::of(&unique(&[old, new]));
    let there: BTreeSet<StorePath> = old.iter().map(|object| object.path().clone()).collect();
    let bundle = packed_against(&store, new, &there, &roots(old));
    let receiver = Memory::of(old);
    let read = open_against(&bundle, &receiver).unwrap();
    let found: BTreeMap<StorePath, PathInfo> =
        read.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect();
    let wanted = new.iter().filter(|object| !there.contains(object.path()));
    let wanted: BTreeMap<StorePath, PathInfo> =
        wanted.map(|object| (object.path().clone(), object.info.clone())).collect();
    assert_eq!(found, wanted);
    assert_eq!(count_same_nars(&read, &store), wanted.len());
    let read = open_against(&bundle, &receiver).unwrap();
    let report = ferry_bundle::verify(&read, &TrustPolicy::accept_all(), &Silent).unwrap();
    assert_eq!(report.copied.added, wanted.len());
    bundle
}

fn derivations_section(bundle: &[u8]) -> usize {
    let sections = sections(bundle);
    sections.iter().find(|section| &section.name == b"DRVS").unwrap().contents.len()
}

/// A chain of derivations on a source, each with some text of its own.
pub(crate) fn chain(length: usize, source: &[u8], edited: Option<usize>) -> World {
    let mut world = World::new("/nix/store");
    let source = world.source("source.sh", source);
    let mut before: Option<StorePath> = None;
    for number in 0..length {
        let name = format!("link-{number}.0");
        let text: String = (0..40).map(|line| format!("echo {number} {line}\n")).collect();
        let text = match edited == Some(number) {
            true => text.replace("echo", "printf"),
            false => text,
        };
        let mut builder = world
            .builder(&name)
            .input_addressed_output("out")
            .input_source(source.clone())
            .environment("script", world.render(&source))
            .environment("buildPhase", text);
        if let Some(before) = &before {
            builder = builder
                .input_derivation(before.clone(), InputDerivation::new(["out"]))
                .environment("buildInputs", world.output(before, "out"));
        }
        before = Some(world.add(builder));
    }
    world
}

#[test]
fn a_change_at_the_bottom_costs_next_to_nothing() {
    let old = chain(300, b"echo old", None).objects;
    let new = chain(300, b"echo new", None).objects;
    assert!(roots(&old) != roots(&new));
    let full = derivations_section(&packed(&new));
    let bundle = comes_back(&old, &new);
    // Everything is as expected: a number says how many there are.
    let thin = derivations_section(&bundle);
    assert!(thin < 100 && full > 2500, "{thin} of {full} bytes");
}

#[test]
fn a_change_in_the_middle_carries_what_is_above_it() {
    let old = chain(60, b"echo", None).objects;
    for edited in [0, 1, 30, 59] {
        let new = chain(60, b"echo", Some(edited)).objects;
        let bundle = comes_back(&old, &new);
        let read = open_against(&bundle, &Memory::of(&old)).unwrap();
        assert_eq!(read.path_infos().len(), 60 - edited);
        assert!(derivations_section(&bundle) < 400, "{}", derivations_section(&bundle));
    }
}

#[test]
fn derivations_of_every_kind_come_back_against_each_other() {
    let old = graph_in("/nix/store").objects;
    let mut other = World::new("/nix/store");
    other.seed = "changed";
    let new = crate::derivations::fill(other).objects;
    comes_back(&old, &new);
    comes_back(&new, &old);
    // What is there need not be carried, and what is unlike anything may be.
    let bundle = comes_back(&old, &old);
    assert_eq!(open_against(&bundle, &Memory::of(&old)).unwrap().path_infos().len(), 0);
    comes_back(&chain(3, b"", None).objects, &new);
}

#[test]
fn the_same_bases_give_the_same_bytes() {
    let (old, new) = (chain(20, b"a", None).objects, chain(20, b"b", Some(7)).objects);
    assert!(comes_back(&old, &new) == comes_back(&old, &new));
}

#[test]
fn without_a_store_the_bundle_says_what_it_needs() {
    let (old, new) = (chain(5, b"a", None).objects, chain(5, b"b", None).objects);
    let bundle = comes_back(&old, &new);
    let error = crate::receiver::open(&bundle).err().unwrap();
    let needed: Vec<String> = old.last().map(Object::rendered).into_iter().collect();
    match in_the_file(&error) {
        Some(BundleError::NeedsBase { derivations, .. }) => assert_eq!(*derivations, needed),
        _ => panic!("{error}"),
    }
    // A store that has none of it, one that lacks the bottom, and one whose files were changed.
    let error = open_against(&bundle, &Memory::of(&sample())).err().unwrap();
    assert!(error.to_string().contains(&needed[0]), "{error}");
    let bottom = old.iter().find(|object| object.path().is_derivation()).unwrap();
    let mut store = Memory::of(&old);
    store.objects.remove(bottom.path());
    let error = open_against(&bundle, &store).err().unwrap();
    assert!(error.to_string().contains(&bottom.rendered()), "{error}");
    let mut store = Memory::of(&old);
    let changed = store.objects.get_mut(bottom.path()).unwrap();
    let place = changed.nar.windows(4).position(|bytes| bytes == b"echo").unwrap();
    changed.nar[place] = b'E';
    changed.info.nar_hash = NarHash::of(&changed.nar);
    let error = open_against(&bundle, &store).err().unwrap();
    assert!(error.to_string().contains("the store is damaged"), "{error}");
}

/// Everything that a damaged bundle says that it has, if it is accepted at all.
#[track_caller]
fn never_wrong(bundle: &[u8], old: &Memory, new: &BTreeSet<&StorePath>, what: &str) -> bool {
    let Ok(read) = open_against(bundle, old) else { return false };
    if ferry_bundle::verify(&read, &TrustPolicy::accept_all(), &Silent).is_err() {
        return false;
    }
    for info in read.path_infos() {
        assert!(new.contains(&info.path), "{what}: {}", info.path);
    }
    true
}

#[test]
fn any_byte_changed_and_any_part_of_it_is_refused() {
    let (old, new) = (chain(6, b"a", None).objects, chain(6, b"b", Some(2)).objects);
    let bundle = comes_back(&old, &new);
    let store = Memory::of(&old);
    let paths: BTreeSet<&StorePath> = new.iter().map(Object::path).collect();
    for offset in 0..bundle.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = bundle.clone();
            damaged[offset] ^= pattern;
            let what = format!("byte {offset} ^ {pattern:#x}");
            assert!(!never_wrong(&damaged, &store, &paths, &what), "{what}");
        }
    }
    for length in 0..bundle.len() {
        let what = format!("the first {length} bytes");
        assert!(!never_wrong(&bundle[..length], &store, &paths, &what), "{what}");
    }
}

#[test]
fn a_receiver_that_has_the_base_gets_the_rest() {
    let (old, new) = (chain(30, b"a", None).objects, chain(30, b"b", Some(9)).objects);
    let bundle = comes_back(&old, &new);
    let receiver = Receiver::new();
    copy(&Memory::of(&old), &receiver.store, Memory::of(&old).infos(), &[], &Silent).unwrap();
    let stream = Cursor::new(bundle);
    let read = Bundle::from_stream_against(stream, "test", Some(&receiver.store)).unwrap();
    let offered: BTreeMap<_, _> =
        read.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect();
    let report = copy(&read, &receiver.store, offered, &[], &Silent).unwrap();
    assert_eq!(report.added, new.len());
    for object in &new {
        assert_eq!(
            receiver.store.path_info(object.path()).unwrap().unwrap().nar_hash,
            object.info.nar_hash
        );
    }
}

/// What becomes of a derivation that was made up.
#[derive(Clone, Debug)]
enum Edit {
    Keep,
    Drop,
    Replace(Random),
    InsertBefore(Random),
    Change(String),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        6 => Just(Edit::Keep),
        1 => Just(Edit::Drop),
        1 => random().prop_map(Edit::Replace),
        1 => random().prop_map(Edit::InsertBefore),
        2 => "[a-z\n]{0,20}".prop_map(Edit::Change),
    ]
}

fn built(all: &[Random]) -> Vec<Object> {
    let mut world = World::new("/nix/store");
    let mut earlier = Vec::new();
    all.iter().for_each(|one| made(&mut world, one, &mut earlier));
    unique(&[&world.objects])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn graphs_that_were_edited_come_back(
        all in prop::collection::vec((random(), edit()), 1..14),
    ) {
        let old: Vec<Random> = all.iter().map(|(one, _)| one.clone()).collect();
        let new = all.into_iter().flat_map(|(one, edit)| match edit {
            Edit::Keep => vec![one],
            Edit::Drop => vec![],
            Edit::Replace(other) => vec![other],
            Edit::InsertBefore(other) => vec![other, one],
            Edit::Change(text) => vec![one.with("changed", text.into_bytes())],
        });
        let new: Vec<Random> = new.collect();
        comes_back(&built(&old), &built(&new));
    }
}

#[test]
fn a_base_of_which_nothing_has_a_code_is_read_all_the_same() {
    let with = |value: &str| {
        let mut world = World::new("/nix/store");
        let source = world.source("source.sh", b"echo");
        let text = format!(
            "Derive([(\"out\",\"\",\"r:sha256\",\"\")],[],[\"{}\"],\"s\",\"b\",[],[(\"z\",\"1\"),(\"a\",\"{value}\")])",
            world.render(&source)
        );
        world.objects.push(Object::text("odd.drv", text.as_bytes(), &[&source]));
        let of_it = world
            .builder("plain")
            .input_addressed_output("out")
            .input_source(source.clone())
            .environment("src", world.render(&source))
            .environment("value", value);
        if value == "new" {
            let other = world.source("other.sh", b"other");
            let of_it =
                of_it.input_source(other.clone()).environment("other", world.render(&other));
            world.add(of_it);
        }
        world.objects
    };
    comes_back(&with("old"), &with("new"));
}
