//! From tokens to the tree.

use std::ops::Range;

use winnow::combinator::{alt, opt, preceded, repeat, separated};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{Stateful, TokenSlice};
use winnow::token::any;

use super::error::Fault;
use super::lex::{self, Token, TokenKind};
use super::syntax::{Definition, Expression, Keyword, Module, Name, Node, Operator};

/// How deep parentheses and `let`s may stand in one another.
pub(super) const MAX_DEPTH: usize = 200;

type Input<'t> = Stateful<TokenSlice<'t, Token>, State<'t>>;
type Parsed<T> = winnow::ModalResult<T, Fault>;

#[derive(Clone, Debug)]
struct State<'t> {
    text: &'t str,
    depth: usize,
}

impl ParserError<Input<'_>> for Fault {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        unexpected(input, "something else")
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// Reads one text.
pub(super) fn module(text: &str) -> Result<Module, Fault> {
    let tokens = lex::tokens(text)?;
    let state = State { text, depth: 0 };
    let mut input = Stateful { input: TokenSlice::new(&tokens), state };
    whole(&mut input).map_err(lex::fault)
}

fn whole(input: &mut Input<'_>) -> Parsed<Module> {
    let definitions = repeat(0.., alt((set_definition, let_definition))).parse_next(input)?;
    if opt(kind(TokenKind::End)).parse_next(input)?.is_some() {
        return Ok(Module { definitions, expression: None });
    }
    let expression = expression(input)?;
    match current(input) {
        TokenKind::End => Ok(Module { definitions, expression: Some(expression) }),
        TokenKind::Close => Err(cut(Fault::new(&here(input), "this `)` closes nothing"))),
        TokenKind::Semicolon => Err(cut(Fault::new(&here(input), "an expression ends the query")
            .help("a `;` stands behind a definition: `let NAME = …;`"))),
        _ => Err(cut(operator_missing(input, "an operator or the end"))),
    }
}

fn set_definition(input: &mut Input<'_>) -> Parsed<Definition> {
    let start = here(input).start;
    kind(TokenKind::Set).parse_next(input)?;
    if current(input) == &TokenKind::Open {
        // A call, which an expression may begin with.
        return Err(ErrMode::Backtrack(unexpected(input, "a name")));
    }
    let name = name(input, Keyword::Set)?;
    let parameters = parameters(input)?;
    if parameters.len() != 1 {
        let fault = Fault::new(&name.span, "a set has one parameter");
        return Err(cut(fault.help(format!("write `set {name}(x) = …;`"))));
    }
    let value = preceded(equals, expression).parse_next(input)?;
    let end = semicolon(input, "an operator or `;`")?;
    let keyword = Keyword::Set;
    Ok(Definition { keyword, name, parameters, value, span: start..end })
}

fn let_definition(input: &mut Input<'_>) -> Parsed<Definition> {
    let start = here(input).start;
    kind(TokenKind::Let).parse_next(input)?;
    let name = name(input, Keyword::Let)?;
    let parameters = parameters(input)?;
    let value = preceded(equals, expression).parse_next(input)?;
    if current(input) == &TokenKind::In {
        if !parameters.is_empty() {
            return Err(cut(function_inside(&name)));
        }
        return Err(ErrMode::Backtrack(unexpected(input, "`;`")));
    }
    let end = semicolon(input, "an operator, `;` or `in`")?;
    let keyword = Keyword::Let;
    Ok(Definition { keyword, name, parameters, value, span: start..end })
}

fn parameters(input: &mut Input<'_>) -> Parsed<Vec<Name>> {
    let open = here(input);
    if opt(kind(TokenKind::Open)).parse_next(input)?.is_none() {
        return Ok(Vec::new());
    }
    if current(input) == &TokenKind::Close {
        let fault = Fault::new(&(open.start..here(input).end), "there are no parameters here");
        return Err(cut(fault.help("what has none is a value: `let NAME = …;`")));
    }
    let parameter = |input: &mut Input<'_>| name(input, Keyword::Let);
    let parameters = separated(1.., parameter, kind(TokenKind::Comma)).parse_next(input)?;
    close(input, &open, "`,` or `)`")?;
    Ok(parameters)
}

fn expression(input: &mut Input<'_>) -> Parsed<Expression> {
    if input.state.depth == MAX_DEPTH {
        let message = format!("parentheses and `let`s are more than {MAX_DEPTH} deep here");
        return Err(cut(Fault::new(&here(input), message)));
    }
    input.state.depth += 1;
    let parsed = match current(input) {
        TokenKind::Let => binding(input),
        _ => chain(input),
    };
    // Also when it failed: something else may be tried from where this began.
    input.state.depth -= 1;
    parsed
}

fn binding(input: &mut Input<'_>) -> Parsed<Expression> {
    let start = here(input).start;
    kind(TokenKind::Let).parse_next(input)?;
    let name = name(input, Keyword::Let)?;
    if current(input) == &TokenKind::Open {
        return Err(cut(function_inside(&name)));
    }
    let value = Box::new(preceded(equals, expression).parse_next(input)?);
    if opt(kind(TokenKind::In)).parse_next(input)?.is_none() {
        return Err(cut(operator_missing(input, "an operator or `in`")));
    }
    let body = Box::new(expression(input)?);
    let span = start..body.span.end;
    Ok(Expression { node: Node::Let { name, value, body }, span })
}

