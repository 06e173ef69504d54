//! What a plain YAML scalar means, by the rules of Go's yaml.v3, which mihomo uses.
//!
//! Nothing is typed before somebody asks: `on` is a boolean for a boolean key and a text for a
//! text key, and `0123` keeps its spelling as a password.

/// Whether an unquoted scalar stands for "nothing".
#[must_use]
pub fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A boolean, in the spellings of YAML 1.1.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            Some(true)
        }
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Some(false)
        }
        _ => None,
    }
}

/// An integer: decimal, `0x`, `0o`, `0b`, with a leading zero octal if it can be (as Go's base 0),
/// with `_` between digits and an optional sign.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // from_str_radix would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "");
    let value = if let Some(hex) = strip_base(&digits, 'x') {
        unsigned(hex, 16)?
    } else if let Some(octal) = strip_base(&digits, 'o') {
        unsigned(octal, 8)?
    } else if let Some(binary) = strip_base(&digits, 'b') {
        unsigned(binary, 2)?
    } else if let Some(octal) = digits.strip_prefix('0').filter(|rest| !rest.is_empty()) {
        unsigned(octal, 8).or_else(|| unsigned(octal, 10))?
    } else {
        unsigned(&digits, 10)?
    };
    let value = i64::try_from(value).ok()?;
    Some(if negative { -value } else { value })
}

fn strip_base(digits: &str, base: char) -> Option<&str> {
    digits
        .strip_prefix('0')?
        .strip_prefix([base, base.to_ascii_uppercase()])
}

fn unsigned(digits: &str, base: u32) -> Option<u64> {
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_the_spellings_of_go() {
        for (text, value) in [
            ("0", Some(0)),
            ("7890", Some(7890)),
            ("+7890", Some(7890)),
            ("-1", Some(-1)),
            ("0x1F", Some(31)),
            ("0XfF", Some(255)),
            ("0o17", Some(15)),
            ("017", Some(15)),
            ("089", Some(89)),
            ("0b101", Some(5)),
            ("1_000", Some(1000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("+-1", None),
            ("0x", None),
            ("0x+1", None),
            ("1.5", None),
            ("1e3", None),
            ("٣", None),
            ("_1", None),
        ] {
            assert_eq!(integer(text), value, "{text}");
        }
    }

    #[test]
    fn booleans_have_the_spellings_of_yaml_1_1() {
        assert_eq!(boolean("on"), Some(true));
        assert_eq!(boolean("No"), Some(false));
        assert_eq!(boolean("tRUE"), None);
        assert_eq!(boolean("1"), None);
    }
}
