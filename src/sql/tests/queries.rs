//! Queries over a small table.

use super::super::{Columns, Query, Value, write_json};
use super::*;

const NAMES: &[&str] = &["device", "rule", "down", "ratio"];

/// Device, rule, bytes and a number that is not always there.
struct Row(&'static str, &'static str, i64, Option<f64>);

impl Columns for Row {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        Some(match name {
            "device" => Value::text(self.0),
            "rule" => Value::text(self.1),
            "down" => Value::Int(self.2),
            "ratio" => self.3.map_or(Value::Undefined, Value::Float),
            _ => return None,
        })
    }

    fn names(&self) -> &[&'static str] {
        NAMES
    }
}

const ROWS: &[Row] = &[
    Row("tv", "Video", 100, Some(0.5)),
    Row("phone", "Video", 30, None),
    Row("tv", "Video", 50, Some(1.5)),
    Row("phone", "Web", 7, None),
];

fn ask(text: &str) -> String {
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(error) => return error.to_string(),
    };
    let surroundings = Fixed::default();
    let mut results = query.begin();
    for row in ROWS {
        let input = Input {
            event: row,
            surroundings: &surroundings,
            rule: "query",
        };
        if let Err(fault) = results.add(input) {
            return fault.to_string();
        }
    }
    let mut text = Vec::new();
    let shown = results.finish(&mut |row| {
        write_json(row, &mut text);
        text.push(b' ');
    });
    shown.unwrap();
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

#[test]
fn rows_are_grouped_summed_ordered_and_cut() {
    for (text, want) in [
        (
            "SELECT device, sum(down) FROM flows WHERE rule = 'Video' GROUP BY device",
            r#"{"device":"tv","sum(down)":150} {"device":"phone","sum(down)":30}"#,
        ),
        (
            "SELECT device, sum(down) AS bytes FROM flows GROUP BY device ORDER BY bytes",
            r#"{"device":"phone","bytes":37} {"device":"tv","bytes":150}"#,
        ),
        (
            "select rule, COUNT(*) as n from flows group by rule order by n desc limit 1",
            r#"{"rule":"Video","n":3}"#,
        ),
        (
            "SELECT min(down) AS a, max(down) AS b, avg(down) AS c, count(ratio) AS d, sum(ratio) AS e FROM flows",
            r#"{"a":7,"b":100,"c":46.75,"d":2,"e":2.0}"#,
        ),
        (
            "SELECT count(*) AS n FROM flows WHERE down > 1000 ORDER BY device",
            r#"{"n":0}"#,
        ),
        ("SELECT device, down FROM flows WHERE down > 1000", ""),
        (
            "SELECT device, down * 2 AS d FROM flows ORDER BY d DESC LIMIT 2",
            r#"{"device":"tv","d":200} {"device":"tv","d":100}"#,
        ),
        ("SELECT down FROM flows LIMIT 1", r#"{"down":100}"#),
        (
            "SELECT rule FROM flows ORDER BY down LIMIT 2",
            r#"{"rule":"Web"} {"rule":"Video"}"#,
        ),
        (
            "SELECT * FROM flows ORDER BY down + 0 LIMIT 1",
            r#"{"device":"phone","rule":"Web","down":7,"ratio":"undefined"}"#,
        ),
        (
            "SELECT device FROM flows GROUP BY device ORDER BY sum(down)",
            r#"{"device":"phone"} {"device":"tv"}"#,
        ),
        (
            "SELECT upper(rule) AS r, max(device) AS m FROM flows GROUP BY upper(rule) ORDER BY r",
            r#"{"r":"VIDEO","m":"tv"} {"r":"WEB","m":"phone"}"#,
        ),
        (
            "SELECT * FROM flows LIMIT 1",
            r#"{"device":"tv","rule":"Video","down":100,"ratio":0.5}"#,
        ),
        ("SELECT sum(device) FROM flows", "wrong type for sum"),
    ] {
        let got = ask(text);
        let same = |a: &str, b: &str| {
            let parse = |text: &str| -> Vec<serde_json::Value> {
                serde_json::Deserializer::from_str(text)
                    .into_iter()
                    .map(Result::unwrap)
                    .collect()
            };
            a == b || (a.starts_with('{') && b.starts_with('{') && parse(a) == parse(b))
        };
        assert!(
            same(&got, want) || (want.starts_with("wrong") && !got.starts_with('{')),
            "{text}: {got}"
        );
    }
}

#[test]
fn mistakes_in_queries_say_what_was_expected() {
    for (text, want) in [
        (
            "FOREACH x FROM flows",
            "line 1, column 1: expected SELECT, found \"FOREACH\"",
        ),
        (
            "SELECT a FROM flows GROUP device",
            "line 1, column 27: expected BY, found \"device\"",
        ),
        (
            "SELECT device FROM flows ORDER BY sum(down)",
            "line 1, column 35: expected a column, or GROUP BY before it, found \"sum\"",
        ),
        (
            "SELECT a FROM flows LIMIT x",
            "line 1, column 27: expected a number of rows, found \"x\"",
        ),
        (
            "SELECT sum(*) FROM flows",
            "line 1, column 12: expected a value, found \"*\"",
        ),
        (
            "SELECT a FROM flows WHERE a = 1 b",
            "line 1, column 33: expected GROUP BY, ORDER BY, LIMIT or the end, found \"b\"",
        ),
    ] {
        assert_eq!(ask(text), want);
    }
}

/// A row of the bounds: a number and a long text.
struct Long(i64, String);

impl Columns for Long {
    fn column<'e>(&'e self, name: &str) -> Option<Value<'e>> {
        match name {
            "n" => Some(Value::Int(self.0)),
            "text" => Some(Value::text(&self.1)),
            _ => None,
        }
    }

    fn names(&self) -> &[&'static str] {
        &["n", "text"]
    }
}

