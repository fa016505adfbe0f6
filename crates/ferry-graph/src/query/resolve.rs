//! From what is written to what it means: every name is looked up, every argument checked.

use std::collections::HashMap;
use std::ops::Range;

use super::arguments;
use super::error::{Fault, QueryError};
use super::functions::{self, Id, nearest};
use super::program::{Argument, Body, Expression, Node, Program};
use super::syntax::{self, Definition, Keyword};
use super::{NamedSet, Source, lex, parse};

/// How deep computing a value may go, through everything that it uses. (Ferry's own named sets
/// stay below 20.)
pub(super) const MAX_HEIGHT: usize = 500;

/// Reads the texts of a query, the first of which is ferry's own.
pub(super) fn program(sources: Vec<Source>) -> Result<Program, QueryError> {
    let mut resolver = Resolver::default();
    for (number, source) in sources.iter().enumerate() {
        resolver.source = number;
        resolver.module(source.text()).map_err(|fault| fault.within(&sources, number))?;
    }
    let Resolver { values, functions, sets, expression, .. } = resolver;
    Ok(Program { sources, values, functions, sets, expression })
}

/// Whether a text holds nothing but comments.
pub(super) fn is_empty(text: &str) -> bool {
    lex::tokens(text).is_ok_and(|tokens| tokens.len() == 1)
}

#[derive(Default)]
pub(super) struct Resolver {
    /// The text that is being read.
    source: usize,
    globals: HashMap<String, Global>,
    values: Vec<Body>,
    functions: Vec<Body>,
    pub(super) sets: Vec<(NamedSet, Body)>,
    set_names: HashMap<String, DefinedSet>,
    expression: Option<Body>,
}

/// Something defined at the top.
struct Global {
    meaning: Meaning,
    source: usize,
    span: Range<usize>,
}

/// A named set: its number, and where it is defined.
struct DefinedSet {
    number: usize,
    source: usize,
    span: Range<usize>,
}

#[derive(Clone, Copy)]
enum Meaning {
    Value(usize),
    Function { number: usize, parameters: usize },
}

/// What can be seen inside a definition.
#[derive(Default)]
pub(super) struct Scope {
    locals: HashMap<String, Local>,
    slots: usize,
}

struct Local {
    span: Range<usize>,
    slot: usize,
    height: usize,
}

impl Scope {
    fn add(&mut self, name: &syntax::Name, height: usize) -> Result<usize, Fault> {
        if let Some(first) = self.locals.get(&name.text) {
            return Err(defined_twice(name, None, &first.span));
        }
        let slot = self.slots;
        self.slots += 1;
        let local = Local { span: name.span.clone(), slot, height };
        self.locals.insert(name.text.clone(), local);
        Ok(slot)
    }
}

impl Resolver {
    fn module(&mut self, text: &str) -> Result<(), Fault> {
        let module = parse::module(text)?;
        for definition in module.definitions {
            match definition.keyword {
                Keyword::Let => self.define(&definition)?,
                Keyword::Set => self.define_set(&definition, text)?,
            }
        }
        let Some(expression) = module.expression else { return Ok(()) };
        if let Some(first) = &self.expression {
            let fault = Fault::new(&expression.span, "this is the second expression of the query");
            let help = "a query has one; give names to the others: `let NAME = …;`";
            let first = (first.source, &first.expression.span);
            return Err(fault.also(self.elsewhere(first.0), first.1, "the first one").help(help));
        }
        self.expression = Some(self.body(&[], &expression)?);
        Ok(())
    }

    /// How a fault in this text points to another.
    fn elsewhere(&self, source: usize) -> Option<usize> {
        (source != self.source).then_some(source)
    }

    fn define(&mut self, definition: &Definition) -> Result<(), Fault> {
        let Definition { name, parameters, value, .. } = definition;
        // Ferry's own helpers may be defined anew, so that a new one breaks nobody's file.
        if let Some(first) = self.globals.get(&name.text).filter(|first| first.source != 0) {
            return Err(defined_twice(name, self.elsewhere(first.source), &first.span));
        }
        let body = self.body(parameters, value)?;
        let meaning = if parameters.is_empty() {
            self.values.push(body);
            Meaning::Value(self.values.len() - 1)
        } else {
            if functions::find(&name.text).is_some() {
                let fault = Fault::new(&name.span, format!("`{name}` is a built-in function"));
                return Err(fault.help("give yours another name"));
            }
            self.functions.push(body);
            Meaning::Function { number: self.functions.len() - 1, parameters: parameters.len() }
        };
        let global = Global { meaning, source: self.source, span: name.span.clone() };
        self.globals.insert(name.text.clone(), global);
        Ok(())
    }

