//! `sniffer:` (clash-api.md 3.4), with the older `sniffing` and `port-whitelist`.

use super::decode::Cursor;
use super::domain::{is_set, pattern_or_set};
use super::error::{ConfigError, Excerpt, Reason, Remark, Warnings};
use super::section::Section;
use crate::prefix::Prefix;
use crate::sniff::{Options, ProtocolOptions};

/// Takes `sniffer` from the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let mut options = Options::default();
    let Some(sniffer) = section.take("sniffer") else {
        return Ok(options);
    };
    let mut section = sniffer.section()?;
    options.enable = section.boolean("enable", options.enable)?;
    let override_destination = section.boolean("override-destination", true)?;
    let sniff = section.take("sniff");
    let old = (section.take("sniffing"), section.take("port-whitelist"));
    let mut any = false;
    if let Some(sniff) = &sniff {
        for (name, value) in sniff.entries()? {
            any = true;
            let protocol = protocol(&value, override_destination, warnings)?;
            *sniffer_of(&mut options, name, &value)? = Some(protocol);
        }
    }
    if let ((Some(list), ports), false) = (&old, any) {
        let ports = ports.as_ref().map_or(Ok(Vec::new()), port_ranges)?;
        for item in list.items()? {
            *sniffer_of(&mut options, item.text()?, &item)? = Some(ProtocolOptions {
                ports: ports.clone(),
                override_destination,
            });
        }
    }
    options.force_dns_mapping = section.boolean("force-dns-mapping", options.force_dns_mapping)?;
    options.parse_pure_ip = section.boolean("parse-pure-ip", options.parse_pure_ip)?;
    options.force_domain = patterns(&mut section, "force-domain", warnings)?;
    options.skip_domain = patterns(&mut section, "skip-domain", warnings)?;
    options.skip_source = prefixes(&mut section, "skip-src-address", warnings)?;
    options.skip_destination = prefixes(&mut section, "skip-dst-address", warnings)?;
    section.finish(warnings);
    Ok(options)
}

fn sniffer_of<'o>(
    options: &'o mut Options,
    name: &str,
    at: &Cursor<'_>,
) -> Result<&'o mut Option<ProtocolOptions>, ConfigError> {
    match name.to_ascii_lowercase().as_str() {
        "tls" => Ok(&mut options.tls),
        "http" => Ok(&mut options.http),
        "quic" => Ok(&mut options.quic),
        _ => Err(at.fail(Reason::Unknown("sniffer", Excerpt::of(name)))),
    }
}

/// The value of one sniffer; empty switches it on for every port.
fn protocol(
    value: &Cursor<'_>,
    override_destination: bool,
    warnings: &mut Warnings,
) -> Result<ProtocolOptions, ConfigError> {
    let mut options = ProtocolOptions {
        ports: Vec::new(),
        override_destination,
    };
    if value.is_absent() {
        return Ok(options);
    }
    let mut section = value.section()?;
    if let Some(ports) = section.take("ports") {
        options.ports = port_ranges(&ports)?;
    }
    options.override_destination = section.boolean("override-destination", override_destination)?;
    section.finish(warnings);
    Ok(options)
}

/// A list of `80` and `8000-9000`, which one item may join by `/` or `,`.
fn port_ranges(list: &Cursor<'_>) -> Result<Vec<(u16, u16)>, ConfigError> {
    let mut ranges = Vec::new();
    for item in list.items()? {
        for part in item.text()?.split(['/', ',']) {
            let range = port_range(part.trim());
            ranges.push(range.ok_or_else(|| item.expected("ports (80, 8000-9000)"))?);
        }
    }
    Ok(ranges)
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

fn patterns(
    section: &mut Section<'_>,
    key: &'static str,
    warnings: &mut Warnings,
) -> Result<Vec<Box<str>>, ConfigError> {
    let items = section.list(key, |item| pattern_or_set(item, warnings))?;
    Ok(items.into_iter().flatten().collect())
}

fn prefixes(
    section: &mut Section<'_>,
    key: &'static str,
    warnings: &mut Warnings,
) -> Result<Vec<Prefix>, ConfigError> {
    let items = section.list(key, |item| {
        let text = item.text()?;
        if is_set(text) {
            warnings.note(item, Remark::ValueNotImplemented(Excerpt::of(text)));
            return Ok(None);
        }
        item.prefix().map(Some)
    })?;
    Ok(items.into_iter().flatten().collect())
}
