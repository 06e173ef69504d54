//! Points in time, their texts, and dates in formats of the rule's choice.

use super::zone::{self, Civil};
use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("date_to_unix_ts", 3, 4, date_to_timestamp),
    Function::new("format_date", 3, 4, format_date),
    Function::new("mongo_date", 0, 2, |run, a| {
        let (seconds, ns) = match a.count() {
            0 => split(run.input.surroundings.now_ns(), SECOND),
            1 => split(a.int(0)?, 1_000),
            _ => split(a.int(0)?, unit(a, 1)?),
        };
        let parts = [seconds / 1_000_000, seconds % 1_000_000, ns / 1_000];
        run.list(parts.map(Value::Int).into())
    }),
    Function::new("now_rfc3339", 0, 1, |run, a| {
        let per_second = unit(a, 0)?;
        let now = run.input.surroundings.now_ns() / (SECOND / per_second);
        rfc3339(run, a, now, per_second)
    }),
    Function::new("now_timestamp", 0, 1, |run, a| {
        Ok(Value::Int(
            run.input.surroundings.now_ns() / (SECOND / unit(a, 0)?),
        ))
    }),
    Function::new("rfc3339_to_unix_ts", 1, 2, |_, a| {
        let per_second = unit(a, 1)?;
        let (seconds, ns) = parse_rfc3339(a.text(0)?).ok_or(a.mistyped())?;
        timestamp(seconds, ns, per_second)
    }),
    Function::new("timezone_to_second", 1, 1, |run, a| {
        let now = run.input.surroundings.now_ns() / SECOND;
        offset(run, a, 0, now).map(Value::Int)
    }),
    Function::new("unix_ts_to_rfc3339", 1, 2, |run, a| {
        let per_second = unit(a, 1)?;
        rfc3339(run, a, a.int(0)?, per_second)
    }),
];

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// How many of the unit that argument `i` names make a second.
fn unit(a: &Arguments<'_, '_>, i: usize) -> Result<i64, Fault> {
    match a.word(i, "second")? {
        "second" => Ok(1),
        "millisecond" => Ok(1_000),
        "microsecond" => Ok(1_000_000),
        "nanosecond" => Ok(SECOND),
        _ => Err(a.out_of_range()),
    }
}

/// The seconds of a timestamp and the nanoseconds behind them.
fn split(timestamp: i64, per_second: i64) -> (i64, i64) {
    let within = timestamp.rem_euclid(per_second) * (SECOND / per_second);
    (timestamp.div_euclid(per_second), within)
}

fn timestamp<'e>(seconds: i64, ns: i64, per_second: i64) -> Result<Value<'e>, Fault> {
    let whole = seconds.checked_mul(per_second).ok_or(Fault::Overflow)?;
    let value = whole.checked_add(ns / (SECOND / per_second));
    value.map(Value::Int).ok_or(Fault::Overflow)
}

/// The offset that argument `i` is: a text, `local`, or seconds.
fn offset(run: &Run<'_>, a: &Arguments<'_, '_>, i: usize, at: i64) -> Result<i64, Fault> {
    let seconds = match a.get(i) {
        Value::Int(seconds) => Some(*seconds),
        Value::Text(text) if text.bytes() == b"local" => {
            Some(run.input.surroundings.local_offset(at).into())
        }
        _ => zone::offset(a.text(i)?),
    };
    let seconds = seconds.filter(|seconds| seconds.abs() < 86_400);
    seconds.ok_or(a.out_of_range())
}

/// RFC 3339 in local time, with as many decimals as the unit has.
fn rfc3339<'e>(
    run: &mut Run<'e>,
    a: &Arguments<'_, 'e>,
    timestamp: i64,
    per_second: i64,
) -> Result<Value<'e>, Fault> {
    let (seconds, ns) = split(timestamp, per_second);
    let offset = i64::from(run.input.surroundings.local_offset(seconds));
    let local = seconds.checked_add(offset).and_then(Civil::at);
    let c = local.ok_or(a.out_of_range())?;
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    );
    let decimals = match per_second {
        1 => 0,
        1_000 => 3,
        1_000_000 => 6,
        _ => 9,
    };
    if decimals > 0 {
        text.push('.');
        text.push_str(format!("{ns:09}").get(..decimals).unwrap_or_default());
    }
    text.push_str(&zone::print(offset, 1));
    run.text(text.into_bytes())
}

/// Seconds since 1970 and nanoseconds.
fn parse_rfc3339(text: &str) -> Option<(i64, i64)> {
    let mut reading = Reading { rest: text };
    let (year, _) = (reading.digits(4)?, reading.one_of("-")?);
    let (month, _) = (reading.digits(2)?, reading.one_of("-")?);
    let (day, _) = (reading.digits(2)?, reading.one_of("Tt ")?);
    let (hour, _) = (reading.digits(2)?, reading.one_of(":")?);
    let (minute, _) = (reading.digits(2)?, reading.one_of(":")?);
    let second = reading.digits(2)?;
    let mut ns = 0;
    if let Some(decimals) = reading.rest.strip_prefix('.') {
        let count = decimals.bytes().take_while(u8::is_ascii_digit).count();
        let digits = decimals
            .get(..count.min(9))
            .filter(|digits| !digits.is_empty())?;
        ns = format!("{digits:0<9}").parse().ok()?;
        reading.rest = decimals.get(count..)?;
    }
    let offset = zone::offset(reading.rest)?;
    let civil = Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
    };
    Some((civil.seconds()? - offset, ns))
}

