//! Who has signed what, and whether that is enough.

use ferry_bundle::{Bundle, BundleError};
use ferry_formats::keys::{PublicKey, SecretKey};
use ferry_store::Error;
use ferry_store::trust::TrustPolicy;

use crate::builder::Draft;
use crate::objects::{Object, any_path, impostor, key, named_key, public, sample};
use crate::receiver::{Receiver, open};
use crate::wire::Wire;

fn required(draft: &Draft, keys: &[PublicKey]) -> Result<(), BundleError> {
    let bundle: Bundle = open(&draft.build()).unwrap();
    bundle.require_signature(keys)
}

#[test]
fn only_a_signature_of_the_bundle_by_a_given_key_counts() {
    let draft = Draft::of(&sample());
    let keys = [public(&key())];
    required(&draft.clone().signed_by(&key()), &keys).unwrap();
    required(&draft.clone().signed_by(&impostor()).signed_by(&key()), &keys).unwrap();

    let nobody = required(&draft, &keys).unwrap_err();
    assert!(nobody.to_string().contains("it is signed by: nobody"), "{nobody}");
    for wrong in [named_key("other-1"), impostor()] {
        let error = required(&draft.clone().signed_by(&wrong), &keys).unwrap_err();
        assert!(error.to_string().contains(wrong.name()), "{error}");
        required(&draft.clone().signed_by(&key()), &[public(&wrong)]).unwrap_err();
    }
    required(&draft.signed_by(&key()), &[]).unwrap_err();
}

/// A signature of 64 zero bytes.
fn signature_named(name: &str) -> Vec<u8> {
    format!("{name}:{}==", "A".repeat(86)).into_bytes()
}

#[test]
fn a_signature_that_would_make_a_database_unreadable_is_refused() {
    for name in ["two words", "a\tb", "a\u{1b}[31m"] {
        let mut draft = Draft::of(&sample());
        draft.entries[0].signatures = vec![signature_named(name)];
        let error = open(&draft.build()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("white space or control characters"), "{name:?}: {error}");
    }
}

#[test]
fn a_signature_of_the_bundle_covers_every_byte_of_its_head() {
    let keys = [public(&key())];
    let signed = Draft::of(&sample()).signed_by(&key());
    let mut other_set = signed.clone();
    other_set.manifest["set"] = "recipe".into();
    let mut other_hash = signed.clone();
    other_hash.entries[0].nar_hash[0] ^= 1;
    let mut other_signer = signed.clone();
    other_signer.entries[0].signatures = vec![signature_named("somebody")];
    for changed in [other_set, other_hash, other_signer] {
        assert_ne!(changed.signed_text(), signed.signed_text());
        required(&changed, &keys).unwrap_err();
    }
    // One made for another bundle.
    let mut borrowed = Draft::of(&sample()[..1]);
    borrowed.signatures = signed.signatures;
    required(&borrowed, &keys).unwrap_err();
}

/// An output that nothing but a signature can vouch for.
fn output() -> Object {
    Object::output(&any_path("output", "output"), Wire::new().file(b"built").0, &[])
}

fn load(object: &Object, trust: TrustPolicy) -> Result<(), Error> {
    let receiver = Receiver::with(trust);
    let outcome = receiver.load(&Draft::of(std::slice::from_ref(object)).build());
    if outcome.is_err() {
        assert!(receiver.objects().is_empty());
    }
    outcome.map(drop)
}

fn trusting(keys: &[&SecretKey], require_signatures: bool) -> TrustPolicy {
    let trusted_public_keys = keys.iter().map(|key| public(key)).collect();
    TrustPolicy { require_signatures, trusted_public_keys }
}

#[test]
fn a_path_needs_a_right_signature_by_a_trusted_key_where_signatures_are_required() {
    let trust = || trusting(&[&key()], true);
    load(&output().signed_by(&key()), trust()).unwrap();
    load(&output().signed_by(&impostor()).signed_by(&key()), trust()).unwrap();

    let unsigned = load(&output(), trust()).unwrap_err().to_string();
    assert!(unsigned.contains(&output().rendered()), "{unsigned}");
    assert!(unsigned.contains("it is signed by: nobody"), "{unsigned}");
    // Another name for the right key, the right name for another key.
    for wrong in [named_key("other-1"), impostor()] {
        let error = load(&output().signed_by(&wrong), trust()).unwrap_err().to_string();
        assert!(error.contains(&format!("it is signed by: {}", wrong.name())), "{error}");
    }
    load(&output().signed_by(&key()), trusting(&[], true)).unwrap_err();
}

#[test]
fn a_signature_covers_hash_size_and_references_and_not_the_claim_to_be_content_addressed() {
    let trust = || trusting(&[&key()], true);
    let signed = output().signed_by(&key());
    let other = Wire::new().file(b"built otherwise").0;
    let replaced = Draft::of(std::slice::from_ref(&signed)).with_last_nar(other).build();
    let error = Receiver::with(trust()).load(&replaced).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");

    let note = Object::text("note", b"text", &[]);
    let mut referring = Object::output(signed.path(), signed.nar.clone(), &[note.path()]);
    referring.info.signatures.clone_from(&signed.info.signatures);
    let error = Receiver::with(trust()).load(&Draft::of(&[note, referring]).build()).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error}");
}

#[test]
fn where_no_signatures_are_required_any_or_none_will_do() {
    load(&output(), trusting(&[], false)).unwrap();
    load(&output().signed_by(&impostor()), trusting(&[&key()], false)).unwrap();
    load(&output(), TrustPolicy::accept_all()).unwrap();
}

#[test]
fn what_proves_itself_needs_no_signature() {
    let objects = &sample()[..7];
    assert!(objects.iter().all(|object| object.info.signatures.is_empty()));
    let receiver = Receiver::with(trusting(&[], true));
    assert_eq!(receiver.load(&Draft::of(objects).build()).unwrap().added, 7);
}

#[test]
fn one_path_that_nobody_vouches_for_keeps_all_the_others_out() {
    let mut objects = sample();
    objects[7].info.signatures.clear();
    let receiver = Receiver::with(trusting(&[&key()], true));
    let error = receiver.load(&Draft::of(&objects).build()).unwrap_err();
    assert!(matches!(&error, Error::Untrusted { path, .. } if *path == objects[7].rendered()));
    assert!(receiver.objects().is_empty());
}
