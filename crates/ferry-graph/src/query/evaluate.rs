//! Answering a query.

use std::collections::HashMap;

use super::error::{Fault, QueryError};
use super::functions::Id;
use super::program::{Argument, Body, Expression, Node, Program};
use super::syntax::Operator;
use super::words::Words;
use crate::explore::Explorer;
use crate::facts::FactsError;
use crate::graph::{Graph, Kind};
use crate::{NodeId, NodeSet, Object};

/// What a query asks of the world outside the graph.
pub trait Outside {
    /// What an installable stands for: `./result`, `x.drv^out`, `nixpkgs#hello`.
    ///
    /// # Errors
    /// When there is no such thing.
    fn installable(
        &mut self,
        text: &str,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError>;

    /// Those of `nodes` that are valid in the store with this address.
    ///
    /// # Errors
    /// When the store cannot be asked.
    fn valid(
        &mut self,
        store: &str,
        nodes: &NodeSet,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError>;

    /// What an inventory file lists.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn have(&mut self, file: &str, explorer: &mut Explorer<'_>) -> Result<NodeSet, FactsError>;

    /// Those of `nodes` that an inventory file has, which it may know without listing any.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn had(
        &mut self,
        file: &str,
        nodes: &NodeSet,
        explorer: &mut Explorer<'_>,
    ) -> Result<NodeSet, FactsError> {
        let mut had = self.have(file, explorer)?;
        had.intersect_with(nodes);
        Ok(had)
    }
}

impl Program {
    /// Answers the query.
    ///
    /// Every installable that the answer takes is looked up first, once, and is
    /// [named](Explorer::name) to the explorer. A value is computed when it is first used, and
    /// never again. What the graph lacks is in [`Explorer::missing`] afterwards.
    ///
    /// # Errors
    /// When the world outside, or a source of facts, could not answer; or there is no expression.
    pub fn evaluate(
        &self,
        explorer: &mut Explorer<'_>,
        outside: &mut dyn Outside,
    ) -> Result<NodeSet, QueryError> {
        let Some(body) = &self.expression else {
            let last = self.sources.len().saturating_sub(1);
            return Err(Fault::new(&(0..0), "nothing is asked").within(&self.sources, last));
        };
        Evaluation::new(self, explorer, outside).answer(body)
    }
}

struct Evaluation<'p, 'x, 'e> {
    program: &'p Program,
    explorer: &'x mut Explorer<'e>,
    outside: &'x mut dyn Outside,
    installables: HashMap<&'p str, NodeSet>,
    /// Of the values at the top, those that were needed so far.
    values: Vec<Option<NodeSet>>,
}

/// Where a body is computed.
struct Frame<'p> {
    source: usize,
    slots: Vec<Slot<'p>>,
}

#[derive(Clone)]
enum Slot<'p> {
    /// A `let … in` that nobody has come to.
    Empty,
    /// One that nobody has used.
    Delayed(&'p Expression),
    Known(NodeSet),
}

/// An inventory, and where a query names it.
struct InventoryUsed<'p> {
    file: &'p str,
    expression: &'p Expression,
    source: usize,
}

impl<'p> Frame<'p> {
    fn new(body: &Body, arguments: Vec<NodeSet>) -> Self {
        let mut slots: Vec<Slot<'p>> = arguments.into_iter().map(Slot::Known).collect();
        slots.resize(body.slots, Slot::Empty);
        Self { source: body.source, slots }
    }

    fn put(&mut self, slot: usize, content: Slot<'p>) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = content;
        }
    }
}

type Answer = Result<NodeSet, QueryError>;

impl<'p, 'x, 'e> Evaluation<'p, 'x, 'e> {
    fn new(
        program: &'p Program,
        explorer: &'x mut Explorer<'e>,
        outside: &'x mut dyn Outside,
    ) -> Self {
        let values = program.values.iter().map(|_| None).collect();
        Self { program, explorer, outside, installables: HashMap::new(), values }
    }

    fn answer(mut self, body: &'p Body) -> Answer {
        Words::new(self.program)
            .of(body, &mut |source, expression| self.look_up(source, expression))?;
        self.body(body, Vec::new())
    }

    /// Finds out what an installable stands for.
    fn look_up(&mut self, source: usize, expression: &'p Expression) -> Result<(), QueryError> {
        let Node::Installable { text, hint } = &expression.node else { return Ok(()) };
        if self.installables.contains_key(text.as_str()) {
            return Ok(());
        }
        let nodes = self.outside.installable(text, self.explorer).map_err(|error| {
            let fault = Fault::new(&expression.span, error.to_string()).maybe_help(hint.clone());
            fault.within(&self.program.sources, source).caused_by(error)
        })?;
        nodes.iter().for_each(|node| self.explorer.name(node));
        self.installables.insert(text, nodes);
        Ok(())
    }

