//! SQL rules and the payloads that they look into. A rule prints as itself; it runs over any payload
//! to the end of its budget and makes JSON; a query takes rows; fields are found where parsing puts them.
#![no_main]

use headgate::sql::{
    Columns, Input, Program, Query, Store, Surroundings, Template, Text, Value, parse_json,
    write_json,
};
use libfuzzer_sys::fuzz_target;

struct Message<'p>(&'p [u8]);

impl Columns for Message<'_> {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        match name {
            "payload" => Some(Value::Text(Text::Borrowed(self.0))),
            "topic" => Some(Value::text("t/1")),
            "qos" => Some(Value::Int(1)),
            _ => None,
        }
    }

    fn names(&self) -> &[&'static str] {
        &["payload", "topic", "qos"]
    }
}

#[derive(Default)]
struct Fixed(Store);

impl Surroundings for Fixed {
    fn now_ns(&self) -> i64 {
        1_700_000_000_123_456_789
    }

    fn local_offset(&self, _: i64) -> i32 {
        3600
    }

    fn random(&self) -> u64 {
        7
    }

    fn store(&self) -> &Store {
        &self.0
    }
}

fuzz_target!(|input: &[u8]| {
    // The rule, a zero, the payload.
    let end = input
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(input.len());
    let (rule, payload) = input.split_at(end);
    let payload = payload.get(1..).unwrap_or_default();
    if let Ok(value) = parse_json(payload) {
        let mut out = Vec::new();
        write_json(&value, &mut out);
        assert_eq!(parse_json(&out).unwrap(), value);
    }
    let Ok(rule) = std::str::from_utf8(rule) else {
        return;
    };
    let (message, fixed) = (Message(payload), Fixed::default());
    let input = Input {
        event: &message,
        surroundings: &fixed,
        rule: "r",
    };
    if let Ok(query) = Query::parse(rule) {
        let mut results = query.begin();
        if (0..3).all(|_| results.add(input).is_ok()) {
            let mut rows = 0;
            let _faulty = results.finish(&mut |_| rows += 1);
            assert!(rows <= 3);
        }
    }
    let template = Template::new(rule);
    let program = match Program::parse(rule) {
        Ok(program) => program,
        Err(error) => return assert!(error.to_string().len() <= rule.len() + 400),
    };
    match Program::parse(&program.to_string()) {
        Ok(again) => assert_eq!(again, program),
        // Printed, some signs stand in parentheses, each of which is a level more.
        Err(error) => assert!(error.to_string().ends_with("levels"), "{error}"),
    }
    for row in program.run(input).unwrap_or_default() {
        if let Ok(text) = template.render(&row, 4096) {
            assert!(text.len() <= 4096);
        }
        let mut out = Vec::new();
        write_json(&Value::map(row), &mut out);
        assert!(out.len() <= 8 * (64 * 1024 + 16 * payload.len()));
    }
});
