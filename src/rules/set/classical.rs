//! Entries of a set of rules: `TYPE,payload[,no-resolve][,src]`, without a target.

use crate::rules::line::parse_part;
use crate::rules::matcher::Payload;
use crate::rules::{Form, Library, PayloadError, RuleError, RuleLine};

/// Reads an entry, for which `library` has geodata and no sets. MATCH, RULE-SET and SUB-RULE are
/// none, as in mihomo.
pub(super) fn entry(text: &str, library: &Library) -> Result<RuleLine, RuleError> {
    let outer = Payload {
        text,
        no_resolve: false,
        source: false,
        depth: 0,
        target: "",
        library,
    };
    let (row, condition) = parse_part(text.trim(), &outer)?;
    if row.form == Form::NoPayload {
        return Err(RuleError::Payload {
            kind: row.name,
            payload: Box::default(),
            why: PayloadError::NotAPart(row.name),
        });
    }
    Ok(RuleLine::without_target(condition))
}
