//! `proxy-groups:` (clash-api.md 3.9), read in weak style as mihomo does.
//!
//! `include-all`, `filter`, `exclude-filter` and `exclude-type` are resolved here, once all proxies
//! are known: what comes after sees groups that list their members.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::section::Section;
use crate::outbound::http_url::HttpUrl;
use crate::outbound::name_filter::NameFilter;
use crate::outbound::options::{GroupKind, GroupOptions, ProxyOptions, Strategy, TestOptions};
use crate::outbound::provided::Wanted;
use crate::outbound::registry::BUILT_IN;
use crate::outbound::status_ranges::StatusRanges;
use crate::provider::proxy::ProxyProviderOptions;

/// Further keys that are not served yet.
const OTHER_KEYS: &[&str] = &[
    "interface-name",
    "routing-mark",
    "default-selected",
    "empty-fallback",
];

/// What a filter must be.
const FILTER_EXPECTED: &str = "a regular expression (look-around only as leading conditions)";

/// The interval of a group that must test and says nothing.
const INTERVAL: Duration = Duration::from_secs(300);

/// Longest interval and timeout taken: a day, in seconds and in milliseconds.
const SECONDS_MAX: u32 = 86_400;
const MILLISECONDS_MAX: u32 = 86_400_000;

/// One entry of `proxy-groups:`, and where further members come from.
pub(super) struct Group {
    pub(super) options: GroupOptions,
    members: Sources,
}

/// Members beside those listed, and those that are not wanted.
#[derive(Default)]
struct Sources {
    all_proxies: bool,
    all_providers: bool,
    /// `use`.
    providers: Vec<Box<str>>,
    /// Whether `url` was said.
    has_url: bool,
    filter: Vec<NameFilter>,
    exclude: Vec<NameFilter>,
    /// Names of types, in lower case.
    exclude_types: Vec<Box<str>>,
}

impl Sources {
    fn changes_members(&self) -> bool {
        self.all_proxies || !self.exclude.is_empty() || !self.exclude_types.is_empty()
    }
}

