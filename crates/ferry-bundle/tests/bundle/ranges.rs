//! Payloads packed against content that is not in them: of the other side, and of their own
//! earlier parts.

use std::io::{Cursor, Read as _};
use std::sync::Arc;

use ferry_bundle::{
    Against, Bundle, BundleError, BundleWriter, PackOptions, Prerequisites, VerifyReport,
};
use ferry_formats::{StoreDir, StorePath};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Error, NarRanges, Result, Store as _, copy};

use crate::builder::{BLOCK_SIZE, Section, number};
use crate::hostile_derivations::assembled;
use crate::objects::{Memory, Object, any_path};
use crate::packed::{Shared, packed, sections, take_number};
use crate::receiver::{in_the_file, open, verify};
use crate::wire::Wire;

/// A store whose NARs are in memory.
struct There(Memory);

impl NarRanges for There {
    fn describe(&self) -> String {
        "the island".to_owned()
    }

    fn read_range(&self, path: &StorePath, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let object = self
            .0
            .objects
            .get(path)
            .ok_or_else(|| Error::NotValid { path: path.to_string(), store: self.describe() })?;
        let mut rest = object.nar.get(offset as usize..).unwrap_or_default();
        rest.read_exact(buffer).map_err(Error::io("read a NAR"))
    }
}

pub(crate) fn there(objects: &[Object]) -> Arc<dyn NarRanges> {
    Arc::new(There(Memory::of(objects)))
}

