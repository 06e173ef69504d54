//! Addresses of nameservers (clash-api.md 3.2, "Upstream address forms").
//!
//! A transport that is not served is left out with a warning, as long as another server is
//! left; nothing is asked over a weaker transport than it was written for.

use std::net::IpAddr;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Remark, Warnings};
use super::scalar;
use crate::dns::message::types;
use crate::dns::options::{Protocol, Server, Upstream, Via};
use crate::metadata::{Endpoint, Host};
use crate::outbound::http_url::HttpUrl;
use crate::prefix::Prefix;

/// Transports of mihomo's that are not served.
const OTHER_SCHEMES: &[&str] = &["quic"];

/// Where a DoH server answers when its address has no path (RFC 8484 section 4.1.1).
const DOH_PATH: &str = "/dns-query";

/// The constant answers, in mihomo's words, and their codes (RFC 1035 section 4.1.1).
const RCODES: &[(&str, u8)] = &[
    ("success", 0),
    ("format_error", 1),
    ("server_failure", 2),
    ("name_error", 3),
    ("not_implemented", 4),
    ("refused", 5),
];

const EXPECTED: &str =
    "a nameserver (1.1.1.1, tcp://…, tls://…, https://…/dns-query, system, dhcp://eth1, rcode://…)";

/// A list of nameservers.
///
/// # Errors
/// An entry that is none; or entries, but none that is served.
pub(super) fn decode(
    list: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Vec<Upstream>, ConfigError> {
    let mut servers = Vec::new();
    let mut left_out = None;
    for item in list.items()? {
        match upstream(&item, warnings)? {
            Some(server) => servers.push(server),
            None => left_out = left_out.or(Some(Excerpt::of(item.text()?))),
        }
    }
    match left_out {
        Some(server) if servers.is_empty() => Err(list.fail(Reason::NotImplemented(server))),
        _ => Ok(servers),
    }
}

/// One nameserver; `None` with a warning when its transport is not served.
pub(super) fn upstream(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Upstream>, ConfigError> {
    let text = item.text()?;
    let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = address.split_once("://").unwrap_or(("udp", address));
    let scheme = scheme.to_ascii_lowercase();
    if OTHER_SCHEMES.contains(&&*scheme) {
        warnings.note(item, Remark::ValueNotImplemented(Excerpt::of(text)));
        return Ok(None);
    }
    let fixed = match &*scheme {
        "udp" if address == "system" => Some(Upstream::System),
        "system" if rest.is_empty() => Some(Upstream::System),
        "dhcp" if rest == "system" => Some(Upstream::System),
        "dhcp" if !rest.is_empty() && rest.len() < 16 => Some(Upstream::Dhcp(rest.into())),
        "rcode" => RCODES
            .iter()
            .find(|(name, _)| *name == rest)
            .map(|&(_, code)| Upstream::Rcode(code)),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Ok(Some(fixed));
    }
    let (protocol, (host, port)) =
        place(&scheme, address, rest).ok_or_else(|| item.expected(EXPECTED))?;
    let mut server = Server::new(protocol, &host, port);
    for part in fragment.split('&').filter(|part| !part.is_empty()) {
        parameter(item, &mut server, part, warnings)?;
    }
    Ok(Some(Upstream::Server(server)))
}

type Place = (Box<str>, u16);

/// What is spoken to whom.
fn place(scheme: &str, address: &str, rest: &str) -> Option<(Protocol, Place)> {
    Some(match scheme {
        "udp" => (Protocol::Udp, host_and_port(rest, 53)?),
        "tcp" => (Protocol::Tcp, host_and_port(rest, 53)?),
        "tls" => (Protocol::Tls, host_and_port(rest, 853)?),
        "http" | "https" => {
            let url = HttpUrl::parse(address)?;
            let place = (url.endpoint.host.to_string().into(), url.endpoint.port);
            let path = match &*url.target {
                "/" => DOH_PATH.into(),
                _ => url.target,
            };
            if url.tls {
                (Protocol::Https(path), place)
            } else {
                (Protocol::Http(path), place)
            }
        }
        _ => return None,
    })
}

/// One part of what stands behind `#`.
fn parameter(
    item: &Cursor<'_>,
    server: &mut Server,
    part: &str,
    warnings: &mut Warnings,
) -> Result<(), ConfigError> {
    let Some((key, value)) = part.split_once('=') else {
        server.via = match part {
            "RULES" => Via::Rules,
            _ => Via::Named(unescaped(part)),
        };
        return Ok(());
    };
    let on = scalar::boolean(value).unwrap_or(false);
    match key {
        "skip-cert-verify" => server.skip_verify = on,
        "disable-ipv4" if on => server.disabled.push(types::A),
        "disable-ipv6" if on => server.disabled.push(types::AAAA),
        "ecs" => {
            let subnet = value.parse::<Prefix>();
            let expected = "ecs= with an address prefix (ecs=192.0.2.0/24)";
            server.subnet = Some(subnet.map_err(|_| item.expected(expected))?);
        }
        // What clients send is never passed on: there is nothing to override.
        "ecs-override" | "disable-ipv4" | "disable-ipv6" => {}
        "h3" if !on => {}
        _ => match key.strip_prefix("disable-qtype-").map(str::parse) {
            Some(Ok(number)) if on => server.disabled.push(number),
            Some(Ok(_)) => {}
            _ => warnings.note(item, Remark::ValueNotImplemented(Excerpt::of(part))),
        },
    }
    Ok(())
}

/// A name as it was before URL escaping: it may hold any character.
fn unescaped(text: &str) -> Box<str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<2>().filter(|_| first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = tail
            .get(if byte.is_some() { 2 } else { 0 }..)
            .unwrap_or_default();
    }
    String::from_utf8(bytes).map_or_else(|_| text.into(), Into::into)
}

/// Host and port; `standard` when there is none.
fn host_and_port(text: &str, standard: u16) -> Option<Place> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_string().into(), standard));
    }
    let Endpoint { host, port } = match Endpoint::parse(text) {
        Some(endpoint) => endpoint,
        None => Endpoint {
            host: Host::parse(text)?,
            port: standard,
        },
    };
    (port != 0).then(|| (host.to_string().into(), port))
}
