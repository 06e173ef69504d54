//! Text that was made to hurt: bounded, refused by name, never a panic.

use proptest::prelude::*;

use super::{ROUTER, good, wrong};
use crate::config::{Config, Reason};

#[test]
fn a_chain_of_groups_as_long_as_the_file_is_walked_without_recursion() {
    let mut text = String::from("proxy-groups:\n- {name: g0, type: select, proxies: [DIRECT]}\n");
    for n in 1..10_000 {
        text.push_str(&format!(
            "- {{name: g{n}, type: select, proxies: [g{}]}}\n",
            n - 1
        ));
    }
    assert_eq!(good(&text).groups.len(), 10_000);
}

#[test]
fn messages_are_one_line_without_terminal_codes_and_never_long() {
    wrong(
        "mode: ^\"a\\n\\e[31mb\\u202e\"",
        "mode: expected rule, global or direct, found `a\\n\\u{1b}[31mb\\u{202e}`",
    );
    let long = "x".repeat(5000);
    let Err(error) = Config::parse(&format!("mode: {long}")) else {
        panic!("accepted");
    };
    assert!(error.to_string().len() < 200);
    let Err(error) = Config::parse(&format!("rules: ['{long},a,b']")) else {
        panic!("accepted");
    };
    assert!(error.to_string().len() < 300);
}

#[test]
fn what_aliases_expand_to_is_bounded() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
    }
    let Err(error) = Config::parse(&laughs) else {
        panic!("accepted");
    };
    assert_eq!(
        (error.line, error.reason),
        (
            4,
            Reason::Limit("aliases repeat more than ten times what is written")
        )
    );
    let mut merges = String::from("a0: &a0 {");
    for n in 0..1000 {
        merges.push_str(&format!("k{n}: 1, "));
    }
    merges.push_str("}\n");
    for n in 1..1000 {
        merges.push_str(&format!("a{n}: &a{n} {{<<: *a{}}}\n", n - 1));
    }
    let Err(error) = Config::parse(&merges) else {
        panic!("accepted");
    };
    assert!(matches!(error.reason, Reason::Limit(_)), "{error}");
}

#[test]
fn size_depth_and_count_are_bounded() {
    let deep = |n: usize| format!("a: {}{}", "[".repeat(n), "]".repeat(n));
    good(&deep(31));
    wrong(
        &deep(32).replacen("[]", "^[]", 1),
        &format!("a{}: too much: more than 32 levels", "[0]".repeat(31)),
    );
    assert!(Config::parse(&"[".repeat(100_000)).is_err());
    assert!(Config::parse(&"{a: ".repeat(100_000)).is_err());
    assert!(Config::parse(&"- ".repeat(100_000)).is_err());
    // Levels that aliases bring count as well.
    let mut chain = String::from("a0: &a0 [x]\n");
    for n in 1..40 {
        chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    let Err(error) = Config::parse(&chain) else {
        panic!("accepted");
    };
    assert!(matches!(error.reason, Reason::Limit(_)), "{error}");
    wrong(
        &format!("^{}", " ".repeat((2 << 20) + 1)),
        "too much: the file is larger than 2 MiB",
    );
    let many = format!("a: [{}]", "x,".repeat(200_000));
    let Err(error) = Config::parse(&many) else {
        panic!("accepted");
    };
    assert!(matches!(error.reason, Reason::Limit(_)), "{error}");
}

/// The scanner keeps every token of a collection that might be a key: two megabytes of this took
/// half a gigabyte.
#[test]
fn brackets_where_a_key_may_stand_are_bounded() {
    let flow = "too much: a list or mapping in brackets is too long; write it line by line";
    wrong(&format!("^[{}", "a: b,".repeat(400_000)), flow);
    wrong(&format!("^[{}", "\"\"\n".repeat(400_000)), flow);
    good(&format!(
        "{{\"rules\": [{}]}}",
        "\"MATCH,DIRECT\",".repeat(5000)
    ));
    // Behind a key there can be no other: nothing is kept.
    good(&format!("rules: [{}]", "'MATCH,DIRECT',".repeat(100_000)));
}

/// Once an endless loop in the scanner (saphyr-parser issue 13).
#[test]
fn a_document_marker_in_brackets_ends_the_scan() {
    for text in [
        "{---", "[---", "{a: ---", "{...", "[a\n---", "{\n...\n", "{--- a",
    ] {
        assert!(Config::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        let _ = Config::parse(&text);
    }

    #[test]
    fn random_yaml_never_panics(text in "([ \n\t:,&*!%@?|>'\"#{}\\[\\]<~.a0-]|- |: |<<: |&a |\\*a |\n  ){0,120}") {
        let _ = Config::parse(&text);
    }

    /// A piece of a good file put elsewhere in it.
    #[test]
    fn a_shuffled_good_file_never_panics(
        cut in 0..ROUTER.len(), length in 0..80usize, at in 0..ROUTER.len(), with in "[ \n:,&*\\[\\]{}a0-]{0,4}",
    ) {
        let piece: String = ROUTER.chars().skip(cut).take(length).collect();
        let head: String = ROUTER.chars().take(at).collect();
        let tail: String = ROUTER.chars().skip(at + with.len()).collect();
        let _ = Config::parse(&format!("{head}{with}{piece}{tail}"));
    }
}