fn chain(input: &mut Input<'_>) -> Parsed<Expression> {
    let first = operand(input)?;
    if !matches!(current(input), TokenKind::Operator(_)) {
        return Ok(first);
    }
    let mut rest: Vec<(Operator, Expression)> = Vec::new();
    while let Some((operator, place)) = opt(operator).parse_next(input)? {
        if let TokenKind::End | TokenKind::Close = current(input) {
            return Err(cut(Fault::new(
                &place,
                format!("nothing stands behind this `{operator}`"),
            )));
        }
        let right = operand(input)?;
        if rest.last().is_some_and(|(before, _)| !operator.mixes_with(*before)) {
            return Err(cut(mixed(input.state.text, &first, &rest, (operator, place), &right)));
        }
        rest.push((operator, right));
    }
    let end = rest.last().map_or(first.span.end, |(_, last)| last.span.end);
    let span = first.span.start..end;
    Ok(Expression { node: Node::Chain { first: Box::new(first), rest }, span })
}

fn operand(input: &mut Input<'_>) -> Parsed<Expression> {
    let token: &Token = any.parse_next(input)?;
    let is_called = current(input) == &TokenKind::Open;
    let node = match &token.kind {
        TokenKind::Open => return grouped(input, &token.span),
        TokenKind::Word(name) if is_called => return call(input, name, &token.span),
        TokenKind::Set if is_called => return call(input, "set", &token.span),
        TokenKind::Word(text) => Node::Word(text.clone()),
        TokenKind::Text(text) => Node::Text(text.clone()),
        _ => return Err(cut(no_operand(token))),
    };
    Ok(Expression { node, span: token.span.clone() })
}

/// What stands behind an opening parenthesis.
fn grouped(input: &mut Input<'_>, open: &Range<usize>) -> Parsed<Expression> {
    let inner = expression(input)?;
    let end = close(input, open, "an operator or `)`")?;
    Ok(Expression { span: open.start..end, ..inner })
}

fn call(input: &mut Input<'_>, name: &str, span: &Range<usize>) -> Parsed<Expression> {
    let open = here(input);
    kind(TokenKind::Open).parse_next(input)?;
    // No `separated` here and no `alt`: their frames would lie on the stack at every depth.
    let mut arguments = Vec::new();
    if current(input) != &TokenKind::Close {
        arguments.push(expression(input)?);
        while opt(kind(TokenKind::Comma)).parse_next(input)?.is_some() {
            arguments.push(expression(input)?);
        }
    }
    let end = close(input, &open, "an operator, `,` or `)`")?;
    let name = Name { text: name.to_owned(), span: span.clone() };
    Ok(Expression { node: Node::Call { name, arguments }, span: span.start..end })
}

/// What to say where a set should begin and something else stands.
fn no_operand(Token { kind, span }: &Token) -> Fault {
    match kind {
        TokenKind::Operator(operator) => {
            Fault::new(span, format!("nothing stands in front of this `{operator}`"))
                .help("an operator stands between two sets: `a + b`, `a - b`, `a & b`")
        }
        TokenKind::Let => Fault::new(span, "a `let` inside an expression needs parentheses")
            .help("write `(let NAME = … in …)`"),
        TokenKind::In | TokenKind::Set => {
            let word = if *kind == TokenKind::In { "in" } else { "set" };
            Fault::new(span, format!("expected a set, found `{word}`, a word of the language"))
                .help(format!("a file with this name is written `\"{word}\"`"))
        }
        other => Fault::new(span, format!("expected a set, found {}", describe(other))),
    }
}

fn name(input: &mut Input<'_>, keyword: Keyword) -> Parsed<Name> {
    let Token { kind, span } = any.parse_next(input)?;
    let TokenKind::Word(text) = kind else {
        let message = format!("expected a name, found {}", describe(kind));
        return Err(cut(Fault::new(span, message)));
    };
    if !is_name(text, keyword) {
        let message = format!("`{}` cannot be a name", shorten(text));
        let help = if text.contains('=') {
            "`=` needs spaces round it: `let NAME = …`"
        } else {
            "a name has letters, digits, `_` and `-` (that of a set also `+`), and begins with a \
             letter"
        };
        return Err(cut(Fault::new(span, message).help(help)));
    }
    Ok(Name { text: text.clone(), span: span.clone() })
}

/// Whether a word may be the name of a value, a function, a parameter or a set.
pub(super) fn is_name(text: &str, keyword: Keyword) -> bool {
    let inner = |character: char| {
        character.is_alphanumeric()
            || matches!(character, '_' | '-')
            || character == '+' && keyword == Keyword::Set
    };
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && text.chars().all(inner)
        && !text.ends_with(['-', '+'])
}

fn operator(input: &mut Input<'_>) -> Parsed<(Operator, Range<usize>)> {
    any.verify_map(|token: &Token| match token.kind {
        TokenKind::Operator(operator) => Some((operator, token.span.clone())),
        _ => None,
    })
    .parse_next(input)
}

