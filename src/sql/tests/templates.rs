//! Templates.

use crate::sql::{Fault, Template, Value, parse_json};

fn render(template: &str, row: &str) -> String {
    let Value::Map(row) = parse_json(row.as_bytes()).unwrap() else {
        panic!("{row}");
    };
    String::from_utf8(Template::new(template).render(&row, 1000).unwrap()).unwrap()
}

#[test]
fn templates_are_filled_from_the_row() {
    let row = r#"{"a":1,"b":{"c":"x","d":[1,{"e":2}]},"f":2.0,"t":true,"n":null,"p":"{\"q\":5}"}"#;
    let cases = [
        ("", row.replace(' ', "")),
        ("out/${a}", "out/1".to_owned()),
        ("${b.c}-${a}", "x-1".to_owned()),
        ("${b}", r#"{"c":"x","d":[1,{"e":2}]}"#.to_owned()),
        ("${b.d}", r#"[1,{"e":2}]"#.to_owned()),
        ("${f} ${t} ${n}", "2.0 true null".to_owned()),
        ("${none}", "undefined".to_owned()),
        ("${b.none}", "undefined".to_owned()),
        ("${a.b}", "undefined".to_owned()),
        ("${p}", r#"{"q":5}"#.to_owned()),
        ("${p.q}", "5".to_owned()),
        ("$a {a} ${", "$a {a} ${".to_owned()),
        ("${a} ${unclosed", "1 ${unclosed".to_owned()),
        ("{\"v\":${a}}", "{\"v\":1}".to_owned()),
        ("ü${a}ü", "ü1ü".to_owned()),
    ];
    for (template, want) in cases {
        assert_eq!(render(template, row), want, "{template}");
    }
}

#[test]
fn a_template_of_one_place_has_its_value() {
    let Value::Map(row) = parse_json(br#"{"qos":2}"#).unwrap() else {
        panic!();
    };
    assert_eq!(Template::new("${qos}").value(&row), Some(Value::Int(2)));
    assert_eq!(Template::new("q${qos}").value(&row), None);
}

#[test]
fn what_is_rendered_is_bounded() {
    let text = format!("{{\"a\":\"{}\"}}", "x".repeat(600));
    let Value::Map(row) = parse_json(text.as_bytes()).unwrap() else {
        panic!();
    };
    assert!(Template::new("${a}").render(&row, 1000).is_ok());
    assert_eq!(
        Template::new("${a}${a}").render(&row, 1000),
        Err(Fault::TooMuchMemory)
    );
    assert_eq!(
        Template::new("").render(&row, 500),
        Err(Fault::TooMuchMemory)
    );
}
