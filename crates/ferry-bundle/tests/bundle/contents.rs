//! Contents that are not what the index says of them, with digests that are right.

use ferry_formats::{ContentAddress, NixHash, nar};
use ferry_store::Error;
use ferry_store::trust::TrustPolicy;

use crate::builder::Draft;
use crate::objects::{
    Object, any_path, derivation, derivation_text, download, key, public, sample, sha256,
};
use crate::receiver::{Receiver, refused, refused_because, verify};
use crate::wire::Wire;

/// A bundle of `object` alone, with something in its entry changed.
fn alone(object: &Object, change: impl FnOnce(&mut crate::builder::Entry)) -> Vec<u8> {
    let mut draft = Draft::of(std::slice::from_ref(object));
    change(&mut draft.entries[0]);
    draft.counted().build()
}

#[test]
fn a_wrong_nar_hash_is_refused_with_both_hashes() {
    for object in sample().into_iter().filter(|object| object.info.references.is_empty()) {
        let bundle = alone(&object, |entry| entry.nar_hash[0] ^= 1);
        let error = refused_because(&bundle, &object.rendered());
        assert!(matches!(&error, Error::WrongNarHash { found, .. }
            if *found == object.info.nar_hash.to_string()));
    }
}

#[test]
fn a_nar_that_is_shorter_or_longer_than_it_should_be_is_refused() {
    let object = Object::text("note", b"some text", &[]);
    for shorter in [1, 8, 100] {
        let bundle = alone(&object, |entry| {
            entry.nar.truncate(entry.nar.len() - shorter);
            entry.nar_size -= shorter as u64;
        });
        refused_because(&bundle, &object.rendered());
    }
    for longer in [1, 8, 4096] {
        let bundle = alone(&object, |entry| {
            entry.nar.extend(vec![0; longer]);
            entry.nar_size += longer as u64;
        });
        refused_because(&bundle, &object.rendered());
    }
    // The size says one thing, and the payload holds another.
    for wrong in [0, 1, object.info.nar_size - 8, object.info.nar_size + 8, 1 << 40] {
        refused(&alone(&object, |entry| entry.nar_size = wrong));
    }
}

#[test]
fn one_nar_cannot_take_bytes_from_its_neighbour() {
    let mut draft = Draft::of(&sample());
    draft.entries[0].nar_size += 8;
    draft.entries[1].nar_size -= 8;
    refused_because(&draft.counted().build(), "-note");
}

#[test]
fn content_that_does_not_have_the_address_it_claims_is_refused() {
    let other = Object::text("note", b"other text", &[]);
    for (object, nar) in [
        (Object::text("note", b"some text", &[]), other.nar.clone()),
        (Object::flat("note", b"some text"), other.nar.clone()),
        (Object::source("note", Wire::new().symlink(b"a").0, &[]), Wire::new().symlink(b"b").0),
    ] {
        let bundle = Draft::of(std::slice::from_ref(&object)).with_last_nar(nar).build();
        let error = refused_because(&bundle, &object.rendered());
        assert!(matches!(error, Error::WrongContentAddress { .. }), "{error}");
    }
}

#[test]
fn only_a_plain_file_can_have_the_address_of_one() {
    for object in [Object::text("note", b"text", &[]), Object::flat("note", b"text")] {
        for nar in [
            Wire::new().executable(b"text").0,
            Wire::new().symlink(b"text").0,
            Wire::new().directory(|inside| inside).0,
        ] {
            let bundle = Draft::of(std::slice::from_ref(&object)).with_last_nar(nar).build();
            refused_because(&bundle, "of a plain file, and it is not one");
        }
    }
}

#[test]
fn an_address_that_belongs_to_another_path_is_refused() {
    // Every byte and hash is right, only the path does not follow from them.
    let mut stranger = Object::text("note", b"some text", &[]);
    stranger.info.path = any_path("stranger", "note");
    let bundle = Draft::of(std::slice::from_ref(&stranger)).build();
    refused_because(&bundle, "does not give this path");
}

#[test]
fn what_is_named_like_a_derivation_has_to_be_one() {
    let directory = Wire::new().directory(|inside| inside).0;
    let link = Wire::new().symlink(b"elsewhere").0;
    for nar in [directory, link] {
        let object = Object::source("pretender.drv", nar, &[]);
        let bundle = Draft::of(std::slice::from_ref(&object)).build();
        refused_because(&bundle, "named like a derivation, and is not a plain file");
    }
    let mut large = Object::text("large.drv", b"Derive()", &[]);
    large.info.nar_size = (64 << 20) + 8;
    let bundle = Draft::of(std::slice::from_ref(&large)).build();
    refused_because(&bundle, "too large for a derivation");
}

