//! Evaluating expressions.
//!
//! Comparison converts as EMQX does: a number and a text compare as numbers, a boolean and a text
//! as text, anything with undefined not at all.

use std::cmp::Ordering;

use super::error::Fault;
use super::functions::Arguments;
use super::run::Run;
use super::syntax::{Arithmetic, Call, Case, Comparison, Expression, Literal};
use super::value::Value;
use crate::mqtt::topic;

/// Arguments that need no allocation.
const FEW: usize = 4;

impl<'e> Run<'e> {
    /// The value of an expression.
    pub(super) fn evaluate(&mut self, expression: &'e Expression) -> Result<Value<'e>, Fault> {
        self.spend(1)?;
        match expression {
            Expression::Literal(literal) => Ok(constant(literal)),
            Expression::Path(path) => self.path(path),
            Expression::Signed(negative, of) => {
                let value = self.evaluate(of)?;
                let zero = Value::Int(0);
                match (negative, &value) {
                    (true, _) => arithmetic(Arithmetic::Subtract, &zero, &value),
                    (false, _) => arithmetic(Arithmetic::Add, &zero, &value),
                }
            }
            Expression::Arithmetic(operator, sides) => {
                let (left, right) = (self.evaluate(&sides.0)?, self.evaluate(&sides.1)?);
                self.calculate(*operator, &left, &right)
            }
            Expression::Comparison(operator, sides) => {
                let (left, right) = (self.evaluate(&sides.0)?, self.evaluate(&sides.1)?);
                self.compare(*operator, &left, &right).map(Value::Bool)
            }
            Expression::Among {
                value,
                list,
                negated,
            } => self.among(value, list, *negated),
            Expression::Not(of) => {
                let value = self.evaluate(of)?;
                Ok(Value::Bool(value == Value::Bool(false)))
            }
            Expression::And(all) => self.all_are(all, true),
            Expression::Or(any) => self.all_are(any, false),
            Expression::Call(call) => self.call(call),
            Expression::Case(case) => self.case(case),
            Expression::List(items) => {
                let values = items.iter().map(|item| self.evaluate(item));
                let values = values.collect::<Result<_, _>>()?;
                self.list(values)
            }
            Expression::Range(from, to) => {
                let length = to.saturating_sub(*from).saturating_add(1).max(0);
                self.make_values(usize::try_from(length).unwrap_or(usize::MAX))?;
                Value::list((*from..=*to).map(Value::Int).collect())
            }
            Expression::Slice(path, from, to) => self.slice(path, *from, *to),
        }
    }

    /// Whether a condition holds.
    pub(super) fn condition(&mut self, expression: &'e Expression) -> Result<bool, Fault> {
        match self.evaluate(expression)? {
            Value::Bool(holds) => Ok(holds),
            _ => Err(Fault::NotBoolean),
        }
    }

    /// Looks for the first condition that is not `so`, which settles AND and OR.
    fn all_are(&mut self, conditions: &'e [Expression], so: bool) -> Result<Value<'e>, Fault> {
        for condition in conditions {
            if self.condition(condition)? != so {
                return Ok(Value::Bool(!so));
            }
        }
        Ok(Value::Bool(so))
    }

    fn among(
        &mut self,
        value: &'e Expression,
        list: &'e [Expression],
        negated: bool,
    ) -> Result<Value<'e>, Fault> {
        let value = self.evaluate(value)?;
        for item in list {
            let item = self.evaluate(item)?;
            if self.same(&item, &value)? {
                return Ok(Value::Bool(!negated));
            }
        }
        Ok(Value::Bool(negated))
    }

    fn call(&mut self, call: &'e Call) -> Result<Value<'e>, Fault> {
        let mut few: [Value<'e>; FEW] = Default::default();
        let mut many = Vec::new();
        let count = call.arguments.len();
        if count > FEW {
            many.resize(count, Value::Undefined);
        }
        let values = if count > FEW {
            &mut many
        } else {
            few.as_mut_slice()
        };
        for (value, argument) in values.iter_mut().zip(&call.arguments) {
            *value = self.evaluate(argument)?;
        }
        let arguments = Arguments {
            name: call.function.name,
            values: values.get(..count).unwrap_or_default(),
            pattern: call.pattern.as_ref(),
        };
        (call.function.body)(self, &arguments)
    }

    fn case(&mut self, case: &'e Case) -> Result<Value<'e>, Fault> {
        let subject = case.subject.as_ref();
        let subject = subject.map(|subject| self.evaluate(subject)).transpose()?;
        for (when, then) in &case.arms {
            let when = self.evaluate(when)?;
            let chosen = match &subject {
                Some(subject) => self.same(subject, &when)?,
                None => when == Value::Bool(true),
            };
            if chosen {
                return self.evaluate(then);
            }
        }
        let otherwise = case.otherwise.as_ref();
        otherwise.map_or(Ok(Value::Undefined), |otherwise| self.evaluate(otherwise))
    }

    /// Strict equality, paid for.
    pub(super) fn same(&mut self, left: &Value<'e>, right: &Value<'e>) -> Result<bool, Fault> {
        self.look(left.weight().min(right.weight()))?;
        Ok(left == right)
    }

    /// `left operator right` of numbers, or the concatenation of texts.
    pub(super) fn calculate(
        &mut self,
        operator: Arithmetic,
        left: &Value<'e>,
        right: &Value<'e>,
    ) -> Result<Value<'e>, Fault> {
        if let (Arithmetic::Add, Value::Text(left), Value::Text(right)) = (operator, left, right) {
            self.make(left.bytes().len() + right.bytes().len())?;
            return Ok(Value::Text([left.bytes(), right.bytes()].concat().into()));
        }
        arithmetic(operator, left, right)
    }

    /// Whether `left operator right` holds.
    pub(super) fn compare(
        &mut self,
        operator: Comparison,
        left: &Value<'e>,
        right: &Value<'e>,
    ) -> Result<bool, Fault> {
        self.look(left.weight().min(right.weight()))?;
        if operator == Comparison::Topic {
            return match (left, right) {
                (Value::Text(name), Value::Text(filter)) => {
                    Ok(topic_matches(filter.bytes(), name.bytes()))
                }
                (Value::Undefined, _) | (_, Value::Undefined) => Ok(false),
                _ => Err(Fault::Type("=~")),
            };
        }
        if matches!((left, right), (Value::Undefined, _) | (_, Value::Undefined)) {
            let both = left == right;
            return Ok(match operator {
                Comparison::Unequal => !both,
                Comparison::Equal | Comparison::AtMost | Comparison::AtLeast => both,
                _ => false,
            });
        }
        let order = converted(left, right)?;
        Ok(match operator {
            Comparison::Equal => order.is_eq(),
            Comparison::Unequal => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::Greater => order.is_gt(),
            Comparison::AtMost => order.is_le(),
            _ => order.is_ge(),
        })
    }
}

/// Whether a filter matches a topic; bytes that are no UTF-8 are neither.
pub(super) fn topic_matches(filter: &[u8], name: &[u8]) -> bool {
    let texts = (str::from_utf8(filter), str::from_utf8(name));
    matches!(texts, (Ok(filter), Ok(name)) if topic::matches(filter, name))
}

fn constant(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Float(value) => Value::Float(*value),
        Literal::Text(text) => Value::text(text),
    }
}

/// The order of two values after conversion, neither of them undefined.
fn converted(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Fault> {
    let number = |text: &Value<'_>| text_as_number(text).ok_or(Fault::Type("comparison"));
    match (left, right) {
        (Value::Int(_) | Value::Float(_), Value::Text(_)) => Ok(order(left, &number(right)?)),
        (Value::Text(_), Value::Int(_) | Value::Float(_)) => Ok(order(&number(left)?, right)),
        (Value::Bool(_) | Value::Null, Value::Text(text)) => {
            Ok(word(left).as_bytes().cmp(text.bytes()))
        }
        (Value::Text(text), Value::Bool(_) | Value::Null) => {
            Ok(text.bytes().cmp(word(right).as_bytes()))
        }
        _ => Ok(order(left, right)),
    }
}

fn text_as_number(value: &Value<'_>) -> Option<Value<'static>> {
    let Value::Text(text) = value else {
        return None;
    };
    parse_number(str::from_utf8(text.bytes()).ok()?)
}

/// An integer, or else a finite float.
pub(super) fn parse_number(text: &str) -> Option<Value<'static>> {
    if let Ok(value) = text.parse() {
        return Some(Value::Int(value));
    }
    let numeric = text.bytes().any(|byte| byte.is_ascii_digit());
    let value: f64 = text.parse().ok().filter(|_| numeric)?;
    value.is_finite().then_some(Value::Float(value))
}

fn word(value: &Value<'_>) -> &'static str {
    match value {
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        _ => "null",
    }
}

/// Numbers, then words, maps, lists, texts.
fn order(left: &Value<'_>, right: &Value<'_>) -> Ordering {
    let rank = |value: &Value<'_>| match value {
        Value::Int(_) | Value::Float(_) => 0,
        Value::Bool(_) | Value::Null | Value::Undefined => 1,
        Value::Map(_) => 2,
        Value::List(_) => 3,
        Value::Text(_) => 4,
    };
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            // Values hold no NaN.
            as_float(left)
                .partial_cmp(&as_float(right))
                .unwrap_or(Ordering::Equal)
        }
        (Value::Text(left), Value::Text(right)) => left.bytes().cmp(right.bytes()),
        (Value::List(left), Value::List(right)) => {
            let pairs = left.items().iter().zip(right.items());
            let mut orders = pairs.map(|(left, right)| order(left, right));
            let first = orders.find(|order| order.is_ne());
            first.unwrap_or_else(|| left.items().len().cmp(&right.items().len()))
        }
        (Value::Map(_), Value::Map(_)) if left == right => Ordering::Equal,
        (Value::Map(left), Value::Map(right)) => {
            let lengths = left.entries().len().cmp(&right.entries().len());
            // Unequal maps of one size have no order worth a name, but they are not equal.
            lengths.then(Ordering::Less)
        }
        _ if rank(left) == 1 && rank(right) == 1 => word(left).cmp(word(right)),
        _ => rank(left).cmp(&rank(right)),
    }
}

#[expect(clippy::cast_precision_loss, reason = "as the language has it")]
fn as_float(value: &Value<'_>) -> f64 {
    match value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        _ => 0.0,
    }
}

