//! `external-controller*` and `secret` (clash-api.md 1.2 to 1.4; users.md S2 and S4).
//!
//! Unlike mihomo, no web page may call the controller unless its origin is listed, and a controller
//! that other machines can reach needs a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::section::Section;
use crate::controllers::options::Options;
use crate::metadata::Host;

/// Takes the controller's keys of the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let secret = section.text("secret")?.unwrap_or_default();
    let address = section.take("external-controller");
    let listen = address.map(|at| socket_address(&at)).transpose()?;
    if let (Some(at), Some(listen)) = (address, listen)
        && secret.is_empty()
        && !listen.ip().to_canonical().is_loopback()
    {
        return Err(at.fail(Reason::OpenController));
    }
    let unix = section.text("external-controller-unix")?;
    let mut options = Options {
        listen,
        unix: unix.map(|path| path.into_string().into()),
        secret,
        hosts: section.list("external-controller-hosts", |item| {
            item.parse("a host name", |text| match Host::parse(text)? {
                Host::Name(name) => Some(name),
                Host::Ip(_) => None,
            })
        })?,
        ..Options::default()
    };
    if let Some(cors) = section.take("external-controller-cors") {
        let mut section = cors.section()?;
        options.allow_origins = section.list("allow-origins", |item| {
            item.parse(
                "an origin (https://example.org), with at most one *",
                origin,
            )
        })?;
        options.allow_private_network = section.boolean("allow-private-network", false)?;
        section.finish(warnings);
    }
    Ok(options)
}

/// Where to listen: `address:port`; `:port` is every address of both families.
pub(super) fn socket_address(at: &Cursor<'_>) -> Result<SocketAddr, ConfigError> {
    at.parse("an address and port (127.0.0.1:9090)", |text| {
        let (host, port) = text.rsplit_once(':')?;
        let ip = match host {
            "" | "*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => return text.parse().ok().filter(|at: &SocketAddr| at.port() != 0),
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| digits && port != 0)?;
        Some(SocketAddr::new(ip, port))
    })
}

/// `*`, or `scheme://host[:port]` with at most one `*`; never `null`, which any sandboxed page has.
fn origin(text: &str) -> Option<Box<str>> {
    let stars = text.matches('*').count();
    let whole = text == "*" || text.contains("://") && !text.ends_with('/');
    (whole && stars <= 1 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.into())
}
