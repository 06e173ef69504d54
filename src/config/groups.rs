//! `proxy-groups:` (clash-api.md 3.9), read in weak style as mihomo does.

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use crate::outbound::options::{GroupKind, GroupOptions};

/// Group types of mihomo's that are not served yet.
const OTHER_TYPES: &[&str] = &["url-test", "fallback", "load-balance", "relay"];

/// Keys that bring members, which are not served yet.
const OTHER_MEMBERS: &[&str] = &[
    "use",
    "include-all",
    "include-all-proxies",
    "include-all-providers",
];

/// Further keys that are not served yet.
const OTHER_KEYS: &[&str] = &[
    "filter",
    "exclude-filter",
    "exclude-type",
    "url",
    "interval",
    "timeout",
    "max-failed-times",
    "lazy",
    "expected-status",
    "tolerance",
    "strategy",
    "interface-name",
    "routing-mark",
    "default-selected",
    "empty-fallback",
];

/// One entry of `proxy-groups:`.
pub(super) fn decode(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<GroupOptions, ConfigError> {
    let item = &item.weak();
    let mut section = item.section()?;
    let name = section.require("name")?.text()?.into();
    let kind_at = section.require("type")?;
    let kind = match kind_at.text()? {
        "select" => GroupKind::Select,
        other if OTHER_TYPES.contains(&other) => {
            return Err(kind_at.fail(Reason::NotImplemented(Excerpt::of(other))));
        }
        other => return Err(kind_at.fail(Reason::Unknown("group type", Excerpt::of(other)))),
    };
    let proxies = section.list("proxies", |member| member.text().map(Box::from))?;
    if proxies.is_empty() {
        // mihomo's empty group goes out directly; a group that is only empty because headgate does
        // not know its provider must not do that behind the user's back.
        for &key in OTHER_MEMBERS {
            if let Some(source) = section.take(key) {
                return Err(source.fail(Reason::NotImplemented(Excerpt::of(key))));
            }
        }
        return Err(item.fail(Reason::NoMembers));
    }
    section.not_implemented(OTHER_MEMBERS, warnings);
    let options = GroupOptions {
        name,
        kind,
        proxies,
        disable_udp: section.boolean("disable-udp", false)?,
        hidden: section.boolean("hidden", false)?,
        icon: section.text("icon")?.unwrap_or_default(),
    };
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(options)
}
