//! Domain wildcards as lists of the configuration hold them (clash-api.md 3.2), and what such lists
//! may hold besides.

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Remark, Warnings};
use crate::dns::domain_set::DomainSet;

/// What [`domain_pattern`] takes.
pub(super) const PATTERN_EXPECTED: &str = "a domain name or wildcard (a.b, *.b, .b, +.b)";

/// A wildcard in lower case.
pub(super) fn domain_pattern(text: &str) -> Option<Box<str>> {
    let lower = text.to_lowercase();
    DomainSet::accepts(&lower).then(|| lower.into())
}

/// An item of a list of wildcards; `None` with a warning for `geosite:` and `rule-set:`.
pub(super) fn pattern_or_set(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Box<str>>, ConfigError> {
    let text = item.text()?;
    if is_set(text) {
        warnings.note(item, Remark::ValueNotImplemented(Excerpt::of(text)));
        return Ok(None);
    }
    item.parse(PATTERN_EXPECTED, domain_pattern).map(Some)
}

/// Whether a list's item names a set of geo data or a rule provider.
pub(super) fn is_set(text: &str) -> bool {
    ["geosite:", "geoip:", "rule-set:"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}
