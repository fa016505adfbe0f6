//! Queries that are too much.

use super::world::{Surroundings, explorer, names};
use super::{mistake, program};
use crate::query::lex::MAX_LENGTH;
use crate::query::parse::MAX_DEPTH;
use crate::query::resolve::MAX_HEIGHT;

fn answer(text: &str) -> String {
    let mut explorer = explorer();
    let answer = program(text).unwrap().evaluate(&mut explorer, &mut Surroundings::new()).unwrap();
    names(&explorer, &answer)
}

/// The first line of what is said.
fn first_line(text: &str) -> String {
    mistake(text).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn parentheses_are_at_most_so_deep() {
    let nested = |depth: usize| format!("{}gcc{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(answer(&nested(MAX_DEPTH - 1)), "gcc");
    let refused = "parentheses and `let`s are more than 200 deep here";
    assert_eq!(first_line(&nested(MAX_DEPTH)), refused);
    assert_eq!(first_line(&"(".repeat(100_000)), refused);
    assert_eq!(first_line(&"run(".repeat(100_000)), refused);
    assert_eq!(first_line(&"let a = ".repeat(100_000)), refused);
    assert_eq!(first_line(&"let a = b in ".repeat(50_000)), refused);
}

#[test]
fn calls_and_lets_as_deep_as_is_allowed_are_answered() {
    let calls = format!("{}gcc{}", "run(".repeat(MAX_DEPTH - 1), ")".repeat(MAX_DEPTH - 1));
    assert_eq!(answer(&calls), "");
    let mut lets = String::from("let a0 = gcc in ");
    for number in 1..MAX_DEPTH - 1 {
        lets.push_str(&format!("let a{number} = a{} + a{} in ", number - 1, number - 1));
    }
    lets.push_str("a3 + gcc");
    assert_eq!(answer(&lets), "gcc");
}

#[test]
fn a_long_list_is_not_deep() {
    assert_eq!(answer(&format!("gcc{}", " + gcc".repeat(100_000))), "gcc");
}

#[test]
fn definitions_use_one_another_at_most_so_deep() {
    let chained = |count: usize| {
        let mut text = "let f0(x) = x;\n".to_owned();
        for number in 1..count {
            text.push_str(&format!("let f{number}(x) = f{}(x);\n", number - 1));
        }
        format!("{text}f{}(gcc)", count - 1)
    };
    assert_eq!(answer(&chained(MAX_HEIGHT - 1)), "gcc");
    let refused = "more than 500 things lie one below another here";
    assert_eq!(first_line(&chained(MAX_HEIGHT)), refused);
    let sets: String =
        (1..=500).map(|it| format!("set s{it}(x) = set(s{}, x);\n", it - 1)).collect();
    assert_eq!(first_line(&format!("set s0(x) = x;\n{sets}")), refused);
    let values: String = (1..300).map(|it| format!("let a{it} = a{} + b;\n", it - 1)).collect();
    assert_eq!(first_line(&values), refused);
}

#[test]
fn a_text_is_at_most_so_long() {
    let padded = |length: usize| format!("gcc{}", " ".repeat(length - 3));
    assert_eq!(answer(&padded(MAX_LENGTH)), "gcc");
    assert_eq!(first_line(&padded(MAX_LENGTH + 1)), "the query is longer than 1 MiB");
}

#[test]
fn a_word_as_long_as_the_text_is_shown_in_part() {
    let long = "+a".repeat(MAX_LENGTH / 2 - 10);
    let shown = mistake(&format!("a{long}(x)"));
    assert!(shown.len() < 1_000, "{} bytes", shown.len());
}
