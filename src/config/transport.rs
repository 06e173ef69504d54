//! `network` with its `…-opts`, and the proxies that have it (clash-api.md 3.8): VMess, VLESS, Trojan.

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::proxies::{header, server, tls, tls_keys};
use super::section::Section;
use crate::encoding::BASE64URL_NOPAD;
use crate::outbound::options::{
    NetworkOptions, PacketEncoding, RealityOptions, TlsOptions, TrojanOptions, VlessFlow,
    VlessOptions, VmessOptions, VmessSecurity, WebSocketOptions,
};
use crate::outbound::reality::parse_short_id;
use crate::outbound::vmess::keys::parse_id;

/// Values of `network` that mihomo knows and headgate does not.
const OTHER_NETWORKS: &[&str] = &["http", "xhttp"];

/// Values of `flow`.
const FLOWS: &str = "xtls-rprx-vision or xtls-rprx-vision-udp443";

/// `type: trojan`.
pub(super) fn trojan(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<TrojanOptions, ConfigError> {
    let mut options = TrojanOptions {
        server: server(section)?,
        password: section.require("password")?.text()?.into(),
        tls: tls_keys(section)?,
        network: network(section, warnings)?,
    };
    // TLS is not a choice here; mihomo ignores the key too.
    let _always = section.take("tls");
    reality(section, Some(&mut options.tls), warnings)?;
    refuse(section, "ss-opts")?;
    Ok(options)
}

/// `type: vmess`.
pub(super) fn vmess(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<VmessOptions, ConfigError> {
    if let Some(alter) = section.take("alterId") {
        let id = alter.integer(0..=u32::MAX, "0: headers without AEAD are gone everywhere")?;
        if id != 0 {
            return Err(alter.expected("0: headers without AEAD are gone everywhere"));
        }
    }
    let network = network(section, warnings)?;
    let mut options = VmessOptions {
        server: server(section)?,
        id: uuid(section)?,
        security: match section.take("cipher") {
            Some(cipher) => cipher.parse(
                "auto, aes-128-gcm, chacha20-poly1305, none or zero",
                |text| match text {
                    "auto" => Some(VmessSecurity::Auto),
                    "aes-128-gcm" => Some(VmessSecurity::Aes128Gcm),
                    "chacha20-poly1305" => Some(VmessSecurity::ChaCha20Poly1305),
                    "none" => Some(VmessSecurity::None),
                    "zero" => Some(VmessSecurity::Zero),
                    _ => None,
                },
            )?,
            None => VmessSecurity::Auto,
        },
        global_padding: section.boolean("global-padding", false)?,
        authenticated_length: section.boolean("authenticated-length", false)?,
        packets: packet_encoding(section, PacketEncoding::Plain)?,
        // HTTP/2 goes over TLS here whatever `tls` says, as in mihomo.
        tls: match &network {
            NetworkOptions::Grpc(_) | NetworkOptions::Http2 { .. } => {
                let _always = section.take("tls");
                Some(tls_keys(section)?)
            }
            NetworkOptions::Tcp | NetworkOptions::WebSocket(_) => tls(section)?,
        },
        network,
    };
    reality(section, options.tls.as_mut(), warnings)?;
    Ok(options)
}

/// `type: vless`.
pub(super) fn vless(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<VlessOptions, ConfigError> {
    let mut options = VlessOptions {
        server: server(section)?,
        id: uuid(section)?,
        packets: packet_encoding(section, PacketEncoding::Xudp)?,
        flow: VlessFlow::Plain,
        tls: tls(section)?,
        network: network(section, warnings)?,
    };
    if let Some(flow) = section.take("flow") {
        options.flow = flow.parse(FLOWS, VlessFlow::parse)?;
        let fits = options.tls.is_some() && options.network == NetworkOptions::Tcp;
        if options.flow != VlessFlow::Plain && !fits {
            return Err(flow.expected("a flow only with `tls: true` and `network: tcp`"));
        }
    }
    reality(section, options.tls.as_mut(), warnings)?;
    if let Some(encryption) = section.take("encryption")
        && encryption.text()? != "none"
    {
        return Err(encryption.fail(Reason::NotImplemented(Excerpt::of("encryption"))));
    }
    Ok(options)
}

/// `uuid`, checked; never quoted.
fn uuid(section: &mut Section<'_>) -> Result<Box<str>, ConfigError> {
    let id = section.require("uuid")?;
    match parse_id(id.text()?) {
        Some(_) => Ok(id.text()?.into()),
        None => Err(id.fail(Reason::SecretValue("a UUID, or a text of at most 30 bytes"))),
    }
}

/// `packet-encoding`, or the older switches for its values.
fn packet_encoding(
    section: &mut Section<'_>,
    absent: PacketEncoding,
) -> Result<PacketEncoding, ConfigError> {
    let xudp = section.boolean("xudp", false)?;
    let packet_address = section.boolean("packet-addr", false)?;
    match section.take("packet-encoding") {
        Some(encoding) => encoding.parse("xudp, packetaddr or none", |text| match text {
            "xudp" => Some(PacketEncoding::Xudp),
            "packetaddr" | "packet" => Some(PacketEncoding::PacketAddress),
            "none" => Some(PacketEncoding::Plain),
            _ => None,
        }),
        None if packet_address => Ok(PacketEncoding::PacketAddress),
        None if xudp => Ok(PacketEncoding::Xudp),
        None => Ok(absent),
    }
}

/// `reality-opts`, which come with TLS of mihomo's own kind.
fn reality(
    section: &mut Section<'_>,
    tls: Option<&mut TlsOptions>,
    warnings: &mut Warnings,
) -> Result<(), ConfigError> {
    let Some(at) = section.take("reality-opts") else {
        return Ok(());
    };
    let mut section = at.section()?;
    let options = RealityOptions {
        public_key: section
            .require("public-key")?
            .parse(X25519_KEY, x25519_key)?,
        short_id: match section.take("short-id") {
            Some(id) => short_id(&id)?,
            None => [0; 8],
        },
    };
    section.not_implemented(&["support-x25519mlkem768"], warnings);
    section.finish(warnings);
    match tls {
        Some(tls) => tls.reality = Some(options),
        None => return Err(at.expected("only with `tls: true`")),
    }
    Ok(())
}

/// What a key of X25519 looks like.
pub(super) const X25519_KEY: &str = "a key of 32 bytes in base64 as Xray prints it";

/// A key of X25519.
pub(super) fn x25519_key(text: &str) -> Option<[u8; 32]> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// One of REALITY's short ids.
pub(super) fn short_id(at: &Cursor<'_>) -> Result<[u8; 8], ConfigError> {
    let expected = "up to 16 hexadecimal digits, an even number";
    let id = parse_short_id(at.text()?);
    id.ok_or_else(|| at.fail(Reason::SecretValue(expected)))
}

/// Refuses a key without which the server would not understand a byte.
fn refuse(section: &mut Section<'_>, key: &'static str) -> Result<(), ConfigError> {
    match section.take(key) {
        Some(value) => Err(value.fail(Reason::NotImplemented(Excerpt::of(key)))),
        None => Ok(()),
    }
}

/// `network` and the options that belong to it; those of other networks mean nothing.
pub(super) fn network(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<NetworkOptions, ConfigError> {
    let websocket = section.take("ws-opts");
    let (http2, grpc) = (section.take("h2-opts"), section.take("grpc-opts"));
    let others = ["http-opts", "xhttp-opts"];
    let network = section.take("network");
    for key in others {
        let _of_another = section.take(key);
    }
    let Some(network) = network else {
        return Ok(NetworkOptions::Tcp);
    };
    match network.text()? {
        "tcp" => Ok(NetworkOptions::Tcp),
        "ws" => match websocket {
            Some(options) => Ok(NetworkOptions::WebSocket(web_socket(&options, warnings)?)),
            None => Ok(NetworkOptions::WebSocket(WebSocketOptions {
                path: "/".into(),
                ..WebSocketOptions::default()
            })),
        },
        "h2" => http_2(http2.as_ref(), warnings),
        "grpc" => Ok(NetworkOptions::Grpc(match grpc {
            Some(options) => {
                let mut section = options.section()?;
                let name = section.take("grpc-service-name");
                section.finish(warnings);
                name.map_or(Ok(DEFAULT_SERVICE.into()), |name| service_name(&name))?
            }
            None => DEFAULT_SERVICE.into(),
        })),
        other if OTHER_NETWORKS.contains(&other) => {
            Err(network.fail(Reason::NotImplemented(Excerpt::of(other))))
        }
        other => Err(network.fail(Reason::Unknown("network", Excerpt::of(other)))),
    }
}

/// What mihomo calls the service when nobody else does.
const DEFAULT_SERVICE: &str = "GunService";

/// The name of a gRPC service, or a whole path that begins with a slash.
pub(super) fn service_name(at: &Cursor<'_>) -> Result<Box<str>, ConfigError> {
    at.parse("the name of a gRPC service", |text| {
        let plain = |b: u8| b.is_ascii_graphic() && !b"?#".contains(&b);
        (!text.is_empty() && text.bytes().all(plain)).then(|| text.into())
    })
}

/// `h2-opts`.
fn http_2(
    options: Option<&Cursor<'_>>,
    warnings: &mut Warnings,
) -> Result<NetworkOptions, ConfigError> {
    let (mut host, mut path) = (None, "/".into());
    if let Some(options) = options {
        let mut section = options.section()?;
        if let Some(hosts) = section.take("host") {
            // A list, of which one is used.
            for name in hosts.items()?.take(1) {
                host = Some(name.parse("a host name", |text| {
                    let plain = |b: u8| b.is_ascii_graphic() && !b"/?#@".contains(&b);
                    (!text.is_empty() && text.bytes().all(plain)).then(|| text.into())
                })?);
            }
        }
        if let Some(at) = section.take("path") {
            path = at.parse(PATH, path_of)?;
        }
        section.finish(warnings);
    }
    Ok(NetworkOptions::Http2 { host, path })
}

const PATH: &str = "a path that begins with a slash";

fn path_of(text: &str) -> Option<Box<str>> {
    let graphic = text.bytes().all(|b| b.is_ascii_graphic());
    (graphic && text.starts_with('/')).then(|| text.into())
}

fn web_socket(at: &Cursor<'_>, warnings: &mut Warnings) -> Result<WebSocketOptions, ConfigError> {
    let mut section = at.section()?;
    let mut options = WebSocketOptions {
        path: match section.take("path") {
            Some(path) => path.parse(PATH, path_of)?,
            None => "/".into(),
        },
        headers: match section.take("headers") {
            Some(headers) => headers
                .entries()?
                .map(|(name, value)| header(name, &value))
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        early_data_max: match section.take("max-early-data") {
            Some(most) => most.integer(0..=8192, "a number of bytes (0 to 8192)")?,
            None => 0,
        },
        early_data_header: section.text("early-data-header-name")?.unwrap_or_default(),
        upgrade_only: section.boolean("v2ray-http-upgrade", false)?,
    };
    options.take_early_data();
    section.not_implemented(&["v2ray-http-upgrade-fast-open"], warnings);
    section.finish(warnings);
    Ok(options)
}
