//! References graphs, made up: all forms say the same, and damage is found where it is.

use ferry_formats::{NarHash, StoreDir};
use ferry_graph::Kind;
use ferry_store::facts::{ReferencesGraph, ReferencesGraphError};
use serde_json::{Value, json};

use crate::support::{self, explorer, path, run_closure, text};

/// The paths of all the graphs below, with what they refer to.
const PATHS: [(&str, &[&str]); 3] = [("a", &[]), ("b", &["a", "b"]), ("c", &["a", "b"])];

fn plain() -> String {
    let one = |(name, references): (&str, &[&str])| {
        let references: String = references.iter().map(|name| text(name) + "\n").collect();
        format!("{}\n\n{}\n{references}", text(name), references.lines().count())
    };
    PATHS.into_iter().map(one).collect()
}

fn with_hashes(hash: &str) -> String {
    let one = |(name, references): (&str, &[&str])| {
        let references: String = references.iter().map(|name| text(name) + "\n").collect();
        let count = references.lines().count();
        format!("{}\n{hash}\n1000\n\n{count}\n{references}", text(name))
    };
    PATHS.into_iter().map(one).collect()
}

/// The list that an attribute of `.attrs.json` has.
fn list() -> Value {
    let hash = NarHash::of(b"");
    PATHS
        .into_iter()
        .map(|(name, references)| {
            let references: Vec<String> = references.iter().map(|name| text(name)).collect();
            json!({
                "path": text(name), "references": references, "narSize": 1000, "valid": true,
                "narHash": hash.to_string(), "closureSize": 1, "fromTheFuture": {},
            })
        })
        .collect()
}

fn parse(bytes: impl AsRef<[u8]>) -> Result<ReferencesGraph, ReferencesGraphError> {
    ReferencesGraph::parse("the/file", bytes.as_ref(), &StoreDir::default())
}

fn refused(bytes: impl AsRef<[u8]>) -> String {
    let message = parse(bytes).unwrap_err().to_string();
    assert!(message.starts_with("the/file"), "{message}");
    message
}

/// What a graph says: paths with references, and whether it has sizes.
fn contents(graph: &ReferencesGraph) -> (Vec<(String, Vec<String>)>, bool) {
    let store_dir = StoreDir::default();
    let render = |path| store_dir.render_path(path);
    let entries = graph.entries().iter();
    let sizes = graph.entries().iter().all(|entry| entry.nar_size == Some(1000));
    let said = entries.map(|entry| {
        assert_eq!(entry.deriver, None);
        (render(&entry.path), entry.references.iter().map(render).collect())
    });
    (said.collect(), sizes)
}

#[test]
fn every_form_says_the_same() {
    let expected: Vec<(String, Vec<String>)> = PATHS
        .into_iter()
        .map(|(name, references)| (text(name), references.iter().map(|name| text(name)).collect()))
        .collect();
    let hash = NarHash::of(b"");
    let attributes = json!({
        "exportReferencesGraph": {"one": [text("c")], "two": [text("a")]},
        "one": list(), "two": [list()[0]], "name": "x", "outputs": {"out": "/1rz4"},
    });
    for (form, has_sizes) in [
        (plain(), false),
        // Hashes as Nix writes them, and as closureInfo does.
        (with_hashes(&hash.to_base16()), true),
        (with_hashes(&hash.to_string()), true),
        (list().to_string(), true),
        (attributes.to_string(), true),
        (format!("\n {attributes:#}\n"), true),
        // Two graphs in one file.
        (plain() + &plain(), false),
    ] {
        assert_eq!(contents(&parse(&form).unwrap()), (expected.clone(), has_sizes), "{form}");
    }
}

#[test]
fn it_answers_from_what_it_has_and_no_more() {
    let graph = parse(plain()).unwrap();
    let mut explorer = explorer(graph);
    let (closure, missing) = run_closure(&mut explorer, &[path("c"), path("elsewhere")]);
    assert_eq!(closure, ["a", "b", "c", "elsewhere"].map(text).into());
    assert!(missing.len() == 1 && missing[0].contains(&text("elsewhere")), "{missing:?}");
    assert_eq!(explorer.everything().unwrap().len(), 3);

    // An empty line where a deriver would be does not say that there is none.
    let node = explorer.node(&path("a"));
    explorer.immediate(Kind::Build, &[node].into_iter().collect()).unwrap();
    let missing = support::missing(&explorer);
    assert!(missing.iter().any(|said| said.contains("no deriver")), "{missing:?}");
}

#[test]
fn a_deriver_is_taken_where_there_is_one() {
    let deriver = text("x.drv");
    let dumped = plain().replacen("\n\n", &format!("\n{deriver}\n"), 1);
    assert_eq!(parse(dumped).unwrap().entries()[0].deriver, Some(path("x.drv")));
    let mut value = list();
    value[0]["deriver"] = deriver.into();
    value[1]["deriver"] = Value::Null;
    let entries = parse(value.to_string()).unwrap().entries().to_vec();
    assert_eq!(entries[0].deriver, Some(path("x.drv")));
    assert_eq!(entries[1].deriver, None);
}

