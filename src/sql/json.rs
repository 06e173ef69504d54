//! JSON (RFC 8259) to values and back, and a field of a document without the rest of it.
//!
//! A document nests at most [`DEPTH_MAX`] levels. Integers beyond 64 bits become floats; of keys that
//! occur twice the last one counts. [`find`] refuses what [`parse`] refuses.

use std::fmt;
use std::ops::Range;

use super::DEPTH_MAX;
use super::syntax::Step;
use super::value::{Map, Text, Value};

/// The text is not JSON, or nests too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not JSON")
    }
}

impl std::error::Error for NotJson {}

/// The value that a document is; strings without escapes borrow from it.
///
/// # Errors
/// [`NotJson`].
pub fn parse(document: &[u8]) -> Result<Value<'_>, NotJson> {
    let mut scanner = Scanner::new(document)?;
    let value = scanner.value(0)?;
    scanner.end()?;
    Ok(value)
}

/// Follows keys and positive indexes into a document. Answers the bytes of what is there, and how
/// many steps were taken: not all where one must be answered from the whole of a list.
pub(super) fn find<'e>(
    document: &'e [u8],
    steps: &[Step],
) -> Result<(Option<&'e [u8]>, usize), NotJson> {
    let taken = steps
        .iter()
        .take_while(|step| matches!(step, Step::Key(_)) || matches!(step, Step::At(1..)))
        .count();
    let mut scanner = Scanner::new(document)?;
    let steps = steps.get(..taken).unwrap_or_default();
    let found = scanner.find(steps, 0)?;
    scanner.end()?;
    Ok((found.and_then(|range| document.get(range)), taken))
}

struct Scanner<'e> {
    text: &'e str,
    at: usize,
}

impl<'e> Scanner<'e> {
    fn new(document: &'e [u8]) -> Result<Self, NotJson> {
        let text = str::from_utf8(document).map_err(|_| NotJson)?;
        Ok(Self { text, at: 0 })
    }

    fn end(&mut self) -> Result<(), NotJson> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(NotJson),
        }
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        if rest.first().as_ref().is_some_and(blank) {
            self.at += rest.iter().take_while(blank).count();
        }
        self.text.as_bytes().get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn must(&mut self, byte: u8) -> Result<(), NotJson> {
        self.takes(byte).then_some(()).ok_or(NotJson)
    }

    fn value(&mut self, depth: u8) -> Result<Value<'e>, NotJson> {
        match self.peek() {
            Some(b'{') => {
                let mut entries = Vec::new();
                self.object(depth, |scanner, key, depth| {
                    let key = unescape(key)?;
                    entries.push((key, scanner.value(depth)?));
                    Ok(())
                })?;
                let map = Map::collect(entries).map_err(|_| NotJson)?;
                Ok(Value::map(map))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.array(depth, |scanner, depth| {
                    items.push(scanner.value(depth)?);
                    Ok(())
                })?;
                Value::list(items).map_err(|_| NotJson)
            }
            Some(b'"') => Ok(Value::Text(unescape(self.string()?)?)),
            _ => self.scalar(),
        }
    }

    /// Goes past a value.
    fn skip(&mut self, depth: u8) -> Result<(), NotJson> {
        match self.peek() {
            Some(b'{') => self.object(depth, |scanner, key, depth| {
                check_escapes(key)?;
                scanner.skip(depth)
            }),
            Some(b'[') => self.array(depth, |scanner, depth| scanner.skip(depth)),
            Some(b'"') => check_escapes(self.string()?),
            _ => self.scalar().map(drop),
        }
    }

    /// Goes past a value, and answers where in it that stands to which the steps lead.
    fn find(&mut self, steps: &[Step], depth: u8) -> Result<Option<Range<usize>>, NotJson> {
        let mut found = None;
        match (steps.split_first(), self.peek()) {
            (None, _) => {
                let from = self.at;
                self.skip(depth)?;
                return Ok(Some(from..self.at));
            }
            (Some((Step::Key(wanted), rest)), Some(b'{')) => {
                self.object(depth, |scanner, key, depth| {
                    if is_key(key, wanted)? {
                        found = scanner.find(rest, depth)?;
                        return Ok(());
                    }
                    scanner.skip(depth)
                })?;
            }
            (Some((Step::At(wanted), rest)), Some(b'[')) => {
                let mut index = 0;
                self.array(depth, |scanner, depth| {
                    index += 1;
                    if index == *wanted {
                        found = scanner.find(rest, depth)?;
                        return Ok(());
                    }
                    scanner.skip(depth)
                })?;
            }
            (Some(_), _) => self.skip(depth)?,
        }
        Ok(found)
    }

    fn object(
        &mut self,
        depth: u8,
        mut each: impl FnMut(&mut Self, &'e str, u8) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        let depth = below(depth)?;
        self.at += 1;
        if self.takes(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(NotJson);
            }
            let key = self.string()?;
            self.must(b':')?;
            each(self, key, depth)?;
            if !self.takes(b',') {
                return self.must(b'}');
            }
        }
    }

    fn array(
        &mut self,
        depth: u8,
        mut each: impl FnMut(&mut Self, u8) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        let depth = below(depth)?;
        self.at += 1;
        if self.takes(b']') {
            return Ok(());
        }
        loop {
            each(self, depth)?;
            if !self.takes(b',') {
                return self.must(b']');
            }
        }
    }

    /// What stands between the quotes, escapes as they are.
    fn string(&mut self) -> Result<&'e str, NotJson> {
        let from = self.at + 1;
        let rest = self.text.as_bytes().get(from..).ok_or(NotJson)?;
        let mut length = 0;
        loop {
            match rest.get(length) {
                Some(b'"') => break,
                Some(b'\\') => length += 2,
                Some(0x20..) => length += 1,
                _ => return Err(NotJson),
            }
        }
        self.at = from + length + 1;
        self.text.get(from..from + length).ok_or(NotJson)
    }

    /// A number or a word.
    fn scalar(&mut self) -> Result<Value<'e>, NotJson> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let within = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let length = rest.as_bytes().iter().take_while(|b| within(b)).count();
        self.at += length;
        match rest.get(..length).unwrap_or_default() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            text => number(text),
        }
    }
}

