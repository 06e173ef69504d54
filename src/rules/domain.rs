//! DOMAIN, DOMAIN-SUFFIX, DOMAIN-KEYWORD, DOMAIN-WILDCARD and DOMAIN-REGEX.
//!
//! They compare the flow's name, which is lower case already; payloads are lowered here, and
//! labels beyond ASCII take the form that a name has on the wire. A flow without a name has the
//! empty one: a pattern that accepts nothing at all accepts it, as in mihomo.

use regex_lite::{Regex, RegexBuilder};

use super::PayloadError;
use super::matcher::{Condition, Key, Known, Matcher, Payload, Truth};
use super::punycode;

/// `DOMAIN,example.org`: that name and nothing else.
#[derive(Debug)]
struct Domain(Box<str>);

impl Matcher for Domain {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask_host(|host| *host == *self.0)
    }

    fn key(&self) -> Key<'_> {
        Key::Name(&self.0)
    }
}

/// Reads `DOMAIN`.
pub(super) fn exact(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let name = lowered(payload.text)?;
    Ok(Condition::new("Domain", name.clone(), Domain(name)))
}

/// `DOMAIN-SUFFIX,example.org`: that name and every name below it, nothing merely ending alike.
#[derive(Debug)]
struct DomainSuffix(Box<str>);

impl Matcher for DomainSuffix {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask_host(|host| {
            let above = host.strip_suffix(&*self.0);
            above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    fn key(&self) -> Key<'_> {
        Key::NameSuffix(&self.0)
    }
}

/// Reads `DOMAIN-SUFFIX`.
pub(super) fn suffix(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let name = lowered(payload.text)?;
    Ok(Condition::new(
        "DomainSuffix",
        name.clone(),
        DomainSuffix(name),
    ))
}

/// `DOMAIN-KEYWORD,ads`: every name with that text anywhere, across dots too.
#[derive(Debug)]
struct DomainKeyword(Box<str>);

impl Matcher for DomainKeyword {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask_host(|host| host.contains(&*self.0))
    }

    fn key(&self) -> Key<'_> {
        Key::NamePart(&self.0)
    }
}

/// Reads `DOMAIN-KEYWORD`.
pub(super) fn keyword(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let text = lowered(payload.text)?;
    Ok(Condition::new(
        "DomainKeyword",
        text.clone(),
        DomainKeyword(text),
    ))
}

/// `DOMAIN-WILDCARD,*.example.*`: the whole name; `*` is any text, dots too, `?` one character.
#[derive(Debug)]
struct DomainWildcard(Box<str>);

impl Matcher for DomainWildcard {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask_host(|host| wildcard_matches(self.0.as_bytes(), host.as_bytes()))
    }
}

/// Reads `DOMAIN-WILDCARD`.
pub(super) fn wildcard(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let pattern = lowered(payload.text)?;
    Ok(Condition::new(
        "DomainWildcard",
        pattern.clone(),
        DomainWildcard(pattern),
    ))
}

/// Takes at most (pattern × text) steps: a failure goes back to the last star alone, since an
/// earlier one could only leave that star less to choose from.
pub(super) fn wildcard_matches(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                last_star = Some((rest, text));
                pattern = rest;
            }
            ([], []) => return true,
            ([p, rest @ ..], [t, text_rest @ ..]) if *p == b'?' || p == t => {
                pattern = rest;
                text = text_rest;
            }
            _ => {
                let Some((rest, [_, shorter @ ..])) = last_star else {
                    return false;
                };
                last_star = Some((rest, shorter));
                pattern = rest;
                text = shorter;
            }
        }
    }
}

/// `DOMAIN-REGEX,^ads?\.`: found anywhere in the name, whatever the case, in linear time.
#[derive(Debug)]
struct DomainRegex(Regex);

/// Bytes that one compiled expression may take. Each step of a match goes through as many states as are alive,
/// so this bounds the time too: the worst that fits takes about a millisecond (users.md S18), and what people
/// write, of up to three hundred characters, has room.
const REGEX_BYTES_MAX: usize = 12 * 1024;

impl Matcher for DomainRegex {
    fn truth(&self, known: &Known<'_>) -> Truth {
        known.ask_host(|host| self.0.is_match(host))
    }
}

/// Reads `DOMAIN-REGEX`.
pub(super) fn regex(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let matcher = DomainRegex(expression(payload.text)?);
    Ok(Condition::new("DomainRegex", payload.text, matcher))
}

/// An expression that knows no case and takes linear time.
pub(super) fn expression(text: &str) -> Result<Regex, PayloadError> {
    let compiled = RegexBuilder::new(text)
        .case_insensitive(true)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    let looks = ["(?=", "(?!", "(?<=", "(?<!"];
    compiled.map_err(|why| match looks.iter().any(|look| text.contains(look)) {
        true => PayloadError::LookAround,
        false => PayloadError::Regex(why.to_string().into()),
    })
}

