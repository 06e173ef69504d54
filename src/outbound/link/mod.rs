//! Share links (`ss://`, `vmess://`, `vless://`, `trojan://`, `socks5://`, `http://`) as proxies.
//!
//! Pure: [`parse`] takes one line of a subscription. There is no standard but for Shadowsocks (SIP002);
//! the rest follows what v2rayN, Xray's proposal and mihomo read. Nothing of a link is quoted in an
//! error: it is all secret.

mod address;
mod query;
mod vmess_json;

use std::fmt;

use self::address::Authority;
use self::query::{Query, base64, percent_decoded};
use super::options::{
    Credentials, DialOptions, HttpOptions, NetworkOptions, PacketEncoding, PluginOptions, Protocol,
    ProxyOptions, RealityOptions, ServerAddress, ShadowsocksOptions, Socks5Options, TlsOptions,
    TrojanOptions, VlessFlow, VlessOptions, VmessOptions, VmessSecurity, WebSocketOptions,
};
use super::reality::parse_short_id;
use super::shadowsocks::method::Secret;
use super::shadowsocks::obfs::Disguise;
use super::transport::http2::Asking;
use super::transport::upgrade::Request;
use super::vmess::keys::parse_id;
use crate::encoding::BASE64URL_NOPAD;

/// The longest link.
pub const LINK_BYTES_MAX: usize = 8 * 1024;

/// Why a line is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// No such scheme, or no scheme at all.
    Scheme,
    /// Longer than [`LINK_BYTES_MAX`].
    TooLong,
    /// What should be base64, JSON or percent-encoded text is not.
    Encoding,
    /// A part is missing or makes no sense; its name.
    Part(&'static str),
    /// Something that headgate does not speak; its name.
    NotImplemented(&'static str),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("not a share link"),
            Self::TooLong => f.write_str("link is too long"),
            Self::Encoding => f.write_str("link is not encoded as it should be"),
            Self::Part(part) => write!(f, "link has no usable {part}"),
            Self::NotImplemented(what) => write!(f, "link needs {what}, which is not implemented"),
        }
    }
}

impl std::error::Error for LinkError {}

/// The proxy that a link describes. Its name is the link's, or the server's host and port.
///
/// # Errors
/// [`LinkError`].
pub fn parse(link: &str) -> Result<ProxyOptions, LinkError> {
    if link.len() > LINK_BYTES_MAX {
        return Err(LinkError::TooLong);
    }
    let (scheme, rest) = link.trim().split_once("://").ok_or(LinkError::Scheme)?;
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let mut name = percent_decoded(fragment)?;
    let (protocol, server) = match &*scheme.to_ascii_lowercase() {
        "ss" => shadowsocks(rest)?,
        "trojan" => trojan(rest)?,
        "vless" => vless(rest)?,
        "vmess" if rest.contains('@') => vmess(rest)?,
        "vmess" => {
            let (options, named) = vmess_json::parse(rest)?;
            name = named;
            let server = options.server.clone();
            (Protocol::Vmess(options), server)
        }
        "socks" | "socks5" | "socks5h" => socks5(rest)?,
        "http" => http(rest, None)?,
        "https" => http(rest, Some(TlsOptions::default()))?,
        _ => return Err(LinkError::Scheme),
    };
    let plain = |c: &char| !c.is_control();
    let name: String = name.trim().chars().filter(plain).take(NAME_MAX).collect();
    let name = match name.is_empty() {
        true => format!("{}:{}", server.host, server.port),
        false => name,
    };
    Ok(ProxyOptions {
        mux: None,
        name: name.into(),
        udp: !matches!(protocol, Protocol::Http(_)),
        protocol,
        dial: DialOptions::default(),
    })
}

/// Characters of a name.
const NAME_MAX: usize = 128;

/// What is spoken, and with whom.
type Spoken = (Protocol, ServerAddress);

