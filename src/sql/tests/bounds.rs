//! Runs that want too much: each ends with a fault, soon.

use super::{Fixed, run};

#[test]
fn a_run_is_bounded_in_work_memory_and_depth() {
    let fixed = Fixed::default();
    let doubled = format!("SELECT [1] AS a{} FROM \"t\"", ", [a, a] AS a".repeat(20));
    let walks = [
        "str(a)",
        "a = a",
        "json_encode(a)",
        "contains(a, [a])",
        "kv_store_put('k', a)",
        "sprintf('~s', a)",
        "term_encode(a)",
        "a IN (a)",
        "map([['k', a]]) = a",
    ];
    for walk in walks {
        let sql = doubled.replace(" FROM", &format!(", {walk} AS r FROM"));
        let got = run(&sql, b"", &fixed);
        assert!(
            got.starts_with("!TooMuch") || walk.starts_with("map("),
            "{walk}: {got:.80}"
        );
    }
    let cases = [
        ("SELECT [1..1000000000] AS a FROM \"t\"", "!TooMuch"),
        (
            "SELECT [-9223372036854775807..9223372036854775807] AS a FROM \"t\"",
            "!TooMuch",
        ),
        (
            "SELECT pad('', 9223372036854775807) AS a FROM \"t\"",
            "!TooMuch",
        ),
        (
            "SELECT pad('', 1000000000, 'leading', 'xxxx') AS a FROM \"t\"",
            "!TooMuch",
        ),
        (
            "FOREACH [1..2000] AS a DO [1..2000] AS b FROM \"t\"",
            "!TooMuch",
        ),
        (
            "FOREACH [1..3000] AS a DO lower(payload) AS b FROM \"t\"",
            "!TooMuch",
        ),
        (
            "SELECT replace(payload, 'x', 'yyyyyyyyyyyyyyyy') AS a FROM \"t\"",
            "!TooMuch",
        ),
        (
            "SELECT regex_replace(payload, 'x', '&&&&&&&&&&&&&&&&') AS a FROM \"t\"",
            "!TooMuch",
        ),
        (
            "SELECT regex_match(payload, '(x+x+)+y') AS a FROM \"t\"",
            "!TooMuch",
        ),
    ];
    let payload = "x".repeat(60_000);
    for (sql, want) in cases {
        let got = run(sql, payload.as_bytes(), &fixed);
        assert!(got.starts_with(want), "{sql}: {got:.80}");
    }
    let deeper = format!("SELECT [1] AS a{} FROM \"t\"", ", [a] AS a".repeat(40));
    assert_eq!(run(&deeper, b"", &fixed), "!TooDeep");
    let deep = format!("{}1{}", "[".repeat(33), "]".repeat(33));
    assert_eq!(
        run("SELECT payload[1] AS a FROM \"t\"", deep.as_bytes(), &fixed),
        "!NotJson"
    );
}

#[test]
fn memory_that_outlives_runs_neither_deepens_nor_grows() {
    let fixed = Fixed::default();
    let sql = "SELECT kv_store_put('k', [kv_store_get('k')]) AS r FROM \"t\"";
    let results: Vec<String> = (0..40).map(|_| run(sql, b"", &fixed)).collect();
    assert_eq!(results.last().unwrap(), "!TooDeep");
    let sql = "SELECT kv_store_put(payload, payload) AS r FROM \"t\"";
    for i in 0..2000 {
        run(sql, format!("{i:01000}").as_bytes(), &fixed);
    }
    let held = (0..2000).filter(|i| {
        let sql = "SELECT kv_store_get(payload, 0) AS r FROM \"t\"";
        run(sql, format!("{i:01000}").as_bytes(), &fixed) != "{\"r\":0}"
    });
    assert!((5..20).contains(&held.count()));
}

#[test]
fn a_bomb_does_not_unfold() {
    let fixed = Fixed::default();
    let zeros = "0".repeat(50_000);
    let sql = "SELECT gunzip(gzip(payload)) = payload AS same FROM \"t\"";
    assert_eq!(
        run(sql, &zeros.as_bytes()[..20_000], &fixed),
        "{\"same\":true}"
    );
    let sql = "SELECT concat(gunzip(gzip(payload)), payload) AS a FROM \"t\"";
    assert!(run(sql, zeros.as_bytes(), &fixed).starts_with("!"));
}

/// The room for it wrapped round to nothing once, and making the field then ended the daemon.
#[test]
fn a_field_wider_than_memory_is_refused() {
    for field in ["~9223372036854775807s", "~-4611686018427387904.10.xb"] {
        let sql = format!("SELECT sprintf('{field}', 1) AS a FROM \"t\"");
        let got = run(&sql, b"", &Fixed::default());
        assert!(got.starts_with("!TooMuch"), "{field}: {got}");
    }
}
