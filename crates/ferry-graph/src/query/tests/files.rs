//! Queries of several texts, and the named sets in them.

use crate::query::{
    NamedSet, Program, QueryError, Source, named_set_definitions, named_sets, parse,
    parse_definitions,
};

fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(name, text)| Source::new(name, text)).collect()
}

fn program(files: &[(&str, &str)]) -> Result<Program, QueryError> {
    parse(&sources(files))
}

fn mistake(files: &[(&str, &str)]) -> String {
    program(files).expect_err("a mistake").render()
}

#[test]
fn a_text_sees_what_those_before_it_define() {
    assert!(program(&[("a", "let f(x) = x; set s(x) = f(x);"), ("b", "set(s, f(y))")]).is_ok());
    assert!(program(&[("a", "f(y)"), ("b", "let f(x) = x;")]).is_err());
    assert!(program(&[("a", "let f(x) = f(x); f(y)")]).is_err());
    // A value sees only what stands above it; here `b` is an installable.
    assert!(program(&[("a", "let a = b; let b = c; a")]).is_ok());
}

#[test]
fn an_expression_may_stand_in_any_of_the_texts_but_in_one_only() {
    assert!(program(&[("a", "x"), ("b", "let y = z;")]).is_ok());
    assert_eq!(
        mistake(&[("a.query", "let x = a;\nx"), ("b.query", "\nrun(x)")]),
        "\
this is the second expression of the query
 --> b.query:2:1
  |
2 | run(x)
  | ^^^^^^
  |
 ::: a.query:2:1
  |
2 | x
  | - the first one
  |
  = help: a query has one; give names to the others: `let NAME = …;`",
    );
}

#[test]
fn a_name_given_twice_is_shown_in_both_texts() {
    assert_eq!(
        mistake(&[("a.query", "set s(x) = x;"), ("b.query", "\nset s(y) = y;")]),
        "\
`s` is defined twice
 --> b.query:2:5
  |
2 | set s(y) = y;
  |     ^
  |
 ::: a.query:1:5
  |
1 | set s(x) = x;
  |     - the first time here
  |
  = help: give one of the two another name",
    );
    assert!(
        mistake(&[("a", "let f(x) = x;"), ("b", "let f = x;")]).contains("`f` is defined twice")
    );
}

#[test]
fn the_sets_of_ferry_keep_their_names_and_its_helpers_do_not() {
    let shown = mistake(&[("a.query", "set runtime(x) = x;")]);
    assert!(shown.starts_with("`runtime` is defined twice\n"), "{shown}");
    assert!(shown.contains("::: <named sets>:"), "{shown}");
    assert!(program(&[("a.query", "let derivations(x) = x; derivations(y)")]).is_ok());
}

#[test]
fn definitions_need_no_expression() {
    let program = parse_definitions(&sources(&[("a", "set s(x) = x;")])).unwrap();
    assert!(!program.has_expression());
    assert!(parse_definitions(&sources(&[("a", "set s(x) = x; y")])).unwrap().has_expression());
    assert!(parse_definitions(&sources(&[("a", "set s(x) = x")])).is_err());
}

#[test]
fn every_named_set_has_a_comment_of_two_parts() {
    let sets = named_sets();
    let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
    let expected =
        ["recipe", "runtime", "rebuild", "sources", "sources+fragments", "build", "total"];
    assert_eq!(names, expected);
    for NamedSet { name, doc, sentence, definition } in &sets {
        assert!(doc.ends_with('.') && sentence.ends_with('.'), "{name}: {doc:?} {sentence:?}");
        assert!(definition.starts_with(&format!("set {name}(x) =")), "{definition}");
        assert!(definition.ends_with(';'), "{definition}");
        assert!(named_set_definitions().contains(definition), "{definition}");
    }
}

#[test]
fn the_definition_of_a_named_set_can_be_taken_over() {
    for set in named_sets() {
        let text = set.definition.replacen(&format!("set {}(", set.name), "set mine(", 1);
        let files = [("a.query", text.as_str()), ("<expression>", "set(mine, y)")];
        assert!(program(&files).is_ok(), "{text}");
    }
}

#[test]
fn the_comment_above_a_set_tells_what_it_is() {
    let text = "# not this\n\n  # What it\n  #  holds.\n  #\n  # What it is\n  # for.\n  set s(x) = x;\nset t(x) = x; set u(x) = x;";
    let program = parse_definitions(&sources(&[("a", text)])).unwrap();
    let own: Vec<&NamedSet> = program.named_sets().skip(named_sets().len()).collect();
    let said: Vec<[&str; 3]> =
        own.iter().map(|set| [&*set.name, &*set.doc, &*set.sentence]).collect();
    assert_eq!(said, [["s", "What it holds.", "What it is for."], ["t", "", ""], ["u", "", ""]]);
}
