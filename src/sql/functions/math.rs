//! Numbers: operators as functions, and what a pocket calculator has.

use super::{Arguments, Function};
use crate::sql::error::Fault;
use crate::sql::expression::finite;
use crate::sql::run::Run;
use crate::sql::syntax::Arithmetic;
use crate::sql::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("*", 2, 2, |run, a| {
        run.calculate(Arithmetic::Multiply, a.get(0), a.get(1))
    }),
    Function::new("+", 2, 2, |run, a| {
        run.calculate(Arithmetic::Add, a.get(0), a.get(1))
    }),
    Function::new("-", 2, 2, |run, a| {
        run.calculate(Arithmetic::Subtract, a.get(0), a.get(1))
    }),
    Function::new("/", 2, 2, |run, a| {
        run.calculate(Arithmetic::Divide, a.get(0), a.get(1))
    }),
    Function::new("abs", 1, 1, |_, a| {
        a.int(0)?
            .checked_abs()
            .map(Value::Int)
            .ok_or(Fault::Overflow)
    }),
    Function::new("acos", 1, 1, |_, a| of(a, f64::acos)),
    Function::new("acosh", 1, 1, |_, a| of(a, f64::acosh)),
    Function::new("asin", 1, 1, |_, a| of(a, f64::asin)),
    Function::new("asinh", 1, 1, |_, a| of(a, f64::asinh)),
    Function::new("atan", 1, 1, |_, a| of(a, f64::atan)),
    Function::new("atanh", 1, 1, |_, a| of(a, f64::atanh)),
    Function::new("ceil", 1, 1, |_, a| whole(a, f64::ceil)),
    Function::new("cos", 1, 1, |_, a| of(a, f64::cos)),
    Function::new("cosh", 1, 1, |_, a| of(a, f64::cosh)),
    Function::new("div", 2, 2, |run, a| {
        run.calculate(Arithmetic::Div, a.get(0), a.get(1))
    }),
    Function::new("eq", 2, 2, equal),
    Function::new("exp", 1, 1, |_, a| of(a, f64::exp)),
    Function::new("floor", 1, 1, |_, a| whole(a, f64::floor)),
    Function::new("fmod", 2, 2, |_, a| in_domain(a, a.float(0)? % a.float(1)?)),
    Function::new("log", 1, 1, |_, a| of(a, f64::ln)),
    Function::new("log10", 1, 1, |_, a| of(a, f64::log10)),
    Function::new("log2", 1, 1, |_, a| of(a, f64::log2)),
    Function::new("mod", 2, 2, |run, a| {
        run.calculate(Arithmetic::Mod, a.get(0), a.get(1))
    }),
    Function::new("power", 2, 2, |_, a| {
        in_domain(a, a.float(0)?.powf(a.float(1)?))
    }),
    Function::new("random", 0, 0, random),
    Function::new("round", 1, 1, |_, a| whole(a, f64::round)),
    Function::new("sin", 1, 1, |_, a| of(a, f64::sin)),
    Function::new("sinh", 1, 1, |_, a| of(a, f64::sinh)),
    Function::new("sqrt", 1, 1, |_, a| of(a, f64::sqrt)),
    Function::new("tan", 1, 1, |_, a| of(a, f64::tan)),
    Function::new("tanh", 1, 1, |_, a| of(a, f64::tanh)),
];

fn of<'e>(a: &Arguments<'_, 'e>, function: fn(f64) -> f64) -> Result<Value<'e>, Fault> {
    in_domain(a, function(a.float(0)?))
}

fn in_domain<'e>(a: &Arguments<'_, 'e>, value: f64) -> Result<Value<'e>, Fault> {
    finite(value).map_err(|_| a.out_of_range())
}

/// A rounded number, as an integer.
fn whole<'e>(a: &Arguments<'_, 'e>, round: fn(f64) -> f64) -> Result<Value<'e>, Fault> {
    match a.get(0) {
        Value::Int(value) => Ok(Value::Int(*value)),
        _ => integer(round(a.float(0)?)).map(Value::Int),
    }
}

/// The integer that a float without decimals is.
pub(super) fn integer(value: f64) -> Result<i64, Fault> {
    // 2^63, which no i64 is, and its negative, which one is.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if !(-BEYOND..BEYOND).contains(&value) {
        return Err(Fault::Overflow);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is in range")]
    Ok(value as i64)
}

/// Equality of numbers of both kinds, without conversion of texts.
fn equal<'e>(run: &mut Run<'e>, a: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let same = match (a.get(0), a.get(1)) {
        (Value::Int(_), Value::Float(_)) | (Value::Float(_), Value::Int(_)) => {
            a.float(0)?.total_cmp(&a.float(1)?).is_eq()
        }
        (left, right) => run.same(left, right)?,
    };
    Ok(Value::Bool(same))
}

/// In [0, 1): the 53 bits that a float has.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn random<'e>(run: &mut Run<'e>, _: &Arguments<'_, 'e>) -> Result<Value<'e>, Fault> {
    let bits = run.input.surroundings.random() >> 11;
    Ok(Value::Float(bits as f64 / (1_u64 << 53) as f64))
}
