//! Text: case, parts, replacement, padding. Characters are grapheme clusters where people count them.

use super::{Arguments, Function, grapheme};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("concat", 2, 2, |run, a| {
        let (left, right) = (a.bytes(0)?, a.bytes(1)?);
        run.make(left.len() + right.len())?;
        Ok(Value::Text([left, right].concat().into()))
    }),
    Function::new("lower", 1, 1, |run, a| {
        run.make(a.text(0)?.len())?;
        run.text(a.text(0)?.to_lowercase().into_bytes())
    }),
    Function::new("ltrim", 1, 1, |run, a| {
        run.text(a.text(0)?.trim_start().into())
    }),
    Function::new("pad", 2, 4, pad),
    Function::new("replace", 3, 4, replace),
    Function::new("reverse", 1, 1, |run, a| {
        let text = a.text(0)?;
        run.make(text.len())?;
        let clusters: Vec<&str> = grapheme::clusters(text).collect();
        run.text(clusters.into_iter().rev().collect::<String>().into_bytes())
    }),
    Function::new("rtrim", 1, 1, |run, a| {
        run.text(a.text(0)?.trim_end().into())
    }),
    Function::new("split", 2, 3, split),
    Function::new("strlen", 1, 1, |run, a| {
        let text = a.text(0)?;
        run.look(text.len() * 4)?;
        let length = grapheme::clusters(text).count();
        Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
    }),
    Function::new("substr", 2, 3, |run, a| {
        let text = a.text(0)?;
        let (start, length) = (
            a.length(1)?,
            if a.count() > 2 {
                a.length(2)?
            } else {
                usize::MAX
            },
        );
        run.look(text.len() * 4)?;
        let part: String = grapheme::clusters(text).skip(start).take(length).collect();
        run.text(part.into_bytes())
    }),
    Function::new("tokens", 2, 3, tokens),
    Function::new("trim", 1, 1, |run, a| run.text(a.text(0)?.trim().into())),
    Function::new("upper", 1, 1, |run, a| {
        run.make(a.text(0)?.len())?;
        run.text(a.text(0)?.to_uppercase().into_bytes())
    }),
];

/// Texts that a function cut out of one.
fn texts<'e>(run: &mut Run<'e>, parts: Vec<&str>) -> Result<Value<'e>, Fault> {
    let mut items = Vec::with_capacity(parts.len());
    for part in parts {
        items.push(run.text(part.into())?);
    }
    run.list(items)
}

fn split<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let (text, separator) = (a.text(0)?, a.text(1)?);
    if separator.is_empty() {
        return Err(a.out_of_range());
    }
    run.look(text.len())?;
    let halves = |cut: Option<(&'_ str, &'_ str)>| match cut {
        Some((before, after)) => vec![before.to_owned(), after.to_owned()],
        None => vec![text.to_owned()],
    };
    let whole = |text: &str| -> Vec<String> { text.split(separator).map(str::to_owned).collect() };
    run.make_values(text.matches(separator).count() + 1)?;
    let (mut parts, keeps) = match a.word(2, "")? {
        "" => (whole(text), false),
        "notrim" => (whole(text), true),
        "leading" => (halves(text.split_once(separator)), false),
        "leading_notrim" => (halves(text.split_once(separator)), true),
        "trailing" => (halves(text.rsplit_once(separator)), false),
        "trailing_notrim" => (halves(text.rsplit_once(separator)), true),
        _ => return Err(a.out_of_range()),
    };
    parts.retain(|part| keeps || !part.is_empty());
    texts(run, parts.iter().map(String::as_str).collect())
}

/// Parts between any of a set of characters.
fn tokens<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let (text, separators) = (a.text(0)?, a.text(1)?);
    let lines = match a.word(2, "")? {
        "" => false,
        "nocrlf" => true,
        _ => return Err(a.out_of_range()),
    };
    run.look(text.len().saturating_mul(1 + separators.len()))?;
    let separates = |c: char| separators.contains(c) || (lines && matches!(c, '\r' | '\n'));
    let parts = text.split(separates).filter(|part| !part.is_empty());
    let count = parts.clone().count();
    run.make_values(count)?;
    texts(run, parts.collect())
}

fn pad<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let (text, length) = (a.text(0)?, a.length(1)?);
    let filler = a.word(3, " ")?;
    run.look(text.len() * 4)?;
    let missing = length.saturating_sub(grapheme::clusters(text).count());
    run.make(missing.saturating_mul(filler.len()))?;
    let (before, after) = match a.word(2, "trailing")? {
        "trailing" => (0, missing),
        "leading" => (missing, 0),
        "both" => (missing / 2, missing - missing / 2),
        _ => return Err(a.out_of_range()),
    };
    run.text(
        [filler.repeat(before).as_str(), text, &filler.repeat(after)]
            .concat()
            .into_bytes(),
    )
}

fn replace<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let (text, wanted, with) = (a.text(0)?, a.text(1)?, a.text(2)?);
    run.look(text.len())?;
    if wanted.is_empty() {
        return run.text(text.into());
    }
    let joined = |cut: Option<(&str, &str)>| match cut {
        Some((before, after)) => [before, with, after].concat(),
        None => text.to_owned(),
    };
    run.make(text.len() + with.len())?;
    let replaced = match a.word(3, "all")? {
        "all" => {
            let times = text.matches(wanted).count();
            run.make(times.saturating_mul(with.len()))?;
            text.replace(wanted, with)
        }
        "leading" => joined(text.split_once(wanted)),
        "trailing" => joined(text.rsplit_once(wanted)),
        _ => return Err(a.out_of_range()),
    };
    Ok(Value::Text(replaced.into_bytes().into()))
}