/// `ss://base64(method:password)@host:port`, or all of it in base64.
fn shadowsocks(rest: &str) -> Result<Spoken, LinkError> {
    let whole;
    let mut rest = rest;
    if !rest.contains('@') {
        whole = base64(rest.split(['/', '?']).next().unwrap_or(""))?;
        rest = &whole;
    }
    let (authority, query) = address::split(rest);
    // The password may hold an @ of its own.
    let authority = Authority::parse(authority)?;
    let server = authority.server(None)?;
    let user = authority.user.ok_or(LinkError::Part("password"))?;
    let plain = match user.contains(':') {
        true => percent_decoded(user)?,
        false => base64(&percent_decoded(user)?)?,
    };
    let (cipher, password) = plain.split_once(':').ok_or(LinkError::Part("password"))?;
    let plugin = Query::parse(query)?
        .get("plugin")
        .map(plugin_of)
        .transpose()?;
    Secret::new(cipher, password).map_err(|_| LinkError::Part("cipher or password"))?;
    let options = ShadowsocksOptions {
        server: server.clone(),
        cipher: cipher.into(),
        password: password.into(),
        plugin,
    };
    Ok((Protocol::Shadowsocks(options), server))
}

/// SIP002's `plugin`: its name and options, `obfs-local;obfs=http;obfs-host=h`.
fn plugin_of(text: &str) -> Result<PluginOptions, LinkError> {
    let mut parts = text.split(';');
    let name = parts.next().unwrap_or("");
    let options: Vec<(&str, &str)> = parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .collect();
    let value = |key: &str| {
        options
            .iter()
            .find(|(known, _)| *known == key)
            .map(|pair| pair.1)
    };
    let host = |key: &str| value(key).filter(|host| host.bytes().all(|b| b.is_ascii_graphic()));
    match name {
        "obfs-local" | "simple-obfs" => Ok(PluginOptions::Obfs {
            disguise: match value("obfs") {
                Some("http") => Disguise::Http,
                Some("tls") => Disguise::Tls,
                _ => return Err(LinkError::Part("plugin")),
            },
            host: host("obfs-host").unwrap_or("bing.com").into(),
        }),
        "v2ray-plugin" if matches!(value("mode"), None | Some("websocket")) => {
            let name = host("host").unwrap_or("bing.com");
            let network = web_socket(value("path"), Some(name), false)?;
            let NetworkOptions::WebSocket(websocket) = network else {
                return Err(LinkError::Part("plugin"));
            };
            let tls = value("tls").map(|_| TlsOptions {
                server_name: Some(name.into()),
                ..TlsOptions::default()
            });
            Ok(PluginOptions::V2ray {
                tls,
                websocket,
                mux: value("mux") != Some("0"),
            })
        }
        _ => Err(LinkError::NotImplemented("its plugin")),
    }
}

fn trojan(rest: &str) -> Result<Spoken, LinkError> {
    let (authority, query) = address::split(rest);
    let authority = Authority::parse(authority)?;
    let query = Query::parse(query)?;
    let server = authority.server(Some(443))?;
    let password = authority.user.ok_or(LinkError::Part("password"))?;
    let options = TrojanOptions {
        server: server.clone(),
        password: percent_decoded(password)?.into(),
        tls: tls_of(&query)?,
        network: network_of(&query)?,
    };
    Ok((Protocol::Trojan(options), server))
}

fn vless(rest: &str) -> Result<Spoken, LinkError> {
    let (authority, query) = address::split(rest);
    let authority = Authority::parse(authority)?;
    let query = Query::parse(query)?;
    let server = authority.server(None)?;
    let flow = VlessFlow::parse(query.get("flow").unwrap_or("")).ok_or(LinkError::Part("flow"))?;
    if !matches!(query.get("encryption"), None | Some("none")) {
        return Err(LinkError::NotImplemented("encryption"));
    }
    let options = VlessOptions {
        server: server.clone(),
        id: id_of(&authority)?,
        packets: packets_of(&query, PacketEncoding::Xudp),
        flow,
        tls: security_of(&query)?,
        network: network_of(&query)?,
    };
    if flow != VlessFlow::Plain && (options.tls.is_none() || options.network != NetworkOptions::Tcp)
    {
        return Err(LinkError::Part("flow"));
    }
    Ok((Protocol::Vless(options), server))
}

