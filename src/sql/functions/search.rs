//! Finding in text: by what stands there and by pattern.

use std::borrow::Cow;

use regex_lite::{Captures, Regex};

use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("ascii", 1, 1, |_, a| {
        let first = a.bytes(0)?.first().ok_or(a.out_of_range())?;
        Ok(Value::Int((*first).into()))
    }),
    Function::new("find", 2, 3, |run, a| {
        let (text, wanted) = (a.text(0)?, a.text(1)?);
        run.look(text.len())?;
        let at = match a.word(2, "leading")? {
            "leading" => text.find(wanted),
            "trailing" => text.rfind(wanted),
            _ => return Err(a.out_of_range()),
        };
        let tail = at.and_then(|at| text.get(at..)).unwrap_or_default();
        run.text(tail.into())
    }),
    Function::with_pattern("regex_match", 2, 2, |run, a| {
        let text = a.text(0)?;
        let pattern = pattern(run, a)?;
        Ok(Value::Bool(pattern.is_match(text)))
    }),
    Function::with_pattern("regex_replace", 3, 3, regex_replace),
];

/// The pattern, paid for together with the search. The search takes a time that grows with the text
/// and with the pattern.
fn pattern<'a>(run: &mut Run<'_>, a: &Arguments<'a, '_>) -> Result<Cow<'a, Regex>, Fault> {
    let (text, pattern) = (a.text(0)?, a.text(1)?);
    run.spend(1 + text.len().saturating_mul(4 + pattern.len()) / 8)?;
    match a.pattern {
        Some(pattern) => Ok(Cow::Borrowed(pattern)),
        None => {
            run.spend(100 + pattern.len())?;
            super::pattern(pattern).map(Cow::Owned)
        }
    }
}

/// Every match; in the replacement `&` is the match, `\1` its first group, `\&` a plain `&`.
fn regex_replace<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let pattern = pattern(run, a)?;
    let (text, with) = (a.text(0)?, a.text(2)?);
    let room = run.room();
    let mut out = String::new();
    let mut from = 0;
    for captures in pattern.captures_iter(text) {
        let Some(whole) = captures.get(0) else {
            continue;
        };
        run.look(text.len().min(64) + with.len())?;
        out.push_str(text.get(from..whole.start()).unwrap_or_default());
        expand(with, &captures, &mut out);
        from = whole.end();
        if out.len() > room {
            return Err(Fault::TooMuchMemory);
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
    run.text(out.into_bytes())
}

fn expand(with: &str, captures: &Captures<'_>, out: &mut String) {
    let group = |i: usize| captures.get(i).map_or("", |group| group.as_str());
    let mut characters = with.chars();
    while let Some(character) = characters.next() {
        match character {
            '&' => out.push_str(group(0)),
            '\\' => match characters.next() {
                Some(digit @ '0'..='9') => {
                    let index = digit.to_digit(10).and_then(|digit| digit.try_into().ok());
                    out.push_str(index.map_or("", group));
                }
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            other => out.push(other),
        }
    }
}
