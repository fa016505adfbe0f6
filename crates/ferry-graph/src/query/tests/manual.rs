//! The manual says what the program does.

use super::program;
use crate::query::{Source, functions, named_sets, parse_definitions};

const MANUAL: &str = include_str!("../../../../../docs/query.md");

/// The rows of the table under a heading, without its head.
fn rows(heading: &str) -> Vec<&'static str> {
    let (_, section) = MANUAL.split_once(&format!("\n## {heading}\n")).expect(heading);
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

#[test]
fn every_function_has_its_row() {
    let expected: Vec<String> = functions()
        .iter()
        .map(|it| format!("| `{}` | {} | `{}` |", it.signature(), it.doc, it.example))
        .collect();
    assert_eq!(rows("Functions"), expected);
}

#[test]
fn every_named_set_has_its_row() {
    let expected: Vec<String> = named_sets()
        .iter()
        .map(|set| format!("| `{}` | {} | {} |", set.name, set.doc, set.sentence))
        .collect();
    assert_eq!(rows("Named sets"), expected);
}

#[test]
fn every_example_of_a_function_is_a_query() {
    for function in functions() {
        let example = function.example;
        assert!(program(example).is_ok(), "{}", program(example).unwrap_err().render());
        assert!(example.contains(&format!("{}(", function.name)), "{example}");
    }
}

#[test]
fn every_query_in_the_manual_is_one() {
    let blocks: Vec<&str> = MANUAL.split("```").skip(1).step_by(2).collect();
    let queries: Vec<&str> =
        blocks.iter().filter_map(|block| block.strip_prefix("query\n")).collect();
    assert!(!queries.is_empty());
    for query in queries {
        let read = parse_definitions(&[Source::new("docs/query.md", query)]);
        assert!(read.is_ok(), "{}", read.unwrap_err().render());
    }
}

#[test]
fn the_error_in_the_manual_is_what_is_said() {
    let shown = program("closur(run, ./result)").unwrap_err().render();
    assert!(MANUAL.contains(&shown), "{shown}");
}
