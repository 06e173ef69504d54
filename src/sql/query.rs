//! SELECT over tables: what rules have, and GROUP BY, aggregates, ORDER BY and LIMIT beside it.
//!
//! `count(*)`, `count`, `sum`, `avg`, `min` and `max` stand alone in a column. Rows of which an aggregate's
//! argument is undefined or null do not count for it. Each row has the budget of a rule's run; what is
//! kept is bounded by [`KEPT_MAX`].

use std::cmp::Ordering;
use std::collections::HashMap;

use super::error::{Fault, SyntaxError};
use super::json;
use super::parse;
use super::run::{Input, Run};
use super::syntax::Expression;
use super::value::{Map, Value};

/// Rows, or groups of rows, that are kept at a time; a query that needs more fails.
pub const KEPT_MAX: usize = 10_000;

/// What is made of the rows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    Sum,
    Average,
    Least,
    Greatest,
}

impl Aggregate {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Average,
            "min" => Self::Least,
            "max" => Self::Greatest,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Average => "avg",
            Self::Least => "min",
            Self::Greatest => "max",
        }
    }
}

/// What a column shows.
#[derive(Debug)]
pub(super) enum Shows {
    /// Every column of the table.
    All,
    Value(Expression),
    /// Over the rows; without an expression over all of them.
    Aggregate(Aggregate, Option<Expression>),
}

#[derive(Debug)]
pub(super) struct Column {
    pub shows: Shows,
    /// Its alias, or itself as text.
    pub name: Box<str>,
}

/// A query, ready to run.
#[derive(Debug)]
pub struct Query {
    pub(super) columns: Box<[Column]>,
    pub(super) table: Box<str>,
    pub(super) filter: Option<Expression>,
    pub(super) group: Box<[Expression]>,
    /// By which column, and whether the greatest comes first.
    pub(super) order: Option<(usize, bool)>,
    pub(super) limit: Option<usize>,
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// Where the text is none, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse::query(text)
    }

    /// The name behind FROM.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Begins to take rows.
    #[must_use]
    pub fn begin(&self) -> Results<'_> {
        let mut columns = self.columns.iter();
        let aggregates = columns.any(|column| matches!(column.shows, Shows::Aggregate(..)));
        Results {
            query: self,
            grouped: aggregates || !self.group.is_empty(),
            groups: HashMap::new(),
            rows: Vec::new(),
        }
    }
}

/// A value that an aggregate has so far.
#[derive(Clone, Debug, Default)]
struct Sum {
    count: i64,
    whole: i64,
    /// Set once a part is no integer, or the sum is beyond them.
    broken: Option<f64>,
    extreme: Option<Value<'static>>,
}

/// A cell of a row of the result.
#[derive(Clone, Debug)]
enum Cell {
    Value(Value<'static>),
    Sum(Aggregate, Sum),
}

/// One row of the result, by the query's columns; those of `*` with their names.
type Row = Vec<(Box<str>, Cell)>;

/// A query that takes rows.
pub struct Results<'q> {
    query: &'q Query,
    grouped: bool,
    /// Places in `rows` by what the rows have in common.
    groups: HashMap<Vec<u8>, usize>,
    rows: Vec<Row>,
}

