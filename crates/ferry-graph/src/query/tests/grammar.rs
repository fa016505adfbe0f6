//! What queries are read as.

use super::{mistake, program};
use crate::query::parse;
use crate::query::syntax::{Expression, Node};

/// The tree of an expression: words as they are, texts between quotation marks, what belongs
/// together in brackets.
fn tree(text: &str) -> String {
    let module = parse::module(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    assert!(module.definitions.is_empty(), "{text}");
    shape(&module.expression.expect("an expression"))
}

fn shape(expression: &Expression) -> String {
    match &expression.node {
        Node::Word(word) => word.clone(),
        Node::Text(text) => format!("{text:?}"),
        Node::Call { name, arguments } => {
            let arguments: Vec<String> = arguments.iter().map(shape).collect();
            format!("{name}[{}]", arguments.join(" | "))
        }
        Node::Chain { first, rest } => {
            let rest: String =
                rest.iter().map(|(it, right)| format!(" {it} {}", shape(right))).collect();
            format!("[{}{rest}]", shape(first))
        }
        Node::Let { name, value, body } => {
            format!("[let {name} = {} in {}]", shape(value), shape(body))
        }
    }
}

#[test]
fn installables_are_words() {
    for word in [
        "/nix/store/00000000000000000000000000000000-hello-1.0",
        "00000000000000000000000000000000-hello-1.0.drv",
        "x.drv^out,dev",
        "x.drv^out,dev^doc,lib",
        "x.drv^*",
        "x.drv^out^out",
        "./result",
        "nixpkgs#hello",
        "github:NixOS/nixpkgs?dir=a&b=c#x.y",
        "https://cache.nixos.org",
        "local?root=/mnt",
        "a-b",
        "sources+fragments",
        "ärger",
    ] {
        assert_eq!(tree(word), word);
    }
}

#[test]
fn a_comma_between_names_of_outputs_belongs_to_the_word() {
    assert_eq!(tree("f(x.drv^out,y)"), "f[x.drv^out,y]");
    assert_eq!(tree("f(x.drv^out, y)"), "f[x.drv^out | y]");
    assert_eq!(tree("f(\"x.drv^out\",y)"), "f[\"x.drv^out\" | y]");
    assert_eq!(tree("f(x.drv^*,y)"), "f[x.drv^* | y]");
    assert_eq!(tree("f(x.drv^out,dev,doc,\ny)"), "f[x.drv^out,dev,doc | y]");
    assert_eq!(tree("f(x.drv,y)"), "f[x.drv | y]");
    assert_eq!(tree("f(x.drv^,y)"), "f[x.drv^ | y]");
    assert_eq!(tree("f(x.drv^out,./y)"), "f[x.drv^out,./y]");
    assert_eq!(tree("f(x.drv^out,\"y\")"), "f[x.drv^out | \"y\"]");
}

#[test]
fn operators_stand_where_a_token_begins() {
    assert_eq!(tree("a - b + c"), "[a - b + c]");
    assert_eq!(tree("a -b +c"), "[a - b + c]");
    assert_eq!(tree("a-b+c"), "a-b+c");
    assert_eq!(tree("(a)-(b)"), "[a - b]");
    assert_eq!(tree("f(a)&g(b)&\"c\""), "[f[a] & g[b] & \"c\"]");
    assert_eq!(tree("(a - b) & c"), "[[a - b] & c]");
    assert_eq!(tree("a - (b & c)"), "[a - [b & c]]");
    assert_eq!(tree("((a))"), "a");
}

#[test]
fn a_comment_begins_where_a_token_does() {
    assert_eq!(tree("# one\na # two + b\n# three"), "a");
    assert_eq!(tree("a#b + c"), "[a#b + c]");
    assert_eq!(tree("(#x)\na)"), "a");
    assert_eq!(tree("f(a,# first\r\n b)"), "f[a | b]");
}

#[test]
fn texts_have_escapes() {
    assert_eq!(tree(r#""a\"b\\c\nd""#), r#""a\"b\\c\nd""#);
    assert_eq!(tree("\" # + ( ; \""), "\" # + ( ; \"");
    assert_eq!(tree("\"\""), "\"\"");
}

#[test]
fn a_let_reaches_as_far_as_it_can() {
    assert_eq!(tree("let a = b in a + c"), "[let a = b in [a + c]]");
    assert_eq!(tree("(let a = b in a) + c"), "[[let a = b in a] + c]");
    assert_eq!(tree("f(let a = b in a, c)"), "f[[let a = b in a] | c]");
    assert_eq!(
        tree("let a = let b = c in b in let d = a in d"),
        "[let a = [let b = c in b] in [let d = a in d]]"
    );
}

#[test]
fn calls_may_have_spaces_and_no_arguments() {
    assert_eq!(tree("f (a , b)"), "f[a | b]");
    assert_eq!(tree("all()"), "all[]");
    assert_eq!(tree("set(sources+fragments, x)"), "set[sources+fragments | x]");
}

#[test]
fn kinds_are_joined_with_or_without_spaces() {
    for kinds in
        ["run", "run+build", "run + build", "(run + eval)", "run+build + eval", "all", "(run)"]
    {
        assert!(program(&format!("closure({kinds}, x)")).is_ok(), "{kinds}");
    }
    for kinds in ["run-build", "run - build", "run & build", "run+", "\"run\"", "run+all"] {
        assert!(program(&format!("closure({kinds}, x)")).is_err(), "{kinds}");
    }
}

#[test]
fn names_may_have_hyphens_and_those_of_sets_also_a_plus() {
    assert!(program("let my-tools = a; set a+b-c(x) = x - my-tools; set(a+b-c, d)").is_ok());
    assert!(mistake("let a+b = c; d").contains("`a+b` cannot be a name"));
    assert!(mistake("let a- = c; d").contains("`a-` cannot be a name"));
    assert!(mistake("let 2 = c; d").contains("`2` cannot be a name"));
}

#[test]
fn a_value_may_be_called_like_a_built_in_function() {
    assert!(program("let all = a; let name = b in all() + all + name").is_ok());
}