/// A text that is read from the front.
struct Reading<'a> {
    rest: &'a str,
}

impl Reading<'_> {
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.rest.split_at_checked(count)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        self.rest = rest;
        digits.parse().ok()
    }

    fn one_of(&mut self, set: &str) -> Option<char> {
        let first = self
            .rest
            .chars()
            .next()
            .filter(|first| set.contains(*first))?;
        self.rest = self.rest.get(first.len_utf8()..)?;
        Some(first)
    }

    fn offset(&mut self, length: usize) -> Option<i64> {
        if self.rest.starts_with(['Z', 'z']) {
            self.rest = self.rest.get(1..)?;
            return Some(0);
        }
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        zone::offset(text)
    }
}

/// A piece of a date's format.
#[derive(Clone, Copy)]
enum Piece {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// So many decimals of the second.
    Decimals(usize),
    /// The offset with so many colons.
    Offset(usize),
    Character(char),
}

const DIRECTIVES: [(&str, Piece); 12] = [
    ("%Y", Piece::Year),
    ("%m", Piece::Month),
    ("%d", Piece::Day),
    ("%H", Piece::Hour),
    ("%M", Piece::Minute),
    ("%S", Piece::Second),
    ("%N", Piece::Decimals(9)),
    ("%3N", Piece::Decimals(3)),
    ("%6N", Piece::Decimals(6)),
    ("%z", Piece::Offset(0)),
    ("%:z", Piece::Offset(1)),
    ("%::z", Piece::Offset(2)),
];

/// The pieces of a format: the directives, and anything else as it is.
fn pieces(format: &str) -> impl Iterator<Item = Piece> {
    let mut rest = format;
    std::iter::from_fn(move || {
        for (directive, piece) in DIRECTIVES {
            if let Some(after) = rest.strip_prefix(directive) {
                rest = after;
                return Some(piece);
            }
        }
        let character = rest.chars().next()?;
        rest = rest.get(character.len_utf8()..)?;
        Some(Piece::Character(character))
    })
}

/// `format_date(unit, offset, format[, timestamp])`
fn format_date<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let per_second = unit(a, 0)?;
    let format = a.text(2)?;
    run.make(format.len().saturating_mul(5))?;
    let at = match a.count() {
        4 => a.int(3)?,
        _ => run.input.surroundings.now_ns() / (SECOND / per_second),
    };
    let (seconds, ns) = split(at, per_second);
    let offset = offset(run, a, 1, seconds)?;
    let local = seconds.checked_add(offset).and_then(Civil::at);
    let c = local.ok_or(a.out_of_range())?;
    let mut out = String::new();
    for piece in pieces(format) {
        match piece {
            Piece::Year => out.push_str(&format!("{:04}", c.year)),
            Piece::Month => out.push_str(&format!("{:02}", c.month)),
            Piece::Day => out.push_str(&format!("{:02}", c.day)),
            Piece::Hour => out.push_str(&format!("{:02}", c.hour)),
            Piece::Minute => out.push_str(&format!("{:02}", c.minute)),
            Piece::Second => out.push_str(&format!("{:02}", c.second)),
            Piece::Decimals(count) => {
                out.push_str(format!("{ns:09}").get(..count).unwrap_or_default());
            }
            Piece::Offset(colons) => out.push_str(&zone::print(offset, colons)),
            Piece::Character(character) => out.push(character),
        }
    }
    run.text(out.into_bytes())
}

/// `date_to_unix_ts(unit[, offset], format, text)`; UTC when no offset is named.
fn date_to_timestamp<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let per_second = unit(a, 0)?;
    let (format, text) = (a.text(a.count() - 2)?, a.text(a.count() - 1)?);
    run.look(format.len().saturating_mul(8))?;
    let (c, ns, found) = read_date(format, text).ok_or(a.out_of_range())?;
    let seconds = c.seconds().ok_or(a.out_of_range())?;
    let offset = match (found, a.count()) {
        (Some(offset), _) => offset,
        (None, 4) => offset(run, a, 1, seconds)?,
        (None, _) => 0,
    };
    timestamp(seconds - offset, ns, per_second)
}

/// Time, nanoseconds and offset of a text in a format.
fn read_date(format: &str, text: &str) -> Option<(Civil, i64, Option<i64>)> {
    let mut c = Civil {
        year: 1970,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
    };
    let (mut ns, mut offset) = (0, None);
    let mut reading = Reading { rest: text };
    for piece in pieces(format) {
        match piece {
            Piece::Year => c.year = reading.digits(4)?,
            Piece::Month => c.month = reading.digits(2)?,
            Piece::Day => c.day = reading.digits(2)?,
            Piece::Hour => c.hour = reading.digits(2)?,
            Piece::Minute => c.minute = reading.digits(2)?,
            Piece::Second => c.second = reading.digits(2)?,
            Piece::Decimals(9) => ns = reading.digits(9)?,
            Piece::Decimals(6) => ns = reading.digits(6)? * 1_000,
            Piece::Decimals(_) => ns = reading.digits(3)? * 1_000_000,
            Piece::Offset(0) => offset = Some(reading.offset(5)?),
            Piece::Offset(1) => offset = Some(reading.offset(6)?),
            Piece::Offset(_) => offset = Some(reading.offset(9)?),
            Piece::Character(character) => {
                reading.one_of(character.encode_utf8(&mut [0; 4]))?;
            }
        }
    }
    reading.rest.is_empty().then_some((c, ns, offset))
}
