//! Coded derivations that say what cannot be, in files whose digests are right.

use crate::builder::{MAGIC, Section, assemble, number};
use crate::derivations::graph;
use crate::objects::{Object, sample};
use crate::packed::{packed, sections, stored, streams};
use crate::receiver::{Receiver, open, refused_because, verify};

/// A bundle with other streams in its section of derivations.
pub(crate) fn rebuilt(bundle: &[u8], change: impl FnOnce(&mut [Vec<u8>; 3])) -> Vec<u8> {
    let mut sections = sections(bundle);
    let section = sections.iter_mut().find(|section| &section.name == b"DRVS").unwrap();
    let mut streams = streams(&section.contents);
    change(&mut streams);
    section.contents = stored(&streams);
    assembled(&sections)
}

pub(crate) fn assembled(sections: &[Section]) -> Vec<u8> {
    assemble(&[&MAGIC[..], &1u32.to_le_bytes()].concat(), sections)
}

/// Two derivations, one the input of the other, and a source.
fn small() -> Vec<Object> {
    let mut objects = sample();
    objects.retain(|object| object.info.ca.is_some());
    objects
}

#[test]
fn a_bundle_put_together_again_is_the_same_to_a_reader() {
    let bundle = packed(&small());
    let again = rebuilt(&bundle, |_| {});
    assert_eq!(open(&again).unwrap().path_infos(), open(&bundle).unwrap().path_infos());
    assert_eq!(verify(&again).unwrap().copied.added, small().len());
}

/// Whatever stands in the streams: no panic, and what is accepted proves itself. Another number
/// can be another derivation, which is then what the manifest has to describe.
#[test]
fn any_byte_of_any_stream_may_be_anything() {
    for objects in [small(), graph()] {
        let bundle = packed(&objects);
        let section = sections(&bundle).into_iter().find(|found| &found.name == b"DRVS").unwrap();
        let lengths = streams(&section.contents).map(|stream| stream.len());
        let (mut refused, mut tried) = (0, 0);
        for (which, length) in lengths.into_iter().enumerate() {
            let step = 1 + length / 1500;
            for at in (0..length).step_by(step) {
                for value in [0, 1, 2, 3, 7, 0x7f, 0x80, 0xff] {
                    let changed = rebuilt(&bundle, |streams| streams[which][at] = value);
                    tried += 1;
                    match verify(&changed) {
                        // Names, texts and digests can be others, and give other paths.
                        Ok(report) => assert!(report.copied.added > 0),
                        Err(error) => {
                            refused += 1;
                            assert!(error.to_string().len() < 4096);
                        }
                    }
                }
            }
        }
        assert!(refused * 10 > tried * 5, "{refused} of {tried}");
    }
}

#[test]
fn a_stream_cut_off_or_with_more_behind_it_is_refused() {
    let bundle = packed(&small());
    for which in 0..3 {
        let length = {
            let sections = sections(&bundle);
            let section = sections.iter().find(|found| &found.name == b"DRVS").unwrap();
            streams(&section.contents)[which].len()
        };
        for cut in 0..length {
            let changed = rebuilt(&bundle, |streams| streams[which].truncate(cut));
            refused_because(&changed, "derivations");
        }
        for more in [0, 1, 0xff] {
            let changed = rebuilt(&bundle, |streams| streams[which].push(more));
            refused_because(&changed, "derivations");
        }
    }
}

#[test]
fn counts_that_no_section_can_hold_are_refused_before_anything_is_made_of_them() {
    let bundle = packed(&small());
    for count in [1 << 20, 1 << 32, u64::MAX] {
        let changed = rebuilt(&bundle, |streams| {
            let mut numbers = Vec::new();
            number(&mut numbers, count);
            numbers.extend(&streams[0][1..]);
            streams[0] = numbers;
        });
        refused_because(&changed, "derivations");
        // Of words, keys, and so on.
        for at in 1..12 {
            let changed = rebuilt(&bundle, |streams| {
                let mut numbers = streams[0][..at].to_vec();
                number(&mut numbers, count);
                numbers.extend(&streams[0][at + 1..]);
                streams[0] = numbers;
            });
            refused_because(&changed, "derivations");
        }
    }
}

#[test]
fn streams_that_are_bombs_are_refused() {
    let bundle = packed(&small());
    let frame = zstd::bulk::compress(&vec![0; 256 << 20], 3).unwrap();
    for claimed in [256 << 20, 1 << 20, 1, u64::MAX] {
        let mut sections = sections(&bundle);
        for name in [b"DRVS", b"INDX"] {
            let mut bomb = Vec::new();
            number(&mut bomb, claimed);
            number(&mut bomb, frame.len() as u64);
            bomb.extend([0, 0, 0, 0]);
            bomb.extend(&frame);
            let section = sections.iter_mut().find(|section| &section.name == name).unwrap();
            let whole = std::mem::replace(&mut section.contents, bomb);
            refused_because(&assembled(&sections), "decompressed");
            sections.iter_mut().find(|section| &section.name == name).unwrap().contents = whole;
        }
    }
}

#[test]
fn a_signature_covers_the_derivations() {
    let bundle = packed(&graph());
    let keys = [crate::objects::public(&crate::objects::key())];
    open(&bundle).unwrap().require_signature(&keys).unwrap();
    let mut other = sections(&bundle);
    // With the signature of the one on the other.
    let signed = bundle.windows(4).position(|window| window == b"SIGN").unwrap();
    let length = u64::from_le_bytes(bundle[signed + 4..signed + 12].try_into().unwrap()) as usize;
    for section in &mut other {
        match &section.name {
            b"SIGN" => section.contents = bundle[signed + 12..signed + 12 + length].to_vec(),
            b"DRVS" => section.contents = stored(&streams(&section.contents)),
            _ => {}
        }
    }
    let other = assembled(&other);
    assert_eq!(open(&other).unwrap().path_infos(), open(&bundle).unwrap().path_infos());
    open(&other).unwrap().require_signature(&keys).unwrap_err();
}

#[test]
fn a_bundle_with_coded_derivations_loads_what_was_packed() {
    let receiver = Receiver::new();
    assert_eq!(receiver.load(&packed(&graph())).unwrap().added, graph().len());
    let paths: Vec<_> = graph().iter().map(|object| object.path().clone()).collect();
    assert_eq!(receiver.valid(&paths).len(), paths.len());
}
