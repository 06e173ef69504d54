//! One run of a program over one event: its columns, its aliases and its budget.

use super::error::Fault;
use super::json;
use super::path::Place;
use super::state::Store;
use super::syntax::{Expression, Field, Path};
use super::value::{Map, Text, Value};
use super::{MEMORY_MAX_BYTES, WORK_MAX};

/// Bytes that a value counts.
pub(super) const VALUE_BYTES: usize = 16;

/// Bytes looked at that count as one unit of work.
const BYTES_PER_UNIT: usize = 64;

/// An event, column by column. Only those that a program names are asked for.
pub trait Columns {
    /// A column's value; `None`: events of this kind have no such column.
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>>;

    /// The names of all columns, for `*`.
    fn names(&self) -> &[&'static str];
}

/// What a program may ask beside its event.
pub trait Surroundings {
    /// Nanoseconds since 1970.
    fn now_ns(&self) -> i64;

    /// Seconds that local time is ahead of UTC at a time in seconds since 1970.
    fn local_offset(&self, unix_s: i64) -> i32;

    /// Random bits; none that must stay secret.
    fn random(&self) -> u64;

    /// What `kv_store_put` and `proc_dict_put` keep.
    fn store(&self) -> &Store;
}

/// What a program runs over.
#[derive(Clone, Copy)]
pub struct Input<'e> {
    /// The event.
    pub event: &'e dyn Columns,
    /// Clock, chance and memory.
    pub surroundings: &'e dyn Surroundings,
    /// The rule's id, for the column `metadata`.
    pub rule: &'e str,
}

/// A run in progress.
pub(super) struct Run<'e> {
    pub input: Input<'e>,
    /// What aliases have been given so far; they stand before the columns.
    aliases: Map<'e>,
    work: u32,
    memory: u32,
}

impl<'e> Run<'e> {
    pub(super) fn new(input: Input<'e>) -> Self {
        Self {
            input,
            aliases: Map::new(),
            work: WORK_MAX,
            memory: MEMORY_MAX_BYTES,
        }
    }

    /// Units of work so far.
    pub(super) fn worked(&self) -> u32 {
        WORK_MAX - self.work
    }

    /// Pays for work before it is done.
    pub(super) fn spend(&mut self, units: usize) -> Result<(), Fault> {
        let units = u32::try_from(units).map_err(|_| Fault::TooMuchWork)?;
        let left = self.work.checked_sub(units);
        self.work = left.ok_or(Fault::TooMuchWork)?;
        Ok(())
    }

    /// Pays for looking at bytes.
    pub(super) fn look(&mut self, bytes: usize) -> Result<(), Fault> {
        self.spend(1 + bytes / BYTES_PER_UNIT)
    }