/// One entry of `proxy-groups:`.
pub(super) fn decode(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<Group, ConfigError> {
    let item = &item.weak();
    let mut section = item.section()?;
    let name: Box<str> = section.require("name")?.text()?.into();
    let kind = kind(&mut section)?;
    let proxies = section.list("proxies", |member| member.text().map(Box::from))?;
    let members = sources(&mut section)?;
    let provided = members.all_providers || !members.providers.is_empty();
    if proxies.is_empty() && !members.all_proxies && !provided {
        return Err(item.fail(Reason::NoMembers));
    }
    let options = GroupOptions {
        proxies,
        test: test(&mut section, kind)?,
        disable_udp: section.boolean("disable-udp", false)?,
        hidden: section.boolean("hidden", false)?,
        icon: section.text("icon")?.unwrap_or_default(),
        ..GroupOptions::new(&name, kind)
    };
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(Group { options, members })
}

fn kind(section: &mut Section<'_>) -> Result<GroupKind, ConfigError> {
    let at = section.require("type")?;
    // Asked for whatever the type, as mihomo takes them in any group.
    let (tolerance, strategy) = (section.take("tolerance"), section.take("strategy"));
    Ok(match at.text()? {
        "select" => GroupKind::Select,
        "url-test" => GroupKind::UrlTest {
            tolerance: tolerance.as_ref().map_or(Ok(0), milliseconds)?,
        },
        "fallback" => GroupKind::Fallback,
        "load-balance" => GroupKind::LoadBalance(match strategy {
            None => Strategy::default(),
            Some(strategy) => match strategy.text()? {
                "consistent-hashing" => Strategy::ConsistentHashing,
                "sticky-sessions" => Strategy::StickySessions,
                "round-robin" => Strategy::RoundRobin,
                other => {
                    return Err(strategy.fail(Reason::Unknown("strategy", Excerpt::of(other))));
                }
            },
        }),
        "relay" => GroupKind::Relay,
        other => return Err(at.fail(Reason::Unknown("group type", Excerpt::of(other)))),
    })
}

fn milliseconds(value: &Cursor<'_>) -> Result<u16, ConfigError> {
    let number = value.integer(0..=u16::MAX.into(), "milliseconds (0 to 65535)")?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

fn test(section: &mut Section<'_>, kind: GroupKind) -> Result<TestOptions, ConfigError> {
    let absent = TestOptions::default();
    let mut number = |key, range, expected| -> Result<Option<u32>, ConfigError> {
        let value = section.take(key);
        value
            .map(|value| value.integer(range, expected))
            .transpose()
    };
    let interval = number("interval", 0..=SECONDS_MAX, "seconds (at most a day)")?;
    let timeout = number(
        "timeout",
        0..=MILLISECONDS_MAX,
        "milliseconds (at most a day)",
    )?;
    let failures = number("max-failed-times", 0..=u32::MAX, "a number")?;
    let interval = match interval.unwrap_or(0) {
        0 if matches!(kind, GroupKind::Select | GroupKind::Relay) => Duration::ZERO,
        0 => INTERVAL,
        seconds => Duration::from_secs(seconds.into()),
    };
    let timeout = timeout.filter(|&milliseconds| milliseconds != 0);
    Ok(TestOptions {
        url: test_url(section)?.unwrap_or(absent.url),
        expected: status_ranges(section)?.unwrap_or(absent.expected),
        interval,
        timeout: timeout.map_or(absent.timeout, |ms| Duration::from_millis(ms.into())),
        lazy: section.boolean("lazy", absent.lazy)?,
        failures_max: failures.filter(|&n| n != 0).unwrap_or(absent.failures_max),
    })
}

/// `url` of a test.
pub(super) fn test_url(section: &mut Section<'_>) -> Result<Option<Box<str>>, ConfigError> {
    let url = section.take("url").map(|url| {
        url.parse("an http or https address", |text| {
            HttpUrl::parse(text).map(|_| text.into())
        })
    });
    url.transpose()
}

/// `expected-status` of a test.
pub(super) fn status_ranges(
    section: &mut Section<'_>,
) -> Result<Option<StatusRanges>, ConfigError> {
    let list = section.take("expected-status");
    let list =
        list.map(|list| list.parse("statuses such as 200/204-299", |text| text.parse().ok()));
    list.transpose()
}

/// Expressions over names, separated by backticks.
pub(super) fn filters(value: Option<Cursor<'_>>) -> Result<Vec<NameFilter>, ConfigError> {
    match value {
        Some(value) => value.parse(FILTER_EXPECTED, NameFilter::parse_list),
        None => Ok(Vec::new()),
    }
}

fn sources(section: &mut Section<'_>) -> Result<Sources, ConfigError> {
    let all = section.boolean("include-all", false)?;
    let all_proxies = section.boolean("include-all-proxies", false)?;
    let all_providers = section.boolean("include-all-providers", false)?;
    let types = section.text("exclude-type")?.unwrap_or_default();
    let types = types
        .split('|')
        .map(str::trim)
        .filter(|kind| !kind.is_empty());
    Ok(Sources {
        all_proxies: all || all_proxies,
        all_providers: all || all_providers,
        providers: section.list("use", |name| name.text().map(Box::from))?,
        has_url: section.take("url").is_some(),
        filter: filters(section.take("filter"))?,
        exclude: filters(section.take("exclude-filter"))?,
        exclude_types: types.map(|kind| kind.to_ascii_lowercase().into()).collect(),
    })
}

/// Says what each group takes from which providers; the URL of a group that says none is that of its
/// first provider.
pub(super) fn settle_providers(groups: &mut [Group], providers: &[ProxyProviderOptions]) {
    for Group { options, members } in groups {
        let names: Vec<Box<str>> = match members.all_providers {
            true => providers.iter().map(|known| known.name.clone()).collect(),
            false => std::mem::take(&mut members.providers),
        };
        let first = names.first();
        if let Some(first) = first.and_then(|name| providers.iter().find(|p| p.name == *name))
            && !members.has_url
        {
            options.test.url = first.test.url.clone();
        }
        if !names.is_empty() {
            options.wanted = Some(Arc::new(Wanted {
                providers: names,
                filter: members.filter.clone(),
                exclude: members.exclude.clone(),
                exclude_types: members.exclude_types.clone(),
            }));
        }
    }
}

/// Brings in what `include-all` means and takes out what is excluded. Whether anything changed.
pub(super) fn settle(groups: &mut [Group], proxies: &[ProxyOptions]) -> bool {
    if !groups.iter().any(|group| group.members.changes_members()) {
        return false;
    }
    let built_in = BUILT_IN.iter().map(|&(name, kind)| (name, kind));
    let nodes = proxies
        .iter()
        .map(|proxy| (&*proxy.name, proxy.protocol.kind()));
    let inner = groups
        .iter()
        .map(|group| (&*group.options.name, group.options.kind.kind()));
    let kinds: HashMap<Box<str>, &'static str> = built_in
        .chain(nodes)
        .chain(inner)
        .map(|(name, kind)| (name.into(), kind.as_str()))
        .collect();
    let mut sorted: Vec<&str> = proxies.iter().map(|proxy| &*proxy.name).collect();
    sorted.sort_unstable();
    for Group { options, members } in groups {
        if members.all_proxies {
            bring_in(&mut options.proxies, &sorted, &members.filter);
        }
        options.proxies.retain(|name| {
            let kind = kinds.get(name);
            let type_excluded = kind.is_some_and(|kind| {
                let mut types = members.exclude_types.iter();
                types.any(|excluded| excluded.eq_ignore_ascii_case(kind))
            });
            !type_excluded && !members.exclude.iter().any(|filter| filter.matches(name))
        });
    }
    true
}

/// Appends those of `sorted` that `filter` means, in the order of its expressions, none twice.
fn bring_in(members: &mut Vec<Box<str>>, sorted: &[&str], filter: &[NameFilter]) {
    let mut known: std::collections::HashSet<Box<str>> = members.iter().cloned().collect();
    let mut add = |name: &str| {
        if known.insert(name.into()) {
            members.push(name.into());
        }
    };
    if filter.is_empty() {
        sorted.iter().copied().for_each(&mut add);
    }
    for expression in filter {
        let meant = sorted
            .iter()
            .copied()
            .filter(|name| expression.matches(name));
        meant.for_each(&mut add);
    }
}