#[test]
fn a_git_address_is_not_proof_enough() {
    let tree = Wire::new().directory(|inside| inside).0;
    let address = ContentAddress::Git(NixHash::Sha256(sha256(b"some tree")));
    let store_dir = ferry_formats::StoreDir::default();
    let path = store_dir.build_ca_path("tree", &address, [], false).unwrap();
    let mut object = Object::output(&path, tree, &[]);
    object.info.ca = Some(address);
    let strict = TrustPolicy { require_signatures: true, trusted_public_keys: Vec::new() };
    let error =
        Receiver::with(strict).load(&Draft::of(std::slice::from_ref(&object)).build()).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
}

const CONTENTS: &[u8] = b"downloaded";

fn inputs() -> (Object, Object) {
    let tree = Object::source("tree", Wire::new().directory(|inside| inside).0, &[]);
    (download("source.txt", CONTENTS), tree)
}

/// A bundle of a derivation with its inputs, the derivation's text replaced.
fn with_text(text: &str) -> (Vec<u8>, String) {
    let (fetch, tree) = inputs();
    let recipe = Object::text("result.drv", text.as_bytes(), &[fetch.path(), tree.path()]);
    let rendered = recipe.rendered();
    (Draft::of(&[fetch, tree, recipe]).build(), rendered)
}

#[test]
fn a_derivation_whose_output_path_is_its_own_is_accepted() {
    let (fetch, tree) = inputs();
    let (recipe, _) = derivation("result", (&fetch, "source.txt", CONTENTS), &tree);
    verify(&Draft::of(&[fetch, tree, recipe]).build()).unwrap();
}

#[test]
fn a_derivation_that_claims_the_output_path_of_another_is_refused() {
    let (fetch, tree) = inputs();
    let wanted = any_path("somebody else's", "result");
    let stolen = ferry_formats::StoreDir::default().render_path(&wanted);
    let text = derivation_text("result", &stolen, &fetch.rendered(), &tree.rendered());
    let (bundle, path) = with_text(&text);
    refused_because(&bundle, &path);

    // A download that claims a path that is not that of its hash.
    let honest = String::from_utf8(nar::file_contents(&fetch.nar).unwrap().to_vec()).unwrap();
    let output = Object::flat("source.txt", CONTENTS).rendered();
    let (bundle, path) = with_text(&honest.replace(&output, &stolen));
    refused_because(&bundle, &path);
}

#[test]
fn a_derivation_that_is_none_is_refused_by_its_path() {
    for text in ["", "Derive(", "not a derivation", "Derive([],[],[],\"\",\"\",[],[])x", "\0\0"] {
        let (bundle, path) = with_text(text);
        refused_because(&bundle, &path);
    }
    let (bundle, path) = with_text(&format!("Derive({}", "[".repeat(1 << 20)));
    refused_because(&bundle, &path);
}

#[test]
fn a_derivation_whose_input_is_not_there_is_refused_with_both_names() {
    let (_, tree) = inputs();
    let absent = "/nix/store/00000000000000000000000000000000-absent.drv";
    let text = derivation_text("result", &tree.rendered(), absent, &tree.rendered());
    let recipe = Object::text("result.drv", text.as_bytes(), &[tree.path()]);
    let path = recipe.rendered();
    let error = refused_because(&Draft::of(&[tree, recipe]).build(), &path);
    assert!(error.to_string().contains(absent), "{error}");
}

#[test]
fn a_derivation_that_is_its_own_input_is_refused() {
    // Its path cannot follow from its text; a signature would let it in all the same.
    let (_, tree) = inputs();
    let path = any_path("circle", "circle.drv");
    let rendered = ferry_formats::StoreDir::default().render_path(&path);
    let text = derivation_text("circle", &tree.rendered(), &rendered, &tree.rendered());
    let nar = nar::of_file(text.as_bytes());
    let circle = Object::output(&path, nar, &[&path, tree.path()]).signed_by(&key());
    let bundle = Draft::of(&[tree, circle]).build();
    refused_because(&bundle, &rendered);
    let strict =
        TrustPolicy { require_signatures: true, trusted_public_keys: vec![public(&key())] };
    let receiver = Receiver::with(strict);
    receiver.load(&bundle).unwrap_err();
    assert!(receiver.objects().is_empty());
}
