//! NARs that are made to do harm, with every hash right.

use ferry_store::Error;

use crate::builder::Draft;
use crate::objects::{Object, any_path};
use crate::receiver::refused_because;
use crate::wire::Wire;

/// A bundle of one object with this NAR.
fn bundle(nar: Wire) -> Vec<u8> {
    Draft::of(&[Object::output(&any_path("hostile", "hostile"), nar.0, &[])]).build()
}

#[track_caller]
fn malformed(nar: Wire) {
    let error = refused_because(&bundle(nar), "-hostile");
    assert!(matches!(error, Error::MalformedNar { .. }), "{error:?}");
}

fn file(wire: Wire) -> Wire {
    wire.file(b"x")
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let long = vec![b'x'; 256];
    let names: [&[u8]; 11] = [
        b"..",
        b".",
        b"",
        b"/",
        b"/etc/passwd",
        b"../canary",
        b"a/../../canary",
        b"a/b",
        b"a\0",
        b"\0",
        &long,
    ];
    for name in names {
        malformed(Wire::new().directory(|inside| inside.entry(name, file)));
        malformed(Wire::new().directory(|inside| {
            inside.entry(b"a", |node| node.directory(|inside| inside.entry(name, file)))
        }));
        malformed(Wire::new().directory(|inside| {
            inside.entry(name, |node| node.directory(|inside| inside.entry(b"a", file)))
        }));
    }
}

#[test]
fn names_twice_or_out_of_order_are_refused() {
    for (first, second) in [("a", "a"), ("b", "a"), ("a.b", "a"), ("a", "B")] {
        malformed(Wire::new().directory(|inside| {
            inside.entry(first.as_bytes(), file).entry(second.as_bytes(), file)
        }));
    }
}

#[test]
fn nothing_goes_through_a_link() {
    for target in [&b".."[..], b"/", b"../../../canary", b"."] {
        malformed(Wire::new().directory(|inside| {
            inside
                .entry(b"a", |node| node.symlink(target))
                .entry(b"a", |node| node.directory(|inside| inside.entry(b"canary", file)))
        }));
        malformed(Wire::new().directory(|inside| {
            inside.entry(b"a", |node| node.symlink(target)).entry(b"a/canary", file)
        }));
    }
}

#[test]
fn link_targets_that_no_link_can_have_are_refused() {
    for target in [&b""[..], b"a\0b", &[b'x'; 4096]] {
        malformed(Wire::new().symlink(target));
    }
}

#[test]
fn nesting_without_end_is_refused() {
    for depth in [65, 1000, 100_000] {
        let mut wire = Wire::new();
        for _ in 0..depth {
            wire = wire.words(&["(", "type", "directory", "entry", "(", "name", "d", "node"]);
        }
        wire = wire.file(b"");
        for _ in 0..depth {
            wire = wire.words(&[")", ")"]);
        }
        malformed(wire);
    }
}

/// Adds a length that nothing follows.
fn length(mut wire: Wire, length: u64) -> Wire {
    wire.0.extend(length.to_le_bytes());
    wire
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for huge in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, 1 << 32] {
        malformed(length(Wire(Vec::new()), huge));
        malformed(length(Wire::new(), huge));
        malformed(length(Wire::new().words(&["("]), huge));
        malformed(length(Wire::new().words(&["(", "type", "regular", "contents"]), huge));
        malformed(length(Wire::new().words(&["(", "type", "symlink", "target"]), huge));
        let entry = ["(", "type", "directory", "entry", "(", "name"];
        malformed(length(Wire::new().words(&entry), huge));
        // The same with something behind it.
        let contents = length(Wire::new().words(&["(", "type", "regular", "contents"]), huge);
        malformed(contents.word(&[b'x'; 1000]));
    }
}

#[test]
fn words_that_the_format_does_not_have_are_refused() {
    let lists: [&[&str]; 12] = [
        &["(", "type", "device", ")"],
        &["(", "type", "Regular", ")"],
        &["(", "type", "regular", ")"],
        &["(", "type", "regular", "executable", "", "executable", "", "contents", "x", ")"],
        &["(", "type", "regular", "executable", "yes", "contents", "x", ")"],
        &["(", "type", "regular", "contents", "x", "contents", "y", ")"],
        &["(", "type", "regular", "contents", "x", "executable", "", ")"],
        &["(", "type", "regular", "type", "symlink", "target", "x", ")"],
        &["(", "type", "symlink", ")"],
        &["(", "type", "symlink", "target", "x", "target", "y", ")"],
        &["(", "type", "directory", "entry", "(", "node", "(", "type", "regular", ")", ")", ")"],
        &["(", "type", "directory", "entry", "(", "name", "x", ")", ")"],
    ];
    for words in lists {
        malformed(Wire::new().words(words));
    }
    malformed(Wire(Vec::new()).word(b"nix-archive-2").file(b""));
    malformed(Wire(Vec::new()).file(b""));
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let honest = Wire::new().file(b"padded").0;
    let at = honest.windows(6).position(|bytes| bytes == b"padded").unwrap() + 6;
    for place in at..at + 2 {
        let mut nar = honest.clone();
        nar[place] = 1;
        malformed(Wire(nar));
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    for more in [&[0; 1][..], &[0; 8], b"trailing"] {
        let mut wire = Wire::new().file(b"x");
        wire.0.extend(more);
        malformed(wire);
    }
    malformed(Wire::new().file(b"x").words(&[")"]));
    let twice = [Wire::new().file(b"x").0, Wire::new().file(b"y").0].concat();
    malformed(Wire(twice));
}

#[test]
fn a_nar_that_ends_early_is_refused_wherever_it_does() {
    let whole = Wire::new()
        .directory(|inside| {
            inside
                .entry(b"bin", |node| node.directory(|inside| inside.entry(b"x", file)))
                .entry(b"link", |node| node.symlink(b"bin/x"))
        })
        .0;
    for length in (0..whole.len()).step_by(8).chain([1, 7, whole.len() - 1]) {
        malformed(Wire(whole[..length].to_vec()));
    }
}
