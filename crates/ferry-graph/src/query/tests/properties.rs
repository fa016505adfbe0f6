//! What holds for every query.

use proptest::prelude::*;

use super::program;
use super::world::{Surroundings, explorer};
use crate::query::parse::{self, is_name};
use crate::query::syntax::{Definition, Expression, Keyword, Module, Name, Node, Operator};
use crate::query::{QueryError, lex};

fn name(keyword: Keyword) -> impl Strategy<Value = Name> {
    let letters = match keyword {
        Keyword::Let => "[a-zA-Zä_]([a-zä0-9_-]{0,6}[a-z0-9_])?",
        Keyword::Set => "[a-zA-Zä_]([a-zä0-9_+-]{0,6}[a-z0-9_])?",
    };
    let is_free = move |text: &String| is_name(text, keyword) && lex::is_word(text);
    letters.prop_filter("a keyword", is_free).prop_map(|text| Name { text, span: 0..0 })
}

fn word() -> impl Strategy<Value = String> {
    let odd = "[^\\s(),;\"]{1,12}".prop_filter("more than a word", |text| lex::is_word(text));
    prop_oneof![
        3 => Just("/nix/store/00000000000000000000000000000000-x.drv^out,dev".to_owned()),
        3 => Just("x.drv^*".to_owned()),
        3 => Just("nixpkgs#hello".to_owned()),
        3 => Just("run+build".to_owned()),
        10 => odd,
    ]
}

fn plain(node: Node) -> Expression {
    Expression { node, span: 0..0 }
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        word().prop_map(|text| plain(Node::Word(text))),
        // A line is never broken between quotation marks, but `\n` may be written there.
        any::<String>().prop_map(|text| plain(Node::Text(text))),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let set = Just(Name { text: "set".to_owned(), span: 0..0 });
        let called = prop_oneof![4 => name(Keyword::Let), 1 => set];
        let arguments = prop::collection::vec(inner.clone(), 0..4);
        let call = (called, arguments).prop_map(|(name, arguments)| Node::Call { name, arguments });
        let bound = (name(Keyword::Let), inner.clone(), inner.clone());
        let bound = bound.prop_map(|(name, value, body)| Node::Let {
            name,
            value: Box::new(value),
            body: Box::new(body),
        });
        prop_oneof![call, bound, chain(inner)].prop_map(plain)
    })
}

fn chain(operand: impl Strategy<Value = Expression> + Clone) -> impl Strategy<Value = Node> {
    let sums = prop_oneof![Just(Operator::Union), Just(Operator::Difference)];
    let sums = prop::collection::vec((sums, operand.clone()), 1..4);
    let cuts = prop::collection::vec((Just(Operator::Intersection), operand.clone()), 1..4);
    (operand, prop_oneof![sums, cuts])
        .prop_map(|(first, rest)| Node::Chain { first: Box::new(first), rest })
}

fn definition() -> impl Strategy<Value = Definition> {
    let value = (Just(Keyword::Let), prop::collection::vec(name(Keyword::Let), 0..3));
    let set = (Just(Keyword::Set), prop::collection::vec(name(Keyword::Let), 1));
    prop_oneof![value, set].prop_flat_map(|(keyword, parameters)| {
        (name(keyword), expression()).prop_map(move |(name, value)| {
            let parameters = parameters.clone();
            Definition { keyword, name, parameters, value, span: 0..0 }
        })
    })
}

fn module() -> impl Strategy<Value = Module> {
    (prop::collection::vec(definition(), 0..4), prop::option::of(expression()))
        .prop_map(|(definitions, expression)| Module { definitions, expression })
}

/// The same tree, whatever place it stands in.
fn placeless(module: Module) -> Module {
    let definitions = module.definitions.into_iter().map(|definition| Definition {
        name: placeless_name(definition.name),
        parameters: definition.parameters.into_iter().map(placeless_name).collect(),
        value: placeless_expression(definition.value),
        span: 0..0,
        ..definition
    });
    Module {
        definitions: definitions.collect(),
        expression: module.expression.map(placeless_expression),
    }
}

fn placeless_name(name: Name) -> Name {
    Name { span: 0..0, ..name }
}

fn placeless_expression(expression: Expression) -> Expression {
    let boxed = |expression: Box<Expression>| Box::new(placeless_expression(*expression));
    plain(match expression.node {
        node @ (Node::Word(_) | Node::Text(_)) => node,
        Node::Call { name, arguments } => Node::Call {
            name: placeless_name(name),
            arguments: arguments.into_iter().map(placeless_expression).collect(),
        },
        Node::Chain { first, rest } => Node::Chain {
            first: boxed(first),
            rest: rest.into_iter().map(|(it, right)| (it, placeless_expression(right))).collect(),
        },
        Node::Let { name, value, body } => {
            Node::Let { name: placeless_name(name), value: boxed(value), body: boxed(body) }
        }
    })
}

/// An error has its place in the text, and can be shown.
fn check(text: &str, error: &QueryError) {
    let span = error.span();
    assert!(text.get(span.clone()).is_some(), "{span:?} in {text:?}");
    let rendered = error.render();
    assert!(rendered.contains(" --> <expression>:"), "{rendered}");
    assert!(!rendered.contains(|it: char| it.is_control() && it != '\n'), "{rendered:?}");
    assert!(error.to_string().starts_with("<expression>:"), "{error}");
}

/// Pieces of queries in any order.
fn jumble() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "let",
        "in",
        "set",
        "x",
        "a-b",
        "f",
        "closure",
        "run",
        "run+build",
        "name",
        "recipe",
        "(",
        ")",
        "(",
        ")",
        ",",
        ";",
        "=",
        "+",
        "-",
        "&",
        "\"^a\"",
        "\"(\"",
        "\"",
        "\\",
        "# note",
        "\n",
        "\t",
        "é",
        "x.drv^out,dev",
        "2",
        "\u{1b}[0m",
        "\r\n",
    ]);
    let space = prop::sample::select(vec!["", " ", " ", " "]);
    prop::collection::vec((piece, space), 0..25)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, space)| [piece, space]).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_printed_reads_as_the_same_tree(module in module()) {
        let text = module.to_string();
        let read = parse::module(&text).map_err(|fault| TestCaseError::fail(format!("{fault:?} in\n{text}")))?;
        prop_assert_eq!(placeless(read), module, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in any::<String>()) {
        if let Err(error) = program(&text) {
            check(&text, &error);
        }
    }

    #[test]
    fn any_jumble_is_answered_or_refused_with_a_place(text in jumble()) {
        let answer = program(&text)
            .and_then(|program| program.evaluate(&mut explorer(), &mut Surroundings::new()));
        if let Err(error) = answer {
            check(&text, &error);
        }
    }
}