    fn body(&mut self, body: &'p Body, arguments: Vec<NodeSet>) -> Answer {
        self.expression(&body.expression, &mut Frame::new(body, arguments))
    }

    fn expression(&mut self, expression: &'p Expression, frame: &mut Frame<'p>) -> Answer {
        match &expression.node {
            Node::Installable { text, .. } => {
                Ok(self.installables.get(text.as_str()).cloned().unwrap_or_default())
            }
            Node::Local(slot) => self.local(*slot, frame),
            Node::Value(number) => self.value(*number),
            Node::Call { function, arguments } => {
                let answer = self.call(*function, arguments, frame);
                answer.map_err(|error| self.place(error, expression, frame))
            }
            Node::Builtin { arguments, .. } => self.builtin(expression, arguments, frame),
            Node::Chain { first, rest } => self.chain(first, rest, frame),
            Node::Let { slot, value, body } => {
                frame.put(*slot, Slot::Delayed(value));
                self.expression(body, frame)
            }
        }
    }

    fn local(&mut self, slot: usize, frame: &mut Frame<'p>) -> Answer {
        match frame.slots.get(slot) {
            Some(Slot::Known(nodes)) => Ok(nodes.clone()),
            Some(Slot::Delayed(value)) => {
                let nodes = self.expression(value, frame)?;
                frame.put(slot, Slot::Known(nodes.clone()));
                Ok(nodes)
            }
            Some(Slot::Empty) | None => Ok(NodeSet::default()),
        }
    }

    fn value(&mut self, number: usize) -> Answer {
        if let Some(Some(nodes)) = self.values.get(number) {
            return Ok(nodes.clone());
        }
        let Some(body) = self.program.values.get(number) else { return Ok(NodeSet::default()) };
        let nodes = self.body(body, Vec::new())?;
        if let Some(place) = self.values.get_mut(number) {
            *place = Some(nodes.clone());
        }
        Ok(nodes)
    }

    fn call(
        &mut self,
        function: usize,
        arguments: &'p [Expression],
        frame: &mut Frame<'p>,
    ) -> Answer {
        let Some(body) = self.program.functions.get(function) else {
            return Ok(NodeSet::default());
        };
        let mut given = Vec::with_capacity(arguments.len());
        for argument in arguments {
            given.push(self.expression(argument, frame)?);
        }
        self.body(body, given)
    }

    fn chain(
        &mut self,
        first: &'p Expression,
        rest: &'p [(Operator, Expression)],
        frame: &mut Frame<'p>,
    ) -> Answer {
        let (mut nodes, rest) = match (self.inventory(first, frame), rest) {
            // `have(file) & x`
            (Some(inventory), [(Operator::Intersection, right), rest @ ..]) => {
                let right = self.expression(right, frame)?;
                (self.had(inventory, &right)?, rest)
            }
            _ => (self.expression(first, frame)?, rest),
        };
        for (operator, right) in rest {
            let right = match (operator, self.inventory(right, frame)) {
                (Operator::Difference | Operator::Intersection, Some(inventory)) => {
                    self.had(inventory, &nodes)?
                }
                _ => self.expression(right, frame)?,
            };
            match operator {
                Operator::Union => nodes.union_with(&right),
                Operator::Difference => nodes.difference_with(&right),
                Operator::Intersection => nodes.intersect_with(&right),
            }
        }
        Ok(nodes)
    }