impl Results<'_> {
    /// Takes a row.
    ///
    /// # Errors
    /// It does not fit the query, or the query keeps too much.
    pub fn add(&mut self, input: Input<'_>) -> Result<(), Fault> {
        let query = self.query;
        let enough = query.limit.is_some_and(|limit| self.rows.len() >= limit);
        if enough && !self.grouped && query.order.is_none() {
            return Ok(());
        }
        let mut run = Run::new(input);
        if !run.passes(query.filter.as_ref())? {
            return Ok(());
        }
        let mut key = Vec::new();
        for expression in &query.group {
            json::write(&run.evaluate(expression)?, &mut key);
            key.push(b'\n');
        }
        let place = match self.grouped {
            true => self.groups.get(&key).copied(),
            false => None,
        };
        let place = match place {
            Some(place) => place,
            None => {
                if self.rows.len() >= KEPT_MAX {
                    return Err(Fault::TooMuchMemory);
                }
                let row = first_of(query, &mut run)?;
                self.rows.push(row);
                if self.grouped {
                    self.groups.insert(key, self.rows.len() - 1);
                }
                self.rows.len() - 1
            }
        };
        let sums = self.rows.get_mut(place).into_iter().flatten();
        let mut sums = sums.filter_map(|(_, cell)| match cell {
            Cell::Sum(aggregate, sum) => Some((*aggregate, sum)),
            Cell::Value(_) => None,
        });
        for column in &query.columns {
            if let Shows::Aggregate(_, of) = &column.shows
                && let Some((aggregate, sum)) = sums.next()
            {
                let value = match of {
                    Some(expression) => run.evaluate(expression)?,
                    None => Value::Bool(true),
                };
                sum.take(aggregate, value)?;
            }
        }
        Ok(())
    }

    /// The rows of the result, in order, each a map.
    ///
    /// # Errors
    /// A sum that is no number.
    pub fn finish(mut self) -> Result<Vec<Value<'static>>, Fault> {
        if self.grouped && self.query.group.is_empty() && self.rows.is_empty() {
            // Over no rows there is still a count of them.
            let columns = self.query.columns.iter();
            let empty = columns.filter_map(|column| match column.shows {
                Shows::Aggregate(aggregate, _) => {
                    Some((column.name.clone(), Cell::Sum(aggregate, Sum::default())))
                }
                _ => None,
            });
            self.rows.push(empty.collect());
        }
        let mut rows: Vec<Vec<(Box<str>, Value<'static>)>> = Vec::new();
        for row in self.rows {
            let cells = row.into_iter().map(|(name, cell)| match cell {
                Cell::Value(value) => Ok((name, value)),
                Cell::Sum(aggregate, sum) => Ok((name, sum.result(aggregate)?)),
            });
            rows.push(cells.collect::<Result<_, Fault>>()?);
        }
        if let Some((column, descending)) = self.query.order {
            let name = self.query.columns.get(column).map(|column| &*column.name);
            let of = |row: &Vec<(Box<str>, Value<'static>)>| {
                let found = row.iter().find(|(own, _)| Some(&**own) == name);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            };
            rows.sort_by(|left, right| {
                let order = compare(&of(left), &of(right));
                if descending { order.reverse() } else { order }
            });
        }
        rows.truncate(self.query.limit.unwrap_or(usize::MAX));
        let maps = rows.into_iter().map(|row| {
            let mut map = Map::new();
            for (name, value) in row {
                map.set(super::value::Text::Shared(name.as_bytes().into()), value)?;
            }
            Ok(Value::map(map))
        });
        maps.collect()
    }
}

/// A new row of the result, its sums empty.
fn first_of<'e>(query: &'e Query, run: &mut Run<'e>) -> Result<Row, Fault> {
    let mut row = Row::new();
    for column in &query.columns {
        match &column.shows {
            Shows::All => {
                for name in run.input.event.names() {
                    let value = run.column(name).into_owned();
                    row.push(((*name).into(), Cell::Value(value)));
                }
            }
            Shows::Value(expression) => {
                let value = run.evaluate(expression)?.into_owned();
                row.push((column.name.clone(), Cell::Value(value)));
            }
            Shows::Aggregate(aggregate, _) => {
                row.push((column.name.clone(), Cell::Sum(*aggregate, Sum::default())));
            }
        }
    }
    Ok(row)
}

impl Sum {
    fn take(&mut self, aggregate: Aggregate, value: Value<'_>) -> Result<(), Fault> {
        if matches!(value, Value::Undefined | Value::Null) {
            return Ok(());
        }
        self.count += 1;
        match aggregate {
            Aggregate::Count => {}
            Aggregate::Sum | Aggregate::Average => {
                let number = number(&value).ok_or(Fault::Type(aggregate.name()))?;
                match (value, self.broken) {
                    (Value::Int(part), None) => match self.whole.checked_add(part) {
                        Some(whole) => self.whole = whole,
                        None => self.broken = Some(float(self.whole) + number),
                    },
                    (_, None) => self.broken = Some(float(self.whole) + number),
                    (_, Some(sum)) => self.broken = Some(sum + number),
                }
            }
            Aggregate::Least | Aggregate::Greatest => {
                let wanted = match aggregate {
                    Aggregate::Least => Ordering::Less,
                    _ => Ordering::Greater,
                };
                let better = |known: &Value<'static>| compare(&value, known) == wanted;
                if self.extreme.as_ref().is_none_or(better) {
                    self.extreme = Some(value.into_owned());
                }
            }
        }
        Ok(())
    }

    fn result(self, aggregate: Aggregate) -> Result<Value<'static>, Fault> {
        let sum = self.broken.unwrap_or_else(|| float(self.whole));
        Ok(match aggregate {
            Aggregate::Count => Value::Int(self.count),
            Aggregate::Sum => match self.broken {
                None => Value::Int(self.whole),
                Some(sum) => super::expression::finite(sum)?,
            },
            Aggregate::Average if self.count == 0 => Value::Undefined,
            Aggregate::Average => super::expression::finite(sum / float(self.count))?,
            Aggregate::Least | Aggregate::Greatest => self.extreme.unwrap_or_default(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums beyond 2^53 are rounded")]
fn float(value: i64) -> f64 {
    value as f64
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(float(*value)),
        Value::Float(value) => Some(*value),
        _ => None,
    }
}

/// Numbers by size, before all others; those by their text.
fn compare(left: &Value<'_>, right: &Value<'_>) -> Ordering {
    match (number(left), number(right)) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => {
            let text = |value: &Value<'_>| {
                let mut text = Vec::new();
                value.print(&mut text);
                text
            };
            text(left).cmp(&text(right))
        }
    }
}
