//! What queries answer.

use std::error::Error as _;

use super::program;
use super::world::{Surroundings, broken_explorer, explorer, names};
use crate::{Explorer, GraphError};

/// The names in an answer, or what is said.
fn ask_of(explorer: &mut Explorer<'_>, outside: &mut Surroundings, text: &str) -> String {
    match program(text).and_then(|program| program.evaluate(explorer, outside)) {
        Ok(nodes) => names(explorer, &nodes),
        Err(error) => error.render(),
    }
}

fn ask(text: &str) -> String {
    ask_of(&mut explorer(), &mut Surroundings::new(), text)
}

/// What a query asked of the world outside.
fn asked(text: &str) -> Vec<String> {
    let mut outside = Surroundings::new();
    ask_of(&mut explorer(), &mut outside, text);
    outside.asked
}

const RECIPE: &str = "boot builder.sh curl.drv gcc.drv glibc.drv hello.drv tar.drv";

#[test]
fn every_function_answers() {
    let expected = [
        ("run(hello)", "glibc"),
        ("build(hello)", "builder.sh gcc tar"),
        ("eval(hello.drv)", "gen nixpkgs"),
        ("closure(run, hello.drv)", RECIPE),
        ("closure(run, hello.drv, 1)", "builder.sh gcc.drv hello.drv tar.drv"),
        ("closure(build, hello, 0)", "hello"),
        ("closure(run+build, hello)", "boot builder.sh curl gcc glibc hello tar"),
        ("closure(all, hello, 1)", "builder.sh gcc gen glibc hello nixpkgs tar"),
        ("until(build, hello.drv, tar)", "boot builder.sh gcc glibc hello.drv tar"),
        ("outputs(hello.drv)", "hello hello-doc"),
        ("deriver(hello-doc + tar)", "hello.drv tar.drv"),
        ("drvs(hello + tar.drv)", "tar.drv"),
        ("srcs(closure(build, hello))", "boot builder.sh"),
        ("fods(closure(build, hello) + closure(run, hello.drv))", "tar tar.drv"),
        ("ifd(hello.drv)", "gen"),
        ("name(\"^g\", closure(build, hello))", "gcc glibc"),
        ("name(\"\\\\.sh$\", closure(build, hello))", "builder.sh"),
        ("valid(https://cache, closure(build, hello))", "gcc glibc"),
        ("have(list)", "nixpkgs tar"),
        ("rdeps(build, hello.drv, boot)", "boot curl gcc glibc hello.drv tar"),
        ("rdeps(build, hello.drv, boot, 1)", "boot gcc glibc"),
        ("path(build, hello.drv, boot)", "boot gcc hello.drv"),
        ("set(runtime, hello.drv)", "glibc hello hello-doc"),
    ];
    for (text, names) in expected {
        assert_eq!(ask(text), names, "{text}");
    }
    let all = ask("all() - drvs(all())");
    assert_eq!(all, "boot builder.sh curl gcc gen glibc hello hello-doc nixpkgs tar");
}

#[test]
fn a_table_entry_without_an_evaluation_would_be_noticed() {
    for function in crate::query::functions() {
        let arguments = ["run", "\"x\"", "https://cache", "list", "recipe", "1"];
        let arguments: Vec<&str> = function
            .parameters
            .iter()
            .map(|parameter| match parameter.name() {
                "kinds" => arguments[0],
                "regex" => arguments[1],
                "store" => arguments[2],
                "file" => arguments[3],
                "NAME" => arguments[4],
                "depth" => arguments[5],
                _ => "hello",
            })
            .collect();
        let text = format!("{}({})", function.name, arguments.join(", "));
        let answer = program(&text).unwrap().evaluate(&mut explorer(), &mut Surroundings::new());
        assert!(answer.is_ok(), "{}", answer.unwrap_err().render());
    }
}

#[test]
fn every_named_set_holds_what_its_comment_says() {
    let expected = [
        ("recipe", RECIPE.to_owned()),
        ("runtime", "glibc hello hello-doc".to_owned()),
        ("rebuild", format!("{RECIPE} gcc glibc tar")),
        // Not `curl`: what `tar` is downloaded with need not be built.
        ("sources", format!("{RECIPE} gen.drv nixpkgs tar")),
        ("sources+fragments", format!("{RECIPE} gen gen.drv nixpkgs tar")),
        ("build", format!("{RECIPE} curl gcc glibc hello hello-doc tar")),
        ("total", format!("{RECIPE} curl gcc gen gen.drv glibc hello hello-doc nixpkgs tar")),
    ];
    for (set, names) in expected {
        let mut names: Vec<&str> = names.split(' ').collect();
        names.sort_unstable();
        assert_eq!(ask(&format!("set({set}, hello.drv)")), names.join(" "), "{set}");
    }
    assert_eq!(ask("set(recipe, hello)"), RECIPE);
}

#[test]
fn operators_work_from_left_to_right() {
    assert_eq!(ask("hello - hello + hello"), "hello");
    assert_eq!(ask("hello - (hello + hello)"), "");
    assert_eq!(ask("hello + gcc & gcc"), super::mistake("hello + gcc & gcc"));
    assert_eq!(ask("(hello + gcc) & gcc & gcc"), "gcc");
    assert_eq!(ask("(hello + gcc) & gcc & hello"), "");
}

