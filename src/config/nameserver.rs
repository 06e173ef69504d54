//! Addresses of nameservers (clash-api.md 3.2, "Upstream address forms").
//!
//! A transport that is not served yet is left out with a warning, as long as another server is
//! left; nothing is asked over a weaker transport than it was written for.

use std::net::IpAddr;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Ignored, Reason, Warnings};
use crate::dns::options::{Server, Upstream};
use crate::metadata::{Endpoint, Host};

/// Transports of mihomo's that are not served yet.
const OTHER_SCHEMES: &[&str] = &["tls", "https", "http", "quic", "dhcp"];

/// The constant answers, in mihomo's words, and their codes (RFC 1035 section 4.1.1).
const RCODES: &[(&str, u8)] = &[
    ("success", 0),
    ("format_error", 1),
    ("server_failure", 2),
    ("name_error", 3),
    ("not_implemented", 4),
    ("refused", 5),
];

const EXPECTED: &str = "a nameserver (1.1.1.1, udp://1.1.1.1:53, tcp://…, system, rcode://…)";

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

/// One nameserver; `None` with a warning when its transport is not served yet.
pub(super) fn upstream(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Upstream>, ConfigError> {
    let text = item.text()?;
    let (address, fragment) = match text.split_once('#') {
        Some((address, fragment)) => (address, Some(fragment)),
        None => (text, None),
    };
    let (scheme, rest) = address.split_once("://").unwrap_or(("udp", address));
    let scheme = scheme.to_ascii_lowercase();
    if OTHER_SCHEMES.contains(&&*scheme) {
        warnings.note(item, Ignored::ValueNotImplemented(Excerpt::of(text)));
        return Ok(None);
    }
    let via = match fragment {
        Some(fragment) => via(item, fragment, warnings),
        None => None,
    };
    let server = || server(rest).map(|(host, port)| Server { host, port, via });
    let upstream = match &*scheme {
        "udp" if address == "system" => Some(Upstream::System),
        "system" if rest.is_empty() => Some(Upstream::System),
        "udp" => server().map(Upstream::Udp),
        "tcp" => server().map(Upstream::Tcp),
        "rcode" => RCODES
            .iter()
            .find(|(name, _)| *name == rest)
            .map(|&(_, code)| Upstream::Rcode(code)),
        _ => None,
    };
    upstream.map(Some).ok_or_else(|| item.expected(EXPECTED))
}

/// The name behind `#`: a proxy, a group or an interface, with parameters behind `&`.
fn via(item: &Cursor<'_>, fragment: &str, warnings: &mut Warnings) -> Option<Box<str>> {
    let mut name = None;
    for part in fragment.split('&').filter(|part| !part.is_empty()) {
        if part == "RULES" || part.contains('=') || name.is_some() {
            warnings.note(item, Ignored::ValueNotImplemented(Excerpt::of(part)));
        } else {
            name = Some(part.into());
        }
    }
    name
}

/// Host and port; port 53 when there is none.
fn server(text: &str) -> Option<(Box<str>, u16)> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_string().into(), 53));
    }
    let Endpoint { host, port } = match Endpoint::parse(text) {
        Some(endpoint) => endpoint,
        None => Endpoint {
            host: Host::parse(text)?,
            port: 53,
        },
    };
    (port != 0).then(|| (host.to_string().into(), port))
}