pub(crate) fn noise(mut seed: u64, count: usize) -> Vec<u8> {
    let next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// An object full of its own path and that of another.
fn program(path: &StorePath, library: &StorePath, noise: &[u8]) -> Object {
    let directory = StoreDir::default();
    let (own, library) = (directory.render_path(path), directory.render_path(library));
    let mut contents = Vec::new();
    for piece in noise.chunks(1000) {
        contents.extend(piece);
        contents.extend(own.as_bytes());
        contents.extend(library.as_bytes());
    }
    let wire = Wire::new().directory(|wire| {
        let wire = wire.entry(b"link", |wire| wire.symlink(library.as_bytes()));
        wire.entry(b"program", |wire| wire.executable(&contents))
    });
    Object::output(path, wire.0, &[])
}

/// Two versions of a program, and its libraries, whose names alone are known.
pub(crate) struct Update {
    pub(crate) old: Object,
    pub(crate) new: Object,
    libraries: (StorePath, StorePath),
}

impl Update {
    pub(crate) fn of(size: usize) -> Self {
        let libraries = (any_path("lib 1", "library"), any_path("lib 2", "library"));
        let content = noise(1, size);
        let old = program(&any_path("old", "program"), &libraries.0, &content);
        let mut changed = content.clone();
        changed[size / 2..size / 2 + 6].copy_from_slice(b"is new");
        let new = program(&any_path("new", "program"), &libraries.1, &changed);
        Self { old, new, libraries }
    }

    pub(crate) fn against(&self) -> Against {
        Against {
            bases: vec![(self.old.info.clone(), self.new.path().clone())],
            renames: vec![self.libraries.clone()],
            nars: there(std::slice::from_ref(&self.old)),
        }
    }

    fn packed(&self) -> Vec<u8> {
        packed_against(std::slice::from_ref(&self.new), Some(self.against()), 9)
    }

    fn verify(&self, bundle: &[u8], there: &Object) -> Result<VerifyReport> {
        let mut bundle = open(bundle)?;
        assert_eq!(bundle.prerequisites().len(), 1);
        bundle.read_bases_from(self::there(std::slice::from_ref(there)));
        ferry_bundle::verify(&bundle, &TrustPolicy::accept_all(), &Silent)
    }
}

pub(crate) fn packed_against(objects: &[Object], against: Option<Against>, level: i32) -> Vec<u8> {
    let store = Memory::of(objects);
    let sink = Shared::default();
    let options = PackOptions {
        set: "runtime".to_owned(),
        roots: Vec::new(),
        level,
        sign_with: Vec::new(),
        prerequisites: Prerequisites::default(),
        ..PackOptions::default()
    };
    let name = "test".to_owned();
    let mut writer = BundleWriter::new(sink.clone(), name, store.store_dir().clone(), options);
    if let Some(against) = against {
        writer = writer.against(against);
    }
    copy(&store, &writer, store.infos(), &[], &Silent).unwrap();
    sink.take()
}

#[test]
fn an_update_takes_no_more_than_what_is_new_in_it() {
    let update = Update::of(600_000);
    for level in [1, 9, 19] {
        let bundle =
            packed_against(std::slice::from_ref(&update.new), Some(update.against()), level);
        // The head alone takes 600: 600 store paths in it were rewritten.
        assert!(bundle.len() < 1300, "{} bytes at level {level}", bundle.len());
        assert_eq!(update.verify(&bundle, &update.old).unwrap().copied.added, 1);
    }
}

#[test]
fn the_same_update_gives_the_same_bytes() {
    let update = Update::of(9_000_000);
    assert!(update.packed() == update.packed());
}

#[test]
fn without_a_store_the_base_is_named() {
    let update = Update::of(50_000);
    let error = verify(&update.packed()).unwrap_err();
    let named = update.old.rendered();
    assert!(
        matches!(in_the_file(&error), Some(BundleError::NoBases { base }) if *base == named),
        "{error}"
    );
}

#[test]
fn a_base_with_other_content_is_named() {
    let update = Update::of(50_000);
    let bundle = update.packed();
    let size = update.old.nar.len();
    for place in (0..size).step_by(997) {
        let mut other = update.old.clone();
        other.nar[place] ^= 0x20;
        match update.verify(&bundle, &other) {
            // What differs may be what was replaced, or not be used.
            Ok(report) => assert_eq!(report.copied.added, 1),
            Err(error) => match in_the_file(&error) {
                Some(BundleError::ContentBase { base, .. }) => {
                    assert_eq!(*base, update.old.rendered())
                }
                _ => panic!("byte {place}: {error}"),
            },
        }
    }
    let mut short = update.old.clone();
    short.nar.truncate(1000);
    let error = update.verify(&bundle, &short).unwrap_err();
    assert!(error.to_string().contains(&update.old.rendered()), "{error}");
}

#[test]
fn any_byte_changed_and_any_byte_missing_is_noticed() {
    let update = Update::of(40_000);
    let bundle = update.packed();
    for offset in 0..bundle.len() {
        for pattern in [0x01, 0x80, 0xff] {
            let mut damaged = bundle.clone();
            damaged[offset] ^= pattern;
            let outcome = update.verify(&damaged, &update.old);
            assert!(outcome.is_err(), "byte {offset} ^ {pattern:#x}");
        }
        let error = update.verify(&bundle[..offset], &update.old).unwrap_err();
        assert!(
            matches!(in_the_file(&error), Some(BundleError::Truncated { offset: at, .. }) if *at == offset as u64),
            "the first {offset} bytes: {error}"
        );
    }
}

type Range = (u64, u64, u64);

/// The bundle, with other ranges in front of its last block.
fn with_ranges(bundle: &[u8], change: impl FnOnce(&mut Vec<Range>)) -> Vec<u8> {
    let mut sections = sections(bundle);
    let block: &mut Section =
        sections.iter_mut().rfind(|section| &section.name == b"BLCK").unwrap();
    let mut rest = block.contents.as_slice();
    let count = take_number(&mut rest);
    let mut take = || take_number(&mut rest) as u64;
    let mut ranges: Vec<Range> = (0..count).map(|_| (take(), take(), take())).collect();
    change(&mut ranges);
    let mut contents = Vec::new();
    number(&mut contents, ranges.len() as u64);
    for (source, offset, length) in ranges {
        [source, offset, length].into_iter().for_each(|value| number(&mut contents, value));
    }
    contents.extend(rest);
    block.contents = contents;
    assembled(&sections)
}

#[test]
fn ranges_out_of_reach_are_refused() {
    let update = Update::of(40_000);
    let bundle = update.packed();
    let size = update.old.nar.len() as u64;
    assert!(update.verify(&with_ranges(&bundle, |_| ()), &update.old).is_ok());
    let lies: [(&str, Vec<Range>); 8] = [
        ("no such base", vec![(2, 0, 10)]),
        ("nor this one", vec![(u64::MAX, 0, 10)]),
        ("behind its end", vec![(1, size - 9, 10)]),
        ("far behind it", vec![(1, u64::MAX, 10)]),
        ("no length", vec![(1, 0, 0)]),
        ("its own block", vec![(0, 0, 10)]),
        ("too many", vec![(1, 0, 1); 1025]),
        ("too long", vec![(1, 0, size); 1000]),
    ];
    for (what, lie) in lies {
        let error = update.verify(&with_ranges(&bundle, |all| *all = lie), &update.old);
        let error = error.expect_err(what);
        assert!(
            matches!(in_the_file(&error), Some(BundleError::Damaged { reason, .. }) if reason.contains("range")),
            "{what}: {error}"
        );
    }
    // Within reach, and wrong.
    let wrong = with_ranges(&bundle, |all| all[0].1 += 1);
    assert!(update.verify(&wrong, &update.old).is_err());
}

/// Objects with one file each, every one behind the one before it.
fn files<const N: usize>(contents: [&[u8]; N]) -> [Object; N] {
    let paths: Vec<StorePath> = (0..N).map(|n| any_path(&format!("file {n}"), "file")).collect();
    std::array::from_fn(|n| {
        let before: Vec<&StorePath> = paths[..n].last().into_iter().collect();
        Object::output(&paths[n], Wire::new().file(contents[n]).0, &before)
    })
}

#[test]
fn what_is_there_twice_is_packed_once() {
    let content = noise(2, BLOCK_SIZE + 300_000);
    let mut longer = content.clone();
    longer.splice(1000..1000, *b"something");
    let objects = files([&content, &longer, &content]);
    let bundle = packed(&objects);
    assert!(bundle.len() < content.len() + 40_000, "{} bytes", bundle.len());
    assert_eq!(verify(&bundle).unwrap().copied.added, 3);
}

#[test]
fn one_path_out_of_a_file_takes_only_the_blocks_that_it_refers_to() {
    let content = noise(3, BLOCK_SIZE);
    let others = (noise(4, 2 * BLOCK_SIZE), noise(5, BLOCK_SIZE));
    let objects = files([&content, &others.0, &content, &others.1]);
    let mut bytes = packed(&objects);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.ferry");
    // Damage in the middle of what is only in the second: whoever reads it would notice.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let read = |name: usize| {
        let bundle = Bundle::open(&path).unwrap();
        let mut found = Vec::new();
        let wanted = [objects[name].info.clone()];
        let outcome = bundle.read_nars(&wanted, &mut |_, nar| {
            nar.read_to_end(&mut found).map(drop).map_err(Error::reading("read a NAR"))
        });
        (outcome.map_err(|error| error.to_string()), found)
    };
    let (outcome, found) = read(2);
    assert!(found == objects[2].nar, "{} bytes: {outcome:?}", found.len());
    // The end of the file is wrong all the same.
    assert!(outcome.unwrap_err().contains("the digest of the file"));
    let (outcome, _) = read(1);
    assert!(outcome.unwrap_err().contains("block"));
}

#[test]
fn what_is_far_back_is_found_from_a_file_and_from_a_stream() {
    let content = noise(6, 300_000);
    let objects = files([&content, &vec![0; 17 * BLOCK_SIZE], &content]);
    let bundle = packed(&objects);
    assert!(bundle.len() < content.len() + 60_000, "{} bytes", bundle.len());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.ferry");
    std::fs::write(&path, &bundle).unwrap();
    let from_file = Bundle::open(&path).unwrap();
    let from_stream = Bundle::from_stream(Cursor::new(bundle), "stream").unwrap();
    for mut bundle in [from_file, from_stream] {
        assert!(bundle.manifest().reach > 64 << 20);
        bundle.temporary_files_in(directory.path().to_owned());
        let report = ferry_bundle::verify(&bundle, &TrustPolicy::accept_all(), &Silent).unwrap();
        assert_eq!(report.copied.added, 3);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
