//! `plugin` and `plugin-opts` of `type: ss` (clash-api.md 3.8).

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::proxies::{header, tls};
use super::section::Section;
use crate::outbound::options::{PluginOptions, WebSocketOptions};
use crate::outbound::shadowsocks::obfs::Disguise;

/// Plugins of mihomo's that are not served: without them the server would not understand a byte.
const OTHER_PLUGINS: &[&str] = &["gost-plugin", "shadow-tls", "restls", "kcptun"];

/// Takes both keys.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Option<PluginOptions>, ConfigError> {
    let options = section.take("plugin-opts");
    let Some(plugin) = section.take("plugin") else {
        return Ok(None);
    };
    let Some(options) = options else {
        return Err(section.at().missing("plugin-opts", Reason::Missing));
    };
    let mut section = options.section()?;
    let decoded = match plugin.text()? {
        "obfs" => obfs(&mut section)?,
        "v2ray-plugin" => v2ray(&mut section)?,
        other if OTHER_PLUGINS.contains(&other) => {
            return Err(plugin.fail(Reason::NotImplemented(Excerpt::of(other))));
        }
        other => return Err(plugin.fail(Reason::Unknown("plugin", Excerpt::of(other)))),
    };
    section.finish(warnings);
    Ok(Some(decoded))
}

fn host(at: &Cursor<'_>) -> Result<Box<str>, ConfigError> {
    at.parse("a host name", |text| {
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        (plain && text.len() <= 255).then(|| text.into())
    })
}

fn obfs(section: &mut Section<'_>) -> Result<PluginOptions, ConfigError> {
    let disguise = section
        .require("mode")?
        .parse("http or tls", |text| match text {
            "http" => Some(Disguise::Http),
            "tls" => Some(Disguise::Tls),
            _ => None,
        })?;
    let host = match section.take("host") {
        Some(at) => host(&at)?,
        None => "bing.com".into(),
    };
    Ok(PluginOptions::Obfs { disguise, host })
}

fn v2ray(section: &mut Section<'_>) -> Result<PluginOptions, ConfigError> {
    const PATH: &str = "a path that begins with a slash";
    section
        .require("mode")?
        .parse("websocket", |text| (text == "websocket").then_some(()))?;
    let host = match section.take("host") {
        Some(at) => host(&at)?,
        None => "bing.com".into(),
    };
    let mut headers = match section.take("headers") {
        Some(headers) => headers
            .entries()?
            .map(|(name, value)| header(name, &value))
            .collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    headers.push(("Host".into(), host.clone()));
    let mut tls = tls(section)?;
    if let Some(tls) = &mut tls {
        tls.server_name.get_or_insert(host);
    }
    let mut websocket = WebSocketOptions {
        path: match section.take("path") {
            Some(path) => path.parse(PATH, |text| {
                let graphic = text.bytes().all(|b| b.is_ascii_graphic());
                (graphic && text.starts_with('/')).then(|| text.into())
            })?,
            None => "/".into(),
        },
        headers,
        upgrade_only: section.boolean("v2ray-http-upgrade", false)?,
        ..WebSocketOptions::default()
    };
    websocket.take_early_data();
    Ok(PluginOptions::V2ray {
        tls,
        websocket,
        mux: section.boolean("mux", true)?,
    })
}
