//! Columns of the event as functions, and topic filters among subscriptions.

use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::expression::topic_matches;
use crate::sql::run::Run;
use crate::sql::value::{Map, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("clientid", 0, 0, |run, _| Ok(run.column("clientid"))),
    Function::new("clientip", 0, 0, |run, _| Ok(run.column("peerhost"))),
    Function::new("contains_topic", 2, 3, |_, a| {
        contains(a, |filter, topic| filter == topic)
    }),
    Function::new("contains_topic_match", 2, 3, |_, a| {
        contains(a, topic_matches)
    }),
    Function::new("flag", 1, 1, |run, a| match run.column("flags") {
        Value::Map(flags) => Ok(flags.get(a.bytes(0)?).cloned().unwrap_or_default()),
        _ => Ok(Value::Undefined),
    }),
    Function::new("flags", 0, 0, |run, _| match run.column("flags") {
        Value::Undefined => Ok(Value::map(Map::new())),
        flags => Ok(flags),
    }),
    Function::new("msgid", 0, 0, |run, _| Ok(run.column("id"))),
    Function::new("null", 0, 0, |_, _| Ok(Value::Undefined)),
    Function::new("payload", 0, 1, payload),
    Function::new("peerhost", 0, 0, |run, _| Ok(run.column("peerhost"))),
    Function::new("qos", 0, 0, |run, _| Ok(run.column("qos"))),
    Function::new("topic", 0, 1, level),
    Function::new("username", 0, 0, |run, _| Ok(run.column("username"))),
];

/// The topic, or one of its levels, from 1.
fn level<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let topic = run.column("topic");
    let Value::Text(text) = &topic else {
        return Ok(topic);
    };
    if a.count() == 0 {
        return Ok(topic);
    }
    let index = a.length(0)?.checked_sub(1).ok_or(a.out_of_range())?;
    let level = text.bytes().split(|byte| *byte == b'/').nth(index);
    level.map_or(Ok(Value::Undefined), |level| run.text(level.to_vec()))
}

/// The payload, or what a path of keys leads to in it.
fn payload<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let mut value = run.column("payload");
    if a.count() == 0 {
        return Ok(value);
    }
    if let Value::Text(text) = &value {
        value = run.decode(text)?;
    }
    super::collection::get(run, a.text(0)?, &value)
}

/// Whether a list of `{topic, qos}` has a filter for a topic, with that QoS when one is given.
fn contains<'e>(
    a: &Arguments<'_, 'e>,
    matches: fn(&[u8], &[u8]) -> bool,
) -> Result<Value<'e>, Fault> {
    let topic = a.bytes(1)?;
    for item in a.list(0)?.items() {
        let Value::Map(item) = item else {
            return Err(a.mistyped());
        };
        let Some(Value::Text(filter)) = item.get(b"topic") else {
            return Err(a.mistyped());
        };
        if matches(filter.bytes(), topic) {
            let asked = a.values.get(2);
            return Ok(Value::Bool(
                asked.is_none_or(|qos| item.get(b"qos") == Some(qos)),
            ));
        }
    }
    Ok(Value::Bool(false))
}