/// Lower case, each label in its ASCII form (RFC 5891 without its tables: letters are lowered,
/// nothing else is mapped).
pub(super) fn lowered(text: &str) -> Result<Box<str>, PayloadError> {
    if text.is_empty() {
        return Err(PayloadError::Empty);
    }
    if text.is_ascii() {
        return Ok(text.to_ascii_lowercase().into());
    }
    let mut name = String::with_capacity(text.len());
    for (i, label) in text.to_lowercase().split('.').enumerate() {
        if i > 0 {
            name.push('.');
        }
        if label.is_ascii() {
            name.push_str(label);
        } else if label.contains(['*', '?']) {
            return Err(PayloadError::Label);
        } else {
            name.push_str("xn--");
            name.push_str(&punycode::encode(label).ok_or(PayloadError::Label)?);
        }
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{RuleError, RuleLine};
    use proptest::prelude::*;

    #[track_caller]
    fn check(rule: &str, yes: &[&str], no: &[&str]) {
        let line = RuleLine::parse(&format!("{rule},p")).unwrap();
        let truth = |host| line.matcher().truth(&Known::host_alone(Some(host)));
        for host in yes {
            assert_eq!(truth(*host), Truth::Yes, "{rule} {host:?}");
        }
        for host in no {
            assert_eq!(truth(*host), Truth::No, "{rule} {host:?}");
        }
        let unknown = line.matcher().truth(&Known::host_alone(None));
        assert_eq!(unknown, Truth::Unknown);
    }

    #[test]
    fn domain_is_the_whole_name() {
        check("DOMAIN,A.b", &["a.b"], &["x.a.b", "a.bc", "b", ""]);
        check("DOMAIN,münchen.DE", &["xn--mnchen-3ya.de"], &["munchen.de"]);
    }

    #[test]
    fn domain_suffix_matches_whole_labels_only() {
        check(
            "DOMAIN-SUFFIX,a.b",
            &["a.b", "x.a.b", "y.x.a.b"],
            &["xa.b", "b", "a.b.c", ""],
        );
    }

    #[test]
    fn domain_keyword_is_found_anywhere() {
        check("DOMAIN-KEYWORD,o.or", &["foo.org", "xo.or"], &["o-or", ""]);
    }

    #[test]
    fn wildcard_star_crosses_dots_and_question_mark_is_one_character() {
        check(
            "DOMAIN-WILDCARD,*.a?.org",
            &["x.ab.org", "y.x.a-.org", ".ab.org"],
            &["ab.org", "x.a.org", "x.abc.org", "x.ab.orgs", ""],
        );
        check("DOMAIN-WILDCARD,*", &["a", "a.b", ""], &[]);
        check("DOMAIN-WILDCARD,a*b*c", &["abc", "aXbXbc"], &["ab", "abcd"]);
    }

    #[test]
    fn regex_is_unanchored_and_knows_no_case() {
        check(
            "DOMAIN-REGEX,^AD[sv]?\\.",
            &["ads.x", "ad.x"],
            &["bad.x", ""],
        );
        check("DOMAIN-REGEX,^(a{1,2},?)*$", &["", "aaa"], &["b"]);
    }

    #[test]
    fn no_expression_takes_a_name_for_long() {
        let names = ["a".repeat(252) + "-", "a.".repeat(126) + "-"];
        let names = [&*names[0], &*names[1]];
        for line in include_str!("../../tests/fixtures/rules/redos.txt").lines() {
            match line.split_once(' ').unwrap() {
                // One that tried each way of matching would not end here.
                ("+", expression) => check(&format!("DOMAIN-REGEX,{expression}"), &[], &names),
                ("-", expression) => {
                    let why = refused(&format!("DOMAIN-REGEX,{expression},p"));
                    assert!(matches!(why, PayloadError::Regex(_)), "{expression}");
                }
                _ => assert!(line.starts_with('#')),
            }
        }
    }

    #[track_caller]
    fn refused(rule: &str) -> PayloadError {
        match RuleLine::parse(rule) {
            Err(RuleError::Payload { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unusable_patterns_are_refused() {
        for pattern in ["a(?=b)", "a(?!b)", "(?<=a)b", "(?<!a)b"] {
            let why = refused(&format!("DOMAIN-REGEX,{pattern},p"));
            assert_eq!(why, PayloadError::LookAround, "{pattern}");
        }
        for pattern in ["(a", "a{1000}{1000}", "\\1"] {
            let why = refused(&format!("DOMAIN-REGEX,{pattern},p"));
            assert!(matches!(why, PayloadError::Regex(_)), "{pattern} {why:?}");
        }
        assert_eq!(refused("DOMAIN-WILDCARD,*é.fr,p"), PayloadError::Label);
        let long = format!("DOMAIN,{},p", "é".repeat(64));
        assert_eq!(refused(&long), PayloadError::Label);
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_the_same_thing_as_a_regex(
            pattern in "[ab.*?]{0,8}", text in "[ab.]{0,8}"
        ) {
            let mut same = String::from("^");
            for c in pattern.chars() {
                same.push_str(match c { '*' => ".*", '?' => ".", '.' => "\\.", 'a' => "a", _ => "b" });
            }
            same.push('$');
            prop_assert_eq!(
                wildcard_matches(pattern.as_bytes(), text.as_bytes()),
                Regex::new(&same).unwrap().is_match(&text)
            );
        }
    }
}