    /// Pays for making bytes, before they are made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), Fault> {
        let paid = u32::try_from(bytes).map_err(|_| Fault::TooMuchMemory)?;
        let left = self.memory.checked_sub(paid);
        self.memory = left.ok_or(Fault::TooMuchMemory)?;
        self.look(bytes)
    }

    /// Pays for making values.
    pub(super) fn make_values(&mut self, count: usize) -> Result<(), Fault> {
        self.spend(count)?;
        self.make(count.saturating_mul(VALUE_BYTES))
    }

    /// What may still be made.
    pub(super) fn room(&self) -> usize {
        self.memory as usize
    }

    /// Text that a function made.
    pub(super) fn text(&mut self, bytes: Vec<u8>) -> Result<Value<'e>, Fault> {
        self.make(bytes.len())?;
        Ok(Value::Text(bytes.into()))
    }

    /// A list that a function made.
    pub(super) fn list(&mut self, items: Vec<Value<'e>>) -> Result<Value<'e>, Fault> {
        self.make_values(items.len())?;
        Value::list(items)
    }

    /// The value of a JSON text. What it holds is paid for by its length: an element takes at least
    /// two bytes of it.
    pub(super) fn decode(&mut self, text: &Text<'e>) -> Result<Value<'e>, Fault> {
        let elements = |bytes: &[u8]| {
            let separates = |byte: &&u8| matches!(byte, b',' | b'[' | b'{' | b':');
            1 + bytes.iter().filter(separates).count()
        };
        self.look(text.bytes().len())?;
        self.make_values(elements(text.bytes()))?;
        match text {
            Text::Borrowed(bytes) => json::parse(bytes),
            Text::Shared(bytes) => {
                self.make(bytes.len())?;
                json::parse(bytes).map(Value::into_owned)
            }
        }
        .map_err(|_| Fault::NotJson)
    }

    /// A column or an alias.
    pub(super) fn column(&self, name: &str) -> Value<'e> {
        if let Some(value) = self.aliases.get(name.as_bytes()) {
            return value.clone();
        }
        match name {
            "metadata" => self.metadata(),
            _ => self.input.event.column(name).unwrap_or_default(),
        }
    }

    fn metadata(&self) -> Value<'e> {
        let entries = vec![("rule_id".into(), Value::text(self.input.rule))];
        Map::collect(entries).map_or(Value::Undefined, Value::map)
    }

    /// Whether a condition holds; without one, it does.
    pub(super) fn passes(&mut self, condition: Option<&'e Expression>) -> Result<bool, Fault> {
        condition.map_or(Ok(true), |condition| self.condition(condition))
    }

    /// Writes fields to `row`, and under their aliases to what later expressions see.
    pub(super) fn project(&mut self, fields: &'e [Field], row: &mut Map<'e>) -> Result<(), Fault> {
        for (i, field) in fields.iter().enumerate() {
            let Field::One { value, target } = field else {
                self.all(row)?;
                continue;
            };
            let result = self.evaluate(value)?;
            match (target, value) {
                (Some(target), _) => {
                    self.alias(target, result.clone())?;
                    self.put_in_row(row, target, result)?;
                }
                (None, Expression::Path(path)) => self.put_in_row(row, path, result)?,
                (None, _) => {
                    let key = format!("_v_{}", i + 1).into_bytes();
                    self.make_values(1)?;
                    row.set(key.into(), result)?;
                }
            }
        }
        Ok(())
    }

    /// All columns and aliases.
    fn all(&mut self, row: &mut Map<'e>) -> Result<(), Fault> {
        let event = self.input.event;
        self.make_values(2 * (event.names().len() + self.aliases.entries().len() + 1))?;
        for name in event.names() {
            row.set((*name).into(), self.column(name))?;
        }
        row.set("metadata".into(), self.column("metadata"))?;
        for (name, value) in self.aliases.entries() {
            row.set(name.clone(), value.clone())?;
        }
        Ok(())
    }

    /// Gives a value its alias.
    fn alias(&mut self, target: &'e Path, value: Value<'e>) -> Result<(), Fault> {
        let places = self.places(&target.steps)?;
        let mut aliases = std::mem::take(&mut self.aliases);
        if !places.is_empty() && aliases.get(target.root.as_bytes()).is_none() {
            aliases.set((&*target.root).into(), self.column(&target.root))?;
        }
        self.put(&mut aliases, &target.root, &places, value)?;
        self.aliases = aliases;
        Ok(())
    }

    /// Evaluates the fields of FOREACH: the collection, and how its elements are called.
    pub(super) fn collection(
        &mut self,
        fields: &'e [Field],
    ) -> Result<(Value<'e>, Option<&'e Path>), Fault> {
        let mut last = (Value::Undefined, None);
        for field in fields {
            let Field::One { value, target } = field else {
                continue;
            };
            let result = self.evaluate(value)?;
            if let Some(target) = target {
                self.alias(target, result.clone())?;
            }
            last = (result, target.as_ref());
        }
        Ok(last)
    }

    /// A row for each element that `only` lets through.
    pub(super) fn rows(
        &mut self,
        elements: &Value<'e>,
        name: Option<&'e Path>,
        each: Option<&'e [Field]>,
        only: Option<&'e Expression>,
    ) -> Result<Vec<Map<'e>>, Fault> {
        let mut rows = Vec::new();
        let Value::List(elements) = elements else {
            return Ok(rows);
        };
        let aliases = self.aliases.clone();
        for element in elements.items() {
            self.spend(1 + aliases.entries().len())?;
            self.aliases.clone_from(&aliases);
            match name {
                Some(name) => self.alias(name, element.clone())?,
                None => self.aliases.set("item".into(), element.clone())?,
            }
            if !self.passes(only)? {
                continue;
            }
            let mut row = Map::new();
            match each {
                Some(fields) => self.project(fields, &mut row)?,
                None => self.all(&mut row)?,
            }
            rows.push(row);
        }
        Ok(rows)
    }

    fn put_in_row(
        &mut self,
        row: &mut Map<'e>,
        path: &'e Path,
        value: Value<'e>,
    ) -> Result<(), Fault> {
        let places = self.places(&path.steps)?;
        self.put(row, &path.root, &places, value)
    }

    fn put(
        &mut self,
        map: &mut Map<'e>,
        root: &'e str,
        places: &[Place<'e>],
        value: Value<'e>,
    ) -> Result<(), Fault> {
        self.make_values(2)?;
        if places.is_empty() {
            return map.set(root.into(), value);
        }
        if let Some(Value::Text(text)) = map.get(root.as_bytes())
            && root == "payload"
            && matches!(places.first(), Some(Place::Key(_)))
        {
            let text = text.clone();
            map.set(root.into(), self.decode(&text)?)?;
        }
        map.change(root.into(), |place| self.put_at(place, places, value))
    }
}
