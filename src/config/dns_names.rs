//! What `dns:` says of names: policies, filters, the fallback's conditions (clash-api.md 3.2).
//!
//! A set of geo data or of a rule provider is asked by the rule of the same meaning, so it is whatever
//! the rules make of it.

use std::sync::Arc;

use super::OTHER_RULE_TYPES;
use super::decode::Cursor;
use super::domain::{PATTERN_EXPECTED, domain_pattern};
use super::error::{ConfigError, Excerpt, Ignored, Reason, Warnings};
use super::nameserver;
use super::section::Section;
use crate::dns::names::Item;
use crate::dns::options::{FakeIpFilter, FallbackOptions, FilterRule, PolicyEntry};
use crate::rules::{Library, RuleError, RuleLine};

/// What Windows asks to see whether it is online: real addresses unless `fake-ip-filter` is given.
const FILTER_ABSENT: [&str; 3] = [
    "dns.msftncsi.com",
    "www.msftncsi.com",
    "www.msftconnecttest.com",
];

/// Schemes of sets and the rules that ask them.
const SETS: &[(&str, &str)] = &[("geosite:", "GEOSITE"), ("rule-set:", "RULE-SET")];

/// A policy: whom to ask for which names, in file order. An entry of which no name is left is left out.
pub(super) fn policy(
    section: &mut Section<'_>,
    key: &'static str,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Vec<PolicyEntry>, ConfigError> {
    let Some(policy) = section.take(key) else {
        return Ok(Vec::new());
    };
    let mut entries = Vec::new();
    for (names, value) in policy.entries()? {
        let names = items(&value, names, library, warnings)?;
        let servers = nameserver::decode(&value.weak(), warnings)?;
        if servers.is_empty() {
            return Err(value.expected("at least one nameserver"));
        }
        if !names.is_empty() {
            entries.push(PolicyEntry { names, servers });
        }
    }
    Ok(entries)
}

/// `fake-ip-filter` by `fake-ip-filter-mode`.
pub(super) fn fake_ip_filter(
    section: &mut Section<'_>,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<FakeIpFilter, ConfigError> {
    let mode = section.take("fake-ip-filter-mode");
    let mode = match &mode {
        Some(at) => at.parse("blacklist, whitelist or rule", |text| {
            ["blacklist", "whitelist", "rule"]
                .into_iter()
                .find(|mode| *mode == text)
        })?,
        None => "blacklist",
    };
    let list = section.take("fake-ip-filter");
    if mode == "rule" {
        let mut rules = Vec::new();
        if let Some(list) = &list {
            for item in list.items()? {
                rules.extend(filter_rule(&item, library, warnings)?);
            }
        }
        return Ok(FakeIpFilter::Rules(rules));
    }
    let names = match &list {
        Some(list) => list_of(list, library, warnings)?,
        None => FILTER_ABSENT.map(Item::from).into(),
    };
    Ok(match mode {
        "whitelist" => FakeIpFilter::Whitelist(names),
        _ => FakeIpFilter::Blacklist(names),
    })
}

/// `TYPE,payload,fake-ip|real-ip`.
fn filter_rule(
    item: &Cursor<'_>,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Option<FilterRule>, ConfigError> {
    let Some(line) = rule(item, item.text()?, library, warnings)? else {
        return Ok(None);
    };
    let real = match &*line.target {
        "real-ip" => true,
        "fake-ip" => false,
        _ => return Err(item.expected("a rule that ends in fake-ip or real-ip")),
    };
    Ok(Some(FilterRule {
        matcher: Arc::clone(line.matcher()),
        real,
    }))
}

/// `fallback-filter` and `fallback-lazy-query`.
pub(super) fn fallback_filter(
    section: &mut Section<'_>,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<FallbackOptions, ConfigError> {
    let lazy = section.boolean("fallback-lazy-query", false)?;
    let Some(fallback) = section.take("fallback") else {
        // Without servers the filter has no effect.
        section.take("fallback-filter");
        return Ok(FallbackOptions::default());
    };
    let mut options = FallbackOptions {
        lazy,
        ..FallbackOptions::default()
    };
    let filter = section.take("fallback-filter");
    let (mut geoip, mut country, mut at) = (true, None, fallback);
    if let Some(filter) = &filter {
        let mut filter = filter.section()?;
        geoip = filter.boolean("geoip", true)?;
        country = filter.text("geoip-code")?;
        options.refused = filter.prefixes("ipcidr")?;
        if let Some(names) = filter.take("domain") {
            options.names = list_of(&names, library, warnings)?;
        }
        if let Some(sets) = filter.take("geosite") {
            for set in sets.items()? {
                let line = format!("GEOSITE,{},x", set.text()?);
                let line = rule(&set, &line, library, warnings)?;
                options
                    .names
                    .extend(line.map(|line| Item::Set(Arc::clone(line.matcher()))));
            }
        }
        filter.finish(warnings);
    }
    if geoip {
        if let Some(filter) = filter {
            at = filter;
        }
        let line = format!("GEOIP,{},x", country.as_deref().unwrap_or("CN"));
        let line = rule(&at, &line, library, warnings)?;
        options.home = line.map(|line| Arc::clone(line.matcher()));
    }
    Ok(options)
}

/// `rebind-protection` with `rebind-allow`.
pub(super) fn rebind(
    section: &mut Section<'_>,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Option<Vec<Item>>, ConfigError> {
    let on = section.boolean("rebind-protection", false)?;
    let allowed = match section.take("rebind-allow") {
        Some(list) => list_of(&list, library, warnings)?,
        None => Vec::new(),
    };
    Ok(on.then_some(allowed))
}

fn list_of(
    list: &Cursor<'_>,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Vec<Item>, ConfigError> {
    let mut all = Vec::new();
    for item in list.items()? {
        all.extend(items(&item, item.text()?, library, warnings)?);
    }
    Ok(all)
}

/// Domain wildcards with commas between them, or a scheme and names of sets. `at`: where it stands.
fn items(
    at: &Cursor<'_>,
    text: &str,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Vec<Item>, ConfigError> {
    let set = SETS.iter().find_map(|(scheme, kind)| {
        let begins = text.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        begins.then(|| (text.get(scheme.len()..).unwrap_or_default(), *kind))
    });
    let (names, kind) = set.map_or((text, None), |(names, kind)| (names, Some(kind)));
    let mut found = Vec::new();
    for name in names.split(',').map(str::trim) {
        found.extend(match kind {
            Some(kind) => {
                let line = rule(at, &format!("{kind},{name},x"), library, warnings)?;
                line.map(|line| Item::Set(Arc::clone(line.matcher())))
            }
            None => match domain_pattern(name) {
                Some(pattern) => Some(Item::Pattern(pattern)),
                None => {
                    return Err(at.fail(Reason::Value {
                        expected: PATTERN_EXPECTED,
                        found: Excerpt::of(name),
                    }));
                }
            },
        });
    }
    Ok(found)
}

/// A rule; `None` with a warning when its type is not served yet.
fn rule(
    at: &Cursor<'_>,
    line: &str,
    library: &Library,
    warnings: &mut Warnings,
) -> Result<Option<RuleLine>, ConfigError> {
    match RuleLine::parse_in(line, library) {
        Ok(line) => Ok(Some(line)),
        Err(RuleError::UnknownType(kind)) if OTHER_RULE_TYPES.contains(&&*kind) => {
            let what = line.strip_suffix(",x").unwrap_or(line);
            warnings.note(at, Ignored::ValueNotImplemented(Excerpt::of(what)));
            Ok(None)
        }
        Err(why) => Err(at.fail(Reason::Rule(why))),
    }
}
