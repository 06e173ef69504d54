//! `proxy-providers:` (clash-api.md 3.10), read in weak style as mihomo does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex_lite::RegexBuilder;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::general::interface;
use super::groups::{filters, status_ranges, test_url};
use super::proxies::ip_version;
use super::rule_providers::download;
use super::section::Section;
use super::subscription::{Overrides, Subscription};
use crate::outbound::options::TestOptions;
use crate::provider::options::Source;
use crate::provider::proxy::ProxyProviderOptions;

/// The provider that the API makes of the file's own proxies.
const RESERVED: &str = "default";

/// Keys of mihomo's that are not served yet.
const OTHER_KEYS: &[&str] = &["age-secret-key"];

/// Keys of `override` that concern nothing that headgate speaks.
const OTHER_OVERRIDES: &[&str] = &[
    "mptcp",
    "udp-over-tcp",
    "up",
    "down",
    "name-cert-verify",
    "override-expr",
];

/// The interval of an enabled check that says nothing, and the time-out.
const INTERVAL: Duration = Duration::from_secs(300);

/// The section, in the order of the file.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Vec<ProxyProviderOptions>, ConfigError> {
    let Some(providers) = section.take("proxy-providers") else {
        return Ok(Vec::new());
    };
    providers
        .entries()?
        .map(|(name, entry)| provider(name, &entry.weak(), warnings))
        .collect()
}

fn provider(
    name: &str,
    entry: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<ProxyProviderOptions, ConfigError> {
    if name == RESERVED {
        return Err(entry.fail(Reason::BuiltinName(Excerpt::of(name))));
    }
    let mut section = entry.section()?;
    let subscription = Arc::new(subscription(&mut section, warnings)?);
    let payload = section.take("payload");
    let kind = section.require("type")?;
    let (mut inline, source) = match kind.text()? {
        "inline" => {
            let Some(payload) = &payload else {
                return Err(entry.missing("payload", Reason::Missing));
            };
            // What is written here is the owner's: a mistake in it is an error, not passed over.
            let nodes = payload.items()?;
            let nodes = nodes.map(|node| super::proxies::decode(&node, warnings));
            let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
            (nodes, Source::Inline(Arc::default()))
        }
        "file" => (
            Vec::new(),
            Source::File(PathBuf::from(section.require("path")?.text()?)),
        ),
        "http" => (
            Vec::new(),
            Source::Http(Box::new(download(&mut section, warnings)?)),
        ),
        other => return Err(kind.fail(Reason::Unknown("provider type", Excerpt::of(other)))),
    };
    subscription.choose(&mut inline);
    let options = ProxyProviderOptions {
        name: name.into(),
        source,
        interval: Duration::from_secs(section.number("interval", 0)?.into()),
        size_limit: section.number("size-limit", 0)?.into(),
        test: health_check(&mut section, warnings)?,
        inline: inline.into(),
        reader: subscription,
    };
    // Keys of the other types mean nothing here, as in mihomo.
    for key in ["path", "url", "proxy", "header"] {
        section.take(key);
    }
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(options)
}

/// `health-check`; without it, or when it is not enabled, there are no periodic tests.
fn health_check(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<TestOptions, ConfigError> {
    let absent = TestOptions::default();
    let Some(check) = section.take("health-check") else {
        return Ok(absent);
    };
    let mut section = check.section()?;
    let enabled = section.boolean("enable", false)?;
    let interval = match section.number("interval", 0)? {
        _ if !enabled => Duration::ZERO,
        0 => INTERVAL,
        seconds => Duration::from_secs(seconds.min(86_400).into()),
    };
    let timeout = match section.number("timeout", 0)? {
        0 => absent.timeout,
        milliseconds => Duration::from_millis(milliseconds.min(86_400_000).into()),
    };
    let options = TestOptions {
        url: test_url(&mut section)?.unwrap_or(absent.url),
        expected: status_ranges(&mut section)?.unwrap_or(absent.expected),
        interval,
        timeout,
        lazy: section.boolean("lazy", absent.lazy)?,
        failures_max: absent.failures_max,
    };
    section.finish(warnings);
    Ok(options)
}

fn subscription(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Subscription, ConfigError> {
    let types = section.text("exclude-type")?.unwrap_or_default();
    let types = types.split('|').map(str::trim).filter(|t| !t.is_empty());
    let mut subscription = Subscription {
        filter: filters(section.take("filter"))?,
        exclude: filters(section.take("exclude-filter"))?,
        exclude_types: types.map(|kind| kind.to_ascii_lowercase().into()).collect(),
        overrides: Overrides::default(),
    };
    if let Some(overrides) = section.take("override") {
        let mut section = overrides.section()?;
        subscription.overrides = read_overrides(&mut section)?;
        section.not_implemented(OTHER_OVERRIDES, warnings);
        section.finish(warnings);
    }
    let dialer = &mut subscription.overrides.dialer_proxy;
    // The old place of the key.
    *dialer = dialer.take().or(section.text("dialer-proxy")?);
    Ok(subscription)
}

fn read_overrides(section: &mut Section<'_>) -> Result<Overrides, ConfigError> {
    let mut flag = |key| section.take(key).map(|value| value.boolean()).transpose();
    let (udp, fast_open) = (flag("udp")?, flag("tfo")?);
    let skip_verify = flag("skip-cert-verify")?;
    let mark = section.number("routing-mark", 0)?;
    Ok(Overrides {
        udp,
        fast_open,
        skip_verify,
        dialer_proxy: section.text("dialer-proxy")?,
        interface: interface(section, "interface-name")?,
        mark: Some(mark).filter(|&mark| mark != 0),
        ip_version: ip_version(section)?,
        prefix: section.text("additional-prefix")?.unwrap_or_default(),
        suffix: section.text("additional-suffix")?.unwrap_or_default(),
        names: section.list("proxy-name", |item| {
            let mut section = item.section()?;
            let pattern = section.require("pattern")?;
            let pattern = pattern.parse("a regular expression without look-around", |text| {
                RegexBuilder::new(text).size_limit(64 * 1024).build().ok()
            })?;
            Ok((pattern, section.text("target")?.unwrap_or_default()))
        })?,
    })
}
