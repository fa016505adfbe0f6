//! What built-in functions are given: how many arguments, and of what kind.

use std::fmt::Display;
use std::ops::Range;

use regex::{Regex, RegexBuilder};

use super::error::Fault;
use super::functions::{Function, Parameter, nearest};
use super::parse::shorten;
use super::program::Argument;
use super::resolve::{Resolver, Scope};
use super::syntax::{Expression, Node, Operator};
use crate::Kind;

/// Bytes that a compiled regular expression may take.
const REGEX_SIZE: usize = 1 << 20;

const KINDS: &str = "kinds are `run`, `build` and `eval`, joined by `+`, or `all`";

/// Checks how many arguments a built-in function has.
pub(super) fn count(
    function: &Function,
    span: &Range<usize>,
    arguments: &[Expression],
) -> Result<(), Fault> {
    let most = function.parameters.len();
    let optional = function.parameters.iter().filter(|it| **it == Parameter::Depth).count();
    if (most - optional..=most).contains(&arguments.len()) {
        return Ok(());
    }
    let wanted = match (most, optional) {
        (0, _) => "no arguments".to_owned(),
        (1, 0) => "one argument".to_owned(),
        (_, 0) => format!("{most} arguments"),
        _ => format!("{} or {most} arguments", most - optional),
    };
    let message = format!("`{}` takes {wanted}, not {}", function.name, arguments.len());
    let signature = || format!("it is called as `{}`", function.signature());
    Err(Fault::new(span, message).help(comma_in_word(arguments).unwrap_or_else(signature)))
}

/// A user's function is called with more or fewer arguments than it has parameters.
pub(super) fn wrong_number(
    span: &Range<usize>,
    name: impl Display,
    parameters: usize,
    arguments: &[Expression],
) -> Fault {
    let plural = if parameters == 1 { "" } else { "s" };
    let message = format!("`{name}` takes {parameters} argument{plural}, not {}", arguments.len());
    Fault::new(span, message).maybe_help(comma_in_word(arguments))
}

/// `f(x.drv^out,y)`: the comma went into the word.
fn comma_in_word(arguments: &[Expression]) -> Option<String> {
    arguments.iter().find_map(|argument| match &argument.node {
        Node::Word(word) if word.contains(',') => Some(format!(
            "`{}` is one word: put a space behind the comma, or quotation marks round the word",
            shorten(word)
        )),
        _ => None,
    })
}

impl Resolver {
    /// Checks one argument of a built-in function.
    pub(super) fn argument(
        &self,
        parameter: Parameter,
        written: &Expression,
        function: &Function,
        scope: &mut Scope,
    ) -> Result<Argument, Fault> {
        let wrong = |message: String| {
            let help = format!("it is called as `{}`", function.signature());
            Fault::new(&written.span, message).help(help)
        };
        match (parameter, &written.node) {
            (Parameter::Set(_), _) => self.expression(written, scope).map(Argument::Set),
            (Parameter::Kinds, _) => kinds(written, function).map(Argument::Kinds),
            (Parameter::Regex, Node::Text(text)) => regex(text, &written.span).map(Argument::Regex),
            (Parameter::Regex, Node::Word(word)) => {
                let message = "a regular expression stands between quotation marks";
                let node = Node::Text(shorten(word));
                let quoted = Expression { node, span: written.span.clone() };
                Err(Fault::new(&written.span, message).help(format!("write `{quoted}`")))
            }
            (Parameter::Regex, _) => Err(wrong("expected a regular expression".to_owned())),
            (Parameter::Store | Parameter::File, Node::Word(text) | Node::Text(text)) => {
                Ok(Argument::Place(text.clone()))
            }
            (Parameter::Store, _) => Err(wrong("expected the address of a store".to_owned())),
            (Parameter::File, _) => Err(wrong("expected the name of a file".to_owned())),
            (Parameter::SetName, Node::Word(name) | Node::Text(name)) => {
                self.set_name(name, &written.span).map(Argument::SetName)
            }
            (Parameter::SetName, _) => Err(wrong("expected the name of a named set".to_owned())),
            (Parameter::Depth, Node::Word(text)) if text.parse::<u32>().is_ok() => {
                text.parse().map(Argument::Depth).map_err(|_| wrong("expected a depth".to_owned()))
            }
            (Parameter::Depth, _) => {
                let fault = Fault::new(&written.span, "expected a depth");
                Err(fault.help("a depth is a whole number: how many steps to go at most"))
            }
        }
    }

    fn set_name(&self, name: &str, span: &Range<usize>) -> Result<usize, Fault> {
        if let Some(number) = self.set_number(name) {
            return Ok(number);
        }
        let message = format!("there is no named set `{}`", shorten(name));
        let known: Vec<&str> = self.sets.iter().map(|(set, _)| set.name.as_str()).collect();
        Err(Fault::new(span, message).help(match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", known.join(", ")),
        }))
    }
}

/// `run`, `run+build`, `run + build`, `all`.
fn kinds(written: &Expression, function: &Function) -> Result<Vec<Kind>, Fault> {
    let mut parts = Vec::new();
    match &written.node {
        Node::Chain { first, rest } if rest.iter().all(|(it, _)| *it == Operator::Union) => {
            parts.push(&**first);
            parts.extend(rest.iter().map(|(_, right)| right));
        }
        _ => parts.push(written),
    }
    let mut found: Vec<Kind> = Vec::new();
    for part in parts {
        let Node::Word(word) = &part.node else {
            return Err(Fault::new(&part.span, "expected kinds of dependencies").help(KINDS));
        };
        if word == "all" && part.span == written.span {
            return Ok(Kind::ALL.to_vec());
        }
        let mut start = part.span.start;
        for name in word.split('+') {
            // Places in the word are places in the text, unless there are parentheses round it.
            let whole = part.span.len() != word.len();
            let span = if whole { part.span.clone() } else { start..start + name.len() };
            start = span.end + 1;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            let kind = kind.ok_or_else(|| unknown_kind(name, &span, function))?;
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
    }
    Ok(found)
}

fn unknown_kind(name: &str, span: &Range<usize>, function: &Function) -> Fault {
    let fault = Fault::new(span, format!("`{}` is no kind of dependency", shorten(name)));
    fault.help(match nearest(name, Kind::ALL.map(Kind::name)) {
        Some(near) => format!("did you mean `{near}`? {KINDS}"),
        None => format!("{KINDS}. The function is `{}`", function.signature()),
    })
}

fn regex(text: &str, span: &Range<usize>) -> Result<Regex, Fault> {
    // The parser by itself says where a mistake is.
    let (message, place) = match regex_syntax::Parser::new().parse(text) {
        Ok(_) => match RegexBuilder::new(text).size_limit(REGEX_SIZE).build() {
            Ok(regex) => return Ok(regex),
            Err(error) => (error.to_string().trim_end_matches('.').to_owned(), 0..text.len()),
        },
        Err(regex_syntax::Error::Parse(error)) => {
            let place = error.span();
            (error.kind().to_string(), place.start.offset..place.end.offset)
        }
        Err(regex_syntax::Error::Translate(error)) => {
            let place = error.span();
            (error.kind().to_string(), place.start.offset..place.end.offset)
        }
        Err(error) => (error.to_string(), 0..text.len()),
    };
    // Between quotation marks some characters are written as two.
    let written = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        span.start + 1 + offset + before.matches(['"', '\\', '\n']).count()
    };
    let span = written(place.start)..written(place.end);
    Err(Fault::new(&span, format!("bad regular expression: {message}")))
}
