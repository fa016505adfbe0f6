//! Indexes and manifests that say what cannot be, with digests that are right.

use serde_json::{Value, json};

use crate::builder::{Draft, Entry, number};
use crate::objects::{Object, any_path, sample};
use crate::receiver::{refused, refused_because, verify};

fn draft() -> Draft {
    Draft::of(&sample())
}

/// The sample with one entry changed.
fn with(place: usize, change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut draft = draft();
    change(&mut draft.entries[place]);
    draft.counted().build()
}

/// The sample with its manifest changed.
fn with_manifest(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut draft = draft();
    change(&mut draft.manifest);
    draft.build()
}

/// Where in the sample the derivation with inputs, and the output, stand.
const RECIPE: usize = 6;
const RESULT: usize = 7;

#[test]
fn a_path_that_stands_there_twice_is_refused_by_name() {
    let mut twice = draft();
    twice.entries.push(twice.entries[0].clone());
    refused_because(&twice.counted().build(), "-note stands in it twice");
}

#[test]
fn a_reference_to_what_comes_later_is_refused() {
    // So there can be no circle: of two that refer to each other, one comes first.
    for later in [RESULT as u64, 8, 1000, u64::from(u32::MAX), u64::MAX] {
        refused_because(&with(0, |note| note.references = vec![later]), "-note refers to");
    }
}

#[test]
fn references_out_of_order_or_twice_are_refused() {
    refused_because(&with(RESULT, |result| result.references.reverse()), "are not sorted");
    let twice = with(RESULT, |result| {
        let first = result.references[0];
        result.references.insert(0, first);
    });
    refused_because(&twice, "are not sorted");
}

#[test]
fn counts_that_nothing_follows_are_refused_without_waiting() {
    for count in [9, 1 << 20, 1 << 40, u64::MAX] {
        let mut paths = Vec::new();
        number(&mut paths, count);
        paths.extend(&draft().index()[1..]);
        refused_because(&draft().build_with_index(&paths), "index, at byte");
    }
    // The one entry of this index ends: deriver, ca, and the numbers of references and signatures.
    let one = Draft::of(&sample()[..1]);
    let plain = one.index();
    let references = plain.iter().rposition(|byte| *byte == b't').unwrap();
    assert!(plain[references..].starts_with(b"t"), "the address of a text ends the index");
    for count in [1, 1 << 40, u64::MAX] {
        let mut signatures = plain[..plain.len() - 1].to_vec();
        number(&mut signatures, count);
        refused_because(&one.build_with_index(&signatures), "index, at byte");
        let mut lengths = plain[..21].to_vec();
        number(&mut lengths, count);
        refused_because(&one.build_with_index(&lengths), "index, at byte");
    }
}

#[test]
fn a_huge_number_of_references_is_refused_without_waiting() {
    let mut plain = Draft::of(&sample()[..1]).index();
    // Count, digest, `note` with its length, NAR hash; then the NAR size in one byte.
    let size_at = 1 + 20 + 5 + 32;
    assert!(plain[size_at] >= 0x80 && plain[size_at + 1] < 0x80, "the size takes two bytes");
    plain.truncate(size_at + 2);
    number(&mut plain, u64::MAX);
    refused_because(&Draft::of(&sample()[..1]).build_with_index(&plain), "index, at byte");
}

#[test]
fn numbers_not_in_their_shortest_form_are_refused() {
    let plain = draft().index();
    let long = [&[plain[0] | 0x80, 0], &plain[1..]].concat();
    refused_because(&draft().build_with_index(&long), "not in its shortest form");
    let endless = [&[0x80; 20][..], &plain[1..]].concat();
    refused_because(&draft().build_with_index(&endless), "index, at byte");
}

#[test]
fn bytes_behind_the_last_entry_are_refused() {
    let longer = [&draft().index()[..], b"\0"].concat();
    refused_because(&draft().build_with_index(&longer), "1 bytes too many");
}

#[test]
fn every_index_that_ends_early_is_refused() {
    let plain = draft().index();
    for length in 0..plain.len() {
        refused_because(&draft().build_with_index(&plain[..length]), "index, at byte");
    }
}

#[test]
fn names_that_no_store_path_has_are_refused() {
    let long = vec![b'x'; 212];
    let names: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"../../etc",
        b"a/b",
        b"a\0b",
        b"a b",
        b"a\nb",
        b"\x1b[31m",
        b"\xff\xfe",
        "n\u{f6}te".as_bytes(),
        &long,
    ];
    for name in names {
        let bundle = with(0, |note| note.name = name.to_vec());
        let message = refused_because(&bundle, "index, at byte").to_string();
        assert!(!message.contains(['\x1b', '\0', '\n']), "raw bytes in: {message:?}");
    }
    // The deriver is a store path too.
    let deriver = Some(([7; 20], b"../up.drv".to_vec()));
    refused_because(&with(RESULT, |result| result.deriver = deriver), "a store path");
}

#[test]
fn content_addresses_that_are_none_are_refused() {
    let long = [b"fixed:r:sha256:".to_vec(), vec![b'x'; 5000]].concat();
    let addresses: [&[u8]; 9] = [
        b"x",
        b"text:",
        b"text:sha256:",
        b"text:sha1:0000000000000000000000000000000000000000",
        b"fixed:r:crc32:00000000",
        b"fixed:r:sha256:tooshort",
        b"fixed:\xff\xfe",
        b"sha256:0000000000000000000000000000000000000000000000000000",
        &long,
    ];
    for address in addresses {
        let bundle = with(0, |note| note.ca = address.to_vec());
        refused_because(&bundle, "index, at byte");
    }
}

