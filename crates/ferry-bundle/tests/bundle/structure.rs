//! Files that are put together wrongly, with digests that are right.

use ferry_bundle::BundleError;

use crate::builder::{Draft, Section, assemble, compressed_block, packed_index};
use crate::objects::{Object, sample};
use crate::receiver::{damaged_at, in_the_file, refused, refused_because, verify};
use crate::wire::Wire;

fn draft() -> Draft {
    Draft::of(&sample())
}

/// The sample with its sections changed.
fn changed(change: impl FnOnce(&mut Vec<Section>)) -> Vec<u8> {
    let mut sections = draft().sections();
    change(&mut sections);
    assemble(&draft().beginning(), &sections)
}

/// A draft whose payload takes three blocks, alike in size.
fn three_blocks() -> Draft {
    let objects: Vec<Object> = [b'a', b'b', b'c']
        .iter()
        .map(|byte| Object::source("big", Wire::new().file(&vec![*byte; 4_194_304 - 144]).0, &[]))
        .collect();
    Draft::of(&objects)
}

#[test]
fn the_sample_is_accepted_as_it_is() {
    assert_eq!(verify(&draft().build()).unwrap().copied.added, sample().len());
    assert_eq!(verify(&three_blocks().build()).unwrap().copied.added, 3);
}

#[test]
fn sections_in_another_order_are_refused_where_the_wrong_one_begins() {
    let count = draft().sections().len();
    for first in 0..count {
        for second in first + 1..count {
            let bundle = changed(|sections| sections.swap(first, second));
            refused_because(&bundle, "belongs");
        }
    }
}

#[test]
fn a_section_that_stands_there_twice_is_refused() {
    for number in 0..draft().sections().len() {
        let bundle = changed(|sections| sections.insert(number, sections[number].clone()));
        let error = refused(&bundle);
        assert!(damaged_at(&error) > 12, "section {number}: {error}");
    }
}

#[test]
fn a_section_that_is_missing_is_refused() {
    let count = draft().sections().len();
    for number in 0..count {
        let bundle = changed(|sections| drop(sections.remove(number)));
        let error = refused(&bundle);
        match in_the_file(&error) {
            Some(BundleError::Truncated { .. }) => assert_eq!(number, count - 1),
            Some(BundleError::Damaged { .. }) => {}
            _ => panic!("section {number}: {error:?}"),
        }
    }
}

#[test]
fn blocks_that_changed_places_are_refused_by_what_they_hold() {
    let draft = three_blocks();
    let mut sections = draft.sections();
    sections.swap(3, 4);
    refused_because(&assemble(&draft.beginning(), &sections), "-big: ");
}

