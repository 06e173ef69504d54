//! Each built-in function with values of each type in each place: what is of the wrong one, undefined
//! and JSON's null among them, is refused, and what a place takes is taken.

use super::{Fixed, PAYLOAD, run};
use crate::sql::FUNCTIONS;

/// A value of each type, under the letter that the tables below have for it.
const KINDS: [(char, &str); 8] = [
    ('u', "nothing"),
    ('n', "payload.nil"),
    ('b', "true"),
    ('i', "1"),
    ('f', "1.5"),
    ('s', "'x'"),
    ('l', "payload.list"),
    ('m', "flags"),
];

/// Any type.
const ANY: &str = "unbifslm";

/// A call that works, argument by argument, each with the types that may stand there.
type Call = (&'static str, &'static [(&'static str, &'static str)]);

const FILTERS: &str = "[map('{\"topic\":\"a\",\"qos\":1}')]";

const CALLS: &[Call] = &[
    ("*", &[("2", "if"), ("3", "if")]),
    ("+", &[("2", "if"), ("3", "if")]),
    ("+", &[("'a'", "s"), ("'b'", "s")]),
    ("-", &[("2", "if"), ("3", "if")]),
    ("/", &[("2", "if"), ("3", "if")]),
    ("abs", &[("1", "i")]),
    ("acos", &[("1", "if")]),
    ("acosh", &[("1", "if")]),
    ("ascii", &[("'a'", "s")]),
    ("asin", &[("1", "if")]),
    ("asinh", &[("1", "if")]),
    ("atan", &[("1", "if")]),
    ("atanh", &[("0", "if")]),
    ("base64_decode", &[("'aGk='", "s")]),
    ("base64_encode", &[("'a'", "s")]),
    ("bin2hexstr", &[("'a'", "s")]),
    ("bitand", &[("1", "i"), ("2", "i")]),
    ("bitnot", &[("1", "i")]),
    ("bitor", &[("1", "i"), ("2", "i")]),
    ("bitsize", &[("'a'", "s")]),
    ("bitsl", &[("1", "i"), ("2", "i")]),
    ("bitsr", &[("1", "i"), ("2", "i")]),
    ("bitxor", &[("1", "i"), ("2", "i")]),
    ("bool", &[("1", "bifs")]),
    ("ceil", &[("1", "if")]),
    ("clientid", &[]),
    ("clientip", &[]),
    ("concat", &[("'a'", "s"), ("'b'", "s")]),
    ("contains", &[("1", ANY), ("[1]", "l")]),
    (
        "contains_topic",
        &[(FILTERS, "l"), ("'a'", "s"), ("1", ANY)],
    ),
    (
        "contains_topic_match",
        &[(FILTERS, "l"), ("'a'", "s"), ("1", ANY)],
    ),
    ("cos", &[("1", "if")]),
    ("cosh", &[("1", "if")]),
    (
        "date_to_unix_ts",
        &[
            ("'second'", "s"),
            ("'+0800'", "is"),
            ("'%Y'", "s"),
            ("'2021'", "s"),
        ],
    ),
    (
        "date_to_unix_ts",
        &[("'second'", "s"), ("'%Y'", "s"), ("'2021'", "s")],
    ),
    ("div", &[("7", "i"), ("2", "i")]),
    ("eq", &[("1", ANY), ("1", ANY)]),
    ("exp", &[("1", "if")]),
    ("find", &[("'a'", "s"), ("'a'", "s"), ("'leading'", "s")]),
    ("first", &[("[1]", "l")]),
    ("flag", &[("'retain'", "s")]),
    ("flags", &[]),
    ("float", &[("1", "ifs")]),
    ("float2str", &[("1.5", "f"), ("2", "i")]),
    ("floor", &[("1", "if")]),
    ("fmod", &[("1", "if"), ("2", "if")]),
    (
        "format_date",
        &[("'second'", "s"), ("'Z'", "is"), ("'%Y'", "s"), ("0", "i")],
    ),
    ("gunzip", &[("gzip('a')", "s")]),
    ("gzip", &[("'a'", "s")]),
    ("hexstr2bin", &[("'61'", "s")]),
    ("int", &[("1", "bifs")]),
    ("is_array", &[("1", ANY)]),
    ("is_bool", &[("1", ANY)]),
    ("is_float", &[("1", ANY)]),
    ("is_int", &[("1", ANY)]),
    ("is_map", &[("1", ANY)]),
    ("is_not_null", &[("1", ANY)]),
    ("is_null", &[("1", ANY)]),
    ("is_num", &[("1", ANY)]),
    ("is_str", &[("1", ANY)]),
    ("json_decode", &[("'1'", "s")]),
    ("json_encode", &[("1", ANY)]),
    ("kv_store_del", &[("'k'", ANY)]),
    ("kv_store_get", &[("'k'", ANY), ("1", ANY)]),
    ("kv_store_put", &[("'k'", ANY), ("1", ANY)]),
    ("last", &[("[1]", "l")]),
    ("length", &[("[1]", "l")]),
    ("log", &[("1", "if")]),
    ("log10", &[("1", "if")]),
    ("log2", &[("1", "if")]),
    ("lower", &[("'A'", "s")]),
    ("ltrim", &[("' a'", "s")]),
    ("map", &[("'{}'", "slm")]),
    ("map_get", &[("'a'", "s"), ("flags", ANY), ("1", ANY)]),
    ("map_new", &[]),
    ("map_put", &[("'a'", "s"), ("1", ANY), ("flags", "m")]),
    ("md5", &[("'a'", "s")]),
    ("mget", &[("'a'", "s"), ("flags", "m"), ("1", ANY)]),
    ("mod", &[("7", "i"), ("2", "i")]),
    ("mongo_date", &[("1", "i"), ("'second'", "s")]),
    ("mput", &[("'a'", "s"), ("1", ANY), ("flags", "m")]),
    ("msgid", &[]),
    ("now_rfc3339", &[("'second'", "s")]),
    ("now_timestamp", &[("'second'", "s")]),
    ("nth", &[("1", "i"), ("[1]", "l")]),
    ("null", &[]),
    (
        "pad",
        &[("'a'", "s"), ("2", "i"), ("'both'", "s"), ("'*'", "s")],
    ),
    ("payload", &[("'temp'", "s")]),
    ("peerhost", &[]),
    ("power", &[("1", "if"), ("2", "if")]),
    ("proc_dict_del", &[("'k'", ANY)]),
    ("proc_dict_get", &[("'k'", ANY)]),
    ("proc_dict_put", &[("'k'", ANY), ("1", ANY)]),
    ("qos", &[]),
    ("random", &[]),
    ("regex_match", &[("'a'", "s"), ("'a'", "s")]),
    ("regex_replace", &[("'a'", "s"), ("'a'", "s"), ("'b'", "s")]),
    (
        "replace",
        &[("'a'", "s"), ("'a'", "s"), ("'b'", "s"), ("'all'", "s")],
    ),
    ("reverse", &[("'a'", "s")]),
    (
        "rfc3339_to_unix_ts",
        &[("'2021-05-14T07:47:48Z'", "s"), ("'second'", "s")],
    ),
    ("round", &[("1", "if")]),
    ("rtrim", &[("'a '", "s")]),
    ("sha", &[("'a'", "s")]),
    ("sha256", &[("'a'", "s")]),
    ("sin", &[("1", "if")]),
    ("sinh", &[("1", "if")]),
    ("split", &[("'a/b'", "s"), ("'/'", "s"), ("'notrim'", "s")]),
    ("sprintf", &[("'~s'", "s"), ("1", ANY)]),
    ("sprintf_s", &[("'~s'", "s"), ("[1]", "l")]),
    ("sqrt", &[("1", "if")]),
    ("str", &[("1", ANY)]),
    ("str_utf8", &[("1", ANY)]),
    ("strlen", &[("'a'", "s")]),
    ("subbits", &[("'a'", "s"), ("1", "i")]),
    (
        "subbits",
        &[
            ("'a'", "s"),
            ("1", "i"),
            ("8", "i"),
            ("'integer'", "s"),
            ("'signed'", "s"),
            ("'big'", "s"),
        ],
    ),
    ("sublist", &[("1", "i"), ("1", "i"), ("[1]", "l")]),
    ("sublist", &[("1", "i"), ("[1]", "l")]),
    ("substr", &[("'a'", "s"), ("0", "i"), ("1", "i")]),
    ("tan", &[("1", "if")]),
    ("tanh", &[("1", "if")]),
    ("term_decode", &[("term_encode(1)", "s")]),
    ("term_encode", &[("1", ANY)]),
    ("timezone_to_second", &[("'Z'", "is")]),
    ("tokens", &[("'a b'", "s"), ("' '", "s"), ("'nocrlf'", "s")]),
    ("topic", &[("1", "i")]),
    ("trim", &[("'a'", "s")]),
    ("unix_ts_to_rfc3339", &[("0", "i"), ("'second'", "s")]),
    ("unzip", &[("zip('a')", "s")]),
    ("upper", &[("'a'", "s")]),
    ("username", &[]),
    ("uuid_v4", &[]),
    ("uuid_v4_no_hyphen", &[]),
    ("zip", &[("'a'", "s")]),
    ("zip_compress", &[("'a'", "s")]),
    ("zip_uncompress", &[("zip_compress('a')", "s")]),
];

