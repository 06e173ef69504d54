//! AND, OR, NOT and MATCH.
//!
//! Parts are asked lazily and in the logic of three values: a part whose answer is open does not
//! matter when another part decides alone. `AND,((IP-CIDR,10.0.0.0/8),(DST-PORT,22))` therefore
//! resolves a name only for port 22.

use std::ops::BitOr;

use super::intervals::Intervals;
use super::line::parse_part;
use super::matcher::{Bounds, Condition, Key, Known, Matcher, Needs, Payload, Scope, Truth};
use super::{Form, PayloadError};

/// How deep parts may lie in each other; evaluation and parsing recurse that far.
pub(super) const DEPTH_MAX: u8 = 16;

/// `MATCH`: every flow.
#[derive(Debug)]
struct Always;

impl Matcher for Always {
    fn truth(&self, _known: &Known<'_>) -> Truth {
        Truth::Yes
    }

    fn key(&self) -> Key<'_> {
        Key::Always
    }
}

/// Reads `MATCH`.
pub(super) fn always(_payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    Ok(Condition::new("Match", "", Always))
}

/// `AND,((TYPE,payload),(TYPE,payload)…)`: every part matches.
#[derive(Debug)]
struct And(Box<[Condition]>);

impl Matcher for And {
    fn truth(&self, known: &Known<'_>) -> Truth {
        let mut all = Truth::Yes;
        for part in &self.0 {
            match part.matcher.truth(known) {
                Truth::No => return Truth::No,
                Truth::Unknown => all = Truth::Unknown,
                Truth::Yes => {}
            }
        }
        all
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        let all = Bounds {
            always: Intervals::all(scope.v4),
            possible: Intervals::all(scope.v4),
        };
        self.0.iter().fold(all, |sum, part| {
            let next = part.matcher.bounds(scope);
            Bounds {
                always: sum.always.intersection(&next.always),
                possible: sum.possible.intersection(&next.possible),
            }
        })
    }

    fn needs(&self) -> Needs {
        all_needs(&self.0)
    }

    fn needs_change(&self) -> bool {
        self.0.iter().any(|part| part.matcher.needs_change())
    }
}

/// What some part needs.
fn all_needs(parts: &[Condition]) -> Needs {
    let needs = parts.iter().map(|part| part.matcher.needs());
    needs.fold(Needs::default(), BitOr::bitor)
}

/// Reads `AND`.
pub(super) fn and(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let parts = parts(payload)?;
    Ok(Condition::new("AND", joined(&parts, " && "), And(parts)))
}

/// `OR,((TYPE,payload),(TYPE,payload)…)`: some part matches.
#[derive(Debug)]
struct Or(Box<[Condition]>);

impl Matcher for Or {
    fn truth(&self, known: &Known<'_>) -> Truth {
        let mut any = Truth::No;
        for part in &self.0 {
            match part.matcher.truth(known) {
                Truth::Yes => return Truth::Yes,
                Truth::Unknown => any = Truth::Unknown,
                Truth::No => {}
            }
        }
        any
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        let none = Bounds {
            always: Intervals::none(),
            possible: Intervals::none(),
        };
        self.0.iter().fold(none, |sum, part| {
            let next = part.matcher.bounds(scope);
            Bounds {
                always: sum.always.union(&next.always),
                possible: sum.possible.union(&next.possible),
            }
        })
    }

    fn needs(&self) -> Needs {
        all_needs(&self.0)
    }

    fn needs_change(&self) -> bool {
        self.0.iter().any(|part| part.matcher.needs_change())
    }
}

/// Reads `OR`.
pub(super) fn or(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let parts = parts(payload)?;
    Ok(Condition::new("OR", joined(&parts, " || "), Or(parts)))
}

/// `NOT,((TYPE,payload))`: the part does not match; so it holds for a name that cannot be
/// resolved when the part needs an address.
#[derive(Debug)]
struct Not(Condition);

impl Matcher for Not {
    fn truth(&self, known: &Known<'_>) -> Truth {
        self.0.matcher.truth(known).negated()
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        let part = self.0.matcher.bounds(scope);
        Bounds {
            always: part.possible.complement(scope.v4),
            possible: part.always.complement(scope.v4),
        }
    }

    fn needs(&self) -> Needs {
        self.0.matcher.needs()
    }

    fn needs_change(&self) -> bool {
        self.0.matcher.needs_change()
    }
}

/// Reads `NOT`.
pub(super) fn not(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let [part]: [Condition; 1] = parts(payload)?
        .into_vec()
        .try_into()
        .map_err(|_| PayloadError::OnePart)?;
    let shown = format!("(!({},{}))", part.kind, part.payload);
    Ok(Condition::new("NOT", shown, Not(part)))
}

fn joined(parts: &[Condition], operator: &str) -> String {
    let shown: Vec<_> = parts
        .iter()
        .map(|part| format!("({},{})", part.kind, part.payload))
        .collect();
    format!("({})", shown.join(operator))
}

