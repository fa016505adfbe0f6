//! What is said about names and arguments that mean nothing.

use super::mistake;

#[test]
fn an_unknown_function_suggests_a_known_one() {
    assert_eq!(
        mistake("closur(run, x)"),
        "\
unknown function `closur`
 --> <expression>:1:1
  |
1 | closur(run, x)
  | ^^^^^^
  |
  = help: did you mean `closure`?",
    );
    assert_eq!(
        mistake("let without(x, y) = x - y; witout(a, b)"),
        "\
unknown function `witout`
 --> <expression>:1:28
  |
1 | let without(x, y) = x - y; witout(a, b)
  |                            ^^^^^^
  |
  = help: did you mean `without`?",
    );
    assert_eq!(
        mistake("frobnicate(x)"),
        "\
unknown function `frobnicate`
 --> <expression>:1:1
  |
1 | frobnicate(x)
  | ^^^^^^^^^^",
    );
}

#[test]
fn an_operator_glued_to_a_function_is_found_out() {
    assert_eq!(
        mistake("let x = ./result; x-closure(run, x)"),
        "\
unknown function `x-closure`
 --> <expression>:1:19
  |
1 | let x = ./result; x-closure(run, x)
  |                   ^^^^^^^^^
  |
  = help: operators need spaces round them: `x - closure`",
    );
}

#[test]
fn a_named_set_is_not_called_as_a_function() {
    assert_eq!(
        mistake("rebuild(x)"),
        "\
unknown function `rebuild`
 --> <expression>:1:1
  |
1 | rebuild(x)
  | ^^^^^^^
  |
  = help: it is a named set: `set(rebuild, x)`",
    );
}

#[test]
fn a_value_is_not_called_as_a_function() {
    assert_eq!(
        mistake("let a = b; a(c)"),
        "\
`a` is a set, not a function
 --> <expression>:1:12
  |
1 | let a = b; a(c)
  |            ^",
    );
}

#[test]
fn an_unknown_kind_suggests_a_known_one() {
    assert_eq!(
        mistake("closure(rum, x)"),
        "\
`rum` is no kind of dependency
 --> <expression>:1:9
  |
1 | closure(rum, x)
  |         ^^^
  |
  = help: did you mean `run`? kinds are `run`, `build` and `eval`, joined by `+`, or `all`",
    );
    assert_eq!(
        mistake("closure(run + bild, x)"),
        "\
`bild` is no kind of dependency
 --> <expression>:1:15
  |
1 | closure(run + bild, x)
  |               ^^^^
  |
  = help: did you mean `build`? kinds are `run`, `build` and `eval`, joined by `+`, or `all`",
    );
    assert_eq!(
        mistake("closure(x, run)"),
        "\
`x` is no kind of dependency
 --> <expression>:1:9
  |
1 | closure(x, run)
  |         ^
  |
  = help: kinds are `run`, `build` and `eval`, joined by `+`, or `all`. The function is `closure(kinds, x[, depth])`",
    );
    assert_eq!(
        mistake("closure(outputs(x), y)"),
        "\
expected kinds of dependencies
 --> <expression>:1:9
  |
1 | closure(outputs(x), y)
  |         ^^^^^^^^^^
  |
  = help: kinds are `run`, `build` and `eval`, joined by `+`, or `all`",
    );
}

#[test]
fn a_wrong_number_of_arguments_shows_the_signature() {
    assert_eq!(
        mistake("closure(run)"),
        "\
`closure` takes 2 or 3 arguments, not 1
 --> <expression>:1:1
  |
1 | closure(run)
  | ^^^^^^^^^^^^
  |
  = help: it is called as `closure(kinds, x[, depth])`",
    );
    assert_eq!(
        mistake("run(a, b)"),
        "\
`run` takes one argument, not 2
 --> <expression>:1:1
  |
1 | run(a, b)
  | ^^^^^^^^^
  |
  = help: it is called as `run(x)`",
    );
    assert_eq!(
        mistake("all(x)"),
        "\
`all` takes no arguments, not 1
 --> <expression>:1:1
  |
1 | all(x)
  | ^^^^^^
  |
  = help: it is called as `all()`",
    );
    assert_eq!(
        mistake("path(run, a)"),
        "\
`path` takes 3 arguments, not 2
 --> <expression>:1:1
  |
1 | path(run, a)
  | ^^^^^^^^^^^^
  |
  = help: it is called as `path(kinds, a, b)`",
    );
    assert_eq!(
        mistake("let f(a, b) = a; f(x)"),
        "\
`f` takes 2 arguments, not 1
 --> <expression>:1:18
  |
1 | let f(a, b) = a; f(x)
  |                  ^^^^",
    );
}

#[test]
fn a_comma_that_went_into_a_word_is_found_out() {
    assert_eq!(
        mistake("let f(a, b) = a; f(x.drv^out,y)"),
        "\
`f` takes 2 arguments, not 1
 --> <expression>:1:18
  |
1 | let f(a, b) = a; f(x.drv^out,y)
  |                  ^^^^^^^^^^^^^^
  |
  = help: `x.drv^out,y` is one word: put a space behind the comma, or quotation marks round the word",
    );
}

