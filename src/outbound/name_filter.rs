//! `filter` and `exclude-filter`: regular expressions over the names of proxies (clash-api.md 3.9).
//!
//! mihomo's expressions may look ahead, ours are linear and cannot. What people use that for is
//! asking several things of one name, and those forms are taken apart exactly:
//! `^(?=.*A)(?!.*B).*$` is what matches A and not B, `^((?!X).)*$` is what does not contain X.
//! Anything else that looks ahead or back is refused.

use regex_lite::{Regex, RegexBuilder};

/// Compiled size of one expression, in bytes.
const SIZE_MAX: usize = 64 * 1024;

/// Conditions of one expression, and expressions of one filter.
const CONDITIONS_MAX: usize = 16;

/// Flags that people put before an expression; they hold for its conditions too.
const FLAGS: &str = "(?i)";

/// One expression: all conditions must hold.
#[derive(Clone, Debug)]
pub struct NameFilter(Vec<(bool, Regex)>);

impl NameFilter {
    /// Compiles `text`. `None`: no expression, too large, or one that looks around otherwise.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (flags, rest) = match text.strip_prefix(FLAGS) {
            Some(rest) => (FLAGS, rest),
            None => ("", text),
        };
        let compile = |text: &str| {
            RegexBuilder::new(&format!("{flags}{text}"))
                .size_limit(SIZE_MAX)
                .build()
                .ok()
        };
        if let Some(inner) = rest
            .strip_prefix("^((?!")
            .or_else(|| rest.strip_prefix("^(?:(?!"))
            && let Some(length) = group_length(inner)
            && matches!(inner.get(length..), Some(").)*$" | ").)*" | ").)+$"))
        {
            return Some(Self(vec![(false, compile(inner.get(..length)?)?)]));
        }
        let mut conditions = Vec::new();
        let mut rest = rest;
        if let Some(mut behind) = rest.strip_prefix('^') {
            while let Some((wanted, inner)) = behind
                .strip_prefix("(?=")
                .map(|inner| (true, inner))
                .or_else(|| behind.strip_prefix("(?!").map(|inner| (false, inner)))
            {
                let length = group_length(inner)?;
                let condition = compile(&format!("^(?:{})", inner.get(..length)?))?;
                conditions.push((wanted, condition));
                behind = inner.get(length + 1..)?;
                if conditions.len() > CONDITIONS_MAX {
                    return None;
                }
            }
            if !conditions.is_empty() {
                rest = behind;
            }
        }
        let main = if conditions.is_empty() {
            compile(rest)?
        } else {
            compile(&format!("^(?:{rest})"))?
        };
        conditions.push((true, main));
        Some(Self(conditions))
    }

    /// Compiles the expressions of a list separated by backticks.
    #[must_use]
    pub fn parse_list(text: &str) -> Option<Vec<Self>> {
        let list: Option<Vec<Self>> = text.split('`').map(Self::parse).collect();
        list.filter(|list| list.len() <= CONDITIONS_MAX)
    }

    /// Whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut conditions = self.0.iter();
        conditions.all(|(wanted, regex)| regex.is_match(name) == *wanted)
    }
}

/// Where the group that was opened before `text` closes.
fn group_length(text: &str) -> Option<usize> {
    let (mut depth, mut escaped, mut class) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class = true,
            b']' => class = false,
            _ if class => {}
            b'(' => depth += 1,
            b')' if depth == 0 => return Some(at),
            b')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(filter: &str, name: &str, want: bool) {
        let parsed = NameFilter::parse(filter).unwrap();
        assert_eq!(parsed.matches(name), want, "{filter} on {name}");
    }

    #[test]
    fn plain_expressions_match_anywhere() {
        check("HK|SG", "node HK 1", true);
        check("^HK", "node HK 1", false);
        check("(?i)hk", "node HK 1", true);
        check("香港|\u{1f1ed}\u{1f1f0}", "香港 01", true);
    }

    #[test]
    fn conditions_ahead_are_asked_one_by_one() {
        let both = "(?i)^(?=.*(hk|香港))(?!.*(expire|[)x])).*$";
        check(both, "HK 1", true);
        check(both, "HK expire", false);
        check(both, "HK )", false);
        check(both, "JP 1", false);
        check("^(?!.*(官网|流量)).*", "剩余流量", false);
        check("^(?!.*(官网|流量)).*", "东京", true);
        check("^((?!US).)*$", "JP", true);
        check("^((?!US).)*$", "a US", false);
        check("^(?=a)b", "ab", false);
    }

    #[test]
    fn what_cannot_be_taken_apart_is_refused() {
        for text in ["(", "a(?=b)", "(?<=a)b", "^(?!a", "(a{500}){500}"] {
            assert!(NameFilter::parse(text).is_none(), "{text}");
        }
        assert!(NameFilter::parse_list("a`b").is_some_and(|list| list.len() == 2));
        assert!(NameFilter::parse_list(&"a`".repeat(40)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "[()?!=^$.*a\\[\\]\\\\`i]{0,24}", name: String) {
            if let Some(filter) = NameFilter::parse(&text) {
                let _ = filter.matches(&name);
            }
        }
    }
}
