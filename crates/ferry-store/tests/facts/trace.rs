//! Recorded evaluations: what they say, and what is wrong with those that were damaged.

use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use ferry_formats::{NarHash, StoreDir};
use ferry_graph::{Explorer, Kind, NodeSet};
use ferry_store::facts::{
    Added, EntryKind, Need, OutputOf, Outside, Recorded, Trace, TraceError, TraceHeader,
    Unfinished, Warning, Why,
};

use crate::support::{explorer, parse as path};

/// A file of `tests/traces`.
fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/traces", name].iter().collect()
}

fn read(name: &str, unfinished: Unfinished) -> Result<Trace, TraceError> {
    Trace::read(&fixture(name), &StoreDir::default(), unfinished)
}

fn parse(text: &[u8], unfinished: Unfinished) -> Result<Trace, TraceError> {
    Trace::parse("the/file", text, &StoreDir::default(), unfinished)
}

const RELEASE: &str = "/nix/store/1y1qs1qs1qs1qs1qs1qs1qs1qs1qs1qs-release.drv";
const SOURCE: &str = "/nix/store/2bfz2bfz2bfz2bfz2bfz2bfz2bfz2bfz-source";
const BUILDER: &str = "/nix/store/3xz33xz33xz33xz33xz33xz33xz33xz3-builder.sh";
const NAMES: &str = "/nix/store/4kcp4kcp4kcp4kcp4kcp4kcp4kcp4kcp-names.json";
const NAMES_DRV: &str = "/nix/store/5vjw5vjw5vjw5vjw5vjw5vjw5vjw5vjw-names.json.drv";
const LATER: &str = "/nix/store/6l6l6l6l6l6l6l6l6l6l6l6l6l6l6l6l-later";

const HEADER: &str = "{\"ferryTrace\":1,\"storeDir\":\"/nix/store\"}\n";
const END: &str = "{\"end\":true,\"complete\":true}\n";

fn rendered(explorer: &Explorer<'_>, set: &NodeSet) -> Vec<String> {
    let mut paths: Vec<String> = set.iter().map(|node| explorer.graph().render(node)).collect();
    paths.sort();
    paths
}

#[test]
fn a_whole_trace_says_all_that_it_holds() {
    let trace = read("whole.jsonl", Unfinished::Refuse).unwrap();
    let header = trace.header();
    assert_eq!(header.evaluator.as_deref(), Some("nix-instantiate (Nix) 2.26.3"));
    assert_eq!(header.command, ["nix-instantiate", "release.nix", "-A", "top"]);
    assert_eq!(header.protocol.as_deref(), Some("1.38"));
    assert_eq!(header.system.as_deref(), Some("x86_64-linux"));
    assert_eq!(header.recorder, None);
    assert!(trace.is_complete() && trace.incomplete_reasons().is_empty());
    assert_eq!(trace.roots(), [path(RELEASE)]);

    let needs: Vec<(String, &str)> = trace
        .needs()
        .iter()
        .map(|need| (StoreDir::default().render_path(&need.path), need.why.as_str()))
        .collect();
    let expected = [
        (SOURCE, "fetch"),
        (SOURCE, "nix-file"),
        (BUILDER, "source"),
        (NAMES, "import-from-derivation"),
        (LATER, "telepathy"),
    ];
    assert_eq!(needs, expected.map(|(path, why)| (path.to_owned(), why)));
    let [fetch, _, _, names, later] = trace.needs() else { panic!("five needs") };
    assert_eq!(fetch.url.as_deref(), Some("https://example.org/nixpkgs.tar.gz"));
    let output_of = names.output_of.as_ref().unwrap();
    assert_eq!(
        (&output_of.derivation, &output_of.outputs[..]),
        (&path(NAMES_DRV), &["out".to_owned()][..])
    );
    assert_eq!(later.why, Why::Other("telepathy".to_owned()));
    let [outside] = trace.outside() else { panic!("one thing outside") };
    assert_eq!((outside.what.as_str(), &outside.why), ("/home/user/release.nix", &Why::NixFile));
}

#[test]
fn it_answers_for_its_roots_and_for_nothing_else() {
    let mut explorer = explorer(read("whole.jsonl", Unfinished::Refuse).unwrap());
    let root: NodeSet = [explorer.node(&path(RELEASE))].into_iter().collect();
    let needs = explorer.immediate(Kind::Eval, &root).unwrap();
    assert_eq!(rendered(&explorer, &needs), [SOURCE, BUILDER, NAMES, LATER]);
    let fragments = explorer.fragments(&root).unwrap();
    assert_eq!(rendered(&explorer, &fragments), [NAMES]);

    let other: NodeSet = [explorer.node(&path(NAMES_DRV))].into_iter().collect();
    assert!(explorer.immediate(Kind::Eval, &other).unwrap().is_empty());
}

