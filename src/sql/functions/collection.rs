//! Maps and arrays.

use std::rc::Rc;

use super::{Arguments, Function};
use crate::sql::DEPTH_MAX;
use crate::sql::error::Fault;
use crate::sql::path::Place;
use crate::sql::run::Run;
use crate::sql::value::{Map, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("contains", 2, 2, |run, a| {
        for item in a.list(1)?.items() {
            if run.same(item, a.get(0))? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    Function::new("first", 1, 1, |_, a| {
        a.list(0)?.items().first().cloned().ok_or(a.out_of_range())
    }),
    Function::new("last", 1, 1, |_, a| {
        a.list(0)?.items().last().cloned().ok_or(a.out_of_range())
    }),
    Function::new("length", 1, 1, |_, a| {
        let length = a.list(0)?.items().len();
        Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
    }),
    Function::new("map_get", 2, 3, |run, a| {
        let found = get(run, a.text(0)?, a.get(1))?;
        Ok(or_default(found, a))
    }),
    Function::new("map_new", 0, 0, |_, _| Ok(Value::map(Map::new()))),
    Function::new("map_put", 3, 3, map_put),
    Function::new("mget", 2, 3, |_, a| {
        let found = a.map(1)?.get(a.bytes(0)?).cloned();
        Ok(or_default(found.unwrap_or_default(), a))
    }),
    Function::new("mput", 3, 3, |run, a| {
        let mut map = a.map(2)?.clone();
        run.make_values(2 * map.entries().len() + 2)?;
        map.set(a.bytes(0)?.to_vec().into(), a.get(1).clone())?;
        Ok(Value::map(map))
    }),
    Function::new("nth", 2, 2, |_, a| {
        let index = a.length(0)?.checked_sub(1).ok_or(a.out_of_range())?;
        let item = a.list(1)?.items().get(index);
        item.cloned().ok_or(a.out_of_range())
    }),
    Function::new("sublist", 2, 3, |run, a| {
        let (start, length, list) = match a.count() {
            2 => (1, a.length(0)?, a.list(1)?),
            _ => (a.length(0)?, a.length(1)?, a.list(2)?),
        };
        let skipped = start.checked_sub(1).ok_or(a.out_of_range())?;
        let items = list.items().iter().skip(skipped).take(length);
        run.list(items.cloned().collect())
    }),
];

fn or_default<'e>(found: Value<'e>, a: &Arguments<'_, 'e>) -> Value<'e> {
    match found {
        Value::Undefined => a.get(2).clone(),
        found => found,
    }
}

/// What a path with points leads to in maps.
pub(super) fn get<'e>(run: &mut Run<'e>, path: &str, of: &Value<'e>) -> Result<Value<'e>, Fault> {
    let mut value = of.clone();
    for key in path.split('.') {
        run.spend(1)?;
        value = match &value {
            Value::Map(map) => map.get(key.as_bytes()).cloned().unwrap_or_default(),
            _ => Value::Undefined,
        };
    }
    Ok(value)
}

fn map_put<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let path = a.text(0)?;
    let Value::Map(map) = a.get(2) else {
        return Err(a.mistyped());
    };
    let mut value = Value::Map(Rc::clone(map));
    let mut keys = Vec::new();
    for key in path.split('.') {
        run.make_values(1)?;
        if keys.len() >= usize::from(DEPTH_MAX) {
            return Err(Fault::TooDeep);
        }
        keys.push(Place::Key(key.as_bytes().to_vec().into()));
    }
    run.put_at(&mut value, &keys, a.get(1).clone())?;
    Ok(value)
}
