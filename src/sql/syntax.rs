//! The syntax tree, which is also what runs, and how it prints.
//!
//! Printing is exact: what it writes parses to an equal tree.

use std::fmt::{self, Display, Formatter, Write};

use regex_lite::Regex;

use super::functions::Function;
use super::token::is_plain;

/// What a rule does with an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// One row, or none.
    Select(Box<[Field]>),
    /// A row for each element of a collection.
    Foreach {
        /// The last one is the collection.
        fields: Box<[Field]>,
        /// What a row has; everything when absent.
        each: Option<Box<[Field]>>,
        /// Which elements have a row.
        only: Option<Expression>,
    },
}

/// One of SELECT, FOREACH or DO.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    /// `*`
    All,
    /// An expression, and where its value goes.
    One {
        value: Expression,
        target: Option<Path>,
    },
}

/// A column and what is taken of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path {
    pub root: Box<str>,
    pub steps: Box<[Step]>,
}

/// A step into a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// `.key`
    Key(Box<str>),
    /// `[n]`, from 1; negative from the end.
    At(i64),
    /// `[-0]`, the place behind the last one.
    End,
    /// `[path]`
    By(Path),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
}

/// Operators of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Div,
    Mod,
}

/// Operators that answer true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    Greater,
    AtMost,
    AtLeast,
    Topic,
}

/// Something that has a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(Literal),
    Path(Path),
    Signed(bool, Box<Self>),
    Arithmetic(Arithmetic, Box<(Self, Self)>),
    Comparison(Comparison, Box<(Self, Self)>),
    Among {
        value: Box<Self>,
        list: Box<[Self]>,
        negated: bool,
    },
    Not(Box<Self>),
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Call(Box<Call>),
    Case(Box<Case>),
    List(Box<[Self]>),
    Range(i64, i64),
    Slice(Box<Path>, i64, i64),
}

/// A function and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub function: &'static Function,
    pub arguments: Box<[Expression]>,
    /// The second argument as a pattern, when it is constant.
    pub pattern: Option<Regex>,
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name && self.arguments == other.arguments
    }
}

/// `CASE … END`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    pub subject: Option<Expression>,
    pub arms: Box<[(Expression, Expression)]>,
    pub otherwise: Option<Expression>,
}

/// How tightly operators bind, from loose to tight.
pub(super) mod binding {
    pub(crate) const OR: u8 = 1;
    pub(crate) const AND: u8 = 2;
    pub(crate) const NOT: u8 = 3;
    pub(crate) const COMPARISON: u8 = 4;
    pub(crate) const SUM: u8 = 5;
    pub(crate) const PRODUCT: u8 = 6;
    pub(crate) const SIGN: u8 = 7;
    pub(crate) const PRIMARY: u8 = 8;
}

impl Arithmetic {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Div => "div",
            Self::Mod => "mod",
        }
    }

    pub(super) const fn binding(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => binding::SUM,
            _ => binding::PRODUCT,
        }
    }
}

impl Comparison {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::Greater => ">",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Topic => "=~",
        }
    }
}

impl Expression {
    fn binding(&self) -> u8 {
        match self {
            Self::Or(_) => binding::OR,
            Self::And(_) => binding::AND,
            Self::Not(_) => binding::NOT,
            Self::Comparison(..) | Self::Among { .. } => binding::COMPARISON,
            Self::Arithmetic(operator, _) => operator.binding(),
            Self::Signed(..) => binding::SIGN,
            Self::Literal(Literal::Int(value)) if *value < 0 => binding::SIGN,
            Self::Literal(Literal::Float(value)) if value.is_sign_negative() => binding::SIGN,
            _ => binding::PRIMARY,
        }
    }

