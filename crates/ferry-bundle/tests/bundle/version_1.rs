//! Bundles of version 1 stay readable, for ever.
//!
//! The golden files were made by [`write_golden_files`], once. What they hold is made again here,
//! by code that knows nothing of bundles, and compared byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use ferry_bundle::{Bundle, BundleWriter, DerivationBase, PackOptions, Prerequisites};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::leave_out::leave_out;
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Store as _, copy};

use crate::based::{chain, open_against, roots, unique};
use crate::derivations::graph;
use crate::objects::{Memory, Object, key, public, sample};
use crate::packed::{Shared, coded, packed, sections, take_number};
use crate::ranges::{Update, noise, there};
use crate::receiver::{Receiver, count_same_nars, open, verify};
use crate::wire::Wire;

const COMPLETE: &[u8] = include_bytes!("../golden/version-1.ferry");
const BASED: &[u8] = include_bytes!("../golden/version-1-based.ferry");

/// Objects and derivations of every kind, and a payload of two blocks, the second of which has in
/// it what the first one has.
fn everything() -> Vec<Object> {
    let again = noise(5, 20_000);
    let mut apart = again.clone();
    apart.extend(vec![0; 4 << 20]);
    let file = |name, contents: &[u8]| Object::source(name, Wire::new().file(contents).0, &[]);
    let mut objects = vec![file("early-1.bin", &apart), file("late-1.bin", &again)];
    objects.extend(graph());
    objects.extend(sample());
    unique(&[&objects])
}

/// What a store has, and what it is to get: derivations above another source, and a program in
/// which all hashes are others.
fn an_update() -> (Vec<Object>, Vec<Object>) {
    let program = Update::of(30_000);
    let mut old = chain(20, b"echo old", None).objects;
    let mut new = chain(20, b"echo new", Some(7)).objects;
    old.push(program.old);
    new.push(program.new);
    (old, new)
}

fn is_there(old: &[Object]) -> BTreeSet<StorePath> {
    old.iter().map(|object| object.path().clone()).collect()
}

fn based() -> Vec<u8> {
    let (old, new) = an_update();
    let (store, there) = (Memory::of(&unique(&[&old, &new])), is_there(&old));
    let base = DerivationBase::read(&store, &roots(&old)).unwrap();
    let offered = new.iter().map(|object| (object.path().clone(), object.info.clone())).collect();
    let thinned = leave_out(offered, &|path| there.contains(path) || base.contains(path));
    let left = &thinned.prerequisites;
    let options = PackOptions {
        set: "recipe".to_owned(),
        roots: roots(&new),
        level: 19,
        sign_with: vec![key()],
        prerequisites: Prerequisites::with_base(&store, &thinned.carried, left, Some(base))
            .unwrap(),
        ..PackOptions::default()
    };
    let sink = Shared::default();
    let directory = store.store_dir().clone();
    let writer = BundleWriter::new(sink.clone(), "golden".to_owned(), directory, options)
        .against(Update::of(30_000).against());
    copy(&store, &writer, thinned.carried, &[], &Silent).unwrap();
    sink.take()
}

/// For a new version of the format, under names of its own.
#[test]
#[ignore = "writes the golden files anew: they are never changed"]
fn write_golden_files() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::fs::write(format!("{directory}/version-1.ferry"), packed(&everything())).unwrap();
    std::fs::write(format!("{directory}/version-1-based.ferry"), based()).unwrap();
}

/// The path infos of a bundle are those of the objects.
fn assert_same_infos(bundle: &Bundle, objects: &[&Object]) {
    let found: BTreeMap<&StorePath, &PathInfo> =
        bundle.path_infos().iter().map(|info| (&info.path, info)).collect();
    let wanted: BTreeMap<&StorePath, &PathInfo> =
        objects.iter().map(|object| (object.path(), &object.info)).collect();
    assert_eq!(found, wanted);
}

/// How many ranges each block of the payload is packed against.
fn ranges(bundle: &[u8]) -> Vec<usize> {
    let blocks = sections(bundle).into_iter().filter(|section| &section.name == b"BLCK");
    blocks.map(|block| take_number(&mut block.contents.as_slice())).collect()
}

#[test]
fn a_bundle_of_version_1_is_read_verified_and_loaded() {
    let objects = everything();
    let bundle = open(COMPLETE).unwrap();
    assert_eq!(bundle.format_version(), 1);
    assert_eq!(
        bundle.head_digest().to_string(),
        "sha256:17lghm7d93qzd8amyb8vgx15hxmyvvdmr7rqswzwlms17jw44cpp"
    );
    bundle.require_signature(&[public(&key())]).unwrap();
    assert_same_infos(&bundle, &objects.iter().collect::<Vec<_>>());
    assert_eq!(bundle.prerequisites(), []);
    assert_eq!(count_same_nars(&bundle, &Memory::of(&objects)), objects.len());
    // It is about these.
    assert!(coded(COMPLETE) > 10);
    assert!(bundle.path_infos().len() > coded(COMPLETE) + 5);
    assert!(matches!(ranges(COMPLETE)[..], [0, back] if back > 0), "{:?}", ranges(COMPLETE));

    assert_eq!(verify(COMPLETE).unwrap().copied.added, objects.len());
    assert_eq!(Receiver::new().load(COMPLETE).unwrap().added, objects.len());
}

#[test]
fn a_bundle_of_version_1_against_what_a_store_has_is_read_and_verified() {
    let (old, new) = an_update();
    let receiver = Memory::of(&old);
    let mut bundle = open_against(BASED, &receiver).unwrap();
    bundle.read_bases_from(there(&old));
    assert_eq!(bundle.format_version(), 1);
    assert_eq!(
        bundle.head_digest().to_string(),
        "sha256:0wcbc9jr209f4xwwx0jmvp8149b70f86ry14ysc98q3qszc0j959"
    );
    bundle.require_signature(&[public(&key())]).unwrap();
    let known = is_there(&old);
    let carried: Vec<&Object> =
        new.iter().filter(|object| !known.contains(object.path())).collect();
    assert_same_infos(&bundle, &carried);
    assert!(bundle.prerequisites().iter().any(|one| one.path.is_derivation()));
    assert!(bundle.prerequisites().iter().any(|one| one.content.is_some()));
    assert_eq!(
        bundle.missing_prerequisites(&Receiver::new().store).unwrap().len(),
        bundle.prerequisites().len()
    );
    assert!(matches!(ranges(BASED)[..], [on] if on > 0), "{:?}", ranges(BASED));

    let report = ferry_bundle::verify(&bundle, &TrustPolicy::accept_all(), &Silent).unwrap();
    assert_eq!(report.copied.added, carried.len());
    let mut bundle = open_against(BASED, &receiver).unwrap();
    bundle.read_bases_from(there(&old));
    assert_eq!(count_same_nars(&bundle, &Memory::of(&new)), carried.len());
}