    /// Whether this is `have(file)`, under whatever name: it is asked about what is at hand, and
    /// need not list anything.
    fn inventory(
        &self,
        expression: &'p Expression,
        frame: &Frame<'p>,
    ) -> Option<InventoryUsed<'p>> {
        match &expression.node {
            Node::Builtin { function, arguments } if function.id == Id::Have => {
                match arguments.as_slice() {
                    [Argument::Place(file)] => {
                        Some(InventoryUsed { file, expression, source: frame.source })
                    }
                    _ => None,
                }
            }
            Node::Local(slot) => match frame.slots.get(*slot) {
                Some(Slot::Delayed(value)) => self.inventory(value, frame),
                _ => None,
            },
            Node::Value(number) => {
                let body = self.program.values.get(*number)?;
                self.inventory(&body.expression, &Frame::new(body, Vec::new()))
            }
            _ => None,
        }
    }

    fn had(&mut self, inventory: InventoryUsed<'p>, nodes: &NodeSet) -> Answer {
        let InventoryUsed { file, expression, source } = inventory;
        self.outside.had(file, nodes, self.explorer).map_err(|error| {
            let fault = Fault::new(&expression.span, error.to_string());
            fault.within(&self.program.sources, source).caused_by(error)
        })
    }

    fn builtin(
        &mut self,
        expression: &'p Expression,
        arguments: &'p [Argument],
        frame: &mut Frame<'p>,
    ) -> Answer {
        let mut sets = Vec::new();
        for argument in arguments {
            if let Argument::Set(set) = argument {
                sets.push(self.expression(set, frame)?);
            }
        }
        if let [Argument::SetName(number), _] = arguments {
            let Some((_, body)) = self.program.sets.get(*number) else {
                return Ok(NodeSet::default());
            };
            return self.body(body, sets).map_err(|error| self.place(error, expression, frame));
        }
        self.compute(expression, arguments, &sets).map_err(|error| {
            let fault = Fault::new(&expression.span, error.to_string());
            fault.within(&self.program.sources, frame.source).caused_by(error)
        })
    }

    /// What fails inside ferry's own definitions is shown where the query uses them.
    fn place(&self, error: QueryError, used: &Expression, frame: &Frame<'_>) -> QueryError {
        error.taken_out_of(0, &self.program.sources, frame.source, &used.span)
    }

    /// Computes a built-in function. `sets` are those arguments that are sets, in their order.
    fn compute(
        &mut self,
        expression: &Expression,
        arguments: &[Argument],
        sets: &[NodeSet],
    ) -> Result<NodeSet, FactsError> {
        let Node::Builtin { function, .. } = &expression.node else {
            return Err("this is no function".into());
        };
        let depth = match arguments.last() {
            Some(Argument::Depth(depth)) => Some(*depth),
            _ => None,
        };
        let (outside, explorer) = (&mut *self.outside, &mut *self.explorer);
        Ok(match (function.id, arguments.first(), sets) {
            (Id::All, ..) => explorer.everything()?,
            (Id::Run, _, [x]) => explorer.immediate(Kind::Run, x)?,
            (Id::Build, _, [x]) => explorer.immediate(Kind::Build, x)?,
            (Id::Eval, _, [x]) => explorer.immediate(Kind::Eval, x)?,
            (Id::Closure, Some(Argument::Kinds(kinds)), [x]) => {
                explorer.closure(kinds, x, None, depth)?
            }
            (Id::Until, Some(Argument::Kinds(kinds)), [x, stop]) => {
                explorer.closure(kinds, x, Some(stop), None)?
            }
            (Id::Rdeps, Some(Argument::Kinds(kinds)), [universe, x]) => {
                explorer.dependents(kinds, universe, x, depth)?
            }
            (Id::Path, Some(Argument::Kinds(kinds)), [a, b]) => way(explorer, kinds, a, b)?,
            (Id::Outputs, _, [x]) => explorer.outputs(x)?,
            (Id::Deriver, _, [x]) => explorer.derivers(x)?,
            (Id::Drvs, _, [x]) => explorer.derivations(x),
            (Id::Srcs, _, [x]) => explorer.sources(x)?,
            (Id::Fods, _, [x]) => explorer.fixed_outputs(x)?,
            (Id::Ifd, _, [x]) => explorer.fragments(x)?,
            (Id::Name, Some(Argument::Regex(regex)), [x]) => {
                let graph = explorer.graph();
                x.iter().filter(|node| regex.is_match(&name(graph, *node))).collect()
            }
            (Id::Valid, Some(Argument::Place(store)), [x]) => outside.valid(store, x, explorer)?,
            (Id::Have, Some(Argument::Place(file)), []) => outside.have(file, explorer)?,
            _ => return Err(format!("`{}` got other arguments", function.name).into()),
        })
    }
}

/// What lies on a shortest way.
fn way(
    explorer: &mut Explorer<'_>,
    kinds: &[Kind],
    from: &NodeSet,
    to: &NodeSet,
) -> Result<NodeSet, FactsError> {
    let Some(steps) = explorer.shortest_way(kinds, from, to)? else {
        return Ok(NodeSet::default());
    };
    if steps.is_empty() {
        // It is at its end before it begins.
        let mut both = from.clone();
        both.intersect_with(to);
        return Ok(explorer.sorted(&both).into_iter().take(1).collect());
    }
    Ok(steps.iter().flat_map(|step| [step.from, step.to]).collect())
}

/// The name of a store path without its digest. That of an output whose path is not known
/// follows from the derivation: `NAME` for `out`, `NAME-dev` for `dev`.
fn name(graph: &Graph, node: NodeId) -> String {
    let mut outputs = Vec::new();
    let mut node = node;
    while let Some(Object::Output { derivation, name }) = graph.object(node) {
        outputs.push(name);
        node = derivation;
    }
    let mut text = graph.name(node).to_owned();
    while let Some(output) = outputs.pop() {
        text.truncate(text.strip_suffix(".drv").map_or(text.len(), str::len));
        if output != "out" {
            text.push('-');
            text.push_str(&output);
        }
    }
    text
}