fn result(expression: &str) -> String {
    let sql = format!("SELECT {expression} AS r FROM \"t/#\"");
    run(&sql, PAYLOAD.as_bytes(), &Fixed::default())
}

/// The call, with something else in one place.
fn call((name, arguments): &Call, place: usize, other: &str) -> String {
    let given = arguments.iter().enumerate();
    let given = given.map(|(i, (value, _))| if i == place { other } else { value });
    format!("'{name}'({})", given.collect::<Vec<_>>().join(", "))
}

#[test]
fn what_is_of_the_wrong_type_is_refused_in_every_place_of_every_function() {
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for one in CALLS {
        let works = call(one, usize::MAX, "");
        if result(&works).starts_with('!') {
            wrong.push(format!("{works}: {}", result(&works)));
        }
        for (place, (_, taken)) in one.1.iter().enumerate() {
            for (kind, value) in KINDS {
                let expression = call(one, place, value);
                let got = result(&expression);
                // Where any type may stand, each does; elsewhere a value may still be none that fits.
                let right = match taken.contains(kind) {
                    true => *taken != ANY || !got.starts_with('!'),
                    false => got == "!Type",
                };
                refused += usize::from(!taken.contains(kind));
                if !right {
                    wrong.push(format!("{expression}: {got}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 800, "{refused}");
}

#[test]
fn no_function_and_no_number_of_arguments_is_left_out() {
    for function in FUNCTIONS.iter().flat_map(|family| family.iter()) {
        let calls = CALLS.iter().filter(|(name, _)| *name == function.name);
        let most = calls.map(|(_, arguments)| arguments.len()).max();
        // `sprintf` has one for each place of its format.
        let max = usize::from(function.max).min(if function.name == "sprintf" { 2 } else { 9 });
        assert_eq!(most, Some(max), "{}", function.name);
    }
}

#[test]
fn types_are_told_apart_null_and_undefined_too() {
    for (function, of) in [
        ("is_null", "u"),
        ("is_not_null", "nbifslm"),
        ("is_bool", "b"),
        ("is_int", "i"),
        ("is_float", "f"),
        ("is_num", "if"),
        ("is_str", "s"),
        ("is_array", "l"),
        ("is_map", "m"),
    ] {
        for (kind, value) in KINDS {
            let expression = format!("{function}({value})");
            let want = format!("{{\"r\":{}}}", of.contains(kind));
            assert_eq!(result(&expression), want, "{expression}");
        }
    }
}

#[test]
fn what_takes_any_type_says_what_null_and_undefined_are() {
    for (expression, want) in [
        ("str(nothing)", "\"undefined\""),
        ("str(payload.nil)", "\"null\""),
        ("str_utf8(nothing)", "\"undefined\""),
        ("json_encode(payload.nil)", "\"null\""),
        (
            "sprintf('~s ~s', nothing, payload.nil)",
            "\"undefined null\"",
        ),
        ("sprintf('~p', payload.nil)", "\"null\""),
        ("eq(nothing, nothing)", "true"),
        ("eq(payload.nil, payload.nil)", "true"),
        ("eq(nothing, payload.nil)", "false"),
        ("contains(nothing, [1])", "false"),
        ("contains(payload.nil, [1, payload.nil])", "true"),
        ("map_get('a', nothing)", "\"undefined\""),
        ("map_get('a', payload.nil, 7)", "7"),
        ("map_put('a', payload.nil, map_new())", "{\"a\":null}"),
        ("mput('a', nothing, map_new())", "{\"a\":\"undefined\"}"),
        ("term_decode(term_encode(payload.nil))", "null"),
        ("first([payload.nil])", "null"),
        ("kv_store_put('n', payload.nil)", "true"),
    ] {
        assert_eq!(
            result(expression),
            format!("{{\"r\":{want}}}"),
            "{expression}"
        );
    }
}