#[test]
fn a_bad_regular_expression_is_shown_where_it_is_bad() {
    assert_eq!(
        mistake("name(\"a(b\", x)"),
        r#"bad regular expression: unclosed group
 --> <expression>:1:8
  |
1 | name("a(b", x)
  |        ^"#,
    );
    assert_eq!(
        mistake("name(\"\\\\.\\\"[z-a]\", x)"),
        r#"bad regular expression: invalid character class range, the start must be <= the end
 --> <expression>:1:13
  |
1 | name("\\.\"[z-a]", x)
  |             ^^^"#,
    );
    assert_eq!(
        mistake("name(\"(\\\\w{1000}){1000}\", x)"),
        r#"bad regular expression: Compiled regex exceeds size limit of 1048576 bytes
 --> <expression>:1:7
  |
1 | name("(\\w{1000}){1000}", x)
  |       ^^^^^^^^^^^^^^^^^"#,
    );
}

#[test]
fn a_regular_expression_wants_quotation_marks() {
    assert_eq!(
        mistake("name(^gcc, x)"),
        r#"a regular expression stands between quotation marks
 --> <expression>:1:6
  |
1 | name(^gcc, x)
  |      ^^^^
  |
  = help: write `"^gcc"`"#,
    );
    assert_eq!(
        mistake("name(closure(run, x), x)"),
        "\
expected a regular expression
 --> <expression>:1:6
  |
1 | name(closure(run, x), x)
  |      ^^^^^^^^^^^^^^^
  |
  = help: it is called as `name(regex, x)`",
    );
}

#[test]
fn a_depth_is_a_number() {
    assert_eq!(
        mistake("closure(run, x, two)"),
        "\
expected a depth
 --> <expression>:1:17
  |
1 | closure(run, x, two)
  |                 ^^^
  |
  = help: a depth is a whole number: how many steps to go at most",
    );
    assert_eq!(
        mistake("closure(run, x, -1)"),
        "\
nothing stands in front of this `-`
 --> <expression>:1:17
  |
1 | closure(run, x, -1)
  |                 ^
  |
  = help: an operator stands between two sets: `a + b`, `a - b`, `a & b`",
    );
}

#[test]
fn a_store_and_a_file_are_words() {
    assert_eq!(
        mistake("valid(run(x), y)"),
        "\
expected the address of a store
 --> <expression>:1:7
  |
1 | valid(run(x), y)
  |       ^^^^^^
  |
  = help: it is called as `valid(store, x)`",
    );
    assert_eq!(
        mistake("have(run(x))"),
        "\
expected the name of a file
 --> <expression>:1:6
  |
1 | have(run(x))
  |      ^^^^^^
  |
  = help: it is called as `have(file)`",
    );
}

#[test]
fn an_unknown_set_suggests_a_known_one() {
    assert_eq!(
        mistake("set(runtim, x)"),
        "\
there is no named set `runtim`
 --> <expression>:1:5
  |
1 | set(runtim, x)
  |     ^^^^^^
  |
  = help: did you mean `runtime`?",
    );
    assert_eq!(
        mistake("set(foo, x)"),
        "\
there is no named set `foo`
 --> <expression>:1:5
  |
1 | set(foo, x)
  |     ^^^
  |
  = help: known are recipe, runtime, rebuild, sources, sources+fragments, build, total",
    );
    assert_eq!(
        mistake("set(run(x), x)"),
        "\
expected the name of a named set
 --> <expression>:1:5
  |
1 | set(run(x), x)
  |     ^^^^^^
  |
  = help: it is called as `set(NAME, x)`",
    );
}

#[test]
fn a_name_is_given_once() {
    assert_eq!(
        mistake("let a = x; let a = y; a"),
        "\
`a` is defined twice
 --> <expression>:1:16
  |
1 | let a = x; let a = y; a
  |     -          ^
  |     |
  |     the first time here
  |
  = help: give one of the two another name",
    );
    assert_eq!(
        mistake("let f(x, x) = y; f(x, x)"),
        "\
`x` is defined twice
 --> <expression>:1:10
  |
1 | let f(x, x) = y; f(x, x)
  |       -  ^
  |       |
  |       the first time here
  |
  = help: give one of the two another name",
    );
    assert_eq!(
        mistake("let a = x in let a = y in a"),
        "\
`a` is defined twice
 --> <expression>:1:18
  |
1 | let a = x in let a = y in a
  |     -            ^
  |     |
  |     the first time here
  |
  = help: give one of the two another name",
    );
}

#[test]
fn built_in_functions_keep_their_names() {
    assert_eq!(
        mistake("let all(x) = x; all(y)"),
        "\
`all` is a built-in function
 --> <expression>:1:5
  |
1 | let all(x) = x; all(y)
  |     ^^^
  |
  = help: give yours another name",
    );
}