#[test]
fn a_root_does_not_need_itself() {
    let need = format!("{{\"need\":\"{RELEASE}\",\"why\":\"import-from-derivation\"}}\n");
    let roots = [RELEASE, NAMES_DRV].map(|path| format!("{{\"root\":\"{path}\"}}\n")).concat();
    let text = format!("{HEADER}{need}{roots}{END}");
    let mut explorer = explorer(parse(text.as_bytes(), Unfinished::Refuse).unwrap());
    for (root, expected) in [(RELEASE, vec![]), (NAMES_DRV, vec![RELEASE])] {
        let root: NodeSet = [explorer.node(&path(root))].into_iter().collect();
        let needs = explorer.immediate(Kind::Eval, &root).unwrap();
        assert_eq!(rendered(&explorer, &needs), expected);
        let fragments = explorer.fragments(&root).unwrap();
        assert_eq!(rendered(&explorer, &fragments), expected);
    }
}

#[test]
fn it_knows_what_made_an_output_that_was_built_for_it() {
    let mut explorer = explorer(read("whole.jsonl", Unfinished::Refuse).unwrap());
    let names: NodeSet = [explorer.node(&path(NAMES))].into_iter().collect();
    let derivers = explorer.derivers(&names).unwrap();
    assert_eq!(rendered(&explorer, &derivers), [NAMES_DRV]);
}

#[test]
fn what_is_incomplete_says_so_and_why() {
    let trace = read("incomplete.jsonl", Unfinished::Refuse).unwrap();
    assert!(!trace.is_complete());
    assert_eq!(trace.incomplete_reasons(), ["operation 48 of protocol 1.39 is not known"]);
    assert_eq!(trace.needs().len(), 1);
    // Whatever the last line says: what the recorder noted on the way counts.
    let text = format!("{HEADER}{{\"incomplete\":\"why\"}}\n{END}");
    assert!(!parse(text.as_bytes(), Unfinished::Refuse).unwrap().is_complete());
    let text = format!("{HEADER}{{\"end\":true,\"complete\":false}}\n");
    assert!(!parse(text.as_bytes(), Unfinished::Refuse).unwrap().is_complete());
}

#[test]
fn what_was_cut_short_is_refused_unless_it_is_wanted() {
    let error = read("truncated.jsonl", Unfinished::Refuse).unwrap_err();
    assert!(matches!(error, TraceError::Truncated { line: 3, offset: 198, .. }), "{error:?}");
    assert!(error.to_string().contains("after 3 lines (198 bytes)"), "{error}");
    let trace = read("truncated.jsonl", Unfinished::Accept).unwrap();
    assert!(!trace.is_complete());
    assert_eq!(trace.needs().len(), 2);
}

#[test]
fn wherever_it_is_cut_it_is_no_whole_trace() {
    let whole = std::fs::read(fixture("whole.jsonl")).unwrap();
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap();
    // The last newline carries nothing.
    assert!(parse(&whole[..whole.len() - 1], Unfinished::Refuse).unwrap().is_complete());
    for end in 0..whole.len() - 1 {
        let strict = parse(&whole[..end], Unfinished::Refuse);
        let lenient = parse(&whole[..end], Unfinished::Accept);
        if end < header {
            assert!(matches!(strict, Err(TraceError::NotATrace { .. })), "{end}");
            assert!(lenient.is_err(), "{end}");
        } else {
            assert!(matches!(strict, Err(TraceError::Truncated { .. })), "{end}: {strict:?}");
            assert!(!lenient.unwrap().is_complete(), "{end}");
        }
    }
}

