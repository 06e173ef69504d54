//! `proxies:` (clash-api.md 3.7 and 3.8), read in weak style as mihomo does.

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Remark, Warnings};
use super::general::interface;
use super::plugin;
use super::section::Section;
use super::transport;
use crate::metadata::Host;
use crate::outbound::IpVersion;
use crate::outbound::mux::sing::request::Protocol as MuxProtocol;
use crate::outbound::options::{
    Credentials, DialOptions, HttpOptions, MuxOptions, Protocol, ProxyOptions, ServerAddress,
    ShadowsocksOptions, Socks5Options, TlsOptions,
};
use crate::outbound::sessions::Limits;
use crate::outbound::shadowsocks::method::{MethodError, Secret};

/// Proxy types of mihomo's that are not served yet.
const OTHER_TYPES: &[&str] = &[
    "dns",
    "ssr",
    "hysteria",
    "hysteria2",
    "tuic",
    "wireguard",
    "anytls",
    "ssh",
    "snell",
    "mieru",
];

/// Keys common to all types that are not served yet.
const OTHER_KEYS: &[&str] = &["mptcp", "client-fingerprint", "ech-opts"];

/// One entry of `proxies:`.
pub(super) fn decode(
    item: &Cursor<'_>,
    warnings: &mut Warnings,
) -> Result<ProxyOptions, ConfigError> {
    let item = &item.weak();
    let mut section = item.section()?;
    let name = section.require("name")?.text()?.into();
    let kind = section.require("type")?;
    let protocol = match kind.text()? {
        "direct" => Protocol::Direct,
        "reject" => Protocol::Reject,
        "http" => Protocol::Http(http(&mut section)?),
        "socks5" => Protocol::Socks5(socks5(&mut section)?),
        "ss" => Protocol::Shadowsocks(shadowsocks(&mut section, warnings)?),
        "vmess" => Protocol::Vmess(transport::vmess(&mut section, warnings)?),
        "vless" => Protocol::Vless(transport::vless(&mut section, warnings)?),
        "trojan" => Protocol::Trojan(transport::trojan(&mut section, warnings)?),
        other if OTHER_TYPES.contains(&other) => {
            return Err(kind.fail(Reason::NotImplemented(Excerpt::of(other))));
        }
        other => return Err(kind.fail(Reason::Unknown("proxy type", Excerpt::of(other)))),
    };
    let udp = section.boolean("udp", false)?;
    let options = ProxyOptions {
        name,
        // mihomo's direct carries UDP without being asked (3.8); so does reject, to swallow it.
        udp: udp || matches!(protocol, Protocol::Direct | Protocol::Reject),
        protocol,
        dial: dial(&mut section)?,
        mux: match section.take("smux") {
            Some(at) => mux(&at, warnings)?,
            None => None,
        },
    };
    if let Some(unverified) = section.take("skip-cert-verify")
        && unverified.boolean()?
    {
        warnings.note(&unverified, Remark::Unverified);
    }
    section.not_implemented(OTHER_KEYS, warnings);
    section.finish(warnings);
    Ok(options)
}

/// `smux`; `None`: it is not enabled.
fn mux(at: &Cursor<'_>, warnings: &mut Warnings) -> Result<Option<MuxOptions>, ConfigError> {
    let mut section = at.section()?;
    let enabled = section.boolean("enabled", false)?;
    let protocol = match section.take("protocol") {
        Some(name) => name.parse("smux, yamux or h2mux", |text| match text {
            "smux" => Some(MuxProtocol::Smux),
            "yamux" => Some(MuxProtocol::Yamux),
            "" | "h2mux" => Some(MuxProtocol::H2mux),
            _ => None,
        })?,
        None => MuxProtocol::default(),
    };
    let mut number = |key| match section.take(key) {
        Some(at) => at.integer(0..=u32::MAX, "a number"),
        None => Ok(0),
    };
    let limits = Limits {
        sessions_max: number("max-connections")?,
        streams_min: number("min-streams")?,
        streams_max: number("max-streams")?,
    };
    let options = MuxOptions {
        protocol,
        limits,
        padding: section.boolean("padding", false)?,
        only_tcp: section.boolean("only-tcp", false)?,
    };
    // Whether the APIs show the connection itself: here they never do.
    let _never = section.take("statistic");
    section.not_implemented(&["brutal-opts"], warnings);
    section.finish(warnings);
    Ok(enabled.then_some(options))
}

fn dial(section: &mut Section<'_>) -> Result<DialOptions, ConfigError> {
    Ok(DialOptions {
        interface: interface(section, "interface-name")?,
        mark: section.number("routing-mark", 0)?,
        ip_version: ip_version(section)?.unwrap_or_default(),
        dialer_proxy: section.text("dialer-proxy")?,
        fast_open: section.boolean("tfo", false)?,
    })
}