#[test]
fn functions_and_values_stand_for_what_they_are_defined_as() {
    assert_eq!(ask("let without(x, y) = x - y; without(hello + gcc, gcc)"), "hello");
    assert_eq!(ask("let x = gcc; let f(x) = run(x); f(hello) + x"), "gcc glibc");
    assert_eq!(ask("let x = gcc; (let x = hello in x) + x"), "gcc hello");
    assert_eq!(ask("let f(x) = let y = run(x) in y + x; f(gcc) + f(boot)"), "boot gcc glibc");
    assert_eq!(ask("set mine(x) = x & gcc; set(mine, run(hello) + gcc)"), "gcc");
    // Ferry's own helpers, and one's own of the same name.
    assert_eq!(ask("derivations(hello) + built(tar.drv)"), "hello.drv tar");
    assert_eq!(ask("let built(x) = x & gcc; set(runtime, hello) + built(gcc)"), "gcc glibc hello");
}

#[test]
fn a_word_between_quotation_marks_is_no_variable() {
    assert_eq!(ask("let gcc = hello; gcc + \"gcc\""), "gcc hello");
}

#[test]
fn what_is_not_used_costs_nothing() {
    assert_eq!(asked("let a = no-such-thing; let f(x) = nor-this; hello"), ["hello"]);
    assert_eq!(asked("let a = valid(nowhere, no-such-thing) in hello"), ["hello"]);
    assert_eq!(asked("let f(x) = let y = nor-this in x; f(hello)"), ["hello"]);
}

#[test]
fn what_is_used_is_computed_once() {
    assert_eq!(asked("hello + hello + \"hello\""), ["hello"]);
    let value = "let v = valid(https://cache, hello); v + v + (let w = v in w & v)";
    assert_eq!(asked(value), ["hello", "https://cache"]);
    let local = "let f(x) = let y = have(list) in y + (y - x); f(hello)";
    assert_eq!(asked(local), ["hello", "list"]);
    let argument = "let f(x) = x + x; f(have(list))";
    assert_eq!(asked(argument), ["list"]);
}

#[test]
fn installables_are_named_before_the_graph_is_asked() {
    let mut explorer = explorer();
    ask_of(&mut explorer, &mut Surroundings::new(), "run(hello) - gcc");
    assert_eq!(names(&explorer, &explorer.named().clone()), "gcc hello");
    // `hello` is looked up although the function that uses it comes second.
    assert_eq!(asked("let f(x) = hello + x; have(list) + f(gcc)"), ["gcc", "hello", "list"]);
}

#[test]
fn an_output_whose_path_is_not_known_is_found_by_the_name_it_will_have() {
    assert_eq!(ask("name(\"^late$\", outputs(late.drv))"), "late.drv^out");
    assert_eq!(ask("name(\"^late-dev$\", outputs(late.drv))"), "late.drv^dev");
}

#[test]
fn a_way_of_no_steps_has_one_end() {
    assert_eq!(ask("path(run, hello + gcc, gcc + hello)").split(' ').count(), 1);
    assert_eq!(ask("path(run, gcc, hello)"), "");
}

#[test]
fn an_unknown_installable_is_shown_where_it_stands() {
    assert_eq!(
        ask("let tools = gcc;\nrun(tols)"),
        "\
there is no `tols`
 --> <expression>:2:5
  |
2 | run(tols)
  |     ^^^^
  |
  = help: did you mean `tools`?",
    );
    assert!(ask("let a = gcc; a-gcc").ends_with("operators need spaces round them: `a - gcc`"));
    assert!(ask("let f(x) = gcc+x; f(gcc)").ends_with("round them: `gcc + x`"));
    assert!(ask("let x = gcc; y").ends_with("^"), "names of one letter are all alike");
    assert!(ask("./gcc-name").ends_with("^"), "no function can stand there");
    assert!(ask("gcc+").ends_with("= help: operators need spaces round them"));
    assert!(ask("gcc + all").ends_with("= help: there is a function `all()`"));
    assert!(ask("gcc + built").ends_with("= help: there is a function `built`: give it arguments"));
    assert!(ask("gcc + rebuild").ends_with("= help: there is a named set: `set(rebuild, x)`"));
}

#[test]
fn what_the_world_outside_cannot_answer_is_shown_where_it_was_asked() {
    assert_eq!(
        ask("let x = valid(nowhere, hello);\nhello - x"),
        "\
there is no such place
 --> <expression>:1:9
  |
1 | let x = valid(nowhere, hello);
  |         ^^^^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn what_the_graph_cannot_answer_is_shown_where_it_was_asked() {
    let mut outside = Surroundings::new();
    let error = program("hello + set(runtime, hello)").unwrap();
    let error = error.evaluate(&mut broken_explorer(), &mut outside).unwrap_err();
    assert_eq!(
        error.render(),
        "\
the disk is broken
 --> <expression>:1:9
  |
1 | hello + set(runtime, hello)
  |         ^^^^^^^^^^^^^^^^^^^",
    );
    assert!(error.source().is_some_and(|cause| cause.is::<GraphError>()));
    assert_eq!(
        ask("closure(build, ring-a.drv)"),
        "\
what /nix/store/00000000000000000000000000000017-ring-a.drv needs leads back to it:
  /nix/store/00000000000000000000000000000017-ring-a.drv
  /nix/store/00000000000000000000000000000018-ring-b.drv
  /nix/store/00000000000000000000000000000017-ring-a.drv
 --> <expression>:1:1
  |
1 | closure(build, ring-a.drv)
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^",
    );
}
