//! Going into values: reading what a path leads to, and writing there.

use std::rc::Rc;

use super::error::Fault;
use super::json;
use super::run::Run;
use super::syntax::{Path, Step};
use super::value::{Map, Text, Value};

/// A step of which the index is known.
pub(super) enum Place<'e> {
    Key(Text<'e>),
    At(i64),
    End,
}

/// The position in a list of `length` that an index means; 0 and what is outside mean none.
pub(super) fn position(index: i64, length: usize) -> Option<usize> {
    let at = match index {
        1.. => usize::try_from(index).ok()?.checked_sub(1)?,
        _ => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    (at < length).then_some(at)
}

impl<'e> Run<'e> {
    /// What a path leads to; undefined when nothing is there.
    pub(super) fn path(&mut self, path: &'e Path) -> Result<Value<'e>, Fault> {
        let root = self.column(&path.root);
        if path.steps.is_empty() {
            return Ok(root);
        }
        let Value::Text(text) = &root else {
            return self.walk(root, &path.steps);
        };
        match self.dig(text, &path.steps) {
            Err(Fault::NotJson) if &*path.root != "payload" => Ok(Value::Undefined),
            found => found,
        }
    }

    /// Goes into a JSON text; only what is found is decoded.
    fn dig(&mut self, text: &Text<'e>, steps: &'e [Step]) -> Result<Value<'e>, Fault> {
        self.look(text.bytes().len())?;
        let (value, taken) = match text {
            Text::Borrowed(bytes) => {
                let (found, taken) = json::find(bytes, steps).map_err(|_| Fault::NotJson)?;
                let found = found.map(|bytes| self.decode(&Text::Borrowed(bytes)));
                (found.transpose()?, taken)
            }
            Text::Shared(bytes) => {
                let (found, taken) = json::find(bytes, steps).map_err(|_| Fault::NotJson)?;
                let found = found.map(|bytes| self.decode(&bytes.to_vec().into()));
                (found.transpose()?, taken)
            }
        };
        let rest = steps.get(taken..).unwrap_or_default();
        self.walk(value.unwrap_or_default(), rest)
    }

    fn walk(&mut self, mut value: Value<'e>, steps: &'e [Step]) -> Result<Value<'e>, Fault> {
        for step in steps {
            self.spend(1)?;
            let next = match (step, &value) {
                (Step::Key(key), Value::Map(map)) => {
                    self.spend(map.entries().len() / 4)?;
                    map.get(key.as_bytes()).cloned()
                }
                (Step::At(index), Value::List(list)) => position(*index, list.items().len())
                    .and_then(|at| list.items().get(at))
                    .cloned(),
                (Step::By(path), Value::List(list)) => match self.path(path)? {
                    Value::Int(index) => position(index, list.items().len())
                        .and_then(|at| list.items().get(at))
                        .cloned(),
                    _ => None,
                },
                _ => None,
            };
            value = next.unwrap_or_default();
        }
        Ok(value)
    }

    /// The elements of a list from one index to another, both included.
    pub(super) fn slice(&mut self, path: &'e Path, from: i64, to: i64) -> Result<Value<'e>, Fault> {
        const RANGE: Fault = Fault::Range("[..]");
        let Value::List(list) = self.path(path)? else {
            return Err(Fault::Type("[..]"));
        };
        if from == 0 || to == 0 {
            return Err(RANGE);
        }
        let length = list.items().len();
        let counted = |index: i64| {
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            let index = if index < 0 {
                length.saturating_add(index) + 1
            } else {
                index
            };
            usize::try_from(index.clamp(0, length)).unwrap_or(0)
        };
        let (from, to) = (counted(from).max(1), counted(to));
        let items = list.items().get(from - 1..to).unwrap_or_default();
        self.list(items.to_vec())
    }

    /// Steps with their indexes.
    pub(super) fn places(&mut self, steps: &'e [Step]) -> Result<Vec<Place<'e>>, Fault> {
        let mut places = Vec::with_capacity(steps.len());
        for step in steps {
            places.push(match step {
                Step::Key(key) => Place::Key((&**key).into()),
                Step::At(index) => Place::At(*index),
                Step::End => Place::End,
                Step::By(path) => match self.path(path)? {
                    Value::Int(index) => Place::At(index),
                    _ => return Err(Fault::Type("[..]")),
                },
            });
        }
        Ok(places)
    }

    /// Writes below a place; what stands in the way becomes a map or a list.
    pub(super) fn put_at(
        &mut self,
        place: &mut Value<'e>,
        places: &[Place<'e>],
        value: Value<'e>,
    ) -> Result<(), Fault> {
        let Some((first, rest)) = places.split_first() else {
            *place = value;
            return Ok(());
        };
        self.make_values(2)?;
        if let Place::Key(key) = first {
            if !matches!(place, Value::Map(_)) {
                *place = Value::map(Map::new());
            }
            let Value::Map(map) = place else {
                return Ok(());
            };
            if Rc::strong_count(map) > 1 {
                self.make_values(2 * map.entries().len())?;
            }
            let map = Rc::make_mut(map);
            return map.change(key.clone(), |next| self.put_at(next, rest, value));
        }
        let Value::List(list) = place else {
            let mut element = Value::Undefined;
            self.put_at(&mut element, rest, value)?;
            *place = Value::list(vec![element])?;
            return Ok(());
        };
        // A shared list is copied, and an element put before others moves them.
        self.make_values(list.items().len())?;
        let length = list.items().len();
        let list = Rc::make_mut(list);
        let new_at = match first {
            Place::At(0) => 0,
            Place::At(index) => {
                let Some(at) = position(*index, length) else {
                    return Ok(());
                };
                return list.change(at, |next| self.put_at(next, rest, value));
            }
            _ => length,
        };
        let mut element = Value::Undefined;
        self.put_at(&mut element, rest, value)?;
        list.insert(new_at, element)
    }
}
