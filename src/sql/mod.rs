//! SQL over events: the dialect of EMQX v4's rule engine.
//!
//! Pure: text to a [`Program`], a program over the columns of one event to the rows that it selects.
//! It knows neither broker nor router; who has events implements [`Columns`], who has a clock and
//! chance implements [`Surroundings`]. Columns are read when an expression names them: the payload
//! is looked at, never copied, until a field of it is selected.
//!
//! Callers rely on: a program that parses prints as text that parses to the same program; nothing
//! here panics, and one run is bounded in work ([`WORK_MAX`]), in memory that it makes
//! ([`MEMORY_MAX_BYTES`]) and in nesting ([`DEPTH_MAX`]), whatever the program and the event are.
//!
//! The dialect is described in EMQX's documents "Rule Engine: SQL syntax and examples" and
//! "Built-in functions" of version 4.4. Other than there: an unknown function, a wrong number of
//! arguments and a broken constant pattern are errors when the rule is made; integers have 64 bits
//! and fail when they overflow; patterns have no look-around and no back references; `NOT IN`,
//! `NOT (…)` and boolean columns as conditions work.

mod error;
mod expression;
mod functions;
mod json;
mod parse;
mod path;
mod program;
mod query;
mod run;
mod state;
mod syntax;
mod template;
mod token;
mod value;

pub use error::{Fault, Mistake, SyntaxError};
pub use functions::{FUNCTIONS, Function};
pub use json::{NotJson, parse as parse_json, write as write_json};
pub use program::Program;
pub use query::{Query, Results};
pub use run::{Columns, Input, Surroundings};
pub use state::Store;
pub use template::Template;
pub use value::{List, Map, Text, Value};

/// Bytes of a rule's text.
pub const SQL_MAX_BYTES: usize = 16 * 1024;

/// Levels that expressions may nest, and levels of a value made while running. Recursion goes no
/// deeper than this.
pub const DEPTH_MAX: u8 = 32;

/// What one run may do. A unit is an expression evaluated, an element copied or 64 bytes looked at:
/// some 50 ns on the machine of the bench, so a run ends within a millisecond there.
pub const WORK_MAX: u32 = 20_000;

/// What one run may make: bytes of text, and 16 for each value, which is their size on the routers
/// that this is for.
pub const MEMORY_MAX_BYTES: u32 = 64 * 1024;

#[cfg(test)]
mod tests;
