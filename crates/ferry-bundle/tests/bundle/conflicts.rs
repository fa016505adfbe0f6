//! What does not fit with what is there, or lacks what it needs.

use ferry_bundle::{BundleWriter, PackOptions, Prerequisites};
use ferry_formats::StoreDir;
use ferry_formats::StorePath;
use ferry_store::closure::closure;
use ferry_store::progress::Silent;
use ferry_store::{Error, copy};

use crate::builder::Draft;
use crate::objects::{Memory, Object, any_path, sample};
use crate::receiver::Receiver;
use crate::wire::Wire;

fn output(contents: &[u8], references: &[&StorePath]) -> Object {
    Object::output(&any_path("output", "output"), Wire::new().file(contents).0, references)
}

#[test]
fn a_path_that_is_there_with_another_hash_stays_and_is_named() {
    let receiver = Receiver::new();
    receiver.load(&Draft::of(&[output(b"built here", &[])]).build()).unwrap();
    let before = receiver.objects();

    let offered = output(b"built elsewhere", &[]);
    let referrer =
        Object::output(&any_path("3", "referrer"), Wire::new().file(b"x").0, &[offered.path()]);
    let report = receiver.load(&Draft::of(&[offered.clone(), referrer.clone()]).build()).unwrap();
    assert_eq!(report.kept, [offered.path().clone()]);
    assert_eq!((report.added, report.present), (1, 1));
    let after = receiver.objects();
    assert!(before.iter().all(|(name, object)| after.get(name) == Some(object)));
    assert_eq!(receiver.valid(&[referrer.path().clone()]), [referrer.path().clone()]);
}

#[test]
fn where_the_path_follows_from_the_content_another_content_is_refused() {
    let receiver = Receiver::new();
    let offered = Object::text("note", b"text", &[]);
    let impostor = Object::output(offered.path(), Wire::new().file(b"no text").0, &[]);
    receiver.load(&Draft::of(&[impostor]).build()).unwrap();
    let before = receiver.objects();

    let other = output(b"other", &[]);
    let error = receiver.load(&Draft::of(&[offered.clone(), other.clone()]).build()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Conflict { .. }), "{message}");
    assert!(message.contains(&offered.rendered()), "{message}");
    assert!(message.contains(&offered.info.nar_hash.to_string()), "{message}");
    assert_eq!(receiver.objects(), before);
    assert_eq!(receiver.valid(&[other.path().clone()]), []);
}

#[test]
fn a_path_that_is_there_with_the_same_hash_is_left_alone() {
    let receiver = Receiver::new();
    let bundle = Draft::of(&sample()).build();
    receiver.load(&bundle).unwrap();
    let before = receiver.objects();
    let again = receiver.load(&bundle).unwrap();
    assert_eq!((again.added, again.present), (0, sample().len()));
    assert_eq!(receiver.objects(), before);
}

#[test]
fn what_refers_to_a_path_that_is_neither_there_nor_coming_is_refused() {
    let absent = Object::text("absent", b"text", &[]);
    let referrer = output(b"refers", &[absent.path()]);
    let source = Memory::of(std::slice::from_ref(&referrer));
    let receiver = Receiver::new();
    let error = copy(&source, &receiver.store, source.infos(), &[], &Silent).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::MissingReference { .. }), "{message}");
    assert!(message.contains(&referrer.rendered()) && message.contains(&absent.rendered()));
    assert!(receiver.objects().is_empty());

    // Once that is there, it fits.
    receiver.load(&Draft::of(&[absent]).build()).unwrap();
    copy(&source, &receiver.store, source.infos(), &[], &Silent).unwrap();
}

#[test]
fn several_absent_references_are_all_named() {
    let absent = [Object::text("one", b"1", &[]), Object::text("two", b"2", &[])];
    let referrer = output(b"refers", &[absent[0].path(), absent[1].path()]);
    let source = Memory::of(&[referrer]);
    let receiver = Receiver::new();
    let message =
        copy(&source, &receiver.store, source.infos(), &[], &Silent).unwrap_err().to_string();
    assert!(absent.iter().all(|object| message.contains(&object.rendered())), "{message}");
}

#[test]
fn a_store_that_lacks_what_one_of_its_paths_refers_to_is_not_packed() {
    let absent = Object::text("absent", b"text", &[]);
    let referrer = output(b"refers", &[absent.path()]);
    let source = Memory::of(std::slice::from_ref(&referrer));
    let error = closure(&source, &[referrer.path().clone()]).unwrap_err();
    assert!(
        matches!(&error, Error::MissingReference { path, reference, .. }
            if *path == referrer.rendered() && *reference == absent.rendered()),
        "{error}"
    );

    // The same in a database that has lost a path behind everybody's back.
    let receiver = Receiver::new();
    receiver.load(&Draft::of(&[absent.clone(), referrer.clone()]).build()).unwrap();
    let database = receiver.store.layout().database();
    let connection = rusqlite::Connection::open(database).unwrap();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    let lost = connection.execute("delete from ValidPaths where path = ?", [absent.rendered()]);
    assert_eq!(lost, Ok(1));
    let message = closure(&receiver.store, &[referrer.path().clone()]).unwrap_err().to_string();
    assert!(message.contains("db.sqlite") && message.contains(&referrer.rendered()), "{message}");

    // Not even by who does not ask for the closure.
    let options = PackOptions {
        set: "runtime".to_owned(),
        roots: vec![referrer.path().clone()],
        level: 1,
        sign_with: Vec::new(),
        prerequisites: Prerequisites::default(),
        ..PackOptions::default()
    };
    let bundle =
        BundleWriter::new(std::io::sink(), "test".to_owned(), StoreDir::default(), options);
    let error = copy(&source, &bundle, source.infos(), &[], &Silent).unwrap_err();
    assert!(matches!(error, Error::MissingReference { .. }), "{error}");
}

#[test]
fn references_that_go_round_are_refused_when_packing() {
    let (one, two) = (any_path("1", "one"), any_path("2", "two"));
    let objects = [
        Object::output(&one, Wire::new().file(b"1").0, &[&two]),
        Object::output(&two, Wire::new().file(b"2").0, &[&one]),
    ];
    let source = Memory::of(&objects);
    let receiver = Receiver::new();
    let error = copy(&source, &receiver.store, source.infos(), &[], &Silent).unwrap_err();
    assert!(matches!(error, Error::ReferenceCycle { .. }), "{error}");
    assert!(receiver.objects().is_empty());
}

#[test]
fn a_source_that_lies_about_a_nar_is_found_out_when_packing() {
    let mut object = output(b"right", &[]);
    object.nar = Wire::new().file(b"wrong").0;
    let source = Memory::of(std::slice::from_ref(&object));
    let options = PackOptions {
        set: "runtime".to_owned(),
        roots: Vec::new(),
        level: 1,
        sign_with: Vec::new(),
        prerequisites: Prerequisites::default(),
        ..PackOptions::default()
    };
    let bundle =
        BundleWriter::new(std::io::sink(), "test".to_owned(), StoreDir::default(), options);
    let error = copy(&source, &bundle, source.infos(), &[], &Silent).unwrap_err();
    assert!(matches!(&error, Error::WrongNarHash { path, .. } if *path == object.rendered()));
}
