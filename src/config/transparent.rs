//! `transparent:`, headgate's own section (contract).

use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::general::{INTERFACE_EXPECTED, interface_name};
use super::scalar;
use super::section::Section;
use crate::netfilter::options::{Fail, Mark, Mode, Options};

/// The tables of rtnetlink that are not ours to fill: default, main and local.
const KERNEL_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

/// The rule of the main table stands at 32766; behind it nothing would be reached.
const PRIORITY_MAX: u32 = 32765;

/// Takes `transparent` from the top level. `dns`: whether our DNS server answers.
pub(super) fn decode(
    section: &mut Section<'_>,
    dns: bool,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let mut options = Options::default();
    let Some(transparent) = section.take("transparent") else {
        return Ok(options);
    };
    let mut section = transparent.section()?;
    options.enable = section.boolean("enable", options.enable)?;
    if let Some(mode) = section.take("mode") {
        options.mode = mode.parse("tproxy or redirect", |text| match text {
            "tproxy" => Some(Mode::TProxy),
            "redirect" => Some(Mode::Redirect),
            _ => None,
        })?;
    }
    let interfaces = section.take("interfaces");
    if let Some(list) = &interfaces {
        options.interfaces = list
            .items()?
            .map(|item| item.parse(INTERFACE_EXPECTED, interface_name))
            .collect::<Result<_, _>>()?;
    }
    options.ipv4 = section.boolean("ipv4", options.ipv4)?;
    options.ipv6 = section.boolean("ipv6", options.ipv6)?;
    options.router_traffic = section.boolean("router-traffic", options.router_traffic)?;
    if let Some(fail) = section.take("fail") {
        options.fail = fail.parse("open or closed", |text| match text {
            "open" => Some(Fail::Open),
            "closed" => Some(Fail::Closed),
            _ => None,
        })?;
    }
    options.offload = section.boolean("offload", options.offload)?;
    hijack(&mut section, dns, &mut options)?;
    options.bypass = section.prefixes("bypass")?;
    bypass_source(&mut section, &mut options)?;
    numbers(&mut section, &mut options)?;
    if options.enable {
        let captured = options.router_traffic || !options.interfaces.is_empty();
        if !captured || !(options.ipv4 || options.ipv6) {
            let at = interfaces.as_ref().unwrap_or(&transparent);
            return Err(at.fail(Reason::NothingToCapture));
        }
    }
    section.finish(warnings);
    Ok(options)
}

/// Hijacking is the default, but not without anybody to answer.
fn hijack(section: &mut Section<'_>, dns: bool, options: &mut Options) -> Result<(), ConfigError> {
    let hijack = section.take("dns-hijack");
    options.dns_hijack = match &hijack {
        Some(value) => value.boolean()?,
        None => dns,
    };
    match hijack {
        Some(value) if options.enable && options.dns_hijack && !dns => {
            Err(value.fail(Reason::HijackWithoutDns))
        }
        _ => Ok(()),
    }
}

/// `bypass-source` mixes prefixes and Ethernet addresses.
fn bypass_source(section: &mut Section<'_>, options: &mut Options) -> Result<(), ConfigError> {
    let Some(list) = section.take("bypass-source") else {
        return Ok(());
    };
    for item in list.items()? {
        let text = item.text()?;
        if let Ok(mac) = text.parse() {
            options.bypass_source_mac.push(mac);
        } else if let Ok(prefix) = text.parse() {
            options.bypass_source.push(prefix);
        } else {
            return Err(item.expected("an address prefix or a MAC address"));
        }
    }
    Ok(())
}

fn numbers(section: &mut Section<'_>, options: &mut Options) -> Result<(), ConfigError> {
    if let Some(at) = section.take("mark") {
        options.mark = mark(&at)?;
    }
    if let Some(at) = section.take("table") {
        const EXPECTED: &str = "a routing table (1 to 4294967295, not 253 to 255)";
        options.table = at.integer(1..=u32::MAX, EXPECTED)?;
        if KERNEL_TABLES.contains(&options.table) {
            return Err(at.expected(EXPECTED));
        }
    }
    if let Some(at) = section.take("rule-priority") {
        options.rule_priority = at.integer(1..=PRIORITY_MAX, "a priority (1 to 32765)")?;
    }
    Ok(())
}

/// `value/mask`; without a mask every bit counts.
fn mark(at: &Cursor<'_>) -> Result<Mark, ConfigError> {
    let mark = at.parse("a mark and mask (0x48000000/0xff000000)", |text| {
        let number = |text: &str| u32::try_from(scalar::integer(text)?).ok();
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (number(value)?, number(mask)?),
            None => (number(text)?, u32::MAX),
        };
        // Every packet has mark 0 until somebody sets one.
        (value != 0).then_some(Mark { value, mask })
    })?;
    if mark.value & !mark.mask != 0 {
        return Err(at.fail(Reason::MarkOutsideMask));
    }
    Ok(mark)
}