/// `ip-version`.
pub(super) fn ip_version(section: &mut Section<'_>) -> Result<Option<IpVersion>, ConfigError> {
    const EXPECTED: &str = "dual, ipv4, ipv6, ipv4-prefer or ipv6-prefer";
    let version = section.take("ip-version").map(|version| {
        version.parse(EXPECTED, |text| match text {
            "dual" => Some(IpVersion::Dual),
            "ipv4" => Some(IpVersion::V4Only),
            "ipv6" => Some(IpVersion::V6Only),
            "ipv4-prefer" => Some(IpVersion::PreferV4),
            "ipv6-prefer" => Some(IpVersion::PreferV6),
            _ => None,
        })
    });
    version.transpose()
}

pub(super) fn server(section: &mut Section<'_>) -> Result<ServerAddress, ConfigError> {
    Ok(ServerAddress {
        host: section
            .require("server")?
            .parse("a host name or an IP address", |text| {
                Host::parse(text).map(|_| text.into())
            })?,
        port: section.require("port")?.port()?,
    })
}

fn credentials(section: &mut Section<'_>) -> Result<Option<Credentials>, ConfigError> {
    let username = section.text("username")?;
    let password = section.text("password")?;
    if username.is_none() && password.is_none() {
        return Ok(None);
    }
    Ok(Some(Credentials {
        username: username.unwrap_or_default(),
        password: password.unwrap_or_default(),
        ..Credentials::default()
    }))
}

fn http(section: &mut Section<'_>) -> Result<HttpOptions, ConfigError> {
    Ok(HttpOptions {
        server: server(section)?,
        credentials: credentials(section)?,
        tls: tls(section)?,
        headers: match section.take("headers") {
            Some(headers) => headers
                .entries()?
                .map(|(name, value)| header(name, &value))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
    })
}

/// A header that goes into a request as it is: it must not be able to end its line (RFC 9110
/// section 5.5).
pub(super) fn header(name: &str, value: &Cursor<'_>) -> Result<(Box<str>, Box<str>), ConfigError> {
    const EXPECTED: &str = "a header field in printable characters";
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(value.expected(EXPECTED));
    }
    let text = value.parse(EXPECTED, |text| {
        let clean = !text.chars().any(char::is_control);
        clean.then(|| text.into())
    })?;
    Ok((name.into(), text))
}

fn socks5(section: &mut Section<'_>) -> Result<Socks5Options, ConfigError> {
    Ok(Socks5Options {
        server: server(section)?,
        credentials: credentials(section)?,
        tls: tls(section)?,
    })
}

/// `tls` and the keys that only count with it.
pub(super) fn tls(section: &mut Section<'_>) -> Result<Option<TlsOptions>, ConfigError> {
    let wanted = section.boolean("tls", false)?;
    let options = tls_keys(section)?;
    Ok(wanted.then_some(options))
}

/// The keys of TLS itself.
pub(super) fn tls_keys(section: &mut Section<'_>) -> Result<TlsOptions, ConfigError> {
    let server_name = section.text("sni")?;
    Ok(TlsOptions {
        server_name: section.text("servername")?.or(server_name),
        skip_verify: section.boolean("skip-cert-verify", false)?,
        fingerprint: match section.take("fingerprint") {
            Some(pin) => Some(pin.parse(
                "the SHA-256 of a certificate (64 hexadecimal digits)",
                sha256,
            )?),
            None => None,
        },
        alpn: section.list("alpn", |item| item.text().map(Box::from))?,
        reality: None,
        suites: Vec::new(),
    })
}

/// Sixty-four hexadecimal digits, colons between them allowed.
fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut nibbles = text.chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
    let mut digest = [0; 32];
    for byte in &mut digest {
        let pair = nibbles.next()?? << 4 | nibbles.next()??;
        *byte = u8::try_from(pair).ok()?;
    }
    nibbles.next().is_none().then_some(digest)
}

fn shadowsocks(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<ShadowsocksOptions, ConfigError> {
    let server = server(section)?;
    let (cipher, password) = (section.require("cipher")?, section.require("password")?);
    // The keys are derived only to know that they can be: the outbound does it again.
    if let Err(why) = Secret::new(cipher.text()?, password.text()?) {
        return Err(match why {
            MethodError::UnknownCipher(name) => {
                cipher.fail(Reason::Unknown("cipher", Excerpt::of(&name)))
            }
            why => password.fail(Reason::Shadowsocks(why)),
        });
    }
    let plugin = plugin::decode(section, warnings)?;
    section.not_implemented(&["udp-over-tcp", "udp-over-tcp-version"], warnings);
    Ok(ShadowsocksOptions {
        server,
        cipher: cipher.text()?.into(),
        password: password.text()?.into(),
        plugin,
    })
}
