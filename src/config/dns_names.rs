//! What `dns:` says of names: policies, filters, the fallback's conditions (clash-api.md 3.2).
//!
//! A set of geo data or of a rule provider is asked by the rule of the same meaning, so it is whatever
//! the rules make of it.

use std::sync::Arc;

use super::decode::Cursor;
use super::domain::{PATTERN_EXPECTED, domain_pattern};
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::geodata::GeoUses;
use super::nameserver;
use super::rules;
use super::section::Section;
use crate::dns::names::Item;
use crate::dns::options::{FakeIpFilter, FallbackOptions, FilterRule, PolicyEntry};
use crate::rules::{Library, RuleLine};

/// What Windows asks to see whether it is online: real addresses unless `fake-ip-filter` is given.
const FILTER_ABSENT: [&str; 3] = [
    "dns.msftncsi.com",
    "www.msftncsi.com",
    "www.msftconnecttest.com",
];

/// What names of sets lead to.
pub(super) struct Sets<'a> {
    /// Rule providers and geodata.
    pub library: &'a Library,
    /// Where geodata is asked for.
    pub uses: &'a mut GeoUses,
}

/// Schemes of sets and the rules that ask them.
const SETS: &[(&str, &str)] = &[("geosite:", "GEOSITE"), ("rule-set:", "RULE-SET")];

/// A policy: whom to ask for which names, in file order.
pub(super) fn policy(
    section: &mut Section<'_>,
    key: &'static str,
    sets: &mut Sets<'_>,
    warnings: &mut Warnings,
) -> Result<Vec<PolicyEntry>, ConfigError> {
    let Some(policy) = section.take(key) else {
        return Ok(Vec::new());
    };
    let mut entries = Vec::new();
    for (names, value) in policy.entries()? {
        let names = items(&value, names, sets)?;
        let servers = nameserver::decode(&value.weak(), warnings)?;
        if servers.is_empty() {
            return Err(value.expected("at least one nameserver"));
        }
        entries.push(PolicyEntry { names, servers });
    }
    Ok(entries)
}

/// `fake-ip-filter` by `fake-ip-filter-mode`.
pub(super) fn fake_ip_filter(
    section: &mut Section<'_>,
    sets: &mut Sets<'_>,
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
                rules.push(filter_rule(&item, sets)?);
            }
        }
        return Ok(FakeIpFilter::Rules(rules));
    }
    let names = match &list {
        Some(list) => list_of(list, sets)?,
        None => FILTER_ABSENT.map(Item::from).into(),
    };
    Ok(match mode {
        "whitelist" => FakeIpFilter::Whitelist(names),
        _ => FakeIpFilter::Blacklist(names),
    })
}

/// `TYPE,payload,fake-ip|real-ip`.
fn filter_rule(item: &Cursor<'_>, sets: &mut Sets<'_>) -> Result<FilterRule, ConfigError> {
    let line = rule(item, item.text()?, sets)?;
    let real = match &*line.target {
        "real-ip" => true,
        "fake-ip" => false,
        _ => return Err(item.expected("a rule that ends in fake-ip or real-ip")),
    };
    Ok(FilterRule {
        matcher: Arc::clone(line.matcher()),
        real,
    })
}

/// `fallback-filter` and `fallback-lazy-query`.
pub(super) fn fallback_filter(
    section: &mut Section<'_>,
    sets: &mut Sets<'_>,
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
            options.names = list_of(&names, sets)?;
        }
        if let Some(list) = filter.take("geosite") {
            for set in list.items()? {
                options
                    .names
                    .push(named(&set, "GEOSITE", set.text()?, sets)?);
            }
        }
        filter.finish(warnings);
    }
    if geoip {
        if let Some(filter) = filter {
            at = filter;
        }
        let line = format!("GEOIP,{},x", country.as_deref().unwrap_or("CN"));
        options.home = Some(Arc::clone(rule(&at, &line, sets)?.matcher()));
    }
    Ok(options)
}

/// `rebind-protection` with `rebind-allow`.
pub(super) fn rebind(
    section: &mut Section<'_>,
    sets: &mut Sets<'_>,
) -> Result<Option<Vec<Item>>, ConfigError> {
    let on = section.boolean("rebind-protection", false)?;
    let allowed = match section.take("rebind-allow") {
        Some(list) => list_of(&list, sets)?,
        None => Vec::new(),
    };
    Ok(on.then_some(allowed))
}

fn list_of(list: &Cursor<'_>, sets: &mut Sets<'_>) -> Result<Vec<Item>, ConfigError> {
    let mut all = Vec::new();
    for item in list.items()? {
        all.extend(items(&item, item.text()?, sets)?);
    }
    Ok(all)
}

/// Domain wildcards with commas between them, or a scheme and names of sets. `at`: where it stands.
fn items(at: &Cursor<'_>, text: &str, sets: &mut Sets<'_>) -> Result<Vec<Item>, ConfigError> {
    let set = SETS.iter().find_map(|(scheme, kind)| {
        let begins = text.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        begins.then(|| (text.get(scheme.len()..).unwrap_or_default(), *kind))
    });
    let (names, kind) = set.map_or((text, None), |(names, kind)| (names, Some(kind)));
    let mut found = Vec::new();
    for name in names.split(',').map(str::trim) {
        found.push(match (kind, domain_pattern(name)) {
            (Some(kind), _) => named(at, kind, name, sets)?,
            (None, Some(pattern)) => Item::Pattern(pattern),
            (None, None) => {
                return Err(at.fail(Reason::Value {
                    expected: PATTERN_EXPECTED,
                    found: Excerpt::of(name),
                }));
            }
        });
    }
    Ok(found)
}

fn named(
    at: &Cursor<'_>,
    kind: &str,
    name: &str,
    sets: &mut Sets<'_>,
) -> Result<Item, ConfigError> {
    let line = rule(at, &format!("{kind},{name},x"), sets)?;
    Ok(Item::Set(Arc::clone(line.matcher())))
}

/// A rule that asks a set, or a line of the filter.
fn rule(at: &Cursor<'_>, line: &str, sets: &mut Sets<'_>) -> Result<RuleLine, ConfigError> {
    let parsed = RuleLine::parse_in(line, sets.library);
    let line = parsed.map_err(|why| at.fail(rules::reason(why)))?;
    sets.uses.note(at);
    Ok(line)
}
