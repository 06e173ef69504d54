//! Why a text is no program, and why a run ended without rows.

use std::fmt;

use super::query::{KEPT_MAX, KEPT_MAX_BYTES, QUERY_WORK_MAX};
use super::{DEPTH_MAX, MEMORY_MAX_BYTES, SQL_MAX_BYTES, WORK_MAX};

/// Why a text is no rule. Whoever wrote the rule is at fault; nothing is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// What is wrong there.
    pub why: Mistake,
}

/// What is wrong in a rule's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Something else had to come.
    Expected {
        /// What had to come.
        expected: &'static str,
        /// What came, shortened; empty at the end of the text.
        found: Box<str>,
    },
    /// No character of the language.
    Character(char),
    /// A quote without its end.
    Unterminated,
    /// A number beyond 64 bits.
    Number,
    /// No function has this name.
    UnknownFunction(Box<str>),
    /// A function with another number of arguments.
    Arguments {
        /// Its name.
        name: &'static str,
        /// The least it takes.
        min: usize,
        /// The most it takes.
        max: usize,
    },
    /// A constant pattern that is no regular expression, or one that is too large.
    Pattern,
    /// A name behind FROM that is no topic filter.
    Topic(Box<str>),
    /// More than [`SQL_MAX_BYTES`].
    TooLong,
    /// Expressions nest deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        match &self.why {
            Mistake::Expected { expected, found } if found.is_empty() => {
                write!(f, "expected {expected}, found the end")
            }
            Mistake::Expected { expected, found } => {
                write!(f, "expected {expected}, found {found:?}")
            }
            Mistake::Character(found) => write!(f, "unexpected character {found:?}"),
            Mistake::Unterminated => f.write_str("a quote that does not end"),
            Mistake::Number => f.write_str("a number beyond 64 bits"),
            Mistake::UnknownFunction(name) => write!(f, "no function is named {name:?}"),
            Mistake::Arguments { name, min, max } if min == max => {
                write!(f, "{name} takes {min} arguments")
            }
            Mistake::Arguments { name, min, max } => {
                write!(f, "{name} takes {min} to {max} arguments")
            }
            Mistake::Pattern => f.write_str("not a regular expression, or too large a one"),
            Mistake::Topic(name) => write!(f, "{name:?} is no topic filter"),
            Mistake::TooLong => write!(f, "a rule of more than {SQL_MAX_BYTES} bytes"),
            Mistake::TooDeep => write!(f, "expressions nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

impl std::error::Error for SyntaxError {}

/// Why a run failed: the event and the rule do not fit. It counts as the rule's failure and touches
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An operand or argument of another type than the operator or function takes.
    Type(&'static str),
    /// Of the right type and out of the range.
    Range(&'static str),
    /// Text that had to be JSON: the payload below which a field was asked for, mostly.
    NotJson,
    /// Division by zero.
    DivisionByZero,
    /// A result beyond 64 bits, or no finite number.
    Overflow,
    /// A condition that is neither true nor false.
    NotBoolean,
    /// A computed pattern that is no regular expression.
    Pattern,
    /// More than [`WORK_MAX`] units.
    TooMuchWork,
    /// More than [`MEMORY_MAX_BYTES`].
    TooMuchMemory,
    /// A value deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A query over more than [`KEPT_MAX`], [`KEPT_MAX_BYTES`] or [`QUERY_WORK_MAX`].
    QueryTooLarge,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(of) => write!(f, "{of}: a value of the wrong type"),
            Self::Range(of) => write!(f, "{of}: a value out of range"),
            Self::NotJson => f.write_str("not JSON"),
            Self::DivisionByZero => f.write_str("division by zero"),
            Self::Overflow => f.write_str("a number beyond 64 bits"),
            Self::NotBoolean => f.write_str("a condition that is neither true nor false"),
            Self::Pattern => f.write_str("not a regular expression"),
            Self::TooMuchWork => write!(f, "more than {WORK_MAX} units of work"),
            Self::TooMuchMemory => write!(f, "more than {MEMORY_MAX_BYTES} bytes made"),
            Self::TooDeep => write!(f, "a value deeper than {DEPTH_MAX} levels"),
            Self::QueryTooLarge => write!(
                f,
                "a result of more than {KEPT_MAX} rows or {KEPT_MAX_BYTES} bytes, or more than \
                 {QUERY_WORK_MAX} units of work: ask for less, or with LIMIT"
            ),
        }
    }
}

impl std::error::Error for Fault {}
