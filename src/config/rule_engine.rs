//! `rule-engine:`: what SQL rules may reach.

use std::time::Duration;

use super::error::{ConfigError, Warnings};
use super::mqtt::duration;
use super::section::Section;
use crate::rule_engine::options::{Options, StateOptions};

const ALLOWED: &str =
    "a host, *.domain, an address or a network, each with or without :port (hooks.example.org:443)";

/// Seconds between two looks at the state, when `interval` is absent.
const INTERVAL: u32 = 10;

fn state_options(
    mut section: Section<'_>,
    warnings: &mut Warnings,
) -> Result<Option<StateOptions>, ConfigError> {
    let seconds = match section.take("interval") {
        Some(value) => value.parse("a duration from 1s to 1h (10s, 5m)", |text| {
            duration(text).filter(|seconds| (1..=3600).contains(seconds))
        })?,
        None => INTERVAL,
    };
    let enable = section.boolean("enable", true)?;
    let options = StateOptions {
        interval: Duration::from_secs(seconds.into()),
        home_assistant: section.boolean("home-assistant", false)?,
        commands: section.boolean("commands", false)?,
    };
    section.finish(warnings);
    Ok(enable.then_some(options))
}

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
        state: match section.take("state") {
            Some(state) => state_options(state.section()?, warnings)?,
            None => None,
        },
    };
    section.finish(warnings);
    Ok(options)
}