    fn define_set(&mut self, definition: &Definition, text: &str) -> Result<(), Fault> {
        let Definition { name, parameters, value, span, .. } = definition;
        if let Some(first) = self.set_names.get(&name.text) {
            return Err(defined_twice(name, self.elsewhere(first.source), &first.span));
        }
        let body = self.body(parameters, value)?;
        let (doc, sentence) = comment_above(text, span.start);
        let set = NamedSet {
            name: name.text.clone(),
            doc,
            sentence,
            definition: text.get(span.clone()).unwrap_or_default().to_owned(),
        };
        let number = self.sets.len();
        self.sets.push((set, body));
        let place = DefinedSet { number, source: self.source, span: name.span.clone() };
        self.set_names.insert(name.text.clone(), place);
        Ok(())
    }

    fn body(&self, parameters: &[syntax::Name], value: &syntax::Expression) -> Result<Body, Fault> {
        let mut scope = Scope::default();
        for parameter in parameters {
            scope.add(parameter, 0)?;
        }
        let expression = self.expression(value, &mut scope)?;
        Ok(Body { source: self.source, slots: scope.slots, expression })
    }

    pub(super) fn expression(
        &self,
        written: &syntax::Expression,
        scope: &mut Scope,
    ) -> Result<Expression, Fault> {
        let span = &written.span;
        let (node, below) = match &written.node {
            syntax::Node::Text(text) => (Node::Installable { text: text.clone(), hint: None }, 0),
            syntax::Node::Word(word) => self.word(word, scope),
            syntax::Node::Call { name, arguments } => self.call(span, name, arguments, scope)?,
            syntax::Node::Chain { first, rest } => {
                let first = Box::new(self.expression(first, scope)?);
                let mut below = first.height;
                let mut resolved = Vec::with_capacity(rest.len());
                for (operator, right) in rest {
                    let right = self.expression(right, scope)?;
                    below = below.max(right.height);
                    resolved.push((*operator, right));
                }
                (Node::Chain { first, rest: resolved }, below)
            }
            syntax::Node::Let { name, value, body } => {
                let value = Box::new(self.expression(value, scope)?);
                // It is computed where it is used, so its height counts there.
                let slot = scope.add(name, value.height)?;
                let body = Box::new(self.expression(body, scope)?);
                scope.locals.remove(&name.text);
                let below = body.height;
                (Node::Let { slot, value, body }, below)
            }
        };
        let height = below + 1;
        if height > MAX_HEIGHT {
            let message = format!("more than {MAX_HEIGHT} things lie one below another here");
            return Err(Fault::new(span, message).help("use fewer definitions of definitions"));
        }
        Ok(Expression { span: span.clone(), height, node })
    }

    /// A value if there is one of this name, else an installable.
    fn word(&self, word: &str, scope: &Scope) -> (Node, usize) {
        if let Some(local) = scope.locals.get(word) {
            return (Node::Local(local.slot), local.height);
        }
        if let Some(Global { meaning: Meaning::Value(number), .. }) = self.globals.get(word) {
            let height = self.values.get(*number).map_or(0, |body| body.expression.height);
            return (Node::Value(*number), height);
        }
        (Node::Installable { text: word.to_owned(), hint: self.hint(word, scope) }, 0)
    }

    fn call(
        &self,
        span: &Range<usize>,
        name: &syntax::Name,
        arguments: &[syntax::Expression],
        scope: &mut Scope,
    ) -> Result<(Node, usize), Fault> {
        if let Some(function) = functions::find(&name.text) {
            arguments::count(function, span, arguments)?;
            let mut below = 0;
            let mut resolved = Vec::with_capacity(arguments.len());
            for (parameter, argument) in function.parameters.iter().zip(arguments) {
                let argument = self.argument(*parameter, argument, function, scope)?;
                below = below.max(match (&argument, function.id) {
                    (Argument::Set(expression), _) => expression.height,
                    (Argument::SetName(number), Id::Set) => {
                        self.sets.get(*number).map_or(0, |(_, body)| body.expression.height)
                    }
                    _ => 0,
                });
                resolved.push(argument);
            }
            return Ok((Node::Builtin { function, arguments: resolved }, below));
        }
        let is_local = scope.locals.contains_key(&name.text);
        let (number, parameters) = match self.globals.get(&name.text).map(|found| found.meaning) {
            Some(Meaning::Function { number, parameters }) if !is_local => (number, parameters),
            Some(Meaning::Value(_)) | Some(Meaning::Function { .. }) => {
                return Err(not_a_function(name));
            }
            None if is_local => return Err(not_a_function(name)),
            None => return Err(self.unknown_function(name, scope)),
        };
        if arguments.len() != parameters {
            return Err(arguments::wrong_number(span, name, parameters, arguments));
        }
        let mut below = self.functions.get(number).map_or(0, |body| body.expression.height);
        let mut resolved = Vec::with_capacity(parameters);
        for argument in arguments {
            let argument = self.expression(argument, scope)?;
            below = below.max(argument.height);
            resolved.push(argument);
        }
        Ok((Node::Call { function: number, arguments: resolved }, below))
    }

