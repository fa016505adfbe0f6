//! What is intact comes out of a damaged bundle that was packed against something: against earlier
//! parts of it, and against what the other side has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::sync::Arc;

use ferry_bundle::{
    BundleError, BundleWriter, DerivationBase, Loss, PackOptions, Salvage, VolumeWriter, Volumes,
};
use ferry_formats::{StorePath, nar};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{NarRanges, Store, copy};

use crate::builder::BLOCK_SIZE;
use crate::derivations::graph;
use crate::objects::{Memory, Object, any_path, key, public, sample};
use crate::packed::{Shared, packed, packed_against, packed_without, sections, take_number};
use crate::ranges::{self, Update};
use crate::receiver::open;
use crate::salvage::{blocks, damaged, noise, paths, salvage};
use crate::thin::closed;

/// A bundle, what of it is in which block, and what those are packed against.
struct Packed {
    bundle: Vec<u8>,
    blocks: Vec<Range<usize>>,
    /// The earlier blocks that each is packed against.
    needs: Vec<BTreeSet<usize>>,
    nars: Vec<(StorePath, Range<usize>)>,
    /// What it is packed against besides.
    bases: Option<Arc<dyn NarRanges>>,
}

fn of_range(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE)
}

impl Packed {
    fn new(bundle: Vec<u8>, bases: Option<Arc<dyn NarRanges>>) -> Self {
        let needs = sections(&bundle)
            .iter()
            .filter(|section| &section.name == b"BLCK")
            .map(|section| {
                let mut rest = section.contents.as_slice();
                let mut needs = BTreeSet::new();
                for _ in 0..take_number(&mut rest) {
                    let source = take_number(&mut rest);
                    let (offset, length) = (take_number(&mut rest), take_number(&mut rest));
                    if source == 0 {
                        needs.extend(of_range(&(offset..offset + length)));
                    }
                }
                needs
            })
            .collect();
        let mut position = 0;
        let opened = open(&bundle).unwrap();
        let nars = opened.path_infos().iter().map(|info| {
            let start = position;
            position += info.nar_size as usize;
            (info.path.clone(), start..position)
        });
        let nars = nars.collect();
        Self { blocks: blocks(&bundle), needs, nars, bundle, bases }
    }

    /// What touches neither the blocks that are hit nor any that needs them.
    fn independent(&self, hit: &[usize]) -> BTreeSet<StorePath> {
        let mut lost: BTreeSet<usize> = hit.iter().copied().collect();
        for (number, needs) in self.needs.iter().enumerate() {
            if !needs.is_disjoint(&lost) {
                lost.insert(number);
            }
        }
        let whole =
            self.nars.iter().filter(|(_, range)| !of_range(range).any(|it| lost.contains(&it)));
        whole.map(|(path, _)| path.clone()).collect()
    }

    fn salvage(&self, bundle: &[u8]) -> Result<Salvage, BundleError> {
        let mut damaged = damaged(bundle, None)?;
        if let Some(bases) = &self.bases {
            damaged.read_bases_from(Arc::clone(bases));
        }
        damaged.salvage(&[], &Silent)
    }

