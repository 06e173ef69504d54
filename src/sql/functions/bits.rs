//! Bits of integers and of byte strings.

use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::run::Run;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("bitand", 2, 2, |_, a| Ok(Value::Int(a.int(0)? & a.int(1)?))),
    Function::new("bitnot", 1, 1, |_, a| Ok(Value::Int(!a.int(0)?))),
    Function::new("bitor", 2, 2, |_, a| Ok(Value::Int(a.int(0)? | a.int(1)?))),
    Function::new("bitsize", 1, 1, |_, a| {
        let bits = a.bytes(0)?.len().saturating_mul(8);
        Ok(Value::Int(i64::try_from(bits).unwrap_or(i64::MAX)))
    }),
    Function::new("bitsl", 2, 2, |_, a| shift(a, a.int(0)?, a.int(1)?)),
    Function::new("bitsr", 2, 2, |_, a| {
        let by = a.int(1)?.checked_neg().ok_or(Fault::Overflow)?;
        shift(a, a.int(0)?, by)
    }),
    Function::new("bitxor", 2, 2, |_, a| Ok(Value::Int(a.int(0)? ^ a.int(1)?))),
    Function::new("subbits", 2, 6, subbits),
];

/// Arithmetic shift to the left, or to the right when `by` is negative.
fn shift<'e>(a: &Arguments<'_, 'e>, value: i64, by: i64) -> Result<Value<'e>, Fault> {
    let places = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
    if by < 0 {
        return Ok(Value::Int(value >> places.min(63)));
    }
    if value == 0 {
        return Ok(Value::Int(0));
    }
    let shifted = value
        .checked_shl(places)
        .filter(|shifted| shifted >> places == value);
    shifted.map(Value::Int).ok_or(a.out_of_range())
}

/// `subbits(bytes[, start], length[, type, sign, endian])`; bits count from 1.
fn subbits<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let bytes = a.bytes(0)?;
    let (start, length) = match a.count() {
        2 => (1, a.length(1)?),
        3 | 6 => (a.length(1)?, a.length(2)?),
        _ => return Err(a.mistyped()),
    };
    let kind = a.word(3, "integer")?;
    let signed = match a.word(4, "unsigned")? {
        "signed" => true,
        "unsigned" => false,
        _ => return Err(a.mistyped()),
    };
    let little = match a.word(5, "big")? {
        "little" => true,
        "big" => false,
        _ => return Err(a.mistyped()),
    };
    let skipped = start.checked_sub(1).ok_or(a.out_of_range())?;
    let Some(left) = (bytes.len() * 8)
        .checked_sub(skipped)
        .filter(|left| *left > 0)
    else {
        return Ok(Value::Undefined);
    };
    let length = length.min(left);
    run.make(length / 8 + 1)?;
    let taken = take(bytes, skipped, length);
    match kind {
        "bits" => Ok(Value::Text(pad_right(taken, length).into())),
        "integer" => integer(a, &taken, length, signed, little),
        "float" => float(a, &taken, length, little),
        _ => Err(a.mistyped()),
    }
}

/// `length` bits from bit `skipped`, eight to a byte, the last byte holding what is left over in its
/// low bits.
fn take(bytes: &[u8], skipped: usize, length: usize) -> Vec<u8> {
    let bit = |i: usize| {
        let byte = bytes.get(i / 8).copied().unwrap_or_default();
        byte >> (7 - i % 8) & 1
    };
    let end = skipped + length;
    let starts = (skipped..end).step_by(8);
    let byte = |from: usize| (from..end.min(from + 8)).fold(0, |byte, i| byte << 1 | bit(i));
    starts.map(byte).collect()
}

fn pad_right(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    if let Some(last) = bytes.last_mut().filter(|_| !length.is_multiple_of(8)) {
        *last <<= 8 - length % 8;
    }
    bytes
}

fn integer<'e>(
    a: &Arguments<'_, 'e>,
    taken: &[u8],
    length: usize,
    signed: bool,
    little: bool,
) -> Result<Value<'e>, Fault> {
    if length > 64 {
        return Err(a.out_of_range());
    }
    let mut value: u64 = 0;
    for (i, byte) in taken.iter().enumerate() {
        let bits = (length - i * 8).min(8);
        value = match little {
            true => value | u64::from(*byte) << (i * 8),
            false => value << bits | u64::from(*byte),
        };
    }
    if signed && (1..64).contains(&length) && value >> (length - 1) == 1 {
        value |= u64::MAX << length;
    }
    let value = match signed {
        true => value.cast_signed(),
        false => i64::try_from(value).map_err(|_| Fault::Overflow)?,
    };
    Ok(Value::Int(value))
}

fn float<'e>(
    a: &Arguments<'_, 'e>,
    taken: &[u8],
    length: usize,
    little: bool,
) -> Result<Value<'e>, Fault> {
    let mut bytes = taken.to_vec();
    if little {
        bytes.reverse();
    }
    let value = match length {
        32 => bytes.try_into().map(f32::from_be_bytes).map(f64::from),
        64 => bytes.try_into().map(f64::from_be_bytes),
        _ => return Err(a.out_of_range()),
    };
    let value = value.map_err(|_| a.out_of_range())?;
    value
        .is_finite()
        .then_some(Value::Float(value))
        .ok_or(a.out_of_range())
}
