//! What is said about queries that are not well formed.

use super::mistake;

#[test]
fn an_open_parenthesis_is_shown_where_its_partner_is_missing() {
    assert_eq!(
        mistake("closure(run, x"),
        "\
expected an operator, `,` or `)`, found the end
 --> <expression>:1:15
  |
1 | closure(run, x
  |        -      ^
  |        |
  |        opened here",
    );
    assert_eq!(
        mistake("(a + b;"),
        "\
expected an operator or `)`, found `;`
 --> <expression>:1:7
  |
1 | (a + b;
  | -     ^
  | |
  | opened here",
    );
}

#[test]
fn a_closing_parenthesis_too_many_is_shown() {
    assert_eq!(
        mistake("(a))"),
        "\
this `)` closes nothing
 --> <expression>:1:4
  |
1 | (a))
  |    ^",
    );
}

#[test]
fn an_operator_wants_a_set_on_both_sides() {
    assert_eq!(
        mistake("+"),
        "\
nothing stands in front of this `+`
 --> <expression>:1:1
  |
1 | +
  | ^
  |
  = help: an operator stands between two sets: `a + b`, `a - b`, `a & b`",
    );
    assert_eq!(
        mistake("a +"),
        "\
nothing stands behind this `+`
 --> <expression>:1:3
  |
1 | a +
  |   ^",
    );
    assert_eq!(
        mistake("(a -)"),
        "\
nothing stands behind this `-`
 --> <expression>:1:4
  |
1 | (a -)
  |    ^",
    );
}

#[test]
fn intersections_mixed_with_sums_want_parentheses() {
    assert_eq!(
        mistake("a - b & c"),
        "\
`-` and `&` are mixed
 --> <expression>:1:7
  |
1 | a - b & c
  |       ^
  |
  = help: put parentheses: `(a - b) & c` or `a - (b & c)`",
    );
    assert_eq!(
        mistake("a & b + closure(run, c)"),
        "\
`&` and `+` are mixed
 --> <expression>:1:7
  |
1 | a & b + closure(run, c)
  |       ^
  |
  = help: put parentheses: `(a & b) + closure(run, c)` or `a & (b + closure(run, c))`",
    );
    assert_eq!(
        mistake("a + b - c & d"),
        "\
`-` and `&` are mixed
 --> <expression>:1:11
  |
1 | a + b - c & d
  |           ^
  |
  = help: put parentheses: `(a + b - c) & d` or `a + b - (c & d)`",
    );
}

#[test]
fn an_operator_glued_to_a_word_is_found_out() {
    assert_eq!(
        mistake("a- b"),
        "\
expected an operator or the end, found `b`
 --> <expression>:1:4
  |
1 | a- b
  |    ^
  |
  = help: `a-` is one word: operators need spaces round them",
    );
    assert_eq!(
        mistake("let x=y; x"),
        "\
`x=y` cannot be a name
 --> <expression>:1:5
  |
1 | let x=y; x
  |     ^^^
  |
  = help: `=` needs spaces round it: `let NAME = …`",
    );
    assert_eq!(
        mistake("let f(x) =x-closure(run, x); f(a)"),
        "\
unknown function `x-closure`
 --> <expression>:1:11
  |
1 | let f(x) =x-closure(run, x); f(a)
  |           ^^^^^^^^^
  |
  = help: operators need spaces round them: `x - closure`",
    );
}

#[test]
fn two_sets_want_an_operator_between_them() {
    assert_eq!(
        mistake("a b"),
        "\
expected an operator or the end, found `b`
 --> <expression>:1:3
  |
1 | a b
  |   ^
  |
  = help: sets are joined by `+`, `-` or `&`",
    );
    assert_eq!(
        mistake("nixpkgs#\"a b\""),
        r#"expected an operator or the end, found "a b"
 --> <expression>:1:9
  |
1 | nixpkgs#"a b"
  |         ^^^^^
  |
  = help: put the whole of it between quotation marks"#,
    );
}

#[test]
fn a_quotation_mark_without_a_partner_is_shown() {
    assert_eq!(
        mistake("name(\"abc, x)"),
        r#"this quotation mark has no partner in its line
 --> <expression>:1:6
  |
1 | name("abc, x)
  |      ^
  |
  = help: inside quotation marks, one is written `\"`"#,
    );
    assert_eq!(
        mistake("a + \"b\n\""),
        r#"this quotation mark has no partner in its line
 --> <expression>:1:5
  |
1 | a + "b
  |     ^
  |
  = help: inside quotation marks, one is written `\"`"#,
    );
}

#[test]
fn an_unknown_escape_is_refused() {
    assert_eq!(
        mistake("name(\"\\.tar$\", x)"),
        r#"`\.` means nothing
 --> <expression>:1:7
  |
1 | name("\.tar$", x)
  |       ^^
  |
  = help: known are `\"`, `\\` and `\n`; a backslash in a regular expression is written `\\`, as in `"\\.tar$"`"#,
    );
}

#[test]
fn an_empty_query_is_refused() {
    assert_eq!(
        mistake(""),
        "\
the query is empty
 --> <expression>:1:1
  |
1 |
  | ^
  |
  = help: say what is wanted, such as `./result`",
    );
    assert_eq!(
        mistake("# nothing\n\n"),
        "\
the query is empty
 --> <expression>:1:10
  |
1 | # nothing
  |          ^
  |
  = help: say what is wanted, such as `./result`",
    );
}

#[test]
fn definitions_alone_are_no_query() {
    assert_eq!(
        mistake("let a = b;"),
        "\
nothing is asked: there are only definitions
 --> <expression>:1:11
  |
1 | let a = b;
  |           ^
  |
  = help: behind them write what is wanted, such as `set(NAME, ./result)`",
    );
}

#[test]
fn a_definition_ends_with_a_semicolon() {
    assert_eq!(
        mistake("let a = b"),
        "\
expected an operator, `;` or `in`, found the end
 --> <expression>:1:10
  |
1 | let a = b
  |          ^",
    );
    assert_eq!(
        mistake("set a(x) = x"),
        "\
expected an operator or `;`, found the end
 --> <expression>:1:13
  |
1 | set a(x) = x
  |             ^",
    );
}

#[test]
fn an_expression_ends_the_query() {
    assert_eq!(
        mistake("a; b"),
        "\
an expression ends the query
 --> <expression>:1:2
  |
1 | a; b
  |  ^
  |
  = help: a `;` stands behind a definition: `let NAME = …;`",
    );
}

#[test]
fn a_let_inside_an_operation_wants_parentheses() {
    assert_eq!(
        mistake("a + let b = c in b"),
        "\
a `let` inside an expression needs parentheses
 --> <expression>:1:5
  |
1 | a + let b = c in b
  |     ^^^
  |
  = help: write `(let NAME = … in …)`",
    );
}

#[test]
fn functions_are_defined_at_the_top() {
    assert_eq!(
        mistake("let f(x) = x in f(y)"),
        "\
a function cannot be defined inside an expression
 --> <expression>:1:5
  |
1 | let f(x) = x in f(y)
  |     ^
  |
  = help: put `let f(…) = …;` in front of it",
    );
}

#[test]
fn a_function_has_parameters_and_a_set_has_one() {
    assert_eq!(
        mistake("let f() = x; f()"),
        "\
there are no parameters here
 --> <expression>:1:6
  |
1 | let f() = x; f()
  |      ^^
  |
  = help: what has none is a value: `let NAME = …;`",
    );
    assert_eq!(
        mistake("set a = b;"),
        "\
a set has one parameter
 --> <expression>:1:5
  |
1 | set a = b;
  |     ^
  |
  = help: write `set a(x) = …;`",
    );
    assert_eq!(
        mistake("set a(x, y) = b;"),
        "\
a set has one parameter
 --> <expression>:1:5
  |
1 | set a(x, y) = b;
  |     ^
  |
  = help: write `set a(x) = …;`",
    );
}

#[test]
fn words_of_the_language_are_no_names() {
    assert_eq!(
        mistake("let in = x; in"),
        "\
expected a name, found `in`
 --> <expression>:1:5
  |
1 | let in = x; in
  |     ^^",
    );
    assert_eq!(
        mistake("in"),
        r#"expected a set, found `in`, a word of the language
 --> <expression>:1:1
  |
1 | in
  | ^^
  |
  = help: a file with this name is written `"in"`"#,
    );
}

#[test]
fn a_store_path_is_no_name() {
    assert_eq!(
        mistake("let ./result = x; x"),
        "\
`./result` cannot be a name
 --> <expression>:1:5
  |
1 | let ./result = x; x
  |     ^^^^^^^^
  |
  = help: a name has letters, digits, `_` and `-` (that of a set also `+`), and begins with a letter",
    );
}

#[test]
fn what_a_terminal_would_obey_is_not_shown() {
    assert_eq!(
        mistake("\u{1b}[31m ("),
        "\
expected a set, found the end
 --> <expression>:1:8
  |
1 | ␛[31m (
  |        ^",
    );
}

#[test]
fn places_are_counted_in_characters() {
    assert_eq!(
        mistake("äöü +\n\tλ + closur(x)"),
        "\
unknown function `closur`
 --> <expression>:2:6
  |
2 |     λ + closur(x)
  |         ^^^^^^
  |
  = help: did you mean `closure`?",
    );
}