    #[track_caller]
    fn saves(&self, bundle: &[u8], hit: &[usize], what: &str) {
        let salvage = self.salvage(bundle).unwrap();
        assert_eq!(paths(&salvage), self.independent(hit), "{what}");
        assert_eq!(salvage.path_infos().len() + salvage.lost().len(), self.nars.len(), "{what}");
        let mut read = 0;
        salvage
            .read_nars(salvage.path_infos(), &mut |info, nar| {
                let mut bytes = Vec::new();
                nar.read_to_end(&mut bytes).unwrap();
                assert_eq!(ferry_formats::NarHash::of(&bytes), info.nar_hash, "{what}");
                read += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(read, salvage.path_infos().len());
    }

    /// Damages each block in turn, in several places.
    fn saves_what_does_not_depend_on_what_is_damaged(&self) {
        self.saves(&self.bundle, &[], "the whole bundle");
        for (number, block) in self.blocks.iter().enumerate() {
            for (place, what) in [
                (block.start, "its name"),
                (block.start + 12, "its ranges"),
                (block.end - 1, "the checksum"),
            ] {
                let mut bundle = self.bundle.clone();
                bundle[place] ^= 0x55;
                self.saves(&bundle, &[number], &format!("block {number}, {what}"));
            }
        }
        let middle = self.blocks.len() / 2;
        let rest: Vec<usize> = (middle..self.blocks.len()).collect();
        self.saves(&self.bundle[..self.blocks[middle].end - 1], &rest, "cut off in the middle");
    }
}

fn file(seed: &str, contents: &[u8]) -> Object {
    Object::output(&any_path(seed, "file"), nar::of_file(contents), &[])
}

/// Content that is there twice, with something else between and behind.
fn twice() -> Vec<Object> {
    let content = noise(1, 3 * BLOCK_SIZE + 12_345);
    let parts = content.chunks(BLOCK_SIZE + BLOCK_SIZE / 3).zip(0..);
    let parts = parts.map(|(part, number)| file(&format!("part {number}"), part));
    let others = (0..4).map(|number| file(&format!("{number}"), &noise(2 + number, 1_500_000)));
    let mut objects: Vec<Object> = parts.chain(others).collect();
    objects.push(file("all", &content));
    objects
}

#[test]
fn a_block_that_later_ones_are_packed_against_takes_only_those_along() {
    let packed = Packed::new(packed(&twice()), None);
    let all = packed.independent(&[]);
    let dependent: Vec<_> = packed.needs.iter().filter(|needs| !needs.is_empty()).collect();
    assert!(dependent.len() >= 2 && packed.blocks.len() >= 5, "{:?}", packed.needs);
    // Some, and not all, is expected of each.
    for number in 0..packed.blocks.len() {
        let left = packed.independent(&[number]).len();
        assert!(0 < left && left < all.len(), "block {number}: {left}");
    }
    packed.saves_what_does_not_depend_on_what_is_damaged();
}

#[test]
fn a_block_that_is_gone_without_a_trace_leaves_what_is_packed_against_nothing() {
    let packed = Packed::new(packed(&twice()), None);
    let mut found = 0;
    for (number, block) in packed.blocks.iter().enumerate() {
        let mut bundle = packed.bundle.clone();
        bundle.drain(block.clone());
        let saved = paths(&packed.salvage(&bundle).unwrap());
        let independent = packed.independent(&[number]);
        assert!(saved.is_subset(&independent), "without block {number}");
        // Where exactly it is missing may not be known, and what is packed against its neighbours
        // is lost then.
        let dependent = packed.needs.iter().enumerate().filter(|(_, needs)| !needs.is_empty());
        let hit: Vec<usize> = dependent.map(|(number, _)| number).chain([number]).collect();
        let certain = packed.independent(&hit);
        assert!(saved.is_superset(&certain), "without block {number}");
        found += certain.len();
    }
    assert!(found > 0);
}

#[test]
fn an_update_is_saved_with_the_base_and_refused_without_it() {
    let update = Update::of(9_000_000);
    let mut objects = vec![update.new.clone()];
    objects.extend((0..3).map(|number| file(&format!("{number}"), &noise(number, 1_900_000))));
    let bundle = ranges::packed_against(&objects, Some(update.against()), 9);
    let refused = damaged(&bundle, None).unwrap().salvage(&[], &Silent).err().unwrap();
    let named = update.old.rendered();
    assert!(matches!(&refused, BundleError::NoBases { base } if *base == named), "{refused}");

    // Another content is no damage of the bundle.
    let mut other = update.old.clone();
    other.nar.iter_mut().step_by(100).for_each(|byte| *byte ^= 0x20);
    let bases = ranges::there(&[other]);
    let wrong = Packed::new(bundle.clone(), Some(bases));
    let refused = wrong.salvage(&bundle).err().unwrap();
    assert!(
        matches!(&refused, BundleError::ContentBase { base, .. } if *base == named),
        "{refused}"
    );

    let bases = ranges::there(std::slice::from_ref(&update.old));
    let packed = Packed::new(bundle, Some(bases));
    packed.saves_what_does_not_depend_on_what_is_damaged();
    // What is written of it needs no base any more.
    let salvage = packed.salvage(&packed.bundle).unwrap();
    let written = written_again(&salvage, 9, None);
    let written = open(&written).unwrap();
    assert_eq!((written.prerequisites(), written.path_infos().len()), ([].as_slice(), 4));
}

/// What is left, as a bundle, signed by [`key`].
fn written_again(salvage: &Salvage, level: i32, base: Option<DerivationBase>) -> Vec<u8> {
    let manifest = salvage.manifest().unwrap();
    let options = PackOptions {
        set: manifest.set.clone(),
        roots: manifest.root_paths(),
        level,
        sign_with: vec![key()],
        prerequisites: salvage.prerequisites().with_roots_of(base),
        ..PackOptions::default()
    };
    let sink = Shared::default();
    let writer =
        BundleWriter::new(sink.clone(), "test".to_owned(), salvage.store_dir().clone(), options);
    let infos = salvage.path_infos().iter().map(|info| (info.path.clone(), info.clone()));
    copy(salvage, &writer, infos.collect::<BTreeMap<_, _>>(), &[], &Silent).unwrap();
    sink.take()
}

#[test]
fn a_thin_bundle_is_saved_with_what_it_leaves_to_the_other_side() {
    for objects in [graph(), sample()] {
        let store = Memory::of(&objects);
        for cut in 0..objects.len() {
            let there = closed(&objects, |place| place < cut);
            let bundle = packed_without(&store, &objects, &there);
            let salvage = salvage(&bundle);
            assert_eq!(salvage.lost(), [], "{cut}");
            let again = written_again(&salvage, 3, None);
            let (again, before) = (open(&again).unwrap(), open(&bundle).unwrap());
            assert_eq!(again.path_infos(), before.path_infos(), "{cut}");
            assert_eq!(again.prerequisites(), before.prerequisites(), "{cut}");
            assert_eq!(again.manifest(), before.manifest(), "{cut}");
            let report = ferry_bundle::verify(&again, &TrustPolicy::accept_all(), &Silent).unwrap();
            assert_eq!(report.copied.added, objects.len() - there.len(), "{cut}");
        }
    }
}

#[test]
fn of_a_damaged_thin_bundle_what_is_left_can_be_read() {
    let objects = graph();
    let store = Memory::of(&objects);
    let mut with_both = 0;
    for cut in 0..objects.len() {
        let there = closed(&objects, |place| place < cut);
        let bundle = packed_without(&store, &objects, &there);
        let Some(block) = blocks(&bundle).pop() else { continue };
        let salvage = salvage(&bundle[..block.end - 1]);
        assert_ne!(salvage.lost(), [], "{cut}");
        assert!(
            !salvage
                .lost()
                .iter()
                .any(|(_, loss)| { matches!(loss, Loss::RefersTo(path) if there.contains(path)) })
        );
        if salvage.path_infos().is_empty() {
            continue;
        }
        let mut infos = salvage.path_infos().iter();
        let to_prerequisites =
            infos.any(|info| info.other_references().any(|path| there.contains(path)));
        with_both += usize::from(to_prerequisites);
        let prerequisites = salvage.prerequisites();
        let options = PackOptions { prerequisites, ..PackOptions::default() };
        let sink = Shared::default();
        let directory = salvage.store_dir().clone();
        let writer = BundleWriter::new(sink.clone(), "test".to_owned(), directory, options);
        let infos = salvage.path_infos().iter().map(|info| (info.path.clone(), info.clone()));
        copy(&salvage, &writer, infos.collect::<BTreeMap<_, _>>(), &[], &Silent).unwrap();
        let report = crate::receiver::verify(&sink.take()).unwrap();
        assert_eq!(report.copied.added, salvage.path_infos().len(), "{cut}");
    }
    assert!(with_both > 0);
}

#[test]
fn derivations_that_are_coded_against_others_are_saved_with_those() {
    let objects = graph();
    let store = Memory::of(&objects);
    let derivations: Vec<&Object> =
        objects.iter().filter(|object| object.path().is_derivation()).collect();
    let mut again = 0;
    for base in &derivations {
        let place = objects.iter().position(|object| object.path() == base.path()).unwrap();
        let there = closed(&objects, |it| it == place);
        let base = [base.path().clone()];
        let bundle = packed_against(&store, &objects, &there, &base);
        let needed = damaged(&bundle, None).err().unwrap();
        assert!(matches!(needed, BundleError::NeedsBase { .. }), "{needed}");
        let salvage =
            damaged(&bundle, Some(&store)).unwrap().salvage(&[public(&key())], &Silent).unwrap();
        assert_eq!(salvage.lost(), []);
        assert_eq!(salvage.base_roots(), base);
        let base = DerivationBase::read(&store, salvage.base_roots()).unwrap();
        assert!(written_again(&salvage, 9, Some(base)) == bundle);
        again += 1;
    }
    assert!(again > 3);
}

#[test]
fn of_too_few_volumes_what_they_have_is_saved() {
    let packed = Packed::new(packed(&twice()), None);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.ferry");
    let mut writer = VolumeWriter::new(&file, 3 << 20, 1, Box::new(|_| {})).unwrap();
    writer.write_all(&packed.bundle).unwrap();
    let files = writer.finish().unwrap().files;
    assert!(files.len() > 5, "{files:?}");
    let read = |files: &[std::path::PathBuf]| {
        let mut bundle = Vec::new();
        let volumes = Volumes::find(files).unwrap().unwrap();
        assert_eq!(volumes.open().is_err(), files.len() == 1);
        volumes.open_even_damaged().read_to_end(&mut bundle).unwrap();
        bundle
    };
    // With parity for one nothing is lost of it. The last volume holds that.
    fs::remove_file(&files[files.len() - 3]).unwrap();
    assert!(read(&files) == packed.bundle);
    fs::remove_file(&files[files.len() - 2]).unwrap();
    let bundle = read(&files[..1]);
    assert_eq!(bundle.len(), packed.bundle.len());
    let changed = (0..bundle.len()).filter(|place| bundle[*place] != packed.bundle[*place]);
    let changed: Vec<usize> = changed.collect();
    let hit = packed
        .blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| changed.iter().any(|place| block.contains(place)));
    let hit: Vec<usize> = hit.map(|(number, _)| number).collect();
    assert!(!hit.is_empty() && !packed.independent(&hit).is_empty(), "{hit:?}");
    packed.saves(&bundle, &hit, "without two volumes");
}

#[test]
fn no_byte_that_is_wrong_makes_it_panic_or_save_what_is_not_there() {
    let update = Update::of(40_000);
    let objects = graph();
    let there = closed(&objects, |place| place < objects.len() / 2);
    let thin = packed_without(&Memory::of(&objects), &objects, &there);
    let bases = ranges::there(std::slice::from_ref(&update.old));
    let on_base =
        ranges::packed_against(std::slice::from_ref(&update.new), Some(update.against()), 9);
    for packed in [Packed::new(on_base, Some(bases)), Packed::new(thin, None)] {
        let whole: BTreeSet<&StorePath> = packed.nars.iter().map(|(path, _)| path).collect();
        let mut refused = 0;
        for place in 0..packed.bundle.len() {
            let mut bundle = packed.bundle.clone();
            bundle[place] ^= 0x10;
            match packed.salvage(&bundle) {
                Err(_) => refused += 1,
                Ok(salvage) => {
                    assert!(
                        paths(&salvage).iter().all(|path| whole.contains(path)),
                        "byte {place}"
                    );
                    let list = salvage.prerequisites();
                    assert!(list.list().iter().all(|one| one.content.is_none()), "byte {place}");
                }
            }
        }
        assert!(0 < refused && refused < packed.bundle.len());
    }
}
