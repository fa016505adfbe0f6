//! A query that was understood: every name leads to what it stands for.

use std::ops::Range;

use regex::Regex;

use super::functions::Function;
use super::syntax::Operator;
use super::{NamedSet, Source};
use crate::Kind;

/// A query, or definitions for one, checked as far as that goes without a graph.
#[derive(Debug)]
pub struct Program {
    pub(super) sources: Vec<Source>,
    /// Values at the top, each to be computed at most once.
    pub(super) values: Vec<Body>,
    pub(super) functions: Vec<Body>,
    /// Named sets: functions of one parameter.
    pub(super) sets: Vec<(NamedSet, Body)>,
    pub(super) expression: Option<Body>,
}

/// Something with a room of its own: what is in it sees its own slots and what is at the top.
#[derive(Debug)]
pub(super) struct Body {
    /// The text it stands in.
    pub(super) source: usize,
    /// How many parameters and `let … in` it has; the parameters come first.
    pub(super) slots: usize,
    pub(super) expression: Expression,
}

#[derive(Debug)]
pub(super) struct Expression {
    pub(super) span: Range<usize>,
    /// How deep computing it goes, through everything that it uses.
    pub(super) height: usize,
    pub(super) node: Node,
}

#[derive(Debug)]
pub(super) enum Node {
    /// A word that no name stands for.
    Installable {
        text: String,
        /// What else may have been meant, should nobody know it.
        hint: Option<String>,
    },
    /// A parameter, or a `let … in`, by its slot.
    Local(usize),
    /// A value at the top, by number.
    Value(usize),
    /// A user's function, by number.
    Call {
        function: usize,
        arguments: Vec<Expression>,
    },
    Builtin {
        function: &'static Function,
        arguments: Vec<Argument>,
    },
    Chain {
        first: Box<Expression>,
        rest: Vec<(Operator, Expression)>,
    },
    Let {
        slot: usize,
        value: Box<Expression>,
        body: Box<Expression>,
    },
}

/// What a built-in function is given.
#[derive(Debug)]
pub(super) enum Argument {
    Set(Expression),
    Regex(Regex),
    Kinds(Vec<Kind>),
    /// The address of a store, or the name of a file.
    Place(String),
    /// A named set, by number.
    SetName(usize),
    Depth(u32),
}

impl Program {
    /// Whether there is an expression, and not only definitions.
    #[must_use]
    pub fn has_expression(&self) -> bool {
        self.expression.is_some()
    }

    /// The named sets that it knows, in the order of their definitions: ferry's own come first.
    pub fn named_sets(&self) -> impl Iterator<Item = &NamedSet> {
        self.sets.iter().map(|(set, _)| set)
    }
}
