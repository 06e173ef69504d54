//! `rule-engine:`: what SQL rules may reach.

use super::error::{ConfigError, Warnings};
use super::section::Section;
use crate::rule_engine::options::Options;

const ALLOWED: &str =
    "a host, *.domain, an address or a network, each with or without :port (hooks.example.org:443)";

/// Takes `rule-engine`.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let Some(found) = section.take("rule-engine") else {
        return Ok(Options::default());
    };
    let mut section = found.section()?;
    let options = Options {
        webhook_allow: section.list("webhook-allow", |item| {
            item.parse(ALLOWED, |text| text.parse().ok())
        })?,
    };
    section.finish(warnings);
    Ok(options)
}
