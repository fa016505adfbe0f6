//! Which installables an answer takes, so that they are looked up before it is sought.

use super::error::QueryError;
use super::program::{Argument, Body, Expression, Node, Program};

/// Finds the installables that an answer takes, in the order in which they stand.
pub(super) struct Words<'p> {
    program: &'p Program,
    values: Vec<bool>,
    functions: Vec<bool>,
    sets: Vec<bool>,
}

pub(super) type Visit<'v, 'p> = &'v mut dyn FnMut(usize, &'p Expression) -> Result<(), QueryError>;

impl<'p> Words<'p> {
    pub(super) fn new(program: &'p Program) -> Self {
        Self {
            program,
            values: vec![false; program.values.len()],
            functions: vec![false; program.functions.len()],
            sets: vec![false; program.sets.len()],
        }
    }

    pub(super) fn of(&mut self, body: &'p Body, visit: Visit<'_, 'p>) -> Result<(), QueryError> {
        let mut lets = vec![None; body.slots];
        self.within(&body.expression, body.source, &mut lets, visit)
    }

    fn within(
        &mut self,
        expression: &'p Expression,
        source: usize,
        lets: &mut Vec<Option<&'p Expression>>,
        visit: Visit<'_, 'p>,
    ) -> Result<(), QueryError> {
        let program = self.program;
        match &expression.node {
            Node::Installable { .. } => visit(source, expression)?,
            Node::Local(slot) => {
                // A `let … in` counts where it is first used.
                if let Some(value) = lets.get_mut(*slot).and_then(Option::take) {
                    self.within(value, source, lets, visit)?;
                }
            }
            Node::Value(number) => {
                let body = program.values.get(*number);
                if let Some(body) = body.filter(|_| first_time(&mut self.values, *number)) {
                    self.of(body, visit)?;
                }
            }
            Node::Call { function, arguments } => {
                for argument in arguments {
                    self.within(argument, source, lets, visit)?;
                }
                let body = program.functions.get(*function);
                if let Some(body) = body.filter(|_| first_time(&mut self.functions, *function)) {
                    self.of(body, visit)?;
                }
            }
            Node::Builtin { arguments, .. } => {
                for argument in arguments {
                    match argument {
                        Argument::Set(set) => self.within(set, source, lets, visit)?,
                        Argument::SetName(number) => {
                            let body = program.sets.get(*number);
                            if let Some((_, body)) =
                                body.filter(|_| first_time(&mut self.sets, *number))
                            {
                                self.of(body, visit)?;
                            }
                        }
                        _ => {}
                    }
                }
            }
            Node::Chain { first, rest } => {
                self.within(first, source, lets, visit)?;
                for (_, right) in rest {
                    self.within(right, source, lets, visit)?;
                }
            }
            Node::Let { slot, value, body } => {
                if let Some(place) = lets.get_mut(*slot) {
                    *place = Some(value);
                }
                self.within(body, source, lets, visit)?;
            }
        }
        Ok(())
    }
}

fn first_time(seen: &mut [bool], number: usize) -> bool {
    seen.get_mut(number).is_some_and(|seen| !std::mem::replace(seen, true))
}
