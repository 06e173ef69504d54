//! The port keys, who may use them, and `listeners:` (clash-api.md 3.1 and 3.6).

use std::net::{IpAddr, Ipv4Addr};

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::section::Section;
use super::server;
use crate::inbound::options::{ListenerKind, ListenerOptions, Options};
use crate::metadata::Endpoint;
use crate::outbound::options::Credentials;

/// Listener types of mihomo's that are not served yet.
const OTHER_TYPES: &[&str] = &["tun", "anytls", "tuic", "hysteria2"];

/// Takes the inbound keys of the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    Ok(Options {
        http_port: port(section, "port")?,
        socks_port: port(section, "socks-port")?,
        mixed_port: port(section, "mixed-port")?,
        redir_port: port(section, "redir-port")?,
        tproxy_port: port(section, "tproxy-port")?,
        allow_lan: section.boolean("allow-lan", false)?,
        bind_address: match section.take("bind-address") {
            Some(address) => address.parse("* or an IP address", bind_address)?,
            None => None,
        },
        authentication: section.list("authentication", user_and_password)?,
        skip_auth_prefixes: section.prefixes("skip-auth-prefixes")?,
        lan_allowed_ips: section.prefixes("lan-allowed-ips")?,
        lan_disallowed_ips: section.prefixes("lan-disallowed-ips")?,
        lan_reachable_ips: section.prefixes("lan-reachable-ips")?,
        listeners: section.list("listeners", |item| listener(item, warnings))?,
    })
}

/// A port where 0 means off.
fn port(section: &mut Section<'_>, key: &'static str) -> Result<u16, ConfigError> {
    const EXPECTED: &str = "a port (0 to 65535)";
    let Some(value) = section.take(key) else {
        return Ok(0);
    };
    let number = value.integer(0..=65535, EXPECTED)?;
    u16::try_from(number).map_err(|_| value.expected(EXPECTED))
}

fn bind_address(text: &str) -> Option<Option<IpAddr>> {
    match text {
        "*" => Some(None),
        "localhost" => Some(Some(Ipv4Addr::LOCALHOST.into())),
        _ => unbracketed(text).parse().ok().map(Some),
    }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text)
}

/// `user:password`; the password may hold further colons.
fn user_and_password(item: &Cursor<'_>) -> Result<Credentials, ConfigError> {
    match item.text()?.split_once(':') {
        Some((username, password)) if !username.is_empty() => Ok(Credentials {
            username: username.into(),
            password: password.into(),
            ..Credentials::default()
        }),
        _ => Err(item.fail(Reason::SecretValue("user:password"))),
    }
}

/// One entry of `listeners:`.
pub(super) fn listener(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<ListenerOptions, ConfigError> {
    let item = &item.weak();
    let mut section = item.section()?;
    let name = section.require("name")?.text()?.into();
    let kind_at = section.require("type")?;
    let kind = match kind_at.text()? {
        "http" => ListenerKind::Http,
        "socks" => ListenerKind::Socks,
        "mixed" => ListenerKind::Mixed,
        "redir" => ListenerKind::Redirect,
        "tproxy" => ListenerKind::TProxy,
        "tunnel" => ListenerKind::Tunnel,
        "shadowsocks" => ListenerKind::Shadowsocks,
        "vmess" => ListenerKind::Vmess,
        "vless" => ListenerKind::Vless,
        "trojan" => ListenerKind::Trojan,
        other if OTHER_TYPES.contains(&other) => {
            return Err(kind_at.fail(Reason::NotImplemented(Excerpt::of(other))));
        }
        other => return Err(kind_at.fail(Reason::Unknown("listener type", Excerpt::of(other)))),
    };
    let listen = match section.take("listen") {
        Some(address) => address.parse("an IP address", |text| match text {
            "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ => unbracketed(text).parse().ok(),
        })?,
        None => Ipv4Addr::UNSPECIFIED.into(),
    };
    let (mut udp, mut target) = (section.boolean("udp", true)?, None);
    if kind == ListenerKind::Tunnel {
        let at = section.require("target")?;
        target = Some(at.parse("a host and a port", Endpoint::parse)?);
        if let Some(networks) = section.take("network") {
            udp = has_udp(&networks)?;
        }
    }
    let server = server::decode(kind, &mut section, warnings)?;
    let users_taken = server.is_some();
    let options = ListenerOptions {
        name,
        kind,
        listen,
        port: section.require("port")?.port()?,
        udp,
        target,
        users: match section.take("users").filter(|_| !users_taken) {
            Some(users) => Some(
                users
                    .items()?
                    .map(|user| credentials(&user, warnings))
                    .collect::<Result<_, _>>()?,
            ),
            None => None,
        },
        proxy: section.text("proxy")?,
        server,
    };
    section.not_implemented(&["rule", "routing-mark"], warnings);
    if options.server.is_none() {
        section.not_implemented(&["certificate", "private-key", "reality-config"], warnings);
    }
    section.finish(warnings);
    Ok(options)
}

/// `network` of a tunnel.
fn has_udp(networks: &Cursor<'_>) -> Result<bool, ConfigError> {
    let (mut tcp, mut udp) = (false, false);
    for network in networks.items()? {
        match network.text()? {
            "tcp" => tcp = true,
            "udp" => udp = true,
            _ => return Err(network.expected("tcp or udp")),
        }
    }
    match tcp {
        true => Ok(udp),
        false => Err(networks.expected("tcp, alone or beside udp")),
    }
}

/// One entry of a listener's `users:`.
fn credentials(item: &Cursor<'_>, warnings: &mut Warnings) -> Result<Credentials, ConfigError> {
    let mut section = item.section()?;
    let credentials = Credentials {
        username: section.require("username")?.text()?.into(),
        password: section.require("password")?.text()?.into(),
        level: section.number("level", 0)?,
        ..Credentials::default()
    };
    section.finish(warnings);
    Ok(credentials)
}
