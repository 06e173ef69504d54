//! A rule's text as tokens.
//!
//! Keywords in any case; names keep theirs. Text in single quotes has no escapes; a name in double
//! quotes may hold anything but that quote. `--` begins a comment.

use super::error::{Mistake, SyntaxError};
use super::{SQL_MAX_BYTES, token::Token::*};

/// A token; texts are parts of the rule's text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Word(Keyword),
    Name(&'a str),
    Quoted(&'a str),
    Text(&'a str),
    Int(i64),
    Float(f64),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Reserved words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    As,
    Case,
    Do,
    Else,
    ElsIf,
    End,
    Foreach,
    From,
    If,
    In,
    InCase,
    Not,
    Or,
    Select,
    Then,
    When,
    Where,
}

const KEYWORDS: [(&str, Keyword); 18] = [
    ("and", Keyword::And),
    ("as", Keyword::As),
    ("case", Keyword::Case),
    ("do", Keyword::Do),
    ("else", Keyword::Else),
    ("elsif", Keyword::ElsIf),
    ("end", Keyword::End),
    ("foreach", Keyword::Foreach),
    ("from", Keyword::From),
    ("if", Keyword::If),
    ("in", Keyword::In),
    ("incase", Keyword::InCase),
    ("not", Keyword::Not),
    ("or", Keyword::Or),
    ("select", Keyword::Select),
    ("then", Keyword::Then),
    ("when", Keyword::When),
    ("where", Keyword::Where),
];

/// The longer ones first.
const SIGNS: [&str; 19] = [
    "<=", ">=", "<>", "!=", "=~", "..", "=", "<", ">", "+", "-", "*", "/", "(", ")", "[", "]", ",",
    ".",
];

/// The keyword that `word` is.
pub(super) fn keyword(word: &str) -> Option<Keyword> {
    let mut all = KEYWORDS.iter();
    all.find(|(name, _)| name.eq_ignore_ascii_case(word))
        .map(|(_, keyword)| *keyword)
}

/// Whether `name` is a name without quotes.
pub(super) fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(continues)
        && keyword(name).is_none()
        && !matches!(name, "div" | "mod" | "true" | "false")
}

fn continues(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@' | b'~')
}

/// The tokens with their offsets, the last one [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token<'_>, usize)>, SyntaxError> {
    if text.len() > SQL_MAX_BYTES {
        return Err(error_at(text, 0, Mistake::TooLong));
    }
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_blank(rest);
        let at = text.len() - rest.len();
        if rest.is_empty() {
            found.push((End, at));
            return Ok(found);
        }
        let (token, length) = next(rest).map_err(|why| error_at(text, at, why))?;
        found.push((token, at));
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// `why` at a byte offset.
pub(super) fn error_at(text: &str, offset: usize, why: Mistake) -> SyntaxError {
    let before = text.get(..offset).unwrap_or_default();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
    let line = before.rsplit('\n').next().unwrap_or_default();
    SyntaxError {
        line: count(before.matches('\n').count()),
        column: count(line.chars().count()),
        why,
    }
}

fn skip_blank(mut rest: &str) -> &str {
    loop {
        rest = rest.trim_start();
        let Some(comment) = rest.strip_prefix("--") else {
            return rest;
        };
        rest = comment.split_once('\n').map_or("", |(_, after)| after);
    }
}

/// The token at the beginning and its length.
fn next(rest: &str) -> Result<(Token<'_>, usize), Mistake> {
    let first = rest.chars().next().unwrap_or_default();
    match first {
        'a'..='z' | 'A'..='Z' => {
            let length = rest.bytes().take_while(|&byte| continues(byte)).count();
            let word = rest.get(..length).unwrap_or_default();
            Ok((keyword(word).map_or(Name(word), Word), length))
        }
        '0'..='9' => number(rest),
        '"' | '\'' => {
            let inside = rest.get(1..).unwrap_or_default();
            let (inside, _) = inside.split_once(first).ok_or(Mistake::Unterminated)?;
            let token = if first == '"' { Quoted } else { Text };
            Ok((token(inside), inside.len() + 2))
        }
        _ => {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or(Mistake::Character(first))?;
            Ok((Sign(sign), sign.len()))
        }
    }
}

fn number(rest: &str) -> Result<(Token<'_>, usize), Mistake> {
    let digits = |from: usize| {
        let tail = rest.as_bytes().get(from..).unwrap_or_default();
        tail.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut length = digits(0);
    // `1..4` is a range, `1.x` a path.
    let decimals = digits(length + 1);
    if rest.as_bytes().get(length) != Some(&b'.') || decimals == 0 {
        let value = rest.get(..length).unwrap_or_default().parse();
        return value
            .map(|value| (Int(value), length))
            .map_err(|_| Mistake::Number);
    }
    length += 1 + decimals;
    if matches!(rest.as_bytes().get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.as_bytes().get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    let value = rest.get(..length).unwrap_or_default().parse::<f64>();
    match value {
        Ok(value) if value.is_finite() => Ok((Float(value), length)),
        _ => Err(Mistake::Number),
    }
}
