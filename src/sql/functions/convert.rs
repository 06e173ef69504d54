//! Conversion between types, and asking for a type.

use super::{Arguments, Function, math};
use crate::sql::error::Fault;
use crate::sql::expression::parse_number;
use crate::sql::run::Run;
use crate::sql::value::{Map, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("bin2hexstr", 1, 1, |run, a| {
        let bytes = a.bytes(0)?;
        run.make(bytes.len())?;
        run.text(crate::encoding::HEX_UPPER.encode(bytes).into_bytes())
    }),
    Function::new("bool", 1, 1, boolean),
    Function::new("float", 1, 1, |_, a| match a.get(0) {
        Value::Text(_) => match parse_number(a.text(0)?).ok_or(a.mistyped())? {
            #[expect(clippy::cast_precision_loss, reason = "as the language has it")]
            Value::Int(value) => Ok(Value::Float(value as f64)),
            float => Ok(float),
        },
        _ => a.float(0).map(Value::Float),
    }),
    Function::new("float2str", 2, 2, float_to_text),
    Function::new("hexstr2bin", 1, 1, |run, a| {
        let digits = a.bytes(0)?;
        run.make(digits.len())?;
        let padded = if digits.len() % 2 == 1 {
            [b"0", digits].concat()
        } else {
            digits.to_vec()
        };
        let bytes = crate::encoding::HEX.decode(&padded);
        run.text(bytes.map_err(|_| a.mistyped())?)
    }),
    Function::new("int", 1, 1, |_, a| {
        let value = match a.get(0) {
            Value::Bool(value) => return Ok(Value::Int((*value).into())),
            Value::Text(_) => parse_number(a.text(0)?).ok_or(a.mistyped())?,
            value => value.clone(),
        };
        match value {
            Value::Int(value) => Ok(Value::Int(value)),
            Value::Float(value) => math::integer(value.floor()).map(Value::Int),
            _ => Err(a.mistyped()),
        }
    }),
    Function::new("is_array", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::List(_)))
    }),
    Function::new("is_bool", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::Bool(_)))
    }),
    Function::new("is_float", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::Float(_)))
    }),
    Function::new("is_int", 1, 1, |_, a| is(matches!(a.get(0), Value::Int(_)))),
    Function::new("is_map", 1, 1, |_, a| is(matches!(a.get(0), Value::Map(_)))),
    Function::new("is_not_null", 1, 1, |_, a| {
        is(!matches!(a.get(0), Value::Undefined))
    }),
    Function::new("is_null", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::Undefined))
    }),
    Function::new("is_num", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::Int(_) | Value::Float(_)))
    }),
    Function::new("is_str", 1, 1, |_, a| {
        is(matches!(a.get(0), Value::Text(_)))
    }),
    Function::new("map", 1, 1, map),
    Function::new("str", 1, 1, |run, a| text(run, a.get(0))),
    Function::new("str_utf8", 1, 1, |run, a| {
        let Value::Text(text) = text(run, a.get(0))? else {
            return Err(a.mistyped());
        };
        run.text(
            String::from_utf8_lossy(text.bytes())
                .into_owned()
                .into_bytes(),
        )
    }),
];

#[expect(clippy::unnecessary_wraps, reason = "it ends functions that answer so")]
fn is<'e>(so: bool) -> Result<Value<'e>, Fault> {
    Ok(Value::Bool(so))
}

/// A value as text.
pub(super) fn text<'e>(run: &mut Run<'e>, value: &Value<'e>) -> Result<Value<'e>, Fault> {
    if let Value::Text(_) = value {
        return Ok(value.clone());
    }
    run.make(value.weight())?;
    let mut out = Vec::new();
    value.print(&mut out);
    run.text(out)
}

fn boolean<'e>(_: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let value = match a.get(0) {
        Value::Bool(value) => Some(*value),
        Value::Int(1) => Some(true),
        Value::Int(0) => Some(false),
        Value::Float(value) if *value == 1.0 => Some(true),
        Value::Float(value) if *value == 0.0 => Some(false),
        Value::Text(text) => match text.bytes() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        },
        _ => None,
    };
    value.map(Value::Bool).ok_or(a.mistyped())
}

/// At most so many decimals, without zeros at the end but for one.
fn float_to_text<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let Value::Float(value) = a.get(0) else {
        return Err(a.mistyped());
    };
    // As many as Erlang's float_to_binary takes.
    let decimals = Some(a.length(1)?).filter(|decimals| *decimals <= 253);
    let decimals = decimals.ok_or(a.out_of_range())?;
    let mut text = format!("{value:.decimals$}");
    if decimals > 0 {
        let kept = text.trim_end_matches('0').len();
        text.truncate(kept);
        if text.ends_with('.') {
            text.push('0');
        }
    }
    run.text(text.into_bytes())
}

/// A map of JSON text, or of a list of pairs.
fn map<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    match a.get(0) {
        Value::Map(map) => Ok(Value::Map(map.clone())),
        Value::Text(text) => match run.decode(text)? {
            Value::Map(map) => Ok(Value::Map(map)),
            _ => Err(a.mistyped()),
        },
        Value::List(list) => {
            let mut entries = Vec::new();
            run.make_values(2 * list.items().len())?;
            for pair in list.items() {
                let Value::List(pair) = pair else {
                    return Err(a.mistyped());
                };
                let [Value::Text(key), value] = pair.items() else {
                    return Err(a.mistyped());
                };
                entries.push((key.clone(), value.clone()));
            }
            Map::collect(entries).map(Value::map)
        }
        _ => Err(a.mistyped()),
    }
}