#[test]
fn json_says_what_is_content_addressed_and_text_does_not() {
    let mut value = list();
    let ca = "text:sha256:0000000000000000000000000000000000000000000000000000";
    value[0]["ca"] = ca.into();
    value[1]["ca"] = Value::Null;
    let said = |graph: ReferencesGraph| -> Vec<Option<bool>> {
        graph.entries().iter().map(|entry| entry.content_addressed).collect()
    };
    assert_eq!(said(parse(value.to_string()).unwrap()), [Some(true), Some(false), Some(false)]);
    assert_eq!(said(parse(plain()).unwrap()), [None; 3]);
    let stated = |value: &Value| {
        let entry = parse(value.to_string()).unwrap().entries()[0].clone();
        (entry.content_addressed, entry.ca.map(|ca| ca.to_string()))
    };
    assert_eq!(stated(&value), (Some(true), Some(ca.to_owned())));
    // In a form that is not known: how, nobody can tell.
    value[0]["ca"] = json!({"method": "text"});
    assert_eq!(stated(&value), (Some(true), None));
}

#[test]
fn a_path_that_is_not_valid_is_not_known() {
    let invalid = json!([{"path": text("a"), "valid": false}]);
    assert!(parse(invalid.to_string()).unwrap().entries().is_empty());
    assert!(parse("").unwrap().entries().is_empty());
    assert!(parse("[]").unwrap().entries().is_empty());
}

#[test]
fn a_file_that_was_cut_short_anywhere_is_refused() {
    for whole in [plain(), with_hashes(&NarHash::of(b"").to_base16()), list().to_string()] {
        let entries = parse(&whole).unwrap().entries().len();
        for end in 1..whole.len() {
            match parse(&whole[..end]) {
                Err(error) => assert!(error.to_string().starts_with("the/file, line "), "{error}"),
                // Between two paths nothing shows.
                Ok(graph) => {
                    assert!(graph.entries().len() < entries && whole[..end].ends_with('\n'));
                    assert!(whole[end..].starts_with('/'), "cut after {end} bytes");
                }
            }
        }
    }
}

#[test]
fn a_line_that_does_not_belong_is_named_with_its_number() {
    let hashes = with_hashes(&NarHash::of(b"").to_base16());
    let long = format!("{}\n", "x".repeat(1 << 20));
    for (text, line, said) in [
        ("hello\n".to_owned(), 1, "`hello`"),
        (plain().replacen("\n\n0\n", "\n\nmany\n", 1), 3, "number of references"),
        (plain().replacen("\n\n0\n", "\n\n99999999999\n", 1), 5, "reference"),
        (plain().replacen("\n\n0\n", "\n\n-1\n", 1), 3, "`-1`"),
        (plain().replace("/nix/store", "/gnu/store"), 1, "store path"),
        (hashes.replacen("1000", "big", 1), 3, "NAR size"),
        (hashes.replacen("e3b0c", "xxxxx", 1), 2, "NAR hash"),
        (long, 1, "store path"),
        (format!("{}\n\u{1b}[2J\n", text("a")), 2, r"\u{1b}[2J"),
    ] {
        let message = refused(&text);
        assert!(message.contains(&format!("line {line}:")) && message.contains(said), "{message}");
        assert!(message.len() < 600 && !message.contains('\u{1b}'), "{message}");
    }
}

#[test]
fn a_value_that_does_not_belong_is_named_with_its_place() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut value = json!({"exportReferencesGraph": {"closure": []}, "closure": list()});
        change(&mut value);
        value.to_string()
    };
    for (text, place) in [
        (
            with(&|value| value["closure"][2]["references"][1] = json!(7)),
            "closure[2].references[1]",
        ),
        (
            with(&|value| value["closure"][2]["references"][0] = json!("x")),
            "closure[2].references[0]",
        ),
        (with(&|value| value["closure"][1]["references"] = json!({})), "closure[1].references"),
        (with(&|value| value["closure"][1]["narSize"] = json!(-1)), "closure[1].narSize"),
        (with(&|value| value["closure"][0]["deriver"] = json!([])), "closure[0].deriver"),
        (with(&|value| value["closure"][0] = json!(null)), "closure[0]"),
        (with(&|value| value["closure"] = json!({})), "closure"),
        (with(&|value| value["exportReferencesGraph"] = json!([])), "exportReferencesGraph"),
        (r#"{"exportReferencesGraph":{"lost":[]}}"#.to_owned(), "lost"),
        (r#"[{"references":[]}]"#.to_owned(), "[0].path"),
        ("{}".to_owned(), "the top"),
    ] {
        let message = refused(&text);
        assert!(message.contains(&format!("at {place}: ")), "no {place} in {message}");
    }
    assert!(refused("[\n{]").contains("line 2"));
    // Deeper than any parser's stack.
    refused("[".repeat(1 << 20));
}

#[test]
fn two_accounts_of_one_path_are_refused() {
    let other = format!("{}\n\n1\n{}\n", text("a"), text("b"));
    let error = parse(plain() + &other).unwrap_err();
    assert!(
        matches!(&error, ReferencesGraphError::Contradiction { path, .. } if *path == text("a"))
    );
}
