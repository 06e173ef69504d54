//! What the benchmarks of SQL are run on.

use headgate::sql::{Columns, Store, Surroundings, Text, Value};

/// A sensor's message with this payload.
pub struct Message<'p>(pub &'p str);

impl Columns for Message<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        match name {
            "payload" => Some(Value::Text(Text::Borrowed(self.0.as_bytes()))),
            "topic" => Some(Value::text("t/sensor/1")),
            "clientid" => Some(Value::text("sensor-1")),
            "qos" => Some(Value::Int(0)),
            _ => None,
        }
    }

    fn names(&self) -> &[&'static str] {
        &["payload", "topic", "clientid", "qos"]
    }
}

/// A clock that stands, and one store.
#[derive(Default)]
pub struct Still(Store);

impl Surroundings for Still {
    fn now_ns(&self) -> i64 {
        0
    }

    fn local_offset(&self, _: i64) -> i32 {
        0
    }

    fn random(&self) -> u64 {
        0
    }

    fn store(&self) -> &Store {
        &self.0
    }
}
