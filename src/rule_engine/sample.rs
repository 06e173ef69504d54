//! Trying SQL on an event that the client writes down (`POST /rules` with `test`).

use std::fmt;

use serde_json::Map as Json;

use super::definition::{BadRule, check_sql};
use super::event::EventKind;
use super::event_types::EventType;
use super::world::World;
use crate::mqtt::topic;
use crate::sql::{Columns, Fault, Input, Value, parse_json, write_json};

/// Why there is no sample output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSampled {
    /// The SQL is none.
    Rule(BadRule),
    /// The event does not fit.
    Fault(Fault),
    /// The topic is not one of FROM, or WHERE says no.
    NoMatch,
}

impl fmt::Display for NotSampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(bad) => bad.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
            Self::NoMatch => f.write_str("SQL Not Match"),
        }
    }
}

impl std::error::Error for NotSampled {}

/// An event of given columns over those of a sample.
struct Sample<'a> {
    about: &'static EventType,
    given: Vec<(&'a str, Value<'a>)>,
    node: &'a str,
}

impl Columns for Sample<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        if let Some((_, value)) = self.given.iter().find(|(column, _)| *column == name) {
            return Some(value.clone());
        }
        if !self.about.columns.contains(&name) {
            return None;
        }
        Some(match name {
            "event" => Value::text(self.about.name),
            "node" => Value::text(self.node),
            "id" => Value::text("5C4F2B3D8E1A40F600000F2D00010001"),
            "clientid" | "from_clientid" => Value::text("c_emqx"),
            "username" | "from_username" => Value::text("u_emqx"),
            "payload" => Value::text("{\"msg\": \"hello\"}"),
            "peerhost" | "device" => Value::text("192.168.0.10"),
            "topic" => Value::text("t/a"),
            "qos" => Value::Int(1),
            "timestamp" | "publish_received_at" => Value::Int(1_600_000_000_000),
            _ => Value::Undefined,
        })
    }

    fn names(&self) -> &[&'static str] {
        self.about.columns
    }
}

/// The rows that SQL gives for an event with these columns, each as JSON.
///
/// # Errors
/// [`NotSampled`].
pub fn run_sample(
    sql: &str,
    given: &Json<String, serde_json::Value>,
    node: &str,
) -> Result<Vec<serde_json::Value>, NotSampled> {
    let program = check_sql(sql).map_err(NotSampled::Rule)?;
    let names = program.from();
    let kind = names.first().and_then(|name| EventKind::of(name));
    let about = kind.unwrap_or(EventKind::Published).about();
    let texts: Vec<(&str, String)> = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_string()))
        .collect();
    let given = texts.iter().map(|(name, text)| {
        let value = parse_json(text.as_bytes());
        value
            .map(|value| (*name, value))
            .map_err(|_| NotSampled::Fault(Fault::NotJson))
    });
    let sample = Sample {
        about,
        given: given.collect::<Result<_, _>>()?,
        node,
    };
    let plain = names
        .iter()
        .all(|name| EventKind::of(name) == Some(EventKind::Published));
    if let (true, Some(Value::Text(text))) = (plain, sample.column("topic")) {
        let text = str::from_utf8(text.bytes()).unwrap_or_default();
        let named = sample.given.iter().any(|(column, _)| *column == "topic");
        if named && !names.iter().any(|filter| topic::matches(filter, text)) {
            return Err(NotSampled::NoMatch);
        }
    }
    let world = World::new();
    let input = Input {
        event: &sample,
        surroundings: &world,
        rule: "sql_tester",
    };
    let rows = program.run(input).map_err(NotSampled::Fault)?;
    if rows.is_empty() {
        return Err(NotSampled::NoMatch);
    }
    let rows = rows.into_iter().map(|row| {
        let mut text = Vec::new();
        write_json(&Value::map(row), &mut text);
        serde_json::from_slice(&text).unwrap_or_default()
    });
    Ok(rows.collect())
}
