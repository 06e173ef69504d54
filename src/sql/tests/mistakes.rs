//! Texts that are no rules: where the mistake is and what was expected.

use crate::sql::Program;

#[track_caller]
fn refuses(sql: &str, want: &str) {
    assert_eq!(Program::parse(sql).unwrap_err().to_string(), want, "{sql}");
}

const MISTAKES: &[(&str, &str)] = &[
    (
        "",
        "line 1, column 1: expected SELECT or FOREACH, found the end",
    ),
    (
        "SELEC *",
        "line 1, column 1: expected SELECT or FOREACH, found \"SELEC\"",
    ),
    (
        "SELECT",
        "line 1, column 7: expected a value, found the end",
    ),
    (
        "SELECT *",
        "line 1, column 9: expected FROM, AS or an operator, found the end",
    ),
    (
        "SELECT * FROM",
        "line 1, column 14: expected a topic in double quotes, found the end",
    ),
    (
        "SELECT * FROM t/#",
        "line 1, column 17: unexpected character '#'",
    ),
    (
        "SELECT * FROM \"t/#/x\"",
        "line 1, column 15: \"t/#/x\" is no topic filter",
    ),
    (
        "SELECT * FROM \"\"",
        "line 1, column 15: \"\" is no topic filter",
    ),
    (
        "SELECT a, FROM \"t\"",
        "line 1, column 11: expected a value, found \"FROM\"",
    ),
    (
        "SELECT a b c FROM \"t\"",
        "line 1, column 12: expected FROM, AS or an operator, found \"c\"",
    ),
    (
        "SELECT a AS 1 FROM \"t\"",
        "line 1, column 13: expected a name, found \"1\"",
    ),
    (
        "SELECT a[1..2] AS b[1..2] FROM \"t\"",
        "line 1, column 20: expected FROM, AS or an operator, found \"[\"",
    ),
    (
        "SELECT a[1..3].c FROM \"t\"",
        "line 1, column 15: expected no more of a path behind a range, found \".\"",
    ),
    (
        "SELECT a.1.100 FROM \"t\"",
        "line 1, column 10: expected a key, found \"1.100\"",
    ),
    (
        "SELECT a[] FROM \"t\"",
        "line 1, column 10: expected an index or a name, found \"]\"",
    ),
    (
        "SELECT (1 FROM \"t\"",
        "line 1, column 11: expected ) or an operator, found \"FROM\"",
    ),
    (
        "SELECT [1, FROM \"t\"",
        "line 1, column 12: expected a value, found \"FROM\"",
    ),
    (
        "SELECT [1..x] FROM \"t\"",
        "line 1, column 12: expected an integer behind .., found \"x\"",
    ),
    (
        "SELECT 1 = 2 = 3 FROM \"t\"",
        "line 1, column 14: expected FROM, AS or an operator, found \"=\"",
    ),
    (
        "SELECT a\nFROM \"t\"\n  WHERE",
        "line 3, column 8: expected a value, found the end",
    ),
    (
        "SELECT a FROM \"t\" WHERE a b",
        "line 1, column 27: expected an operator or the end, found \"b\"",
    ),
    (
        "SELECT a FROM \"t\" x",
        "line 1, column 19: expected WHERE or the end, found \"x\"",
    ),
    (
        "SELECT 'ü' + 'open FROM",
        "line 1, column 14: a quote that does not end",
    ),
    (
        "SELECT ; FROM \"t\"",
        "line 1, column 8: unexpected character ';'",
    ),
    (
        "SELECT 9223372036854775808 FROM \"t\"",
        "line 1, column 8: a number beyond 64 bits",
    ),
    (
        "SELECT 1.0e999 FROM \"t\"",
        "line 1, column 8: a number beyond 64 bits",
    ),
    (
        "SELECT nope(1) FROM \"t\"",
        "line 1, column 8: no function is named \"nope\"",
    ),
    (
        "SELECT LOWER('a') FROM \"t\"",
        "line 1, column 8: no function is named \"LOWER\"",
    ),
    (
        "SELECT lower() FROM \"t\"",
        "line 1, column 8: lower takes 1 arguments",
    ),
    (
        "SELECT substr('a') FROM \"t\"",
        "line 1, column 8: substr takes 2 to 3 arguments",
    ),
    (
        "SELECT regex_match(a, '(') FROM \"t\"",
        "line 1, column 8: not a regular expression, or too large a one",
    ),
    (
        "SELECT regex_match(a, '(a{900}){900}') FROM \"t\"",
        "line 1, column 8: not a regular expression, or too large a one",
    ),
    (
        "SELECT CASE END FROM \"t\"",
        "line 1, column 13: expected a value, found \"END\"",
    ),
    (
        "SELECT CASE a END FROM \"t\"",
        "line 1, column 15: expected WHEN, found \"END\"",
    ),
    (
        "SELECT CASE WHEN a FROM \"t\"",
        "line 1, column 20: expected THEN or an operator, found \"FROM\"",
    ),
    (
        "SELECT CASE WHEN a THEN 1 FROM \"t\"",
        "line 1, column 27: expected WHEN, ELSE, END or an operator, found \"FROM\"",
    ),
    (
        "SELECT a IN b FROM \"t\"",
        "line 1, column 13: expected ( behind IN, found \"b\"",
    ),
    (
        "SELECT a IN () FROM \"t\"",
        "line 1, column 14: expected an element of IN, found \")\"",
    ),
    (
        "SELECT a ~= b FROM \"t\"",
        "line 1, column 10: unexpected character '~'",
    ),
    (
        "FOREACH a DO b WHERE c",
        "line 1, column 16: expected DO, INCASE, FROM, AS or an operator, found \"WHERE\"",
    ),
    (
        "FOREACH a, * FROM \"t\"",
        "line 1, column 14: expected a collection, not *, as the last of FOREACH, found \"FROM\"",
    ),
    (
        "SELECT a AS b.from FROM \"t\" INCASE a",
        "line 1, column 29: expected WHERE or the end, found \"INCASE\"",
    ),
];

#[test]
fn mistakes_name_their_place_and_what_was_expected() {
    for (sql, want) in MISTAKES {
        refuses(sql, want);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |levels: usize| {
        format!(
            "SELECT {}1{} FROM \"t\"",
            "(".repeat(levels),
            ")".repeat(levels)
        )
    };
    assert!(Program::parse(&nested(30)).is_ok());
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("lower(", ")"),
        ("NOT ", ""),
        ("- - ", ""),
        ("CASE WHEN a THEN ", " END"),
        ("a[", "]"),
    ] {
        for levels in [40, 700] {
            let sql = format!(
                "SELECT {}a{} FROM \"t\"",
                open.repeat(levels),
                close.repeat(levels)
            );
            let error = Program::parse(&sql).unwrap_err().to_string();
            assert!(
                error.ends_with("nested deeper than 32 levels"),
                "{open}: {error}"
            );
        }
    }
    let sum = format!("SELECT 1{} FROM \"t\"", " + 1".repeat(40));
    assert!(
        Program::parse(&sum)
            .unwrap_err()
            .to_string()
            .ends_with("32 levels")
    );
    let chain = format!("SELECT a FROM \"t\" WHERE a = 1{}", " OR a = 1".repeat(500));
    assert!(Program::parse(&chain).is_ok());
    let long = format!("SELECT a FROM \"t\" --{}", "x".repeat(16 * 1024));
    refuses(&long, "line 1, column 1: a rule of more than 16384 bytes");
}
