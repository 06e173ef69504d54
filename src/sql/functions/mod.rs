//! The built-in functions: EMQX v4.4's names, with one row each in the table of its family.

mod bits;
mod collection;
mod compress;
mod context;
mod convert;
mod deflate;
mod encode;
mod grapheme;
mod math;
mod print;
mod remember;
mod search;
mod term;
mod text;
mod time;
mod zone;

use regex_lite::{Regex, RegexBuilder};

use super::error::Fault;
use super::run::Run;
use super::value::{List, Map, Value};

/// Bytes that a compiled pattern may take.
const PATTERN_MAX_BYTES: usize = 32 * 1024;

/// What a function does.
type Body = for<'e> fn(&mut Run<'e>, &Arguments<'_, 'e>) -> Result<Value<'e>, Fault>;

/// A built-in function.
pub struct Function {
    /// As programs write it.
    pub name: &'static str,
    /// The least number of arguments.
    pub min: u8,
    /// The greatest.
    pub max: u8,
    /// Whether the second argument is a regular expression.
    pub(super) takes_pattern: bool,
    pub(super) body: Body,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Function {
    const fn new(name: &'static str, min: u8, max: u8, body: Body) -> Self {
        Self {
            name,
            min,
            max,
            takes_pattern: false,
            body,
        }
    }

    const fn with_pattern(name: &'static str, min: u8, max: u8, body: Body) -> Self {
        let mut function = Self::new(name, min, max, body);
        function.takes_pattern = true;
        function
    }
}

/// All functions, a table for each family.
pub const FUNCTIONS: &[&[Function]] = &[
    bits::FUNCTIONS,
    collection::FUNCTIONS,
    compress::FUNCTIONS,
    context::FUNCTIONS,
    convert::FUNCTIONS,
    encode::FUNCTIONS,
    math::FUNCTIONS,
    print::FUNCTIONS,
    remember::FUNCTIONS,
    search::FUNCTIONS,
    text::FUNCTIONS,
    time::FUNCTIONS,
];

/// The function of a name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    let mut all = FUNCTIONS.iter().flat_map(|family| family.iter());
    all.find(|function| function.name == name)
}

/// A pattern, compiled.
pub(super) fn pattern(text: &str) -> Result<Regex, Fault> {
    let mut builder = RegexBuilder::new(text);
    builder
        .size_limit(PATTERN_MAX_BYTES)
        .nest_limit(super::DEPTH_MAX.into());
    builder.build().map_err(|_| Fault::Pattern)
}

/// What a function is called with.
pub(super) struct Arguments<'a, 'e> {
    /// The function's name, for its faults.
    pub name: &'static str,
    pub values: &'a [Value<'e>],
    /// The second argument, when it was known beforehand.
    pub pattern: Option<&'a Regex>,
}

impl<'a, 'e> Arguments<'a, 'e> {
    /// The fault of a wrong type.
    fn mistyped(&self) -> Fault {
        Fault::Type(self.name)
    }

    /// The fault of a value that is out of range.
    fn out_of_range(&self) -> Fault {
        Fault::Range(self.name)
    }

    fn count(&self) -> usize {
        self.values.len()
    }

    fn get(&self, i: usize) -> &'a Value<'e> {
        self.values.get(i).unwrap_or(&Value::Undefined)
    }

    fn int(&self, i: usize) -> Result<i64, Fault> {
        match self.get(i) {
            Value::Int(value) => Ok(*value),
            _ => Err(self.mistyped()),
        }
    }

    /// An integer that counts something.
    fn length(&self, i: usize) -> Result<usize, Fault> {
        usize::try_from(self.int(i)?).map_err(|_| self.out_of_range())
    }

    #[expect(clippy::cast_precision_loss, reason = "as the language has it")]
    fn float(&self, i: usize) -> Result<f64, Fault> {
        match self.get(i) {
            Value::Int(value) => Ok(*value as f64),
            Value::Float(value) => Ok(*value),
            _ => Err(self.mistyped()),
        }
    }

    fn bytes(&self, i: usize) -> Result<&'a [u8], Fault> {
        match self.get(i) {
            Value::Text(text) => Ok(text.bytes()),
            _ => Err(self.mistyped()),
        }
    }

    /// Text that is UTF-8.
    fn text(&self, i: usize) -> Result<&'a str, Fault> {
        str::from_utf8(self.bytes(i)?).map_err(|_| self.mistyped())
    }

    /// A word that an optional argument is.
    fn word(&self, i: usize, default: &'static str) -> Result<&'a str, Fault> {
        if i < self.count() {
            self.text(i)
        } else {
            Ok(default)
        }
    }

    fn list(&self, i: usize) -> Result<&'a List<'e>, Fault> {
        match self.get(i) {
            Value::List(list) => Ok(list),
            _ => Err(self.mistyped()),
        }
    }

    fn map(&self, i: usize) -> Result<&'a Map<'e>, Fault> {
        match self.get(i) {
            Value::Map(map) => Ok(map),
            _ => Err(self.mistyped()),
        }
    }
}
