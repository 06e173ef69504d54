//! Whole rules: projection, aliases, WHERE, FOREACH.

use super::{Fixed, PAYLOAD, run};

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    let fixed = Fixed::default();
    for (sql, want) in cases {
        assert_eq!(run(sql, PAYLOAD.as_bytes(), &fixed), *want, "{sql}");
    }
}

#[test]
fn select_writes_fields_under_their_names() {
    check(&[
        ("SELECT qos FROM \"t/#\"", r#"{"qos":1}"#),
        ("select qos from \"t/#\"", r#"{"qos":1}"#),
        ("SELECT qos AS q FROM \"t/#\"", r#"{"q":1}"#),
        ("SELECT qos q FROM \"t/#\"", r#"{"q":1}"#),
        ("SELECT qos AS \"my q\" FROM \"t/#\"", r#"{"my q":1}"#),
        (
            "SELECT qos, clientid FROM t",
            r#"{"qos":1,"clientid":"c1"}"#,
        ),
        ("SELECT qos FROM 't/#'", r#"{"qos":1}"#),
        ("SELECT nothing FROM \"t/#\"", r#"{"nothing":"undefined"}"#),
        (
            "SELECT payload.temp FROM \"t/#\"",
            r#"{"payload":{"temp":36}}"#,
        ),
        (
            "SELECT payload.temp AS t.x FROM \"t/#\"",
            r#"{"t":{"x":36}}"#,
        ),
        (
            "SELECT payload.deep.a.b[2] FROM \"t\"",
            r#"{"payload":{"deep":{"a":{"b":[20]}}}}"#,
        ),
        ("SELECT 1 + 1 FROM \"t\"", r#"{"_v_1":2}"#),
        (
            "SELECT qos, lower('A') FROM \"t\"",
            r#"{"qos":1,"_v_2":"a"}"#,
        ),
        (
            "SELECT qos AS a, a + 1 AS b, b + 1 AS c FROM \"t\"",
            r#"{"a":1,"b":2,"c":3}"#,
        ),
        ("SELECT qos AS a, 7 AS a FROM \"t\"", r#"{"a":7}"#),
    ]);
    let fixed = Fixed::default();
    let sql = "SELECT payload AS p, p.x AS n, clientid.x AS none FROM \"t\"";
    let want = r#"{"p":"{\"x\":1}","n":1,"none":"undefined"}"#;
    assert_eq!(run(sql, br#"{"x":1}"#, &fixed), want);
}

#[test]
fn star_is_every_column_and_alias() {
    let fixed = Fixed::default();
    let all = r#""event":"message.publish","topic":"t/a/1","clientid":"c1","qos":1,"payload":"x","flags":{"dup":false,"retain":true},"metadata":{"rule_id":"rule:1"}"#;
    assert_eq!(
        run("SELECT * FROM \"#\"", b"x", &fixed),
        format!("{{{all}}}")
    );
    let sql = "SELECT qos + 1 AS more, * FROM \"#\"";
    assert_eq!(run(sql, b"x", &fixed), format!("{{\"more\":2,{all}}}"));
    let sql = "SELECT *, 5 AS qos FROM \"#\"";
    assert!(run(sql, b"x", &fixed).contains("\"qos\":5"));
}

#[test]
fn aliases_write_into_maps_and_lists() {
    check(&[
        ("SELECT 1 AS a.b.c FROM \"t\"", r#"{"a":{"b":{"c":1}}}"#),
        (
            "SELECT 1 AS a.b, 2 AS a.c FROM \"t\"",
            r#"{"a":{"b":1,"c":2}}"#,
        ),
        (
            "SELECT [1, 2, 3] AS a, 9 AS a[2] FROM \"t\"",
            r#"{"a":[1,9,3]}"#,
        ),
        (
            "SELECT [1, 2, 3] AS a, 9 AS a[-1] FROM \"t\"",
            r#"{"a":[1,2,9]}"#,
        ),
        (
            "SELECT [1, 2, 3] AS a, 9 AS a[7] FROM \"t\"",
            r#"{"a":[1,2,3]}"#,
        ),
        (
            "SELECT [1, 2] AS a, 9 AS a[0] FROM \"t\"",
            r#"{"a":[9,1,2]}"#,
        ),
        (
            "SELECT [1, 2] AS a, 9 AS a[-0] FROM \"t\"",
            r#"{"a":[1,2,9]}"#,
        ),
        ("SELECT 9 AS a[3] FROM \"t\"", r#"{"a":[9]}"#),
        (
            "SELECT [1, 2, 3] AS a, 2 AS i, 9 AS a[i] FROM \"t\"",
            r#"{"a":[1,9,3],"i":2}"#,
        ),
        (
            "SELECT payload.sensors AS s, 'z' AS s[1].n, s[1].n AS t FROM \"t\"",
            r#"{"s":[{"i":1,"n":"z"},{"i":2,"n":"b"},{"i":3,"n":"c"}],"t":"z"}"#,
        ),
        (
            "SELECT payload.list AS l, 0 AS l[1], payload.list AS m FROM \"t\"",
            r#"{"l":[0,2,3,4],"m":[1,2,3,4]}"#,
        ),
        (
            "SELECT 1 AS payload.new, payload.new + payload.temp AS sum FROM \"t\"",
            r#"{"payload":{"new":1},"sum":37}"#,
        ),
        (
            "SELECT 1 AS payload.name, payload.name AS n FROM \"t\"",
            r#"{"payload":{"name":1},"n":1}"#,
        ),
    ]);
    let fixed = Fixed::default();
    let got = run("SELECT *, 2 AS payload.y FROM \"t\"", br#"{"x":1}"#, &fixed);
    assert!(got.contains(r#""payload":{"x":1,"y":2}"#), "{got}");
    assert_eq!(
        run("SELECT 2 AS payload.y FROM \"t\"", b"text", &fixed),
        "!NotJson"
    );
}

#[test]
fn where_sees_columns_and_aliases() {
    check(&[
        ("SELECT qos FROM \"t\" WHERE qos = 1", r#"{"qos":1}"#),
        ("SELECT qos FROM \"t\" WHERE qos = 2", ""),
        (
            "SELECT payload.temp AS t FROM \"t/#\" WHERE t > 30",
            r#"{"t":36}"#,
        ),
        ("SELECT payload.temp AS t FROM \"t/#\" WHERE t > 40", ""),
        ("SELECT qos FROM \"t\" WHERE payload.on", r#"{"qos":1}"#),
        ("SELECT qos FROM \"t\" WHERE payload.temp", "!NotBoolean"),
        ("SELECT qos FROM \"t\" WHERE payload.none", "!NotBoolean"),
        ("SELECT qos FROM \"t\" WHERE is_not_null(payload.none)", ""),
        (
            "SELECT qos FROM \"t\" WHERE topic =~ 't/+/1' AND payload.name IN ('cam', 'door')",
            r#"{"qos":1}"#,
        ),
        ("SELECT qos FROM \"t\" WHERE payload.name = 1", "!Type"),
    ]);
}

#[test]
fn a_payload_that_is_no_json_fails_the_rule_that_looks_into_it() {
    let fixed = Fixed::default();
    for payload in [
        "text",
        "",
        "{",
        "{\"a\":1}x",
        "{\"a\":01}",
        "[1,]",
        "{\"a\" 1}",
        "\"\\x\"",
        "nul",
        "{\"a\":\"\n\"}",
    ] {
        assert_eq!(
            run(
                "SELECT payload.a AS a FROM \"t\"",
                payload.as_bytes(),
                &fixed
            ),
            "!NotJson",
            "{payload}"
        );
        assert_eq!(
            run("SELECT qos FROM \"t\"", payload.as_bytes(), &fixed),
            "{\"qos\":1}"
        );
    }
    assert_eq!(
        run("SELECT payload.a FROM \"t\"", b"\"\xff\"", &fixed),
        "!NotJson"
    );
    assert_eq!(
        run("SELECT payload.a AS a FROM \"t\"", b"[1]", &fixed),
        r#"{"a":"undefined"}"#
    );
    assert_eq!(
        run("SELECT payload.a AS a FROM \"t\"", b" 5 ", &fixed),
        r#"{"a":"undefined"}"#
    );
    assert_eq!(
        run("SELECT payload[2] AS a FROM \"t\"", b"[1, 2]", &fixed),
        r#"{"a":2}"#
    );
    assert_eq!(
        run("SELECT payload[-1] AS a FROM \"t\"", b"[1, 2]", &fixed),
        r#"{"a":2}"#
    );
}

#[test]
fn foreach_makes_a_row_of_each_element() {
    check(&[
        (
            "FOREACH payload.sensors DO item.i AS i FROM \"t\"",
            r#"{"i":1} {"i":2} {"i":3}"#,
        ),
        (
            "FOREACH payload.sensors AS s DO s.n AS n, clientid FROM \"t\"",
            r#"{"n":"a","clientid":"c1"} {"n":"b","clientid":"c1"} {"n":"c","clientid":"c1"}"#,
        ),
        (
            "FOREACH payload.sensors AS s DO s.i AS i INCASE s.i > 1 FROM \"t\"",
            r#"{"i":2} {"i":3}"#,
        ),
        (
            "FOREACH payload.sensors AS s DO s.i AS i INCASE s.i > 1 FROM \"t\" WHERE qos = 2",
            "",
        ),
        (
            "FOREACH payload.sensors AS s DO s.i AS i INCASE s.i > 9 FROM \"t\"",
            "",
        ),
        ("FOREACH payload.name DO item FROM \"t\"", ""),
        ("FOREACH payload.none DO item FROM \"t\"", ""),
        ("FOREACH payload.empty DO item FROM \"t\"", ""),
        (
            "FOREACH [1, 2] DO item * 10 AS x FROM \"t\"",
            r#"{"x":10} {"x":20}"#,
        ),
        (
            "FOREACH qos AS q, [1, 2] AS e DO e + q AS x FROM \"t\"",
            r#"{"x":2} {"x":3}"#,
        ),
        (
            "FOREACH split('a,b', ',') AS p DO p FROM \"t\"",
            r#"{"p":"a"} {"p":"b"}"#,
        ),
        (
            "FOREACH payload.sensors[2..3] AS s DO s.n AS n FROM \"t\"",
            r#"{"n":"b"} {"n":"c"}"#,
        ),
    ]);
    let fixed = Fixed::default();
    let sql = "FOREACH payload AS e INCASE e > 1 FROM \"t\"";
    assert_eq!(run(sql, b"[1,2]", &fixed), "");
    let sql = "FOREACH json_decode(payload) AS e INCASE e > 1 FROM \"t\"";
    let got = run(sql, b"[1,2]", &fixed);
    assert!(
        got.ends_with("\"metadata\":{\"rule_id\":\"rule:1\"},\"e\":2}"),
        "{got}"
    );
    // What one element is given, the next does not see.
    let sql = "FOREACH [1, 2] AS e DO x AS before, e AS x FROM \"t\"";
    let want = r#"{"before":"undefined","x":1} {"before":"undefined","x":2}"#;
    assert_eq!(run(sql, b"", &fixed), want);
}
