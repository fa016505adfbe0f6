//! What a query looks like: the tree as it is written, before anybody asks what the names mean.
//!
//! `Display` writes it so that reading it again gives the same tree.

use std::fmt::{self, Display, Formatter, Write as _};
use std::ops::Range;

use super::lex;

/// What one text holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) definitions: Vec<Definition>,
    pub(super) expression: Option<Expression>,
}

/// `let NAME = …;`, `let NAME(…) = …;` or `set NAME(x) = …;`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) keyword: Keyword,
    pub(super) name: Name,
    /// None for a value.
    pub(super) parameters: Vec<Name>,
    pub(super) value: Expression,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    Let,
    Set,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) node: Node,
    /// With the parentheses round it.
    pub(super) span: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Word(String),
    /// Between quotation marks.
    Text(String),
    Call {
        name: Name,
        arguments: Vec<Expression>,
    },
    /// Operands from left to right. All operators are `&`, or none is. A list and not a tree: a
    /// long one must not be deep.
    Chain {
        first: Box<Expression>,
        rest: Vec<(Operator, Expression)>,
    },
    Let {
        name: Name,
        value: Box<Expression>,
        body: Box<Expression>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Union,
    Difference,
    Intersection,
}

impl Operator {
    /// Whether the two may stand in one chain.
    pub(super) fn mixes_with(self, other: Self) -> bool {
        (self == Self::Intersection) == (other == Self::Intersection)
    }
}

impl Display for Operator {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_char(match self {
            Self::Union => '+',
            Self::Difference => '-',
            Self::Intersection => '&',
        })
    }
}

impl Display for Name {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Display for Module {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for definition in &self.definitions {
            writeln!(formatter, "{definition}")?;
        }
        match &self.expression {
            Some(expression) => writeln!(formatter, "{expression}"),
            None => Ok(()),
        }
    }
}

impl Display for Definition {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.keyword {
            Keyword::Let => "let ",
            Keyword::Set => "set ",
        })?;
        write!(formatter, "{}", self.name)?;
        if !self.parameters.is_empty() {
            list(formatter, &self.parameters)?;
        }
        write!(formatter, " = {};", self.value)
    }
}

impl Display for Expression {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Word(word) if lex::is_word(word) => formatter.write_str(word),
            Node::Word(text) | Node::Text(text) => quote(formatter, text),
            Node::Call { name, arguments } => {
                write!(formatter, "{name}")?;
                list(formatter, arguments)
            }
            Node::Chain { first, rest } => {
                operand(formatter, first)?;
                rest.iter().try_for_each(|(operator, right)| {
                    write!(formatter, " {operator} ")?;
                    operand(formatter, right)
                })
            }
            Node::Let { name, value, body } => {
                write!(formatter, "let {name} = {value} in {body}")
            }
        }
    }
}

fn operand(formatter: &mut Formatter<'_>, expression: &Expression) -> fmt::Result {
    match expression.node {
        Node::Chain { .. } | Node::Let { .. } => write!(formatter, "({expression})"),
        _ => write!(formatter, "{expression}"),
    }
}

fn list<T: Display>(formatter: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    formatter.write_char('(')?;
    for (index, item) in items.iter().enumerate() {
        // The space is needed: behind `x.drv^out` a comma may belong to the word.
        formatter.write_str(if index == 0 { "" } else { ", " })?;
        item.fmt(formatter)?;
    }
    formatter.write_char(')')
}

fn quote(formatter: &mut Formatter<'_>, text: &str) -> fmt::Result {
    formatter.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(formatter, "\\{character}")?,
            '\n' => formatter.write_str("\\n")?,
            character => formatter.write_char(character)?,
        }
    }
    formatter.write_char('"')
}
