//! A rule's text, parsed: what it reads from and what it does.

use std::fmt;

use super::error::{Fault, SyntaxError};
use super::parse;
use super::run::{Input, Run};
use super::syntax::{Expression, Statement};
use super::value::Map;

/// A rule, ready to run. It prints as text that parses to the same program.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    statement: Statement,
    from: Box<[Box<str>]>,
    filter: Option<Expression>,
}

impl Program {
    pub(super) fn new(
        statement: Statement,
        from: Box<[Box<str>]>,
        filter: Option<Expression>,
    ) -> Self {
        Self {
            statement,
            from,
            filter,
        }
    }

    /// Parses a rule.
    ///
    /// # Errors
    /// Where the text is no rule, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse::parse(text)
    }

    /// The names behind FROM: topic filters and `$events/…`, in the order of the text.
    #[must_use]
    pub fn from(&self) -> &[Box<str>] {
        &self.from
    }

    /// The rows that an event gives: none when WHERE or INCASE say no.
    ///
    /// # Errors
    /// The event does not fit the rule: see [`Fault`].
    pub fn run<'e>(&'e self, input: Input<'e>) -> Result<Vec<Map<'e>>, Fault> {
        let mut run = Run::new(input);
        match &self.statement {
            Statement::Select(fields) => {
                let mut row = Map::new();
                run.project(fields, &mut row)?;
                Ok(match run.passes(self.filter.as_ref())? {
                    true => vec![row],
                    false => Vec::new(),
                })
            }
            Statement::Foreach { fields, each, only } => {
                let (elements, name) = run.collection(fields)?;
                if !run.passes(self.filter.as_ref())? {
                    return Ok(Vec::new());
                }
                run.rows(&elements, name, each.as_deref(), only.as_ref())
            }
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} FROM ", self.statement)?;
        for (i, name) in self.from.iter().enumerate() {
            write!(f, "{}\"{name}\"", if i > 0 { ", " } else { "" })?;
        }
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        Ok(())
    }
}
