//! `listeners:` of the encrypting protocols: users, TLS, WebSocket, gRPC, fallback (clash-api.md 3.6).

use std::sync::Arc;
use std::time::Duration;

use super::decode::Cursor;
use super::error::{ConfigError, Excerpt, Reason, Warnings};
use super::section::Section;
use super::transport::service_name;
use super::transport::{X25519_KEY, short_id, x25519_key};
use crate::inbound::options::ListenerKind;
use crate::inbound::server::options::{
    Fallback, RealityServer, ServerOptions, ServerProtocolOptions, ServerTls, ShadowsocksServer,
};
use crate::metadata::Endpoint;
use crate::outbound::options::Credentials;
use crate::outbound::shadowsocks::method::{MethodError, Secret};
use crate::outbound::vless::vision::FLOW;
use crate::outbound::vmess::keys::parse_id;

/// What a listener of this kind has besides; `None` for kinds without.
pub(super) fn decode(
    kind: ListenerKind,
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Option<Arc<ServerOptions>>, ConfigError> {
    let protocol = match kind {
        ListenerKind::Shadowsocks => shadowsocks(section, warnings)?,
        ListenerKind::Vmess => {
            ServerProtocolOptions::Vmess(users(section, "uuid", false, warnings)?)
        }
        ListenerKind::Vless => {
            ServerProtocolOptions::Vless(users(section, "uuid", true, warnings)?)
        }
        ListenerKind::Trojan => {
            ServerProtocolOptions::Trojan(users(section, "password", false, warnings)?)
        }
        ListenerKind::Http
        | ListenerKind::Socks
        | ListenerKind::Mixed
        | ListenerKind::Redirect
        | ListenerKind::TProxy
        | ListenerKind::Tunnel => return Ok(None),
    };
    for key in ["ss-option", "decryption"] {
        if let Some(value) = section.take(key) {
            return Err(value.fail(Reason::NotImplemented(Excerpt::of(key))));
        }
    }
    let reality = section.take("reality-config");
    let options = ServerOptions {
        reality: match &reality {
            Some(options) => Some(reality_config(options, warnings)?),
            None => None,
        },
        tls: tls(section)?,
        ws_path: match section.take("ws-path") {
            Some(path) => Some(path.parse("a path that begins with a slash", |text| {
                let graphic = text.bytes().all(|b| b.is_ascii_graphic() && b != b'?');
                (graphic && text.starts_with('/')).then(|| text.into())
            })?),
            None => None,
        },
        grpc_service: section
            .take("grpc-service-name")
            .map(|name| service_name(&name))
            .transpose()?,
        fallbacks: fallbacks(section, warnings)?,
        protocol,
    };
    if let (Some(at), Some(_)) = (&reality, &options.tls) {
        return Err(at.expected("no `certificate` beside it: the site has its own"));
    }
    if matches!(options.protocol, ServerProtocolOptions::Trojan(_))
        && options.tls.is_none()
        && options.reality.is_none()
        && options.ws_path.is_none()
        && options.grpc_service.is_none()
    {
        return Err(section.at().missing("certificate", Reason::Missing));
    }
    Ok(Some(Arc::new(options)))
}

/// `fallbacks:`, and `fallback` for whom none of them is.
fn fallbacks(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<Vec<Fallback>, ConfigError> {
    const PLACE: &str = "an IP address and a port";
    let place = |at: &Cursor<'_>| at.parse(PLACE, |text| text.parse().ok());
    let mut fallbacks = Vec::new();
    if let Some(list) = section.take("fallbacks") {
        for item in list.items()? {
            let mut section = item.section()?;
            let mut condition = |key| {
                let text = section.text(key)?;
                Ok::<_, ConfigError>(text.filter(|text| !text.is_empty()))
            };
            let (name, alpn, path) = (condition("name")?, condition("alpn")?, condition("path")?);
            fallbacks.push(Fallback {
                to: place(&section.require("dest")?)?,
                name,
                alpn,
                path,
                proxy_version: match section.take("xver") {
                    Some(version) => version.parse("0, 1 or 2", |text| match text {
                        "0" => Some(0),
                        "1" => Some(1),
                        "2" => Some(2),
                        _ => None,
                    })?,
                    None => 0,
                },
            });
            section.finish(warnings);
        }
    }
    if let Some(address) = section.take("fallback") {
        fallbacks.push(Fallback {
            to: place(&address)?,
            name: None,
            alpn: None,
            path: None,
            proxy_version: 0,
        });
    }
    Ok(fallbacks)
}

/// `reality-config`.
fn reality_config(at: &Cursor<'_>, warnings: &mut Warnings) -> Result<RealityServer, ConfigError> {
    let mut section = at.section()?;
    let site = section.require("dest")?;
    let key = section.require("private-key")?;
    let names = section.require("server-names")?;
    let options = RealityServer {
        site: site.parse("a host and a port", Endpoint::parse)?,
        private_key: x25519_key(key.text()?)
            .ok_or_else(|| key.fail(Reason::SecretValue(X25519_KEY)))?,
        short_ids: section.list("short-id", short_id)?,
        server_names: names
            .items()?
            .map(|item| item.text().map(Box::from))
            .collect::<Result<_, _>>()?,
        time_difference_max: match section.take("max-time-difference") {
            // mihomo counts microseconds.
            Some(most) => Duration::from_micros(
                most.integer(0..=u32::MAX, "a number of microseconds")?
                    .into(),
            ),
            None => Duration::ZERO,
        },
    };
    if options.short_ids.is_empty() {
        return Err(at.missing("short-id", Reason::Missing));
    }
    section.finish(warnings);
    Ok(options)
}

fn tls(section: &mut Section<'_>) -> Result<Option<ServerTls>, ConfigError> {
    let certificate = section.text("certificate")?;
    let private_key = section.text("private-key")?;
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => Ok(Some(ServerTls {
            certificate,
            private_key,
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(section.at().missing("private-key", Reason::Missing)),
        (None, Some(_)) => Err(section.at().missing("certificate", Reason::Missing)),
    }
}

fn shadowsocks(
    section: &mut Section<'_>,
    warnings: &mut Warnings,
) -> Result<ServerProtocolOptions, ConfigError> {
    let cipher = section.require("cipher")?;
    let name: Box<str> = cipher.text()?.into();
    let check = |at: &Cursor<'_>| {
        Secret::new(&name, at.text()?).map_err(|why| match why {
            MethodError::UnknownCipher(name) => {
                cipher.fail(Reason::Unknown("cipher", Excerpt::of(&name)))
            }
            why => at.fail(Reason::Shadowsocks(why)),
        })?;
        at.text().map(Box::from)
    };
    let users = match section.take("users") {
        Some(list) => Some(
            list.items()?
                .enumerate()
                .map(|(number, item)| {
                    let mut section = item.section()?;
                    let user = Credentials {
                        username: user_name(&mut section, number)?,
                        password: check(&section.require("password")?)?,
                        level: section.number("level", 0)?,
                        ..Credentials::default()
                    };
                    section.finish(warnings);
                    Ok(user)
                })
                .collect::<Result<Vec<_>, _>>()?,
        ),
        None => None,
    };
    // Several users of the 2022 edition come behind the server's own key; of the other, alone.
    let identity = name.starts_with("2022");
    let password = match section.take("password") {
        Some(password) => check(&password)?,
        None if users.is_none() || identity => {
            return Err(section.at().missing("password", Reason::Missing));
        }
        None => "".into(),
    };
    Ok(ServerProtocolOptions::Shadowsocks(ShadowsocksServer {
        cipher: name.clone(),
        password,
        users,
    }))
}

/// `users:` with a `uuid` or a `password` each, a `level`, and maybe the flow `vision`.
fn users(
    section: &mut Section<'_>,
    secret: &'static str,
    vision: bool,
    warnings: &mut Warnings,
) -> Result<Vec<Credentials>, ConfigError> {
    let list = section.require("users")?;
    let users = list.items()?.enumerate().map(|(number, item)| {
        let mut section = item.section()?;
        let name = user_name(&mut section, number)?;
        let at = section.require(secret)?;
        if secret == "uuid" && parse_id(at.text()?).is_none() {
            let expected = "a UUID, or a text of at most 30 bytes";
            return Err(at.fail(Reason::SecretValue(expected)));
        }
        let mut user = Credentials {
            username: name,
            password: at.text()?.into(),
            level: section.number("level", 0)?,
            ..Credentials::default()
        };
        if let Some(flow) = section.take("flow") {
            user.vision = match flow.text()? {
                "" => false,
                FLOW if vision => true,
                _ => return Err(flow.expected("xtls-rprx-vision, of VLESS alone")),
            };
        }
        section.not_implemented(&["alterId"], warnings);
        section.finish(warnings);
        Ok(user)
    });
    users.collect()
}

/// `username`, or the place in the list from 1.
fn user_name(section: &mut Section<'_>, number: usize) -> Result<Box<str>, ConfigError> {
    let name = section.text("username")?;
    Ok(name.unwrap_or_else(|| (number + 1).to_string().into()))
}
