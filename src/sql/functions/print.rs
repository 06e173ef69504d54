//! `sprintf`, with the control sequences of Erlang's `io_lib:format` that print MQTT's values.
//!
//! `~F.P.PadC`: a field of at least F characters, to the left when negative; P digits or at most P
//! characters; C instead of blanks.

use super::{Arguments, Function, grapheme};
use crate::sql::error::Fault;
use crate::sql::json;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("sprintf", 1, 255, |run, a| {
        format(run, a, a.values.get(1..).unwrap_or_default())
    }),
    Function::new("sprintf_s", 2, 2, |run, a| {
        format(run, a, a.list(1)?.items())
    }),
];

/// A control sequence.
#[derive(Default)]
struct Control {
    width: Option<i64>,
    precision: Option<usize>,
    pad: Option<char>,
}

/// Digits of floats beyond these say nothing.
const PRECISION_MAX: usize = 64;

fn format<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    values: &[Value<'e>],
) -> Result<Value<'e>, Fault> {
    let mut out = String::new();
    let mut rest = a.text(0)?;
    let mut values = values.iter();
    while let Some((before, after)) = rest.split_once('~') {
        out.push_str(before);
        let (control, kind, after) = control(after).ok_or(a.out_of_range())?;
        rest = after;
        match kind {
            '~' => out.push('~'),
            'n' => out.push('\n'),
            'i' => drop(values.next().ok_or(a.out_of_range())?),
            _ => {
                let value = values.next().ok_or(a.out_of_range())?;
                run.make(value.weight())?;
                let text = print(a, kind, &control, value)?;
                let width = control.width.unwrap_or(0).unsigned_abs();
                let width = usize::try_from(width).map_err(|_| a.out_of_range())?;
                run.make(text.len().saturating_add(width.saturating_mul(4)))?;
                out.push_str(&padded(&text, &control, width));
            }
        }
    }
    if values.next().is_some() {
        return Err(a.out_of_range());
    }
    out.push_str(rest);
    run.text(out.into_bytes())
}

/// What stands behind a `~`: the control, its letter, and what follows.
fn control(text: &str) -> Option<(Control, char, &str)> {
    let mut control = Control::default();
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text;
    let minus = usize::from(rest.starts_with('-'));
    let length = minus + digits(rest.get(minus..)?);
    if length > minus {
        control.width = Some(rest.get(..length)?.parse().ok()?);
    }
    rest = rest.get(length..)?;
    if let Some(after) = rest.strip_prefix('.') {
        let length = digits(after);
        if length > 0 {
            control.precision = Some(after.get(..length)?.parse().ok()?);
        }
        rest = after.get(length..)?;
        if let Some(after) = rest.strip_prefix('.') {
            let pad = after.chars().next()?;
            control.pad = Some(pad);
            rest = after.get(pad.len_utf8()..)?;
        }
    }
    // `t` says that text is Unicode, which it is here in any case.
    rest = rest.strip_prefix('t').unwrap_or(rest);
    let kind = rest.chars().next()?;
    Some((control, kind, rest.get(kind.len_utf8()..)?))
}

fn print(
    a: &Arguments<'_, '_>,
    kind: char,
    control: &Control,
    value: &Value<'_>,
) -> Result<String, Fault> {
    let precision = control.precision.unwrap_or(6).min(PRECISION_MAX);
    let float = || match value {
        Value::Float(value) => Ok(*value),
        _ => Err(a.mistyped()),
    };
    let int = || match value {
        Value::Int(value) => Ok(*value),
        _ => Err(a.mistyped()),
    };
    match kind {
        's' => {
            let mut out = Vec::new();
            value.print(&mut out);
            let text = String::from_utf8_lossy(&out);
            Ok(grapheme::clusters(&text)
                .take(control.precision.unwrap_or(usize::MAX))
                .collect())
        }
        'p' | 'w' => {
            let mut out = Vec::new();
            match value {
                Value::Undefined => value.print(&mut out),
                Value::Text(text) => {
                    let text = String::from_utf8_lossy(text.bytes());
                    return Ok(format!("<<\"{text}\">>"));
                }
                _ => json::write(value, &mut out),
            }
            Ok(String::from_utf8_lossy(&out).into_owned())
        }
        'b' | 'd' => in_base(int()?, control.precision.unwrap_or(10), false),
        'B' => in_base(int()?, control.precision.unwrap_or(10), true),
        'c' => {
            let code = u32::try_from(int()?).ok().and_then(char::from_u32);
            Ok(code.ok_or(a.out_of_range())?.to_string())
        }
        'f' => Ok(format!("{:.precision$}", float()?)),
        'e' => Ok(exponent(float()?, precision)),
        'g' => {
            let value = float()?;
            Ok(match (0.1..10000.0).contains(&value.abs()) {
                true => format!("{value:.precision$}"),
                false => exponent(value, precision),
            })
        }
        _ => Err(a.out_of_range()),
    }
}

/// As C prints it, with a sign and two digits at least.
fn exponent(value: f64, precision: usize) -> String {
    let text = format!("{value:.*e}", precision.saturating_sub(1));
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// An integer in a base from 2 to 36.
fn in_base(value: i64, base: usize, upper: bool) -> Result<String, Fault> {
    let base = u32::try_from(base)
        .ok()
        .filter(|base| (2..=36).contains(base));
    let base = base.ok_or(Fault::Range("sprintf"))?;
    let mut digits = Vec::new();
    let mut left = value.unsigned_abs();
    loop {
        let digit = u32::try_from(left % u64::from(base)).unwrap_or_default();
        digits.extend(char::from_digit(digit, base));
        left /= u64::from(base);
        if left == 0 {
            break;
        }
    }
    digits.extend((value < 0).then_some('-'));
    let text: String = digits.into_iter().rev().collect();
    Ok(if upper { text.to_uppercase() } else { text })
}

fn padded(text: &str, control: &Control, width: usize) -> String {
    let missing = width.saturating_sub(grapheme::clusters(text).count());
    let padding: String = std::iter::repeat_n(control.pad.unwrap_or(' '), missing).collect();
    match control.width {
        Some(width) if width < 0 => [text, &padding].concat(),
        _ => [&padding, text].concat(),
    }
}