/// `vmess://id@host:port?…`, Xray's proposal.
fn vmess(rest: &str) -> Result<Spoken, LinkError> {
    let (authority, query) = address::split(rest);
    let authority = Authority::parse(authority)?;
    let query = Query::parse(query)?;
    let server = authority.server(None)?;
    let options = VmessOptions {
        server: server.clone(),
        id: id_of(&authority)?,
        security: security_named(query.get("encryption").unwrap_or("auto"))?,
        global_padding: false,
        authenticated_length: false,
        packets: packets_of(&query, PacketEncoding::Xudp),
        tls: security_of(&query)?,
        network: network_of(&query)?,
    };
    Ok((Protocol::Vmess(options), server))
}

fn socks5(rest: &str) -> Result<Spoken, LinkError> {
    let (authority, _) = address::split(rest);
    let authority = Authority::parse(authority)?;
    let server = authority.server(Some(1080))?;
    let options = Socks5Options {
        server: server.clone(),
        credentials: credentials(&authority)?,
        tls: None,
    };
    Ok((Protocol::Socks5(options), server))
}

fn http(rest: &str, tls: Option<TlsOptions>) -> Result<Spoken, LinkError> {
    let (authority, query) = address::split(rest);
    let authority = Authority::parse(authority)?;
    let server = authority.server(Some(if tls.is_some() { 443 } else { 80 }))?;
    let named = tls_of(&Query::parse(query)?)?;
    let options = HttpOptions {
        server: server.clone(),
        credentials: credentials(&authority)?,
        tls: tls.map(|_| named),
        headers: Vec::new(),
    };
    Ok((Protocol::Http(options), server))
}