fn ask_long(text: &str, count: i64, length: usize) -> Result<Vec<String>, Fault> {
    let query = Query::parse(text).unwrap();
    let surroundings = Fixed::default();
    let mut results = query.begin();
    for n in 0..count {
        let row = Long(n, "x".repeat(length));
        results.add(Input {
            event: &row,
            surroundings: &surroundings,
            rule: "query",
        })?;
    }
    let mut rows = Vec::new();
    results.finish(&mut |row| {
        let mut text = Vec::new();
        write_json(row, &mut text);
        rows.push(String::from_utf8(text).unwrap());
    })?;
    Ok(rows)
}

#[test]
fn a_query_keeps_and_works_within_its_bounds() {
    let too_large = Err(Fault::QueryTooLarge);
    assert_eq!(ask_long("SELECT * FROM t", 100, 40_000), too_large);
    assert_eq!(ask_long("SELECT n FROM t", 10_001, 1), too_large);
    assert_eq!(
        ask_long("SELECT n FROM t GROUP BY text, n", 100, 40_000),
        too_large
    );
    assert_eq!(
        ask_long("SELECT n, max(text) FROM t GROUP BY n", 100, 40_000),
        too_large
    );
    let costly = "SELECT n FROM t WHERE regex_match(text, 'y+z+') OR regex_match(text, 'a+b+')";
    assert_eq!(ask_long(costly, 10_000, 4000), too_large);
}

#[test]
fn the_first_rows_of_an_order_are_found_among_any_number() {
    let rows = ask_long("SELECT n FROM t ORDER BY n DESC LIMIT 2", 30_000, 1000).unwrap();
    assert_eq!(rows, [r#"{"n":29999}"#, r#"{"n":29998}"#]);
    let rows = ask_long("SELECT n FROM t ORDER BY n LIMIT 3", 30_000, 1).unwrap();
    assert_eq!(rows, [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#]);
}
