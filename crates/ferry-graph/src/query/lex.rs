//! The text of a query, cut into tokens.
//!
//! A **word** goes on to the next whitespace, parenthesis, comma, semicolon or quotation mark, so
//! `a-b` and `nixpkgs#hello` are one word each. Operators, `=` and `#` (a comment, to the end of
//! the line) are looked for only where a token begins. One comma does belong to a word: between
//! names of outputs, as in `x.drv^out,dev`, where no whitespace follows it.

use std::ops::Range;

use winnow::combinator::{alt, cut_err, fail, preceded, repeat};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _, Stream};
use winnow::token::{none_of, one_of, take_till, take_while};

use super::error::Fault;
use super::syntax::Operator;

/// The longest text that is read: 1 MiB.
pub(super) const MAX_LENGTH: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Open,
    Close,
    Comma,
    Semicolon,
    Equals,
    Operator(Operator),
    Let,
    In,
    Set,
    Word(String),
    Text(String),
    /// What stands behind the last token.
    End,
}

type Input<'t> = LocatingSlice<&'t str>;
type Parsed<T> = winnow::ModalResult<T, Fault>;

impl ParserError<Input<'_>> for Fault {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        let start = input.current_token_start();
        Self::new(&(start..start), "this is not understood")
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// Cuts up a text. The last token is always [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    if text.len() > MAX_LENGTH {
        let message = format!("the query is longer than {} MiB", MAX_LENGTH >> 20);
        return Err(Fault::new(&(0..0), message));
    }
    let mut input = LocatingSlice::new(text);
    let found = repeat(0.., preceded(blank, token)).parse_next(&mut input);
    let mut found: Vec<Token> = found.map_err(fault)?;
    let end = found.last().map_or(0, |token| token.span.end);
    found.push(Token { kind: TokenKind::End, span: end..end });
    Ok(found)
}

/// Whether a word, a keyword apart, is written as it is: cutting it up yields it again.
pub(super) fn is_word(text: &str) -> bool {
    !text.starts_with(['+', '-', '&', '=', '#'])
        && !["let", "in", "set"].contains(&text)
        && !text.is_empty()
        && word_length(text) == text.len()
}

/// The mistake itself, whether or not something else might have been tried.
pub(super) fn fault(error: ErrMode<Fault>) -> Fault {
    match error {
        ErrMode::Backtrack(fault) | ErrMode::Cut(fault) => fault,
        ErrMode::Incomplete(_) => Fault::new(&(0..0), "the text stops too early"),
    }
}

fn blank(input: &mut Input<'_>) -> Parsed<()> {
    let space = take_while(1.., char::is_whitespace).void();
    let comment = ('#', take_till(0.., '\n')).void();
    repeat(0.., alt((space, comment))).parse_next(input)
}

fn token(input: &mut Input<'_>) -> Parsed<Token> {
    alt((mark, quoted, word)).with_span().map(|(kind, span)| Token { kind, span }).parse_next(input)
}

fn mark(input: &mut Input<'_>) -> Parsed<TokenKind> {
    let marks = one_of(['(', ')', ',', ';', '=', '+', '-', '&']);
    let kind = |mark| match mark {
        '(' => TokenKind::Open,
        ')' => TokenKind::Close,
        ',' => TokenKind::Comma,
        ';' => TokenKind::Semicolon,
        '=' => TokenKind::Equals,
        '+' => TokenKind::Operator(Operator::Union),
        '-' => TokenKind::Operator(Operator::Difference),
        _ => TokenKind::Operator(Operator::Intersection),
    };
    marks.map(kind).parse_next(input)
}

fn quoted(input: &mut Input<'_>) -> Parsed<TokenKind> {
    let opening = input.current_token_start();
    '"'.parse_next(input)?;
    let plain = none_of(['"', '\\', '\n']);
    let text: String =
        repeat(0.., alt((plain, preceded('\\', cut_err(escaped))))).parse_next(input)?;
    if input.next_token() == Some('"') {
        return Ok(TokenKind::Text(text));
    }
    let message = "this quotation mark has no partner in its line";
    let unbalanced = Fault::new(&(opening..opening + 1), message);
    Err(ErrMode::Cut(unbalanced.help("inside quotation marks, one is written `\\\"`")))
}

fn escaped(input: &mut Input<'_>) -> Parsed<char> {
    let start = input.current_token_start();
    match input.next_token() {
        Some(character @ ('"' | '\\')) => Ok(character),
        Some('n') => Ok('\n'),
        Some(other) => Err(ErrMode::Cut(
            Fault::new(
                &(start - 1..start + other.len_utf8()),
                format!("`\\{}` means nothing", other.escape_debug()),
            )
            .help(
                "known are `\\\"`, `\\\\` and `\\n`; a backslash in a regular expression is \
                 written `\\\\`, as in `\"\\\\.tar$\"`",
            ),
        )),
        // The text ends here: whoever looks for the quotation mark will say so.
        None => Ok('\\'),
    }
}

fn word(input: &mut Input<'_>) -> Parsed<TokenKind> {
    let length = word_length(input.as_ref());
    if length == 0 {
        return fail.parse_next(input);
    }
    Ok(match input.next_slice(length) {
        "let" => TokenKind::Let,
        "in" => TokenKind::In,
        "set" => TokenKind::Set,
        word => TokenKind::Word(word.to_owned()),
    })
}

/// How many bytes the word at the beginning of a text has.
fn word_length(text: &str) -> usize {
    /// Where in a word we are.
    #[derive(PartialEq)]
    enum At {
        Plain,
        /// Behind a `^`, or behind a comma that belongs to the word.
        OutputBegins,
        Output,
    }
    let mut at = At::Plain;
    let mut rest = text.char_indices().peekable();
    while let Some((index, character)) = rest.next() {
        let next = rest.peek().map(|(_, character)| *character);
        at = match character {
            '^' => At::OutputBegins,
            ',' if at == At::Output && next.is_some_and(is_output_character) => At::OutputBegins,
            '(' | ')' | ',' | ';' | '"' => return index,
            character if character.is_whitespace() => return index,
            character if at != At::Plain && is_output_character(character) => At::Output,
            _ => At::Plain,
        };
    }
    text.len()
}

/// What an output's name is made of: what a store path's name is made of.
fn is_output_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "+-._?=".contains(character)
}
