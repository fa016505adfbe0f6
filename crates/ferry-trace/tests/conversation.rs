//! What is understood of a connection, whatever pieces its bytes come in.
#![allow(clippy::panic)]

use ferry_trace::protocol::{Conversation, Event, LostTrack, Operation, Outcome, Value};
use proptest::prelude::*;

const CLIENT: u64 = 0x6e69_7863;
const DAEMON: u64 = 0x6478_696f;
const LAST: u64 = 0x616c_7473;
const NEXT: u64 = 0x6f6c_6d67;
const READ: u64 = 0x6461_7461;
const ERROR: u64 = 0x6378_7470;

/// Bytes of one side.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn n(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn t(self, text: &str) -> Self {
        let mut this = self.n(text.len() as u64);
        this.0.extend_from_slice(text.as_bytes());
        this.0.resize(this.0.len().next_multiple_of(8), 0);
        this
    }

    fn texts(self, texts: &[&str]) -> Self {
        texts.iter().fold(self.n(texts.len() as u64), |this, text| this.t(text))
    }

    /// A stream in frames.
    fn frames(self, frames: &[&[u8]]) -> Self {
        let framed = frames.iter().fold(self, |this, frame| {
            let mut this = this.n(frame.len() as u64);
            this.0.extend_from_slice(frame);
            this
        });
        framed.n(0)
    }

    fn path_info(self) -> Self {
        let info = self.t("").t(&"0".repeat(64)).texts(&["/nix/store/r"]).n(1).n(120).n(0);
        info.texts(&["key:sig"]).t("text:sha256:x")
    }
}

/// One piece of a dialogue: who says it, and what the other side is to hear if that is something
/// else.
struct Said {
    by_client: bool,
    bytes: Vec<u8>,
    heard: Vec<u8>,
}

fn client(bytes: Bytes) -> Said {
    Said { by_client: true, heard: bytes.0.clone(), bytes: bytes.0 }
}

fn daemon(bytes: Bytes) -> Said {
    Said { by_client: false, heard: bytes.0.clone(), bytes: bytes.0 }
}

fn as_heard(said: Said, heard: Bytes) -> Said {
    Said { heard: heard.0, ..said }
}

fn bytes() -> Bytes {
    Bytes::default()
}

fn v(minor: u64) -> u64 {
    0x100 | minor
}

/// What both say before the first request, in versions without features.
fn greeting(minor: u64) -> Vec<Said> {
    let itself = if minor >= 35 { bytes().t("2.x").n(1) } else { bytes().t("2.x") };
    vec![
        client(bytes().n(CLIENT)),
        daemon(bytes().n(DAEMON).n(v(minor))),
        client(bytes().n(v(minor)).n(0).n(0)),
        daemon(Bytes([itself.0, bytes().n(NEXT).t("hello").n(LAST).0].concat())),
    ]
}

/// Both sides of a dialogue in pieces of `size` bytes: what was understood.
fn events(dialogue: &[Said], size: usize) -> Vec<Event> {
    let mut conversation = Conversation::new();
    let mut events = Vec::new();
    for said in dialogue {
        let mut heard = Vec::new();
        for piece in said.bytes.chunks(size) {
            let passed = match said.by_client {
                true => conversation.from_client(piece, &mut events),
                false => conversation.from_daemon(piece, &mut events),
            };
            heard.extend_from_slice(&passed);
        }
        assert!(heard == said.heard, "pieces of {size}: {heard:?} for {:?}", said.heard);
    }
    events
}

fn in_all_pieces(dialogue: &[Said]) -> Vec<Event> {
    let whole = events(dialogue, usize::MAX);
    for size in [1, 2, 3, 7, 8, 9, 64, 1000] {
        assert_eq!(events(dialogue, size), whole, "pieces of {size}");
    }
    whole
}

