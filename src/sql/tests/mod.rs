//! Tests of the whole: tables of expressions and rules with what they give, from the reference; then
//! what holds for any text.

mod bounds;
mod expressions;
mod functions;
mod mistakes;
mod properties;
mod queries;
mod rules;
mod templates;
mod types;

use super::{
    Columns, Fault, Input, Map, Program, Store, Surroundings, Value, parse_json, write_json,
};

/// A message with a payload of the test's choice.
pub(super) struct Message<'p> {
    pub payload: &'p [u8],
}

/// The payload that tests have which name none.
pub(super) const PAYLOAD: &str = r#"{"temp":35,"hum":20.5,"name":"cam","on":true,"nil":null,
    "list":[1,2,3,4],"idx":2,"deep":{"a":{"b":[10,20]}},"json":"{\"x\":7}","empty":[],
    "sensors":[{"i":1,"n":"a"},{"i":2,"n":"b"},{"i":3,"n":"c"}],"esc\u0061pe":"\u00e9\n\ud83d\ude00",
    "big":123456789012345678901234567890,"exp":1.5e3,"temp":36}"#;

impl Columns for Message<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        Some(match name {
            "event" => Value::text("message.publish"),
            "id" => Value::text("0005C2A1E2B3F44200000F2D00010001"),
            "topic" => Value::text("t/a/1"),
            "clientid" => Value::text("c1"),
            "username" => Value::text("u1"),
            "peerhost" => Value::text("192.0.2.7"),
            "qos" => Value::Int(1),
            "timestamp" => Value::Int(1_620_978_468_123),
            "payload" => Value::Text(super::Text::Borrowed(self.payload)),
            "flags" => parse_json(br#"{"dup":false,"retain":true}"#).unwrap(),
            _ => return None,
        })
    }

    fn names(&self) -> &[&'static str] {
        &["event", "topic", "clientid", "qos", "payload", "flags"]
    }
}

/// 2021-05-14T07:47:48.123456789Z, eight hours ahead.
#[derive(Default)]
pub(super) struct Fixed {
    store: Store,
}

impl Surroundings for Fixed {
    fn now_ns(&self) -> i64 {
        1_620_978_468_123_456_789
    }

    fn local_offset(&self, _: i64) -> i32 {
        8 * 3600
    }

    fn random(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }

    fn store(&self) -> &Store {
        &self.store
    }
}

/// The rows of a rule over a payload, as JSON; or what is wrong.
pub(super) fn run(sql: &str, payload: &[u8], fixed: &Fixed) -> String {
    let program = Program::parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let printed = program.to_string();
    let again = Program::parse(&printed).unwrap_or_else(|error| panic!("{printed}: {error}"));
    assert_eq!(program, again, "{sql} printed as {printed}");
    let message = Message { payload };
    let input = Input {
        event: &message,
        surroundings: fixed,
        rule: "rule:1",
    };
    match program.run(input) {
        Ok(rows) => rows.iter().map(json).collect::<Vec<_>>().join(" "),
        Err(fault) => format!("!{}", kind(fault)),
    }
}

fn json(row: &Map<'_>) -> String {
    let mut out = Vec::new();
    write_json(&Value::map(row.clone()), &mut out);
    String::from_utf8(out).unwrap()
}

fn kind(fault: Fault) -> String {
    let name = format!("{fault:?}");
    name.split('(').next().unwrap().to_owned()
}

/// Checks expressions of the message; what stands on the right is the value as JSON, or `!` and the
/// fault.
#[track_caller]
pub(super) fn check(cases: &[(&str, &str)]) {
    let fixed = Fixed::default();
    let mut wrong = Vec::new();
    for (expression, want) in cases {
        let sql = format!("SELECT {expression} AS r FROM \"t/#\"");
        let got = run(&sql, PAYLOAD.as_bytes(), &fixed);
        let got = got
            .strip_prefix("{\"r\":")
            .map_or(&*got, |rest| rest.strip_suffix('}').unwrap());
        if got != *want {
            wrong.push(format!("{expression}: {got}, not {want}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