/// Reads `((…),(…)…)`. Brackets count wherever they stand, so those of an expression must pair.
fn parts(payload: &Payload<'_>) -> Result<Box<[Condition]>, PayloadError> {
    let inner = payload.text.strip_prefix('(');
    let mut rest = inner
        .and_then(|text| text.strip_suffix(')'))
        .ok_or(PayloadError::Brackets)?
        .trim();
    let mut parts = Vec::new();
    loop {
        let (condition, behind) = take_part(rest, payload)?;
        parts.push(condition);
        match behind.trim().strip_prefix(',') {
            Some(next) => rest = next.trim(),
            None if behind.trim().is_empty() => return Ok(parts.into()),
            None => return Err(PayloadError::Brackets),
        }
    }
}

/// Reads `(TYPE,payload)`, the one condition of a SUB-RULE.
pub(super) fn single_part(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let (condition, behind) = take_part(payload.text, payload)?;
    if behind.trim().is_empty() {
        Ok(condition)
    } else {
        Err(PayloadError::Brackets)
    }
}

/// The part at the beginning of `text`, which is inside `outer`, and what follows it.
fn take_part<'t>(text: &'t str, outer: &Payload<'_>) -> Result<(Condition, &'t str), PayloadError> {
    if outer.depth >= DEPTH_MAX {
        return Err(PayloadError::TooDeep);
    }
    let (part, behind) = split_part(text).ok_or(PayloadError::Brackets)?;
    let (row, condition) =
        parse_part(part, outer).map_err(|why| PayloadError::Part(Box::new(why)))?;
    if row.form == Form::NoPayload {
        return Err(PayloadError::NotAPart(row.name));
    }
    Ok((condition, behind))
}

/// The text inside the bracket that opens here, and what follows the one that closes it.
fn split_part(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('(')?;
    let mut open = 1u32;
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((text.get(..i)?, text.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Metadata, Network};
    use crate::rules::{RuleError, RuleLine};
    use std::sync::Arc;

    fn flow(destination: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse(destination).unwrap(),
        )
    }

    #[track_caller]
    fn check(rule: &str, destination: &str, want: Truth) {
        let line = RuleLine::parse(&format!("{rule},p")).unwrap();
        let flow = flow(destination);
        assert_eq!(
            line.matcher().truth(&Known::flow(&flow, true)),
            want,
            "{rule} {destination}"
        );
    }

    #[test]
    fn a_name_is_resolved_only_when_no_other_part_decides() {
        let and = "AND,((IP-CIDR,10.0.0.0/8),(DST-PORT,22))";
        check(and, "a.b:22", Truth::Unknown);
        check(and, "a.b:23", Truth::No);
        check(and, "10.0.0.1:22", Truth::Yes);
        let or = "OR,((IP-CIDR,10.0.0.0/8),(DST-PORT,22))";
        check(or, "a.b:22", Truth::Yes);
        check(or, "a.b:23", Truth::Unknown);
        let not = "NOT,((IP-CIDR,10.0.0.0/8))";
        check(not, "a.b:22", Truth::Unknown);
        check(not, "10.0.0.1:22", Truth::No);
        check(
            "NOT,((IP-CIDR,10.0.0.0/8,no-resolve))",
            "a.b:22",
            Truth::Yes,
        );
    }

    #[test]
    fn parts_nest_and_may_hold_brackets_that_pair() {
        check(
            "AND, ((OR,((DOMAIN,x.y), (DOMAIN-REGEX,^(a|c)\\.b{1,2}$))),(NOT,((NETWORK,udp))))",
            "a.b:1",
            Truth::Yes,
        );
        let line = RuleLine::parse("NOT,((AND,((SRC-MAC,00:00:00:00:00:01)))),p").unwrap();
        assert!(line.matcher().needs().mac);
    }

    #[test]
    fn broken_parts_are_refused() {
        let why = |text: &str| match RuleLine::parse(&format!("{text},p")) {
            Err(RuleError::Payload { why, .. }) => why,
            other => panic!("{text}: {other:?}"),
        };
        for text in [
            "AND,DOMAIN",
            "AND,()",
            "OR,((DOMAIN,a)",
            "OR,(DOMAIN,a)",
            "AND,((DOMAIN,a)(DOMAIN,b))",
            "AND,((DOMAIN,a),)",
            "NOT,)(",
        ] {
            assert_eq!(why(text), PayloadError::Brackets, "{text}");
        }
        assert_eq!(why("NOT,((DOMAIN,a),(DOMAIN,b))"), PayloadError::OnePart);
        assert_eq!(why("OR,((MATCH))"), PayloadError::NotAPart("MATCH"));
        assert!(matches!(why("OR,((DOMAIN))"), PayloadError::Part(_)));
        let nested = |depth| format!("{}DOMAIN,a{}", "NOT,((".repeat(depth), "))".repeat(depth));
        assert!(RuleLine::parse(&format!("{},p", nested(16))).is_ok());
        assert!(matches!(why(&nested(17)), PayloadError::Part(_)));
    }
}