fn below(depth: u8) -> Result<u8, NotJson> {
    if depth >= DEPTH_MAX {
        return Err(NotJson);
    }
    Ok(depth + 1)
}

/// Section 6: no leading zero, digits on both sides of the point.
fn number(text: &str) -> Result<Value<'static>, NotJson> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then_some(digits).ok_or(NotJson)
    };
    let whole = digits(unsigned)?;
    if whole > 1 && unsigned.starts_with('0') {
        return Err(NotJson);
    }
    let mut rest = unsigned.get(whole..).unwrap_or_default();
    if rest.is_empty()
        && let Ok(value) = text.parse()
    {
        return Ok(Value::Int(value));
    }
    if let Some(decimals) = rest.strip_prefix('.') {
        rest = decimals.get(digits(decimals)?..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        rest = exponent.get(digits(exponent)?..).unwrap_or_default();
    }
    let value: f64 = text.parse().map_err(|_| NotJson)?;
    (rest.is_empty() && value.is_finite())
        .then_some(Value::Float(value))
        .ok_or(NotJson)
}

fn is_key(raw: &str, wanted: &str) -> Result<bool, NotJson> {
    if !raw.contains('\\') {
        return Ok(raw == wanted);
    }
    Ok(unescape(raw)?.bytes() == wanted.as_bytes())
}

fn check_escapes(raw: &str) -> Result<(), NotJson> {
    if raw.contains('\\') {
        unescape(raw)?;
    }
    Ok(())
}

/// Section 7. Half of a surrogate pair becomes U+FFFD.
fn unescape(raw: &str) -> Result<Text<'_>, NotJson> {
    if !raw.contains('\\') {
        return Ok(raw.into());
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let kind = after.chars().next().ok_or(NotJson)?;
        rest = after.get(kind.len_utf8()..).unwrap_or_default();
        out.push(match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (character, after) = unicode(rest)?;
                rest = after;
                character
            }
            _ => return Err(NotJson),
        });
    }
    out.push_str(rest);
    Ok(out.into_bytes().into())
}

/// The character of the hexadecimal digits behind `\u`, and what follows.
fn unicode(rest: &str) -> Result<(char, &str), NotJson> {
    let unit = |text: &str| {
        let digits = text.get(..4).ok_or(NotJson)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotJson);
        }
        u16::from_str_radix(digits, 16).map_err(|_| NotJson)
    };
    let first = unit(rest)?;
    let after = rest.get(4..).unwrap_or_default();
    if let Some(low) = after.strip_prefix("\\u")
        && let Some(Ok(character)) = char::decode_utf16([first, unit(low)?]).next()
        && character > '\u{ffff}'
    {
        return Ok((character, low.get(4..).unwrap_or_default()));
    }
    let character = char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER);
    Ok((character, after))
}

/// Writes a value as a document: undefined as the string `undefined`, bytes that are no UTF-8 with
/// U+FFFD in their place.
pub fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Undefined => out.extend_from_slice(b"\"undefined\""),
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
        // With an exponent where the digits are many; JSON has no infinities, nor do values.
        Value::Float(value) => out.extend_from_slice(format!("{value:?}").as_bytes()),
        Value::Text(text) => string(text.bytes(), out),
        Value::List(list) => {
            out.push(b'[');
            for (i, item) in list.items().iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Map(map) => write_map(map, out),
    }
}

/// Writes a map as a document.
pub(super) fn write_map(map: &Map<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, (key, value)) in map.entries().iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(key.bytes(), out);
        out.push(b':');
        write(value, out);
    }
    out.push(b'}');
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in String::from_utf8_lossy(bytes).bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
