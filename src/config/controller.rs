//! `external-controller*` and `secret` (clash-api.md 1.2 to 1.4; users.md S2 and S4).
//!
//! Unlike mihomo, no web page may call the controller unless its origin is listed, and a controller
//! that other machines can reach needs a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path};

use super::decode::Cursor;
use super::error::{ConfigError, Reason, Warnings};
use super::section::Section;
use crate::controllers::options::{Options, Program, Scope, Secret, Tls, Ui};
use crate::encoding::HEX;
use crate::metadata::Host;
use crate::provider::url::Url;

/// Takes the controller's keys of the top level.
pub(super) fn decode(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Options, ConfigError> {
    let secret = section.text("secret")?.unwrap_or_default();
    let secrets = secrets(section, warnings)?;
    let closed = !secret.is_empty() || !secrets.is_empty();
    let address = section.take("external-controller");
    let listen = address.map(|at| guarded_address(&at, closed)).transpose()?;
    let tls = tls(section, closed, warnings)?;
    let unix = section.text("external-controller-unix")?;
    let mut options = Options {
        listen,
        tls,
        secrets,
        ui: ui(section)?,
        program: program(section, warnings)?,
        doh: doh(section)?,
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

/// `external-doh-server`.
fn doh(section: &mut Section<'_>) -> Result<Option<Box<str>>, ConfigError> {
    let path = |text: &str| {
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%');
        let fits = text.len() > 1 && text.starts_with('/') && text.bytes().all(plain);
        fits.then(|| text.into())
    };
    let at = section.take("external-doh-server");
    at.map(|at| at.parse("a path (/dns-query)", path))
        .transpose()
}

/// Where to listen; beyond the loopback only where a secret is asked for.
fn guarded_address(at: &Cursor<'_>, closed: bool) -> Result<SocketAddr, ConfigError> {
    let listen = socket_address(at)?;
    if !closed && !listen.ip().to_canonical().is_loopback() {
        return Err(at.fail(Reason::OpenController));
    }
    Ok(listen)
}

/// `external-controller-tls`, and `tls:`, which is for nothing else here.
fn tls(
    section: &mut Section<'_>,
    closed: bool,
    warnings: &mut Warnings,
) -> Result<Option<Tls>, ConfigError> {
    let address = section.take("external-controller-tls");
    let listen = address.map(|at| guarded_address(&at, closed)).transpose()?;
    let (mut certificate, mut private_key) = (None, None);
    let keys = section.take("tls");
    if let Some(keys) = &keys {
        let mut section = keys.section()?;
        certificate = section.text("certificate")?;
        private_key = section.text("private-key")?;
        section.not_implemented(
            &[
                "custom-certifactes",
                "client-auth-type",
                "client-auth-cert",
                "ech-key",
            ],
            warnings,
        );
        section.finish(warnings);
    }
    let (Some(at), Some(listen)) = (address, listen) else {
        return Ok(None);
    };
    let (Some(certificate), Some(private_key)) = (certificate, private_key) else {
        return Err(at.fail(Reason::NoCertificate));
    };
    Ok(Some(Tls {
        listen,
        certificate,
        private_key,
    }))
}

/// `external-ui`, and beneath it `external-ui-name`, which leads to no other place.
fn ui(section: &mut Section<'_>) -> Result<Option<Ui>, ConfigError> {
    let name = section.take("external-ui-name");
    let name = name.map(|name| {
        name.parse("a path below external-ui, without ..", |text| {
            let mut parts = Path::new(text).components();
            let stays = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            stays.then(|| text.trim_matches('/').into())
        })
    });
    let name = name.transpose()?;
    let url = section.take("external-ui-url");
    let url = url.map(|url| {
        // Pages are given the secret: nobody on the way may change them.
        url.parse("an https address", |text| {
            Url::parse(text).filter(|url| url.tls)
        })
    });
    let url = url.transpose()?;
    let ui = section.text("external-ui")?;
    Ok(ui.map(|directory| Ui {
        directory: directory.into_string().into(),
        name,
        url,
    }))
}

/// `upgrade:` (headgate's own).
fn program(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Program>, ConfigError> {
    let Some(upgrade) = section.take("upgrade") else {
        return Ok(None);
    };
    let mut section = upgrade.section()?;
    let url = section.require("url")?;
    let sum = section.require("sha256")?;
    let program = Program {
        url: url.parse("an http or https address", Url::parse)?,
        sha256: sum.parse("64 hexadecimal digits", |text| {
            let bytes = HEX.decode(text.as_bytes()).ok()?;
            bytes.try_into().ok()
        })?,
    };
    section.finish(warnings);
    Ok(Some(program))
}

/// `secrets:` (headgate's own): `{name, secret, scope}`.
fn secrets(section: &mut Section<'_>, warnings: &mut Warnings) -> Result<Vec<Secret>, ConfigError> {
    section.list("secrets", |item| {
        let mut section = item.section()?;
        let secret = Secret {
            name: section
                .require("name")?
                .parse("a name (letters, digits, - and _)", |text| {
                    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
                    text.bytes().all(plain).then(|| text.into())
                })?,
            secret: section.require("secret")?.text()?.into(),
            scope: section.require("scope")?.parse(
                "read, operate, configure or admin",
                |text| {
                    let mut known = Scope::NAMES.into_iter();
                    known
                        .find(|(_, name)| *name == text)
                        .map(|(scope, _)| scope)
                },
            )?,
        };
        section.finish(warnings);
        Ok(secret)
    })
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