#[test]
fn signatures_that_are_none_are_refused() {
    for signature in [&b""[..], b"no-colon", b":AAAA", b"key:", b"key:not base 64!", b"key:\xff"] {
        let bundle = with(RESULT, |result| result.signatures = vec![signature.to_vec()]);
        refused_because(&bundle, "index, at byte");
    }
    for signature in ["", "no-colon", ":AAAA", "key:", "key:not base 64!"] {
        let mut draft = draft();
        draft.signatures.push(signature.to_owned());
        refused_because(&draft.build(), "signature");
    }
}

#[test]
fn sizes_whose_sum_is_too_large_are_refused() {
    let bundle = with(0, |note| note.nar_size = u64::MAX);
    refused_because(&bundle, "the manifest does not agree with the index");
}

#[test]
fn a_manifest_that_does_not_agree_with_the_index_is_refused() {
    for (field, value) in [
        ("paths", json!(7)),
        ("paths", json!(0)),
        ("narSize", json!(0)),
        ("narSize", json!(u64::MAX)),
    ] {
        let bundle = with_manifest(|manifest| manifest[field] = value);
        refused_because(&bundle, "the manifest does not agree with the index");
    }
}

#[test]
fn a_root_that_is_not_in_the_bundle_is_refused_by_name() {
    let absent = any_path("absent", "absent").to_basename();
    let bundle = with_manifest(|manifest| manifest["roots"] = json!([absent]));
    refused_because(&bundle, &format!("{absent} is not in the index"));
    for root in ["", "..", "../../etc/passwd", "/nix/store/x", "x\0y"] {
        let bundle = with_manifest(|manifest| manifest["roots"] = json!([root]));
        refused(&bundle);
    }
}

#[test]
fn a_realisation_that_is_none_is_refused_by_name() {
    let of = |output: &str| format!("sha256:{}!{output}", "0".repeat(64));
    let name = format!("realisations/{}.doi", of("out"));
    let path = any_path("absent", "absent").to_basename();
    let with = |name: &str, value: Value| {
        with_manifest(|manifest| manifest["realisations"] = json!({ name: value }))
    };
    let another = json!({ "id": of("other"), "outPath": path });
    for (name, value) in [
        ("out", json!({})),
        (&*name, json!("text")),
        (&*name, json!({ "id": of("out") })),
        (&*name, another),
    ] {
        refused_because(&with(name, value), &format!("the realisation `{name}`"));
    }
    for value in [json!([]), json!("x"), json!(7)] {
        refused_because(&with_manifest(|manifest| manifest["realisations"] = value), "manifest");
    }
    // It may speak of what is not in the bundle: nobody asks for that.
    verify(&with(&name, json!({ "id": of("out"), "outPath": path }))).unwrap();
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    let manifests: [&[u8]; 6] =
        [b"", b"[]", b"{}", b"null", b"{\"storeDir\":\"/nix/store\"", b"\xff\xfe"];
    for manifest in manifests {
        let mut sections = draft().sections();
        sections[0].contents = manifest.to_vec();
        let bundle = crate::builder::assemble(&draft().beginning(), &sections);
        refused_because(&bundle, "manifest");
    }
    let nested = vec![b'['; 1 << 20];
    let mut sections = draft().sections();
    sections[0].contents = nested;
    refused_because(&crate::builder::assemble(&draft().beginning(), &sections), "manifest");
    for (field, value) in
        [("paths", json!(-1)), ("paths", json!("8")), ("roots", json!("x")), ("set", json!(1))]
    {
        refused_because(&with_manifest(|manifest| manifest[field] = value), "manifest");
    }
}

#[test]
fn a_bundle_of_another_store_directory_goes_into_no_other_store() {
    let bundle = with_manifest(|manifest| manifest["storeDir"] = json!("/gnu/store"));
    let receiver = crate::receiver::Receiver::new();
    let error = receiver.load(&bundle).unwrap_err().to_string();
    assert!(error.contains("/gnu/store") && error.contains("/nix/store"), "{error}");
    assert!(receiver.objects().is_empty());
    for directory in ["", "relative", "nix/store", "/nix/../etc", "/nix//store", "/nix/store/"] {
        let bundle = with_manifest(|manifest| manifest["storeDir"] = json!(directory));
        refused(&bundle);
    }
}

#[test]
fn entries_that_took_each_others_place_are_refused() {
    // The index is in order and the payload follows it: what is named otherwise has another hash.
    let mut draft = draft();
    let program = draft.entries[4].nar.clone();
    draft.entries[4].nar = std::mem::replace(&mut draft.entries[5].nar, program);
    refused(&draft.build());
    let mut later = self::draft();
    later.entries.swap(0, RECIPE);
    refused(&later.build());
}

#[test]
fn references_that_are_left_out_change_the_path_of_what_is_content_addressed() {
    let objects: Vec<Object> = sample();
    let recipe = objects[RECIPE].rendered();
    let bundle = with(RECIPE, |recipe| recipe.references.clear());
    // Nothing about the derivation's file is wrong, and still its path is another one's.
    let receiver = crate::receiver::Receiver::with(ferry_store::trust::TrustPolicy {
        require_signatures: true,
        trusted_public_keys: vec![crate::objects::public(&crate::objects::key())],
    });
    let error = receiver.load(&bundle).unwrap_err().to_string();
    assert!(error.contains(&recipe) && error.contains("does not give this path"), "{error}");
    assert!(receiver.objects().is_empty());
}
