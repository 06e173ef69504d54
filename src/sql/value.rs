//! What expressions evaluate to.
//!
//! A value borrows from the event or the program (`'e`) wherever it can. Lists and maps are shared
//! and copied when written to. Each knows its [`Shape`]: how deep it nests, so that everything that
//! walks one, dropping it included, goes no deeper than [`DEPTH_MAX`]; and how much it would be
//! without sharing, so that a list of itself twice, thirty times over, is paid for before it is walked.

use std::rc::Rc;

use super::error::Fault;
use super::run::VALUE_BYTES;
use super::{DEPTH_MAX, json};

/// Bytes, mostly of UTF-8: MQTT payloads may be anything.
#[derive(Clone, Debug)]
pub enum Text<'e> {
    /// Part of the event or of the program.
    Borrowed(&'e [u8]),
    /// Made by an expression.
    Shared(Rc<[u8]>),
}

impl<'e> Text<'e> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The same, without borrowing.
    #[must_use]
    pub fn into_owned(self) -> Text<'static> {
        match self {
            Self::Borrowed(bytes) => Text::Shared(bytes.into()),
            Self::Shared(bytes) => Text::Shared(bytes),
        }
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl<'e> From<&'e str> for Text<'e> {
    fn from(text: &'e str) -> Self {
        Self::Borrowed(text.as_bytes())
    }
}

impl From<Vec<u8>> for Text<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Shared(bytes.into())
    }
}

/// A value of an expression. Equality is strict: `1`, `1.0` and `'1'` differ.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Value<'e> {
    /// No such column or field; printed as `undefined`.
    #[default]
    Undefined,
    /// JSON's null, which is not undefined.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer; JSON integers beyond 64 bits become floats.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// Text or any bytes.
    Text(Text<'e>),
    /// An array.
    List(Rc<List<'e>>),
    /// An object.
    Map(Rc<Map<'e>>),
}

impl<'e> Value<'e> {
    /// Text that is part of the event.
    #[must_use]
    pub fn text(text: &'e str) -> Self {
        Self::Text(text.into())
    }

    /// How deep it nests and how much it is.
    pub(super) fn shape(&self) -> Shape {
        match self {
            Self::List(list) => list.shape,
            Self::Map(map) => map.shape,
            Self::Text(text) => Shape {
                depth: 0,
                weight: VALUE_BYTES as u64 + text.bytes().len() as u64,
            },
            _ => Shape {
                depth: 0,
                weight: VALUE_BYTES as u64,
            },
        }
    }

    /// Bytes that it would take without sharing, more or less; also about what it prints as.
    pub(super) fn weight(&self) -> usize {
        usize::try_from(self.shape().weight).unwrap_or(usize::MAX)
    }

    /// A list.
    ///
    /// # Errors
    /// [`Fault::TooDeep`].
    pub fn list(items: Vec<Self>) -> Result<Self, Fault> {
        let mut shape = Shape::EMPTY;
        for item in &items {
            shape.hold(item)?;
        }
        Ok(Self::List(Rc::new(List { items, shape })))
    }

    /// A map.
    #[must_use]
    pub fn map(map: Map<'e>) -> Self {
        Self::Map(Rc::new(map))
    }

    /// The same, without borrowing.
    #[must_use]
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Undefined => Value::Undefined,
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Float(value) => Value::Float(value),
            Self::Text(text) => Value::Text(text.into_owned()),
            Self::List(list) => {
                let items = list.items.iter().cloned().map(Value::into_owned).collect();
                let shape = list.shape;
                Value::List(Rc::new(List { items, shape }))
            }
            Self::Map(map) => {
                let entries = map.entries.iter().cloned();
                let entries = entries.map(|(key, value)| (key.into_owned(), value.into_owned()));
                let entries = entries.collect();
                let shape = map.shape;
                Value::Map(Rc::new(Map { entries, shape }))
            }
        }
    }

    /// As templates and `str` print it; text stays as it is.
    pub fn print(&self, out: &mut Vec<u8>) {
        match self {
            Self::Undefined => out.extend_from_slice(b"undefined"),
            Self::Text(text) => out.extend_from_slice(text.bytes()),
            Self::Float(value) => out.extend_from_slice(decimal(*value).as_bytes()),
            _ => json::write(self, out),
        }
    }
}

/// How deep and how large a list or a map is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    depth: u8,
    weight: u64,
}

/// Beyond what any budget pays for, and far from where sums overflow.
const WEIGHT_MAX: u64 = 1 << 40;

impl Shape {
    const EMPTY: Self = Self {
        depth: 1,
        weight: VALUE_BYTES as u64,
    };

    /// Comes to hold `value`.
    fn hold(&mut self, value: &Value<'_>) -> Result<(), Fault> {
        let shape = value.shape();
        if shape.depth >= DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.depth = self.depth.max(shape.depth + 1);
        self.weight += shape.weight;
        if self.weight > WEIGHT_MAX {
            return Err(Fault::TooMuchMemory);
        }
        Ok(())
    }

    fn hold_key(&mut self, key: &Text<'_>) {
        self.weight += VALUE_BYTES as u64 + key.bytes().len() as u64;
    }
}