    /// The number of a named set.
    pub(super) fn set_number(&self, name: &str) -> Option<usize> {
        self.set_names.get(name).map(|set| set.number)
    }

    fn unknown_function(&self, name: &syntax::Name, scope: &Scope) -> Fault {
        let known = functions::functions().iter().map(|function| function.name);
        let own = self.globals.iter().filter_map(|(name, global)| {
            matches!(global.meaning, Meaning::Function { .. }).then_some(name.as_str())
        });
        let help = if self.set_names.contains_key(&name.text) {
            Some(format!("it is a named set: `set({name}, x)`"))
        } else if let Some(glued) = self.glued(&name.text, scope) {
            Some(glued)
        } else if let Some(name) = nearest(&name.text, known.chain(sorted(own))) {
            Some(format!("did you mean `{name}`?"))
        } else if !parse::is_name(&name.text, Keyword::Let) {
            Some("sets are joined by `+`, `-` or `&`, with spaces round them".to_owned())
        } else {
            None
        };
        let message = format!("unknown function `{}`", parse::shorten(&name.text));
        Fault::new(&name.span, message).maybe_help(help)
    }

    /// What may have been meant by a word that is taken for an installable.
    fn hint(&self, word: &str, scope: &Scope) -> Option<String> {
        if let Some(glued) = self.glued(word, scope) {
            return Some(glued);
        }
        if let Some(function) = functions::find(word) {
            return Some(format!("there is a function `{}`", function.signature()));
        }
        match self.globals.get(word).map(|global| global.meaning) {
            Some(Meaning::Function { .. }) => {
                return Some(format!("there is a function `{word}`: give it arguments"));
            }
            _ if self.set_names.contains_key(word) => {
                return Some(format!("there is a named set: `set({word}, x)`"));
            }
            _ => {}
        }
        // Every word comes here: where names are many, looking for a near one takes too long.
        if self.globals.len() + scope.locals.len() > 1_000 {
            return None;
        }
        let values = self.globals.iter().filter_map(|(name, global)| {
            matches!(global.meaning, Meaning::Value(_)).then_some(name.as_str())
        });
        let locals = scope.locals.keys().map(String::as_str);
        nearest(word, sorted(locals).into_iter().chain(sorted(values)))
            .map(|name| format!("did you mean `{name}`?"))
    }

    /// A name and something else with an operator between them, written as one word.
    fn glued(&self, word: &str, scope: &Scope) -> Option<String> {
        if word.len() > 200 {
            return None;
        }
        if word.ends_with(['+', '-', '&']) {
            return Some("operators need spaces round them".to_owned());
        }
        word.match_indices(['+', '-', '&']).find_map(|(index, operator)| {
            let left = word.get(..index)?;
            let right = word.get(index + operator.len()..)?;
            let is_glued = self.is_value(left, scope) || self.is_value(right, scope);
            is_glued
                .then(|| format!("operators need spaces round them: `{left} {operator} {right}`"))
        })
    }

    fn is_value(&self, name: &str, scope: &Scope) -> bool {
        let global = self.globals.get(name);
        global.is_some_and(|global| matches!(global.meaning, Meaning::Value(_)))
            || scope.locals.contains_key(name)
    }
}

/// In an order that does not depend on a hash.
fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names
}

fn not_a_function(name: &syntax::Name) -> Fault {
    Fault::new(&name.span, format!("`{name}` is a set, not a function"))
}

fn defined_twice(name: &syntax::Name, source: Option<usize>, first: &Range<usize>) -> Fault {
    Fault::new(&name.span, format!("`{name}` is defined twice"))
        .also(source, first, "the first time here")
        .help("give one of the two another name")
}

/// The comment right above a place: what stands before an empty comment line, and what behind.
fn comment_above(text: &str, start: usize) -> (String, String) {
    let before = text.get(..start).unwrap_or_default();
    let (above, same_line) = before.rsplit_once('\n').unwrap_or(("", before));
    if !same_line.trim().is_empty() {
        return (String::new(), String::new());
    }
    let mut lines: Vec<&str> = above
        .lines()
        .rev()
        .map_while(|line| line.trim_start().strip_prefix('#').map(str::trim))
        .collect();
    lines.reverse();
    let mut parts = lines.splitn(2, |line| line.is_empty());
    let mut part = || parts.next().unwrap_or_default().join(" ").trim().to_owned();
    (part(), part())
}