/// `left operator right` of two numbers.
pub(super) fn arithmetic<'e>(
    operator: Arithmetic,
    left: &Value<'_>,
    right: &Value<'_>,
) -> Result<Value<'e>, Fault> {
    let of = operator.sign();
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            let zero = *right == 0;
            let value = match operator {
                Arithmetic::Add => left.checked_add(*right),
                Arithmetic::Subtract => left.checked_sub(*right),
                Arithmetic::Multiply => left.checked_mul(*right),
                _ if zero => return Err(Fault::DivisionByZero),
                Arithmetic::Div => left.checked_div(*right),
                Arithmetic::Mod => left.checked_rem(*right),
                Arithmetic::Divide => {
                    return finite(as_float(&Value::Int(*left)) / as_float(&Value::Int(*right)));
                }
            };
            value.map(Value::Int).ok_or(Fault::Overflow)
        }
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => {
            let (left, right) = (as_float(left), as_float(right));
            match operator {
                Arithmetic::Add => finite(left + right),
                Arithmetic::Subtract => finite(left - right),
                Arithmetic::Multiply => finite(left * right),
                Arithmetic::Divide if right == 0.0 => Err(Fault::DivisionByZero),
                Arithmetic::Divide => finite(left / right),
                Arithmetic::Div | Arithmetic::Mod => Err(Fault::Type(of)),
            }
        }
        _ => Err(Fault::Type(of)),
    }
}

/// A result that is a number.
pub(super) fn finite<'e>(value: f64) -> Result<Value<'e>, Fault> {
    value
        .is_finite()
        .then_some(Value::Float(value))
        .ok_or(Fault::Overflow)
}
