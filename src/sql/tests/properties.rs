//! What holds for any text, program and payload.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Fixed, Message};
use crate::sql::syntax::Step;
use crate::sql::{FUNCTIONS, Input, Program, Value, json, parse_json, write_json};

/// Pieces of programs, put together without regard for grammar.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("SELECT".to_owned()),
        Just("FROM \"t/#\"".to_owned()),
        Just("WHERE".to_owned()),
        Just("FOREACH".to_owned()),
        "[-+*/=<>(),.\\[\\]']{1,3}",
        "[a-c]{1,2}",
        "[0-9]{1,3}(\\.[0-9])?",
        "(AND|OR|NOT|IN|CASE|WHEN|THEN|ELSE|END|AS|DO|INCASE|div|mod)",
        "\\PC{0,4}",
    ];
    vec(piece, 0..20).prop_map(|pieces| pieces.join(" "))
}

/// Expressions by the grammar.
fn expression() -> impl Strategy<Value = String> {
    let names: Vec<(&'static str, u8)> = FUNCTIONS
        .iter()
        .flat_map(|family| family.iter().map(|function| (function.name, function.min)))
        .filter(|(name, _)| name.starts_with(char::is_alphabetic) && !name.starts_with("regex"))
        .collect();
    let leaf = prop_oneof![
        "[0-9]{1,4}",
        "[0-9]{1,3}\\.[0-9]{1,3}(e-?[0-9])?",
        "'[^']{0,6}'",
        "(true|false|qos|topic|payload|nothing)",
        "payload\\.(temp|list|deep\\.a|sensors\\[-?[0-3]\\]\\.n|list\\[qos\\])",
        "payload\\.list\\[[0-4]\\.\\.-?[0-4]\\]",
    ];
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let names = names.clone();
        prop_oneof![
            (inner.clone(), "(\\+|-|\\*|/|div|mod)", inner.clone())
                .prop_map(|(a, o, b)| format!("({a}) {o} ({b})")),
            (inner.clone(), "(=|!=|<|>|<=|>=|=~)", inner.clone())
                .prop_map(|(a, o, b)| format!("(({a}) {o} ({b}))")),
            (inner.clone(), "(AND|OR)", inner.clone())
                .prop_map(|(a, o, b)| format!("(({a}) {o} ({b}))")),
            (inner.clone(), vec(inner.clone(), 1..3), any::<bool>()).prop_map(|(a, list, not)| {
                let not = if not { "NOT " } else { "" };
                format!("(({a}) {not}IN ({}))", list.join(", "))
            }),
            inner.clone().prop_map(|a| format!("(NOT ({a}))")),
            inner.clone().prop_map(|a| format!("-({a})")),
            vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("CASE WHEN ({a}) THEN {b} ELSE {c} END")),
            (any::<prop::sample::Index>(), vec(inner, 6)).prop_map(move |(index, arguments)| {
                let (name, min) = names[index.index(names.len())];
                format!("{name}({})", arguments[..usize::from(min)].join(", "))
            }),
        ]
    })
}

fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "(0|-?[1-9][0-9]{0,12})(\\.[0-9]{1,3})?([eE][-+]?[0-9])?",
        "\"([^\"\\\\\\x00-\\x1f]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-c][0-9a-f]{3}){0,6}\"",
        "(true|false|null)",
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec(("[a-c]", inner), 0..5).prop_map(|entries| {
                let entries = entries
                    .iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn run(program: &Program, payload: &[u8]) {
    let fixed = Fixed::default();
    let message = Message { payload };
    let input = Input {
        event: &message,
        surroundings: &fixed,
        rule: "rule:1",
    };
    if let Ok(rows) = program.run(input) {
        for row in rows {
            let mut out = Vec::new();
            write_json(&Value::map(row), &mut out);
            // Whatever a program makes is JSON that reads back, unless it is too deep by its row.
            assert!(
                parse_json(&out).is_ok(),
                "{}",
                String::from_utf8_lossy(&out)
            );
        }
    }
}

/// Equal but for the last digits of numbers: the reference reads those imprecisely on purpose.
fn same(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (one, other) {
        (Number(one), Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= one.abs() * 1e-15
        }
        (Array(one), Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Object(one), Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (one, other) => one == other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_parses_or_says_where_it_does_not(text in prop_oneof![fragments(), "\\PC{0,60}"]) {
        match Program::parse(&text) {
            Ok(program) => {
                let printed = program.to_string();
                prop_assert_eq!(Program::parse(&printed), Ok(program));
            }
            Err(error) => {
                let lines: Vec<&str> = text.split('\n').collect();
                let line = lines.get(error.line as usize - 1).expect("a line of the text");
                prop_assert!((error.column as usize) <= line.chars().count() + 1);
            }
        }
    }

    #[test]
    fn a_program_prints_as_itself_and_runs_over_anything(
        expressions in vec(expression(), 1..4),
        condition in expression(),
        payload in prop_oneof![document(), "\\PC{0,20}"],
    ) {
        let fields: Vec<String> =
            expressions.iter().enumerate().map(|(i, e)| format!("{e} AS f{i}.x[{i}]")).collect();
        let fields = fields.join(", ");
        for sql in [
            format!("SELECT {fields}, * FROM \"t\" WHERE {condition}"),
            format!("FOREACH {fields}, payload.list AS e DO {fields} INCASE {condition} FROM \"t\""),
        ] {
            let program = Program::parse(&sql);
            prop_assert!(program.is_ok(), "{}: {}", sql, program.unwrap_err());
            let program = program.unwrap();
            let again = Program::parse(&program.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&program));
            run(&program, payload.as_bytes());
            run(&program, super::PAYLOAD.as_bytes());
        }
    }

    #[test]
    fn json_reads_back_and_finding_agrees_with_parsing(
        text in prop_oneof![document(), "[\\[\\]{}:,\"0-9a-b\\\\ ]{0,20}"],
        key in "[a-c]",
        index in 1_i64..4,
    ) {
        let parsed = parse_json(text.as_bytes());
        let steps = [Step::Key(key.as_str().into()), Step::At(index)];
        for steps in [&steps[..], &steps[..1], &steps[1..]] {
            let found = json::find(text.as_bytes(), steps);
            let Ok(value) = &parsed else {
                prop_assert!(found.is_err());
                continue;
            };
            let mut want = Some(value.clone());
            for step in steps {
                want = match (step, want) {
                    (Step::Key(key), Some(Value::Map(map))) => map.get(key.as_bytes()).cloned(),
                    (Step::At(at), Some(Value::List(list))) => {
                        list.items().get(usize::try_from(*at).unwrap() - 1).cloned()
                    }
                    _ => None,
                };
            }
            let (found, _) = found.unwrap();
            prop_assert_eq!(found.map(|found| parse_json(found).unwrap()), want);
        }
        if let Ok(value) = parsed {
            let mut out = Vec::new();
            write_json(&value, &mut out);
            prop_assert_eq!(parse_json(&out), Ok(value.clone()));
            let reference: serde_json::Value = serde_json::from_str(&text).unwrap();
            let ours: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(same(&reference, &ours), "{reference} {ours}");
        } else if !text.contains("\\u") {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err());
        }
    }
}
