//! Every derivation of a real system, in a bundle and back.
//!
//! The data are another project's and stay out of this repository: they are read from
//! `../shared/data` beside it, where that is there.

// Says loudly what it did not test.
#![allow(clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};

use ferry_formats::{StoreDir, StorePath, derivation, nar};

use crate::objects::{Memory, Object};
use crate::packed::{coded, packed_from, sections};
use crate::receiver::verify;
use crate::thin::{closed, the_rest_comes_back};

/// The derivations by store path.
fn by_path() -> Option<BTreeMap<StorePath, Vec<u8>>> {
    let path = |base: String| StorePath::from_basename(base.as_bytes()).expect("a store path");
    let texts = ferry_test_world::real_derivations()?;
    Some(texts.into_iter().map(|(base, text)| (path(base), text)).collect())
}

/// The derivations, and a stand-in for each source that they have: the right path, and a content
/// of its own, which is not the right one.
fn objects(texts: &BTreeMap<StorePath, Vec<u8>>) -> Vec<Object> {
    let store_dir = StoreDir::default();
    let mut sources = BTreeSet::new();
    let mut objects = Vec::new();
    for (path, text) in texts {
        let parsed = derivation::parse(&store_dir, path, text).unwrap();
        let inputs = parsed.input_derivations().keys().chain(parsed.input_sources());
        let references: Vec<&StorePath> = inputs.collect();
        objects.push(Object::text(path.name(), text, &references));
        sources.extend(parsed.input_sources().iter().cloned());
    }
    let stand_in =
        |path: &StorePath| Object::output(path, nar::of_file(path.to_basename().as_bytes()), &[]);
    sources.iter().filter(|path| !texts.contains_key(*path)).map(stand_in).chain(objects).collect()
}

#[test]
fn all_come_back_from_a_bundle_that_is_smaller_than_they_compress_to() {
    let Some(texts) = by_path() else { return };
    assert_eq!(texts.len(), 1021);
    let objects = objects(&texts);
    let store = Memory::of(&objects);
    for (level, most) in [(22, 150_000), (9, 175_000)] {
        let bundle = packed_from(&store, &objects, level, Vec::new());
        assert_eq!(coded(&bundle), 1021);
        assert_eq!(verify(&bundle).unwrap().copied.added, objects.len());
        // The sources are stand-ins: what they hold does not count.
        let sections = sections(&bundle);
        let size = |name: &[u8]| -> usize {
            let named = sections.iter().filter(|section| section.name == name);
            named.map(|section| section.contents.len() + 12).sum()
        };
        println!(
            "level {level}: {} bytes; derivations {}, index {}, stand-ins for sources {}",
            bundle.len(),
            size(b"DRVS"),
            size(b"INDX"),
            size(b"BLCK"),
        );
        let counted = bundle.len() - size(b"BLCK");
        assert!(counted <= most, "level {level}: {counted} bytes");
    }
}

#[test]
fn those_that_the_other_side_lacks_come_back_from_a_thin_bundle() {
    let Some(texts) = by_path() else { return };
    let objects = objects(&texts);
    let inputs: Vec<usize> = (0..objects.len()).filter(|place| place % 97 == 0).collect();
    assert!(inputs.len() > 10);
    let there = closed(&objects, |place| inputs.contains(&place));
    let lacks = |path: &&StorePath| !there.contains(*path);
    let lacking = texts.keys().filter(lacks).count();
    assert!(lacking > 100 && lacking < 1000, "{lacking}");
    let bundle = the_rest_comes_back(&objects, &there);
    assert_eq!(coded(&bundle), lacking);
    println!("{lacking} derivations: {} bytes", bundle.len());
}