/// A float as decimals without exponent: the shortest that reads back, at most 17 decimals.
#[must_use]
pub(super) fn decimal(value: f64) -> String {
    let mut text = format!("{value}");
    match text.split_once('.') {
        None => text.push_str(".0"),
        Some((_, decimals)) if decimals.len() > 17 => {
            text = format!("{value:.17}");
            let kept = text.trim_end_matches('0').len();
            text.truncate(kept);
            if text.ends_with('.') {
                text.push('0');
            }
        }
        Some(_) => {}
    }
    text
}

/// An array.
#[derive(Clone, Debug)]
pub struct List<'e> {
    items: Vec<Value<'e>>,
    shape: Shape,
}

impl<'e> List<'e> {
    /// The elements.
    #[must_use]
    pub fn items(&self) -> &[Value<'e>] {
        &self.items
    }

    /// Changes the element at `index`; nothing when there is none.
    pub(super) fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Value<'e>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Some(item) = self.items.get_mut(index) {
            self.shape.weight -= item.shape().weight;
            change(item)?;
            self.shape.hold(item)?;
        }
        Ok(())
    }

    /// Puts an element at `index`, at most at the end.
    pub(super) fn insert(&mut self, index: usize, value: Value<'e>) -> Result<(), Fault> {
        self.shape.hold(&value)?;
        self.items.insert(index.min(self.items.len()), value);
        Ok(())
    }
}

impl PartialEq for List<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

/// An object; its keys keep their order.
#[derive(Clone, Debug)]
pub struct Map<'e> {
    entries: Vec<(Text<'e>, Value<'e>)>,
    shape: Shape,
}

impl<'e> Default for Map<'e> {
    fn default() -> Self {
        Self::new()
    }
}

/// Maps of at most so many entries are compared and cleaned of doubles by looking at each pair.
const FEW: usize = 12;

impl<'e> Map<'e> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            shape: Shape::EMPTY,
        }
    }

    /// Of entries in which a later one takes the place of an earlier one with the same key.
    ///
    /// # Errors
    /// [`Fault::TooDeep`].
    pub fn collect(mut entries: Vec<(Text<'e>, Value<'e>)>) -> Result<Self, Fault> {
        if has_doubles(&entries) {
            let mut ranked: Vec<_> = entries.into_iter().enumerate().collect();
            ranked.sort_by(|(i, (a, _)), (j, (b, _))| a.bytes().cmp(b.bytes()).then(j.cmp(i)));
            ranked.dedup_by(|(_, (later, _)), (_, (kept, _))| later == kept);
            ranked.sort_by_key(|(i, _)| *i);
            entries = ranked.into_iter().map(|(_, entry)| entry).collect();
        }
        let mut shape = Shape::EMPTY;
        for (key, value) in &entries {
            shape.hold_key(key);
            shape.hold(value)?;
        }
        Ok(Self { entries, shape })
    }

    /// See [`Value::weight`].
    pub(super) fn weight(&self) -> usize {
        usize::try_from(self.shape.weight).unwrap_or(usize::MAX)
    }

    /// Keys and values.
    #[must_use]
    pub fn entries(&self) -> &[(Text<'e>, Value<'e>)] {
        &self.entries
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Value<'e>> {
        let mut entries = self.entries.iter();
        entries.find(|(k, _)| k.bytes() == key).map(|(_, v)| v)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// [`Fault::TooDeep`].
    pub fn set(&mut self, key: Text<'e>, value: Value<'e>) -> Result<(), Fault> {
        self.change(key, |old| {
            *old = value;
            Ok(())
        })
    }

    /// Changes the value of a key, undefined when it was not there.
    pub(super) fn change(
        &mut self,
        key: Text<'e>,
        change: impl FnOnce(&mut Value<'e>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Some((_, value)) = self.entries.iter_mut().find(|(k, _)| *k == key) {
            self.shape.weight -= value.shape().weight;
            change(value)?;
            return self.shape.hold(value);
        }
        let mut value = Value::Undefined;
        change(&mut value)?;
        self.shape.hold_key(&key);
        self.shape.hold(&value)?;
        self.entries.push((key, value));
        Ok(())
    }
}

fn has_doubles(entries: &[(Text<'_>, Value<'_>)]) -> bool {
    if entries.len() <= FEW {
        let mut rest = entries;
        while let Some(((key, _), later)) = rest.split_first() {
            if later.iter().any(|(k, _)| k == key) {
                return true;
            }
            rest = later;
        }
        return false;
    }
    let mut keys: Vec<&[u8]> = entries.iter().map(|(key, _)| key.bytes()).collect();
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair.first() == pair.last())
}

impl PartialEq for Map<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.entries.len() != other.entries.len() {
            return false;
        }
        if self.entries.len() <= FEW {
            let mut entries = self.entries.iter();
            return entries.all(|(key, value)| other.get(key.bytes()) == Some(value));
        }
        let sorted = |map: &Self| {
            let mut order: Vec<usize> = (0..map.entries.len()).collect();
            order.sort_unstable_by_key(|&i| map.entries.get(i).map(|(key, _)| key.bytes()));
            order
        };
        let pairs = sorted(self).into_iter().zip(sorted(other));
        pairs
            .map(|(i, j)| (self.entries.get(i), other.entries.get(j)))
            .all(|(a, b)| a == b)
    }
}
