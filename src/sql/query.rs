//! SELECT over tables: what rules have, and GROUP BY, aggregates, ORDER BY and LIMIT beside it.
//!
//! `count(*)`, `count`, `sum`, `avg`, `min` and `max` stand alone in a column. Rows of which an aggregate's
//! argument is undefined or null do not count for it. Each row has the budget of a rule's run, all of
//! them that of [`QUERY_WORK_MAX`]; what is kept is bounded by [`KEPT_MAX`] and [`KEPT_MAX_BYTES`].

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

/// Bytes that they take, more or less.
pub const KEPT_MAX_BYTES: usize = 2 << 20;

/// What a query may do over all rows, in the units of [`super::WORK_MAX`]: a quarter of a second.
pub const QUERY_WORK_MAX: u32 = 5_000_000;

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
    /// Whether the last column is there only for the order.
    pub(super) hides: bool,
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
            kept: 0,
            work: 0,
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
    Sum(Aggregate, Box<Sum>),
}

/// One row of the result, by the query's columns; those of `*` with their names.
type Row<'q> = Vec<(&'q str, Cell)>;

/// A query that takes rows.
pub struct Results<'q> {
    query: &'q Query,
    grouped: bool,
    /// Places in `rows` by what the rows have in common.
    groups: HashMap<Vec<u8>, usize>,
    rows: Vec<Row<'q>>,
    /// Bytes of `rows` and of the keys of `groups`, more or less.
    kept: usize,
    /// Units of work so far.
    work: u32,
}

impl<'q> Results<'q> {
    /// Takes a row.
    ///
    /// # Errors
    /// It does not fit the query, or the query keeps or does too much.
    pub fn add(&mut self, input: Input<'_>) -> Result<(), Fault> {
        let query = self.query;
        let enough = query.limit.is_some_and(|limit| self.rows.len() >= limit);
        if enough && !self.grouped && query.order.is_none() {
            return Ok(());
        }
        let mut run = Run::new(input);
        let done = self.take(&mut run);
        self.work = self.work.saturating_add(1 + run.worked());
        done?;
        if self.kept > KEPT_MAX_BYTES || self.rows.len() > KEPT_MAX || self.work > QUERY_WORK_MAX {
            return Err(Fault::QueryTooLarge);
        }
        Ok(())
    }

    fn take<'e>(&mut self, run: &mut Run<'e>) -> Result<(), Fault>
    where
        'q: 'e,
    {
        let query = self.query;
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
                self.trim();
                let row = first_of(query, run)?;
                self.kept += weight(&row);
                self.rows.push(row);
                if self.grouped {
                    self.kept += key.len() + 64;
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
                self.kept += sum.take(aggregate, value)?;
            }
        }
        Ok(())
    }

    /// Of rows in an order only the first are ever shown: the others go when there are many.
    fn trim(&mut self) {
        let Some(limit) = self.query.limit else {
            return;
        };
        if self.grouped || self.rows.len() < limit.saturating_mul(2).saturating_add(64) {
            return;
        }
        self.sort();
        self.rows.truncate(limit);
        self.kept = self.rows.iter().map(weight).sum();
    }

    fn sort(&mut self) {
        let Some((column, descending)) = self.query.order else {
            return;
        };
        let name = self.query.columns.get(column).map(|column| &*column.name);
        fn of<'r>(row: &'r Row<'_>, name: Option<&str>) -> &'r Value<'static> {
            let found = row.iter().find(|(own, _)| Some(*own) == name);
            match found {
                Some((_, Cell::Value(value))) => value,
                _ => &Value::Undefined,
            }
        }
        self.rows.sort_by(|left, right| {
            let order = compare(of(left, name), of(right, name));
            if descending { order.reverse() } else { order }
        });
    }

    /// Shows the rows of the result, in order, each a map.
    ///
    /// # Errors
    /// A sum that is no number.
    pub fn finish(mut self, show: &mut dyn FnMut(&Value<'_>)) -> Result<(), Fault> {
        if self.grouped && self.query.group.is_empty() && self.rows.is_empty() {
            // Over no rows there is still a count of them.
            let columns = self.query.columns.iter();
            let empty = columns.filter_map(|column| match column.shows {
                Shows::Aggregate(aggregate, _) => {
                    Some((&*column.name, Cell::Sum(aggregate, Box::default())))
                }
                _ => None,
            });
            self.rows.push(empty.collect());
        }
        for (_, cell) in self.rows.iter_mut().flatten() {
            if let Cell::Sum(aggregate, sum) = cell {
                *cell = Cell::Value(std::mem::take(&mut **sum).result(*aggregate)?);
            }
        }
        self.sort();
        let limit = self.query.limit.unwrap_or(usize::MAX);
        let hidden = self.query.columns.last().filter(|_| self.query.hides);
        for mut row in self.rows.into_iter().take(limit) {
            // A row over no rows has only its aggregates.
            row.pop_if(|(name, _)| hidden.is_some_and(|column| *column.name == **name));
            let mut map = Map::new();
            for (name, cell) in row {
                if let Cell::Value(value) = cell {
                    map.set(name.into(), value)?;
                }
            }
            show(&Value::map(map));
        }
        Ok(())
    }
}

/// Bytes that a row takes, more or less.
fn weight(row: &Row<'_>) -> usize {
    let cells = row.iter().map(|(_, cell)| match cell {
        Cell::Value(value) => size_of::<(&str, Cell)>() + value.weight(),
        Cell::Sum(..) => size_of::<(&str, Cell)>() + size_of::<Sum>(),
    });
    size_of::<Row<'_>>() + cells.sum::<usize>()
}

/// A new row of the result, its sums empty.
fn first_of<'q: 'e, 'e>(query: &'q Query, run: &mut Run<'e>) -> Result<Row<'q>, Fault> {
    let mut row = Row::new();
    for column in &query.columns {
        match &column.shows {
            Shows::All => {
                for name in run.input.event.names() {
                    let value = run.column(name).into_owned();
                    row.push((*name, Cell::Value(value)));
                }
            }
            Shows::Value(expression) => {
                let value = run.evaluate(expression)?.into_owned();
                row.push((&*column.name, Cell::Value(value)));
            }
            Shows::Aggregate(aggregate, _) => {
                row.push((&*column.name, Cell::Sum(*aggregate, Box::default())));
            }
        }
    }
    Ok(row)
}

impl Sum {
    /// Takes a value in. Returns how much more it keeps.
    fn take(&mut self, aggregate: Aggregate, value: Value<'_>) -> Result<usize, Fault> {
        if matches!(value, Value::Undefined | Value::Null) {
            return Ok(0);
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
                    let before = self.extreme.as_ref().map_or(0, Value::weight);
                    let more = value.weight().saturating_sub(before);
                    self.extreme = Some(value.into_owned());
                    return Ok(more);
                }
            }
        }
        Ok(0)
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