fn answered<'a>(events: &'a [Event], name: &str) -> (&'a [Value], &'a Outcome) {
    let found = events.iter().find_map(|event| match event {
        Event::Answered { operation, arguments, outcome } if operation.name == name => {
            Some((arguments.as_slice(), outcome))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no {name} in {events:?}"))
}

fn values(outcome: &Outcome) -> &[Value] {
    match outcome {
        Outcome::Reply { values, is_cut: false } => values,
        other => panic!("{other:?}"),
    }
}

fn nar() -> Vec<u8> {
    // A file that is called and that contains what looks like the end of a NAR.
    let file = bytes().t("(").t("type").t("regular").t("executable").t("").t("contents").t(")");
    let mut nar = bytes().t("nix-archive-1").t("(").t("type").t("directory");
    for (name, node) in [(")", file.t(")")), ("x", bytes().t("(").t("type").t("symlink"))] {
        nar = nar.t("entry").t("(").t("name").t(name).t("node");
        nar.0.extend_from_slice(&node.0);
        nar = if name == "x" { nar.t("target").t("(").t(")").t(")") } else { nar.t(")") };
    }
    nar.t(")").0
}

#[test]
fn requests_and_replies_are_understood_in_whatever_pieces_they_come() {
    for minor in 34..38 {
        let mut dialogue = greeting(minor);
        dialogue.extend([
            client(bytes().n(1).t("/nix/store/a")),
            daemon(bytes().n(LAST).n(1)),
            // Something added: its contents come while the daemon talks.
            client(bytes().n(7).t("name").t("fixed:r:sha256").texts(&[]).n(0)),
            daemon(bytes().n(NEXT).t("working")),
            client(bytes().frames(&[b"first", b"second piece"])),
            daemon(bytes().n(LAST).t("/nix/store/b-name").path_info()),
            // Options have no reply at all.
            client((0..12).fold(bytes().n(19), Bytes::n).n(1).t("cores").t("2")),
            daemon(bytes().n(LAST)),
            client(bytes().n(38).t("/nix/store/c")),
            daemon(Bytes([bytes().n(LAST).0, nar()].concat())),
            client(bytes().n(26).t("/nix/store/none")),
            daemon(bytes().n(LAST).n(0)),
            client(bytes().n(46).texts(&["/nix/store/d.drv!out"]).n(0)),
            daemon({
                let result = bytes().n(LAST).n(1).t("/nix/store/d.drv!out").n(0).t("");
                let result = result.n(1).n(0).n(7).n(9);
                let result = if minor >= 37 { result.n(1).n(77).n(0) } else { result };
                result.n(1).t("sha256:x!out").t("{}")
            }),
            client(bytes().n(9).texts(&["/nix/store/e.drv!*"]).n(0)),
            daemon(bytes().n(ERROR).t("Error").n(0).t("").t("it failed").n(0).n(1).n(0).t("while")),
            client(bytes().n(11).t("/nix/store/f")),
            daemon(bytes().n(LAST).n(1)),
        ]);
        let events = in_all_pieces(&dialogue);
        assert!(matches!(events[0], Event::Agreed(version) if u64::from(version.minor) == minor));
        let (arguments, outcome) = answered(&events, "AddToStore");
        assert_eq!(arguments[0].text(), Some(&b"name"[..]));
        assert_eq!(arguments.last(), Some(&Value::Bulk(17)));
        assert_eq!(values(outcome)[0].text(), Some(&b"/nix/store/b-name"[..]));
        assert_eq!(values(outcome).len(), 9);
        let (_, outcome) = answered(&events, "NarFromPath");
        assert_eq!(values(outcome), [Value::Bulk(nar().len() as u64)]);
        assert_eq!(values(answered(&events, "QueryPathInfo").1), [Value::Number(0)]);
        let built = values(answered(&events, "BuildPathsWithResults").1);
        assert_eq!(built[0].list()[0].text(), Some(&b"/nix/store/d.drv!out"[..]));
        assert_eq!(answered(&events, "BuildPaths").1, &Outcome::Error(b"it failed".to_vec()));
        assert_eq!(values(answered(&events, "AddTempRoot").1), [Value::Number(1)]);
        assert_eq!(events.len(), 9);
    }
}

#[test]
fn nobody_hears_of_a_version_or_a_feature_that_is_not_understood() {
    let by_path = "realisation-with-path-not-hash";
    for (theirs, known) in [(&["a", by_path][..], true), (&["a", "b"], false)] {
        let passed = || if known { bytes().texts(&[by_path]) } else { bytes().texts(&[]) };
        let hello = bytes().n(CLIENT).n(v(77));
        let dialogue = [
            as_heard(client(hello), bytes().n(CLIENT).n(v(39))),
            as_heard(daemon(bytes().n(DAEMON).n(v(50))), bytes().n(DAEMON).n(v(39))),
            as_heard(client(bytes().texts(theirs)), passed()),
            as_heard(daemon(bytes().texts(theirs)), passed()),
            client(bytes().n(0).n(0)),
            daemon(bytes().t("2.99").n(0).n(LAST)),
            client(if known {
                bytes().n(43).t("/nix/store/a.drv").t("out")
            } else {
                bytes().n(43).t("x!out")
            }),
            daemon(bytes().n(LAST).n(0)),
        ];
        let events = in_all_pieces(&dialogue);
        assert!(matches!(events[0], Event::Agreed(version)
            if version.minor == 39 && version.realisations_by_path == known));
        answered(&events, "QueryRealisation");
    }
}

#[test]
fn what_a_daemon_asks_for_while_it_works_is_no_request() {
    let mut dialogue = greeting(34);
    dialogue.extend([
        client(bytes().n(27)),
        daemon(bytes().n(READ).n(100)),
        client(bytes().t("one")),
        daemon(bytes().n(READ).n(100)),
        client(bytes().t("two")),
        daemon(bytes().n(LAST).texts(&["/nix/store/a"])),
        client(bytes().n(1).t("/nix/store/a")),
        daemon(bytes().n(LAST).n(1)),
    ]);
    let events = in_all_pieces(&dialogue);
    answered(&events, "ImportPaths");
    answered(&events, "IsValidPath");
}

#[test]
fn what_is_not_understood_is_passed_on_as_it_is() {
    let strange = |said: Said| vec![said, client(bytes().n(3)), daemon(bytes().n(4).t("x"))];
    let after_greeting = |said: Said| {
        let mut dialogue = greeting(37);
        dialogue.extend(strange(said));
        dialogue
    };
    let old = |minor| {
        vec![
            client(bytes().n(CLIENT)),
            daemon(bytes().n(DAEMON).n(v(minor))),
            client(bytes().n(v(38)).n(0).n(0)),
            daemon(bytes().n(77)),
        ]
    };
    for (dialogue, lost) in [
        (strange(client(bytes().n(1))), LostTrack::Client),
        (strange(daemon(bytes().n(1))), LostTrack::Daemon),
        (old(33), LostTrack::Version(v(33))),
        (old(0x100), LostTrack::Version(0x100)),
        (after_greeting(client(bytes().n(999).t("x"))), LostTrack::Operation(999)),
        (after_greeting(daemon(bytes().n(999).t("x"))), LostTrack::Message(999)),
        (after_greeting(daemon(bytes().n(LAST))), LostTrack::Unasked),
    ] {
        let events = in_all_pieces(&dialogue);
        assert_eq!(events.last(), Some(&Event::LostTrack(lost)));
    }
    let long = after_greeting(client(bytes().n(1).n(u64::MAX)));
    assert!(matches!(
        in_all_pieces(&long).last(),
        Some(Event::LostTrack(LostTrack::Malformed { what: "IsValidPath", .. }))
    ));
}

#[test]
fn what_has_no_end_is_not_kept() {
    let endless = bytes().n(2).n(1 << 40);
    let mut dialogue = vec![
        client(bytes().n(CLIENT).n(v(39))),
        daemon(bytes().n(DAEMON).n(v(39))),
        client(Bytes([endless.0, vec![7; 70_000]].concat())),
    ];
    let events = |dialogue: &[Said]| {
        let whole = events(dialogue, usize::MAX);
        assert_eq!(events(dialogue, 1), whole);
        whole
    };
    assert_eq!(events(&dialogue), [Event::LostTrack(LostTrack::Greeting)]);
    dialogue = greeting(37);
    let asked = (0..1001).fold(bytes(), |asked, _| asked.n(1).t("/nix/store/a"));
    dialogue.push(client(asked));
    dialogue.push(daemon(bytes().n(LAST).n(1)));
    assert_eq!(events(&dialogue)[1..], [Event::LostTrack(LostTrack::Unanswered)]);
}

#[test]
fn what_is_held_is_passed_on_when_the_other_side_is_no_longer_understood() {
    let dialogue = [
        client(bytes().n(CLIENT).n(v(39))),
        daemon(bytes().n(DAEMON).n(v(39))),
        client(bytes().n(0).n(0).n(0)),
        as_heard(daemon(bytes().n(2)), bytes()),
        client(bytes().n(999)),
        as_heard(daemon(bytes().t("a").t("b")), bytes().n(2).t("a").t("b")),
        daemon(bytes().t("2.99")),
    ];
    assert_eq!(events(&dialogue, usize::MAX), [Event::LostTrack(LostTrack::Operation(999))]);
    assert_eq!(events(&dialogue, 1), events(&dialogue, usize::MAX));
}

#[test]
fn every_operation_has_a_number_of_its_own() {
    let all = ferry_trace::protocol::operations::ALL;
    for operation in all {
        assert_eq!(Operation::find(operation.number), Some(operation));
    }
}

proptest! {
    /// Whatever comes, nothing panics, and what is passed on has everything that came but for the
    /// greeting.
    #[test]
    fn nothing_that_comes_is_lost(
        pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
        minor in 34_u64..38,
    ) {
        let mut conversation = Conversation::new();
        let mut events = Vec::new();
        for said in greeting(minor) {
            match said.by_client {
                true => conversation.from_client(&said.bytes, &mut events),
                false => conversation.from_daemon(&said.bytes, &mut events),
            };
        }
        for (by_client, piece) in pieces {
            let passed = match by_client {
                true => conversation.from_client(&piece, &mut events),
                false => conversation.from_daemon(&piece, &mut events),
            };
            prop_assert_eq!(&*passed, &*piece);
        }
    }
}