fn equals(input: &mut Input<'_>) -> Parsed<()> {
    match opt(kind(TokenKind::Equals)).parse_next(input)? {
        Some(_) => Ok(()),
        None => Err(cut(unexpected(input, "`=`"))),
    }
}

/// The end of the semicolon.
fn semicolon(input: &mut Input<'_>, expected: &str) -> Parsed<usize> {
    match opt(kind(TokenKind::Semicolon)).parse_next(input)? {
        Some(token) => Ok(token.span.end),
        None => Err(cut(operator_missing(input, expected))),
    }
}

/// The end of the parenthesis.
fn close(input: &mut Input<'_>, open: &Range<usize>, expected: &str) -> Parsed<usize> {
    match opt(kind(TokenKind::Close)).parse_next(input)? {
        Some(token) => Ok(token.span.end),
        None => Err(cut(operator_missing(input, expected).also(None, open, "opened here"))),
    }
}

fn kind<'t>(wanted: TokenKind) -> impl Parser<Input<'t>, &'t Token, ErrMode<Fault>> {
    any.verify(move |token: &&Token| token.kind == wanted)
}

fn current<'t>(input: &Input<'t>) -> &'t TokenKind {
    input.peek_token().map_or(&TokenKind::End, |token| &token.kind)
}

fn here(input: &Input<'_>) -> Range<usize> {
    input.peek_token().map_or(0..0, |token| token.span.clone())
}

fn cut(fault: Fault) -> ErrMode<Fault> {
    ErrMode::Cut(fault)
}

fn unexpected(input: &Input<'_>, expected: &str) -> Fault {
    let found = describe(current(input));
    Fault::new(&here(input), format!("expected {expected}, found {found}"))
}

/// What to say where a value has ended and no operator follows.
fn operator_missing(input: &Input<'_>, expected: &str) -> Fault {
    let fault = unexpected(input, expected);
    let before = input.input.previous_tokens().next();
    let glued = before.and_then(|token| match &token.kind {
        TokenKind::Word(word) if word.ends_with(['+', '-', '&', '=']) => Some(word),
        _ => None,
    });
    match (glued, current(input)) {
        (Some(word), _) => {
            fault.help(format!("`{}` is one word: operators need spaces round them", shorten(word)))
        }
        (None, TokenKind::Text(_))
            if before.is_some_and(|token| token.span.end == here(input).start) =>
        {
            fault.help("put the whole of it between quotation marks")
        }
        (None, TokenKind::Word(_) | TokenKind::Text(_) | TokenKind::Open | TokenKind::Set) => {
            fault.help("sets are joined by `+`, `-` or `&`")
        }
        _ => fault,
    }
}

fn function_inside(name: &Name) -> Fault {
    Fault::new(&name.span, "a function cannot be defined inside an expression")
        .help(format!("put `let {name}(…) = …;` in front of it"))
}

/// `a - b & c`: nobody remembers which goes first.
fn mixed(
    text: &str,
    first: &Expression,
    rest: &[(Operator, Expression)],
    (operator, place): (Operator, Range<usize>),
    right: &Expression,
) -> Fault {
    let before = rest.last().map_or(operator, |(before, _)| *before);
    let left = rest.last().map_or(first, |(_, last)| last);
    let source = |span: Range<usize>| text.get(span).unwrap_or_default();
    // What stands in front of the operator before, that operator, and so on.
    let parts = match rest {
        [.., (_, left_of_before), _] => {
            [source(first.span.start..left_of_before.span.end), source(left.span.clone())]
        }
        _ => [source(first.span.clone()), source(left.span.clone())],
    };
    let [start, middle] = parts;
    let end = source(right.span.clone());
    let mut parts = [start, middle, end];
    if parts.concat().len() > 60 || parts.concat().contains('\n') {
        parts = ["a", "b", "c"];
    }
    let [start, middle, end] = parts;
    Fault::new(&place, format!("`{before}` and `{operator}` are mixed")).help(format!(
        "put parentheses: `({start} {before} {middle}) {operator} {end}` or \
         `{start} {before} ({middle} {operator} {end})`"
    ))
}

fn describe(kind: &TokenKind) -> String {
    let quoted = |text: &str| format!("`{text}`");
    match kind {
        TokenKind::Open => quoted("("),
        TokenKind::Close => quoted(")"),
        TokenKind::Comma => quoted(","),
        TokenKind::Semicolon => quoted(";"),
        TokenKind::Equals => quoted("="),
        TokenKind::Operator(operator) => quoted(&operator.to_string()),
        TokenKind::Let => quoted("let"),
        TokenKind::In => quoted("in"),
        TokenKind::Set => quoted("set"),
        TokenKind::Word(word) => quoted(&shorten(word)),
        TokenKind::Text(text) => format!("\"{}\"", shorten(text)),
        TokenKind::End => "the end".to_owned(),
    }
}

/// As much of a word as belongs into a message.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 80;
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    text.chars().take(LONGEST).chain(cut.chars()).collect()
}