    /// Writes it, in parentheses unless it binds at least as tightly as `tight`.
    fn write(&self, f: &mut Formatter<'_>, tight: u8) -> fmt::Result {
        if self.binding() < tight {
            f.write_char('(')?;
            self.fmt(f)?;
            return f.write_char(')');
        }
        self.fmt(f)
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Path(path) => path.fmt(f),
            Self::Signed(negative, of) => {
                f.write_char(if *negative { '-' } else { '+' })?;
                of.write(f, binding::PRIMARY)
            }
            Self::Arithmetic(operator, sides) => {
                sides.0.write(f, operator.binding())?;
                write!(f, " {} ", operator.sign())?;
                sides.1.write(f, operator.binding() + 1)
            }
            Self::Comparison(operator, sides) => {
                sides.0.write(f, binding::SUM)?;
                write!(f, " {} ", operator.sign())?;
                sides.1.write(f, binding::SUM)
            }
            Self::Among {
                value,
                list,
                negated,
            } => {
                value.write(f, binding::SUM)?;
                f.write_str(if *negated { " NOT IN (" } else { " IN (" })?;
                separated(f, list, ", ")?;
                f.write_char(')')
            }
            Self::Not(of) => {
                f.write_str("NOT ")?;
                of.write(f, binding::NOT)
            }
            Self::And(all) => chain(f, all, " AND ", binding::NOT),
            Self::Or(any) => chain(f, any, " OR ", binding::AND),
            Self::Call(call) => {
                let name = call.function.name;
                if is_plain(name) || matches!(name, "div" | "mod") {
                    f.write_str(name)?;
                } else {
                    write!(f, "'{name}'")?;
                }
                f.write_char('(')?;
                separated(f, &call.arguments, ", ")?;
                f.write_char(')')
            }
            Self::Case(case) => case.fmt(f),
            Self::List(items) => {
                f.write_char('[')?;
                separated(f, items, ", ")?;
                f.write_char(']')
            }
            Self::Range(from, to) => write!(f, "[{from}..{to}]"),
            Self::Slice(path, from, to) => write!(f, "{path}[{from}..{to}]"),
        }
    }
}

fn separated(f: &mut Formatter<'_>, items: &[impl Display], by: &str) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(by)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

fn chain(f: &mut Formatter<'_>, items: &[Expression], by: &str, tight: u8) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(by)?;
        }
        item.write(f, tight)?;
    }
    Ok(())
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("CASE")?;
        if let Some(subject) = &self.subject {
            write!(f, " {subject}")?;
        }
        for (when, then) in &self.arms {
            write!(f, " WHEN {when} THEN {then}")?;
        }
        if let Some(otherwise) = &self.otherwise {
            write!(f, " ELSE {otherwise}")?;
        }
        f.write_str(" END")
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => {
                let text = format!("{value:?}");
                match text.split_once('e') {
                    // The language has exponents only behind decimals.
                    Some((digits, exponent)) if !digits.contains('.') => {
                        write!(f, "{digits}.0e{exponent}")
                    }
                    _ => f.write_str(&text),
                }
            }
            Self::Text(text) => write!(f, "'{text}'"),
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        name(f, &self.root)?;
        for step in &self.steps {
            match step {
                Step::Key(key) => {
                    f.write_char('.')?;
                    if key.contains('"') {
                        write!(f, "'{key}'")?;
                    } else {
                        name(f, key)?;
                    }
                }
                Step::At(index) => write!(f, "[{index}]")?,
                Step::End => f.write_str("[-0]")?,
                Step::By(path) => write!(f, "[{path}]")?,
            }
        }
        Ok(())
    }
}

fn name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain(name) {
        return f.write_str(name);
    }
    write!(f, "\"{name}\"")
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_char('*'),
            Self::One {
                value,
                target: Some(target),
            } => write!(f, "{value} AS {target}"),
            Self::One {
                value,
                target: None,
            } => value.fmt(f),
        }
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(fields) => {
                f.write_str("SELECT ")?;
                separated(f, fields, ", ")
            }
            Self::Foreach { fields, each, only } => {
                f.write_str("FOREACH ")?;
                separated(f, fields, ", ")?;
                if let Some(each) = each {
                    f.write_str(" DO ")?;
                    separated(f, each, ", ")?;
                }
                if let Some(only) = only {
                    write!(f, " INCASE {only}")?;
                }
                Ok(())
            }
        }
    }
}
