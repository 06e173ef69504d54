//! Erlang's external term format, for what values are made of.
//!
//! Source: "External Term Format" of the ERTS user's guide.

use crate::sql::DEPTH_MAX;
use crate::sql::value::{Map, Value};
use crate::wire::Reader;

const VERSION: u8 = 131;

const SMALL_INTEGER: u8 = 97;
const INTEGER: u8 = 98;
const NEW_FLOAT: u8 = 70;
const SMALL_BIG: u8 = 110;
const ATOM: u8 = 100;
const SMALL_ATOM: u8 = 115;
const ATOM_UTF8: u8 = 118;
const SMALL_ATOM_UTF8: u8 = 119;
const NIL: u8 = 106;
const STRING: u8 = 107;
const LIST: u8 = 108;
const BINARY: u8 = 109;
const MAP: u8 = 116;

/// A value as a term.
pub(super) fn encode(value: &Value<'_>) -> Vec<u8> {
    let mut out = vec![VERSION];
    write(value, &mut out);
    out
}

fn write(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Undefined => atom("undefined", out),
        Value::Null => atom("null", out),
        Value::Bool(true) => atom("true", out),
        Value::Bool(false) => atom("false", out),
        Value::Int(value) => integer(*value, out),
        Value::Float(value) => {
            out.push(NEW_FLOAT);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::Text(text) => binary(text.bytes(), out),
        Value::List(list) => {
            if !list.items().is_empty() {
                out.push(LIST);
                count(list.items().len(), out);
                list.items().iter().for_each(|item| write(item, out));
            }
            out.push(NIL);
        }
        Value::Map(map) => {
            out.push(MAP);
            count(map.entries().len(), out);
            for (key, value) in map.entries() {
                binary(key.bytes(), out);
                write(value, out);
            }
        }
    }
}

/// A budget keeps all that is written far below four gigabytes.
fn count(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(BINARY);
    count(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn atom(name: &str, out: &mut Vec<u8>) {
    out.push(ATOM);
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(name.as_bytes());
}

fn integer(value: i64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend_from_slice(&[SMALL_INTEGER, byte]);
    } else if let Ok(value) = i32::try_from(value) {
        out.push(INTEGER);
        out.extend_from_slice(&value.to_be_bytes());
    } else {
        let mut digits = value.unsigned_abs().to_le_bytes().to_vec();
        while digits.last() == Some(&0) {
            digits.pop();
        }
        let length = u8::try_from(digits.len()).unwrap_or_default();
        out.extend_from_slice(&[SMALL_BIG, length, u8::from(value < 0)]);
        out.extend_from_slice(&digits);
    }
}

/// The value of a term; `None` for bytes that are none, and for terms that no value is.
pub(super) fn decode<'e>(bytes: &[u8]) -> Option<Value<'e>> {
    let mut reader = Reader::new(bytes);
    if reader.u8().ok()? != VERSION {
        return None;
    }
    let value = read(&mut reader, 0)?;
    reader.is_empty().then_some(value)
}

fn read<'e>(reader: &mut Reader<'_>, depth: u8) -> Option<Value<'e>> {
    if depth >= DEPTH_MAX {
        return None;
    }
    match reader.u8().ok()? {
        SMALL_INTEGER => Some(Value::Int(reader.u8().ok()?.into())),
        INTEGER => Some(Value::Int(i32::from_be_bytes(reader.array().ok()?).into())),
        SMALL_BIG => big(reader),
        NEW_FLOAT => {
            let value = f64::from_be_bytes(reader.array().ok()?);
            value.is_finite().then_some(Value::Float(value))
        }
        ATOM | ATOM_UTF8 => {
            let length = reader.u16().ok()?;
            word(reader.take(length.into()).ok()?)
        }
        SMALL_ATOM | SMALL_ATOM_UTF8 => {
            let length = reader.u8().ok()?;
            word(reader.take(length.into()).ok()?)
        }
        BINARY => {
            let bytes = length(reader)?;
            Some(Value::Text(reader.take(bytes).ok()?.to_vec().into()))
        }
        NIL => Value::list(Vec::new()).ok(),
        STRING => {
            let length = reader.u16().ok()?;
            let items = reader.take(length.into()).ok()?.iter();
            Value::list(items.map(|byte| Value::Int((*byte).into())).collect()).ok()
        }
        LIST => {
            let mut items = Vec::new();
            for _ in 0..length(reader)? {
                items.push(read(reader, depth + 1)?);
            }
            (reader.u8().ok()? == NIL).then(|| Value::list(items).ok())?
        }
        MAP => {
            let mut entries = Vec::new();
            for _ in 0..length(reader)? {
                let mut key = Vec::new();
                read(reader, depth + 1)?.print(&mut key);
                entries.push((key.into(), read(reader, depth + 1)?));
            }
            Map::collect(entries).ok().map(Value::map)
        }
        _ => None,
    }
}

fn length(reader: &mut Reader<'_>) -> Option<usize> {
    let length = u32::from_be_bytes(reader.array().ok()?);
    usize::try_from(length).ok()
}

fn word<'e>(name: &[u8]) -> Option<Value<'e>> {
    match name {
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        b"undefined" => Some(Value::Undefined),
        b"null" => Some(Value::Null),
        name => Some(Value::Text(name.to_vec().into())),
    }
}

fn big<'e>(reader: &mut Reader<'_>) -> Option<Value<'e>> {
    let (length, negative) = (reader.u8().ok()?, reader.u8().ok()? != 0);
    let digits = reader.take(length.into()).ok()?;
    let (low, high) = digits.split_at_checked(8).unwrap_or((digits, &[]));
    if high.iter().any(|digit| *digit != 0) {
        return None;
    }
    let value = low
        .iter()
        .rev()
        .fold(0_u64, |value, digit| value << 8 | u64::from(*digit));
    let value = i128::from(value);
    i64::try_from(if negative { -value } else { value })
        .ok()
        .map(Value::Int)
}