#[test]
fn a_section_of_an_unknown_name_is_refused_with_the_name() {
    for number in 0..draft().sections().len() {
        let bundle = changed(|sections| sections[number].name = *b"\x1b[2J");
        refused_because(&bundle, r"`\x1b[2J`");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_anything_is_read() {
    let limits = [64 << 20, 1 << 30, 1 << 20, (4 << 20) + (4 << 13) + 1024 + 1024 * 30 + 10, 32];
    for (number, limit) in limits.into_iter().enumerate() {
        for length in [limit + 1, 1 << 32, 1 << 63, u64::MAX] {
            let bundle = changed(|sections| {
                let last = sections.len() - 1;
                sections[number.min(last)].claims = Some(length);
            });
            refused_because(&bundle, &format!("claims {length} bytes; at most {limit}"));
        }
        // The largest that may be, and is not there.
        if number < 4 {
            let bundle = changed(|sections| sections[number].claims = Some(limit));
            let error = refused(&bundle);
            assert!(
                matches!(in_the_file(&error), Some(BundleError::Truncated { offset, .. })
                    if *offset == bundle.len() as u64),
                "section {number}: {error}"
            );
        }
    }
}

#[test]
fn an_end_that_is_too_short_is_refused() {
    for length in [0, 31] {
        let bundle = changed(|sections| sections.last_mut().unwrap().contents.truncate(length));
        refused_because(&bundle, "the digest of the file is not the one stated");
    }
}

#[test]
fn what_is_not_a_bundle_is_called_so() {
    for bytes in [&b"PK\x03\x04 something else"[..], &[0; 100], b"\x89PNG\r\n\x1a\n 0123456789"] {
        let error = refused_because(bytes, "test.ferry is not a ferry bundle");
        assert!(matches!(in_the_file(&error), Some(BundleError::NotABundle { .. })));
    }
}

#[test]
fn a_transfer_as_text_is_recognised() {
    let bundle = draft().build();
    let unix = [&bundle[..6], &bundle[7..]].concat();
    let dos = [&bundle[..7], b"\r", &bundle[7..]].concat();
    let mac = [&bundle[..7], b"\r", &bundle[8..]].concat();
    for bytes in [unix, dos, mac] {
        refused_because(&bytes, "its line ends were changed");
    }
}

#[test]
fn a_version_from_the_future_is_named() {
    for version in [2, 3, u32::MAX] {
        let bundle = Draft { version, ..draft() }.build();
        let error = refused_because(&bundle, &format!("has format version {version}"));
        assert!(matches!(in_the_file(&error), Some(BundleError::UnknownVersion { .. })));
    }
}

#[test]
fn bytes_behind_the_end_are_refused_at_their_offset() {
    let bundle = draft().build();
    for more in [&b"\0"[..], b"\n", &bundle] {
        let error = refused_because(&[&bundle, more].concat(), "something follows the end");
        assert_eq!(damaged_at(&error), bundle.len() as u64);
    }
}

#[test]
fn an_index_that_unpacks_to_more_or_less_than_it_says_is_refused() {
    let plain = draft().index();
    let size = plain.len() as u64;
    let frame = &packed_index(&plain)[8..];
    let stated = |size: u64, frame: &[u8]| {
        let contents = [&size.to_le_bytes(), frame].concat();
        changed(|sections| sections[1].contents = contents)
    };
    assert!(verify(&stated(size, frame)).is_ok());
    for wrong in [0, size - 1, size + 1] {
        refused_because(&stated(wrong, frame), "index");
    }
    for wrong in [1 << 30, 1 << 40, u64::MAX] {
        refused_because(&stated(wrong, frame), &format!("cannot hold {wrong}"));
    }
    let truncated = &frame[..frame.len() - 1];
    refused_because(&stated(size, truncated), "index");
    refused_because(&stated(size, b""), "index");
    refused_because(&stated(size, b"not a zstd frame"), "index");
    let short = changed(|sections| sections[1].contents = vec![1, 2, 3]);
    refused_because(&short, "index: too short");
    // Two ways to write one index would be one too many.
    let followed = [frame, b"more"].concat();
    refused_because(&stated(size, &followed), "index");
    let twice = [frame, frame].concat();
    refused_because(&stated(size, &twice), "index");
}

#[test]
fn an_index_that_grows_a_thousandfold_is_refused_whatever_it_claims() {
    let bomb = packed_index(&vec![0; 256 << 20]);
    let frame = &bomb[8..];
    assert!(frame.len() < 64 << 10, "a bomb of {} bytes", frame.len());
    for claimed in [256 << 20, 1 << 20, 0] {
        let claimed: u64 = claimed;
        let contents = [&claimed.to_le_bytes(), frame].concat();
        let bundle = changed(|sections| sections[1].contents = contents);
        refused_because(&bundle, "index");
    }
}

#[test]
fn a_block_that_does_not_unpack_to_its_size_is_refused() {
    let payload: Vec<u8> = draft().entries.iter().flat_map(|entry| entry.nar.clone()).collect();
    let with_block = |plain: &[u8]| {
        let block = compressed_block(plain);
        changed(|sections| sections[3].contents = block)
    };
    assert!(verify(&with_block(&payload)).is_ok());
    refused_because(&with_block(&payload[1..]), "block: it holds");
    refused_because(&with_block(&[&payload[..], b"!"].concat()), "block:");
    refused_because(&with_block(b""), "block: it holds 0 bytes");
    // 64 MiB of zeros in a few kilobytes.
    refused_because(&with_block(&vec![0; 64 << 20]), "block:");
    for garbage in [&b""[..], b"no frame at all", &[0xff; 1000]] {
        let bundle = changed(|sections| sections[3].contents = garbage.to_vec());
        refused_because(&bundle, "block:");
    }
}

#[test]
fn blocks_are_cut_where_the_format_says() {
    // The same bytes in smaller blocks would make two files of one content.
    let payload: Vec<u8> = draft().entries.iter().flat_map(|entry| entry.nar.clone()).collect();
    let (front, back) = payload.split_at(payload.len() / 2);
    let bundle = changed(|sections| {
        sections[3].contents = compressed_block(front);
        sections.insert(4, Section::new(b"BLCK", compressed_block(back)));
    });
    refused_because(&bundle, "block: it holds");
}

#[test]
fn a_bundle_of_nothing_is_whole() {
    let bundle = Draft::of(&[]).build();
    assert_eq!(verify(&bundle).unwrap().copied.added, 0);
}