#[test]
fn lines_that_were_lost_in_the_middle_are_noticed() {
    let whole = std::fs::read_to_string(fixture("whole.jsonl")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for lost in 1..lines.len() - 1 {
        let text: Vec<&str> =
            lines.iter().enumerate().filter(|(i, _)| *i != lost).map(|(_, line)| *line).collect();
        let error = parse(text.join("\n").as_bytes(), Unfinished::Accept).unwrap_err();
        assert!(error.to_string().contains("lines between"), "{error}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut fetched = Need::new(path(SOURCE), Why::Fetch);
    fetched.url = Some("https://example.org/a \u{1f6a2}\n\"b\"".to_owned());
    fetched.rev = Some("0123".to_owned());
    let mut imported = Need::new(path(NAMES), Why::ImportFromDerivation);
    let outputs = vec!["out".to_owned(), "dev".to_owned()];
    imported.output_of = Some(OutputOf { derivation: path(NAMES_DRV), outputs });
    let mut input = Need::new(path(LATER), Why::FlakeInput);
    input.node = Some("nixpkgs_2".to_owned());
    let from = Some("/home/user/builder.sh".to_owned());
    let mut source = Outside::new("/home/user/source".to_owned(), Why::Source);
    source.copy = Some(path(SOURCE));
    let mut file = Outside::new("/home/user/release.nix".to_owned(), Why::NixFile);
    file.nar_hash = Some(NarHash::of(b"nar"));
    let mut directory = Outside::new("/home/user/modules".to_owned(), Why::Directory);
    let entries = [("a \"b\"", EntryKind::Regular), ("c", EntryKind::Directory)];
    directory.entries = Some(entries.map(|(name, kind)| (name.to_owned(), kind)).into());
    let mut empty = Outside::new("/home/user/none".to_owned(), Why::Directory);
    empty.entries = Some([].into());
    let recorded = Recorded {
        header: TraceHeader {
            evaluator: Some("nix-instantiate (Nix) 2.26.3".to_owned()),
            command: vec!["nix-instantiate".to_owned(), "-A".to_owned(), String::new()],
            working_directory: Some("/home/user".to_owned()),
            environment: [("NIX_PATH".to_owned(), "a=/b:/c".to_owned())].into(),
            protocol: Some("1.38".to_owned()),
            system: Some("x86_64-linux".to_owned()),
            recorder: None,
        },
        roots: vec![path(RELEASE)],
        needs: vec![fetched, imported, input],
        added: vec![Added { path: path(BUILDER), why: Why::Text, from }],
        outside: vec![
            source,
            file,
            directory,
            empty,
            Outside::new("/home/user/read".to_owned(), Why::File),
            Outside::new("/home/user/there".to_owned(), Why::Exists),
            Outside::new("nix/gitv3/x".to_owned(), Why::FetcherCache),
        ],
        warnings: vec![Warning {
            text: "what time is it?".to_owned(),
            why: "current-time".to_owned(),
        }],
        incomplete: Vec::new(),
    };
    let write = |recorded: &Recorded| {
        let mut written = Vec::new();
        recorded.write_to(&mut written, &StoreDir::default()).unwrap();
        written
    };
    let trace = parse(&write(&recorded), Unfinished::Refuse).unwrap();
    assert_eq!(trace.recorded(), &recorded);
    assert!(trace.is_complete());
    let missed = Recorded { incomplete: vec!["a line".to_owned()], ..recorded };
    let trace = parse(&write(&missed), Unfinished::Refuse).unwrap();
    assert_eq!(trace.recorded(), &missed);
    assert!(!trace.is_complete());

    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("new/x.trace");
    missed.write(&place, &StoreDir::default()).unwrap();
    assert_eq!(std::fs::read(&place).unwrap(), write(&missed));
    assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_a_later_version_may_add_is_passed_over() {
    let text = format!(
        "{{\"ferryTrace\":1,\"storeDir\":\"/nix/store\",\"mood\":[],\"evaluator\":null}}\n\
         {{\"weather\":{{\"why\":3}}}}\n\
         {{\"need\":\"{SOURCE}\",\"why\":\"fetch\",\"colour\":{{}}}}\n\
         {{\"need\":\"{SOURCE}\",\"why\":\"fetch\",\"colour\":[]}}\n{END}"
    );
    let trace = parse(text.as_bytes(), Unfinished::Refuse).unwrap();
    assert_eq!(trace.needs().len(), 1);
}

#[test]
fn another_version_or_another_store_is_refused() {
    for version in ["2", "0", "\"1\"", "1.5", "-1", "null"] {
        let text = HEADER.replace("1,", &format!("{version},"));
        let error = parse((text + END).as_bytes(), Unfinished::Accept).unwrap_err();
        assert!(matches!(&error, TraceError::UnknownVersion { found, .. } if found == version));
    }
    let text = HEADER.replace("/nix/store", "/gnu/store") + END;
    let error = parse(text.as_bytes(), Unfinished::Accept).unwrap_err();
    assert!(matches!(&error, TraceError::OtherStore { found, .. } if found == "/gnu/store"));
}

#[test]
fn what_is_no_trace_is_refused_as_such() {
    for text in ["", "\n", "hello\n", "{}\n", "[1]\n", "\u{feff}{\"ferryTrace\":1}\n"] {
        let error = parse(text.as_bytes(), Unfinished::Accept).unwrap_err();
        assert!(matches!(error, TraceError::NotATrace { .. }), "{text:?}: {error}");
    }
    let error = read("no-such-file.jsonl", Unfinished::Accept).unwrap_err();
    assert!(matches!(&error, TraceError::Io { file, .. } if file.ends_with("no-such-file.jsonl")));
}

#[test]
fn a_bad_line_is_named_with_its_number_and_its_place_in_the_file() {
    let first = format!("{{\"need\":\"{SOURCE}\",\"why\":\"fetch\"}}\n");
    let offset = HEADER.len() + first.len();
    let with_entries = |entries: &str| {
        format!("{{\"outside\":\"/d\",\"why\":\"directory\",\"entries\":{entries}}}")
    };
    for (bad, said) in [
        ("hello".to_owned(), "JSON"),
        ("[]".to_owned(), "JSON"),
        (String::new(), "JSON"),
        (format!("{{\"need\":\"{SOURCE}\"}}"), "`why`"),
        (format!("{{\"need\":\"{SOURCE}\",\"why\":1}}"), "`why`"),
        (format!("{{\"need\":\"{SOURCE}\",\"why\":\"fetch\",\"url\":1}}"), "`url`"),
        (format!("{{\"need\":\"{SOURCE}/file\",\"why\":\"fetch\"}}"), "`need`"),
        ("{\"root\":\"x\\u001b[2J\"}".to_owned(), r"x\u{1b}[2J"),
        ("{\"root\":7}".to_owned(), "`root`"),
        (format!("{{\"root\":\"{SOURCE}\",\"need\":\"{SOURCE}\"}}"), "both"),
        (
            format!("{{\"need\":\"{SOURCE}\",\"why\":\"fetch\",\"outputOf\":\"{SOURCE}^out\"}}"),
            "`outputOf`",
        ),
        (
            format!("{{\"need\":\"{SOURCE}\",\"why\":\"fetch\",\"outputOf\":\"{NAMES_DRV}^\"}}"),
            "`outputOf`",
        ),
        (with_entries("[]"), "`entries`"),
        (with_entries("{\"a\":\"fifo\"}"), "`entries`"),
        (with_entries("{\"..\":\"directory\"}"), "`entries`"),
        (with_entries("{\"a/b\":\"regular\"}"), "`entries`"),
        (with_entries("{\"\":\"regular\"}"), "`entries`"),
        ("{\"end\":true}".to_owned(), "`complete`"),
        ("{\"end\":false,\"complete\":true}".to_owned(), "`end`"),
        (HEADER.trim_end().to_owned(), "second trace"),
        (format!("{END}{END}"), "follows"),
        (
            format!("{{\"outside\":\"{}\",\"why\":\"x\"}}", "x".repeat(1 << 20)),
            "longer than 1048576",
        ),
    ] {
        let text = format!("{HEADER}{first}{bad}\n{END}");
        let error = parse(text.as_bytes(), Unfinished::Accept).unwrap_err();
        let message = error.to_string();
        let TraceError::Line { line, offset: found, .. } = error else { panic!("{message}") };
        let second_of_two = u64::from(bad.starts_with(END.trim_end()));
        let skipped = second_of_two * END.len() as u64;
        assert_eq!((line, found), (3 + second_of_two, offset as u64 + skipped), "{message}");
        assert!(message.starts_with("the/file, line ") && message.contains(said), "{message}");
        assert!(message.len() < 600 && !message.contains('\u{1b}'), "{message}");
    }
}

/// The same line for ever.
struct Endless {
    line: Vec<u8>,
    place: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in &mut *buffer {
            *byte = self.line[self.place];
            self.place = (self.place + 1) % self.line.len();
        }
        Ok(buffer.len())
    }
}

#[test]
fn a_file_without_end_is_refused() {
    for line in ["{}\n", "x"] {
        let endless = Endless { line: line.into(), place: 0 };
        let input = BufReader::new(HEADER.as_bytes().chain(endless));
        let error = Trace::parse("the/file", input, &StoreDir::default(), Unfinished::Accept);
        assert!(matches!(error, Err(TraceError::Line { .. })), "{line:?}");
    }
}