/// `user:password`, or that in base64 (v2rayN).
fn credentials(authority: &Authority<'_>) -> Result<Option<Credentials>, LinkError> {
    let Some(user) = authority.user else {
        return Ok(None);
    };
    let decoded;
    let (username, password) = match user.split_once(':') {
        Some((username, password)) => (percent_decoded(username)?, percent_decoded(password)?),
        None => {
            decoded = base64(user).unwrap_or_else(|_| user.to_owned());
            let (username, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
            (username.to_owned(), password.to_owned())
        }
    };
    Ok(Some(Credentials {
        username: username.into(),
        password: password.into(),
        ..Credentials::default()
    }))
}

fn id_of(authority: &Authority<'_>) -> Result<Box<str>, LinkError> {
    let id = percent_decoded(authority.user.unwrap_or(""))?;
    parse_id(&id).ok_or(LinkError::Part("user id"))?;
    Ok(id.into())
}

/// `security`: TLS, or none.
fn security_of(query: &Query) -> Result<Option<TlsOptions>, LinkError> {
    match query.get("security") {
        None | Some("none") => Ok(None),
        Some("tls" | "xtls" | "reality") => tls_of(query).map(Some),
        Some(_) => Err(LinkError::Part("security")),
    }
}

/// The keys of TLS. `fp` asks for an imitation of a browser, which changes nothing for the server.
fn tls_of(query: &Query) -> Result<TlsOptions, LinkError> {
    let yes = |key| matches!(query.get(key), Some("1" | "true"));
    let alpn = query.get("alpn").unwrap_or("");
    let reality = match query.get("security") {
        Some("reality") => {
            let key = BASE64URL_NOPAD.decode(query.get("pbk").unwrap_or("").as_bytes());
            let key = key.ok().and_then(|key| key.try_into().ok());
            let short_id = parse_short_id(query.get("sid").unwrap_or(""));
            Some(RealityOptions {
                public_key: key.ok_or(LinkError::Part("pbk"))?,
                short_id: short_id.ok_or(LinkError::Part("sid"))?,
            })
        }
        _ => None,
    };
    Ok(TlsOptions {
        server_name: query.get("sni").or(query.get("peer")).map(Into::into),
        skip_verify: yes("allowInsecure") || yes("insecure") || yes("skip-cert-verify"),
        fingerprint: None,
        alpn: alpn
            .split(',')
            .filter(|p| !p.is_empty())
            .map(Into::into)
            .collect(),
        reality,
        suites: Vec::new(),
    })
}

/// `type`, with what belongs to it.
fn network_of(query: &Query) -> Result<NetworkOptions, LinkError> {
    let upgrade_only = match query.get("type") {
        None | Some("tcp" | "raw") => {
            return match query.get("headerType") {
                None | Some("none") => Ok(NetworkOptions::Tcp),
                Some(_) => Err(LinkError::NotImplemented("a header type")),
            };
        }
        Some("ws") => false,
        Some("httpupgrade") => true,
        Some("grpc") => return grpc(query.get("serviceName")),
        Some("h2" | "http") => return http_2(query.get("path"), query.get("host")),
        Some(_) => return Err(LinkError::NotImplemented("its network")),
    };
    web_socket(query.get("path"), query.get("host"), upgrade_only)
}

/// A WebSocket at `path`, which links write with and without its slash.
fn web_socket(
    path: Option<&str>,
    host: Option<&str>,
    upgrade_only: bool,
) -> Result<NetworkOptions, LinkError> {
    let path = path.unwrap_or("");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = host.filter(|host| !host.is_empty());
    let mut options = WebSocketOptions {
        path: format!("{slash}{path}").into(),
        headers: host
            .map(|host| ("Host".into(), host.into()))
            .into_iter()
            .collect(),
        upgrade_only,
        ..WebSocketOptions::default()
    };
    options.take_early_data();
    Request::new(&options.path, "", &options.headers)
        .map_err(|_| LinkError::Part("path or host"))?;
    Ok(NetworkOptions::WebSocket(options))
}

/// A gRPC service.
fn grpc(service: Option<&str>) -> Result<NetworkOptions, LinkError> {
    let service = service.unwrap_or_default();
    Asking::gun("host", service).map_err(|_| LinkError::Part("serviceName"))?;
    Ok(NetworkOptions::Grpc(service.into()))
}

/// Bodies of HTTP/2 at the first of `hosts`.
fn http_2(path: Option<&str>, hosts: Option<&str>) -> Result<NetworkOptions, LinkError> {
    let path = path.unwrap_or("");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    let host = hosts.and_then(|hosts| hosts.split(',').next());
    let host = host.filter(|host| !host.is_empty());
    Asking::body(host.unwrap_or("host"), &path).map_err(|_| LinkError::Part("path or host"))?;
    Ok(NetworkOptions::Http2 {
        host: host.map(Into::into),
        path: path.into(),
    })
}

fn packets_of(query: &Query, absent: PacketEncoding) -> PacketEncoding {
    match query.get("packetEncoding") {
        Some("packet" | "packetaddr") => PacketEncoding::PacketAddress,
        Some("xudp") => PacketEncoding::Xudp,
        Some("none") => PacketEncoding::Plain,
        _ => absent,
    }
}

fn security_named(name: &str) -> Result<VmessSecurity, LinkError> {
    match name {
        "" | "auto" => Ok(VmessSecurity::Auto),
        "aes-128-gcm" => Ok(VmessSecurity::Aes128Gcm),
        "chacha20-poly1305" => Ok(VmessSecurity::ChaCha20Poly1305),
        "none" => Ok(VmessSecurity::None),
        "zero" => Ok(VmessSecurity::Zero),
        _ => Err(LinkError::Part("cipher")),
    }
}

#[cfg(test)]
mod tests;
