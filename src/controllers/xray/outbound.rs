//! Xray's outbounds as proxies, and the other way round (xray-api.md 2.10).
//!
//! Pure. From Xray to an entry of `proxies:` in mihomo's words, which the daemon reads as it reads the
//! configuration; from a proxy to what Xray would say of it, without anybody's secret.

use serde_json::{Value, json};

use super::protobuf::{Field, Fields, Message};
use super::status::{Code, Status};
use super::stream::{Entry, Stream};
use super::typed::{Typed, User, entry, host, host_message, typed};
use crate::outbound::Kind;
use crate::outbound::options::{Protocol, ProxyOptions, ServerAddress};

/// `xray.core.OutboundHandlerConfig` as an entry of `proxies:`, in JSON.
///
/// # Errors
/// What is missing, malformed, or not to be had here.
pub fn proxy(config: Fields<'_>) -> Result<String, Status> {
    let (mut tag, mut sender, mut settings) = ("", Typed::default(), Typed::default());
    for field in config {
        let field = field?;
        match field.number {
            1 => tag = field.text()?,
            2 => sender = Typed::read(&field)?,
            3 => settings = Typed::read(&field)?,
            _ => {}
        }
    }
    if tag.is_empty() {
        return Err(Status::new(
            Code::InvalidArgument,
            "an outbound needs a tag",
        ));
    }
    let stream = sent(&sender)?;
    let mut proxy = stream.dial.clone();
    proxy.insert("name".to_owned(), json!(tag));
    proxy.insert("udp".to_owned(), json!(true));
    match settings.kind() {
        "proxy.freedom.Config" => freedom(&settings, &stream, &mut proxy)?,
        "proxy.blackhole.Config" => set(&mut proxy, "type", "reject"),
        "proxy.socks.ClientConfig" => {
            set(&mut proxy, "type", "socks5");
            login(&server(&settings, &mut proxy)?, &mut proxy)?;
            stream.tls("sni", &mut proxy)?;
        }
        "proxy.http.ClientConfig" => {
            set(&mut proxy, "type", "http");
            login(&server(&settings, &mut proxy)?, &mut proxy)?;
            headers(&settings, &mut proxy)?;
            stream.tls("sni", &mut proxy)?;
        }
        "proxy.shadowsocks.ClientConfig" => shadowsocks(&settings, &stream, &mut proxy)?,
        "proxy.shadowsocks_2022.ClientConfig" => shadowsocks_2022(&settings, &stream, &mut proxy)?,
        "proxy.trojan.ClientConfig" => {
            set(&mut proxy, "type", "trojan");
            let user = server(&settings, &mut proxy)?;
            set(&mut proxy, "password", user.words()?.0);
            stream.tls_or_reality("sni", &mut proxy)?;
            if proxy.remove("tls").is_none() {
                return Err(Status::unknown("headgate's trojan needs TLS"));
            }
            stream.network(&mut proxy)?;
        }
        "proxy.vmess.outbound.Config" => {
            set(&mut proxy, "type", "vmess");
            vmess(&server(&settings, &mut proxy)?, &mut proxy)?;
            stream.tls_or_reality("servername", &mut proxy)?;
            stream.network(&mut proxy)?;
        }
        "proxy.vless.outbound.Config" => {
            set(&mut proxy, "type", "vless");
            vless(&server(&settings, &mut proxy)?, &mut proxy)?;
            stream.tls_or_reality("servername", &mut proxy)?;
            stream.network(&mut proxy)?;
        }
        other => {
            let text = format!("headgate has no outbound of type {other:?}");
            return Err(Status::unknown(text));
        }
    }
    Ok(Value::Object(proxy).to_string())
}

fn set(proxy: &mut Entry, key: &str, value: &str) {
    proxy.insert(key.to_owned(), json!(value));
}

/// `xray.app.proxyman.SenderConfig`, which may be absent.
fn sent<'a>(sender: &Typed<'a>) -> Result<Stream<'a>, Status> {
    if sender.is_absent() {
        return Ok(Stream::default());
    }
    if sender.kind() != "app.proxyman.SenderConfig" {
        return Err(Status::unknown("app/proxyman/outbound: not a SenderConfig"));
    }
    let (mut stream, mut through) = (Stream::default(), None);
    for field in sender.fields() {
        let field = field?;
        match field.number {
            1 => return Err(Status::unknown("headgate does not support sendThrough")),
            2 => stream = Stream::read(&field)?,
            3 => {
                for field in field.message()? {
                    let field = field?;
                    if field.number == 1 {
                        through = Some(field.text()?);
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(through) = through.filter(|through| !through.is_empty()) {
        set(&mut stream.dial, "dialer-proxy", through);
    }
    Ok(stream)
}

fn freedom(settings: &Typed<'_>, stream: &Stream<'_>, proxy: &mut Entry) -> Result<(), Status> {
    stream.require_plain()?;
    set(proxy, "type", "direct");
    for field in settings.fields() {
        let field = field?;
        match field.number {
            1 => {
                // xray.transport.internet.DomainStrategy.
                let version = match field.integer()? {
                    2 | 7 => "ipv4",
                    3 | 8 => "ipv6",
                    4 | 9 => "ipv4-prefer",
                    5 | 10 => "ipv6-prefer",
                    _ => continue,
                };
                set(proxy, "ip-version", version);
            }
            3 => return Err(Status::unknown("headgate does not support redirect")),
            _ => {}
        }
    }
    Ok(())
}

/// Reads field 1, a `ServerEndpoint`: sets `server` and `port`, gives its user.
fn server<'a>(settings: &Typed<'a>, proxy: &mut Entry) -> Result<User<'a>, Status> {
    let mut user = User::default();
    for endpoint in settings.fields() {
        let endpoint = endpoint?;
        if endpoint.number != 1 {
            continue;
        }
        if proxy.contains_key("server") {
            return Err(Status::unknown("headgate takes one server for a proxy"));
        }
        for field in endpoint.message()? {
            let field = field?;
            match field.number {
                1 => address(&field, proxy)?,
                2 => {
                    proxy.insert("port".to_owned(), json!(field.short()?));
                }
                3 => user = User::read(&field)?,
                _ => {}
            }
        }
    }
    Ok(user)
}

fn address(field: &Field<'_>, proxy: &mut Entry) -> Result<(), Status> {
    let host = host(field)?;
    set(proxy, "server", &host);
    Ok(())
}

fn login(user: &User<'_>, proxy: &mut Entry) -> Result<(), Status> {
    if !user.account.is_absent() {
        let (name, password) = user.words()?;
        set(proxy, "username", name);
        set(proxy, "password", password);
    }
    Ok(())
}

/// `xray.proxy.vmess.Account`.
fn vmess(user: &User<'_>, proxy: &mut Entry) -> Result<(), Status> {
    set(proxy, "cipher", "auto");
    for field in user.account.fields() {
        let field = field?;
        match field.number {
            1 => set(proxy, "uuid", field.text()?),
            3 => {
                for field in field.message()? {
                    // xray.common.protocol.SecurityType.
                    let cipher = match field?.integer()? {
                        3 => "aes-128-gcm",
                        4 => "chacha20-poly1305",
                        5 => "none",
                        6 => "zero",
                        _ => "auto",
                    };
                    set(proxy, "cipher", cipher);
                }
            }
            4 if field.text()?.contains("AuthenticatedLength") => {
                proxy.insert("authenticated-length".to_owned(), json!(true));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `xray.proxy.vless.Account`.
fn vless(user: &User<'_>, proxy: &mut Entry) -> Result<(), Status> {
    for field in user.account.fields() {
        let field = field?;
        match field.number {
            1 => set(proxy, "uuid", field.text()?),
            2 => set(proxy, "flow", field.text()?),
            3 => set(proxy, "encryption", field.text()?),
            _ => {}
        }
    }
    Ok(())
}

fn headers(settings: &Typed<'_>, proxy: &mut Entry) -> Result<(), Status> {
    let mut headers = Entry::new();
    for field in settings.fields() {
        let field = field?;
        if field.number == 2 {
            let (name, value) = entry(&field)?;
            headers.insert(name.to_owned(), json!(value));
        }
    }
    if !headers.is_empty() {
        proxy.insert("headers".to_owned(), Value::Object(headers));
    }
    Ok(())
}

/// `xray.proxy.shadowsocks.CipherType`.
fn cipher(number: u64) -> Option<&'static str> {
    Some(match number {
        5 => "aes-128-gcm",
        6 => "aes-256-gcm",
        7 => "chacha20-ietf-poly1305",
        8 => "xchacha20-ietf-poly1305",
        _ => return None,
    })
}

fn shadowsocks(settings: &Typed<'_>, stream: &Stream<'_>, proxy: &mut Entry) -> Result<(), Status> {
    stream.require_plain()?;
    set(proxy, "type", "ss");
    let user = server(settings, proxy)?;
    let mut method = None;
    for field in user.account.fields() {
        let field = field?;
        match field.number {
            1 => set(proxy, "password", field.text()?),
            2 => method = cipher(field.integer()?),
            _ => {}
        }
    }
    let method = method.ok_or_else(|| Status::unknown("Unsupported cipher."))?;
    set(proxy, "cipher", method);
    Ok(())
}

fn shadowsocks_2022(
    settings: &Typed<'_>,
    stream: &Stream<'_>,
    proxy: &mut Entry,
) -> Result<(), Status> {
    stream.require_plain()?;
    set(proxy, "type", "ss");
    for field in settings.fields() {
        let field = field?;
        match field.number {
            1 => address(&field, proxy)?,
            2 => {
                proxy.insert("port".to_owned(), json!(field.short()?));
            }
            3 => set(proxy, "cipher", field.text()?),
            4 => set(proxy, "password", field.text()?),
            _ => {}
        }
    }
    Ok(())
}

/// What Xray would say of a built-in outbound or of a proxy: `xray.core.OutboundHandlerConfig`; `None`
/// for what Xray has no notion of.
#[must_use]
pub fn described(name: &str, kind: Kind, options: Option<&ProxyOptions>) -> Option<Message> {
    let (kind, settings) = match options.map(|options| &options.protocol) {
        Some(Protocol::Shadowsocks(options)) if options.cipher.starts_with("2022-") => {
            let mut settings = Message::default();
            settings.message(1, &host_message(&options.server.host));
            settings.integer(2, options.server.port.into());
            settings.text(3, &options.cipher);
            ("proxy.shadowsocks_2022.ClientConfig", settings)
        }
        Some(protocol) => match protocol.server() {
            Some(server) => (client(kind)?, endpoint(server)),
            None => (client(kind)?, Message::default()),
        },
        None => (client(kind)?, Message::default()),
    };
    let mut outbound = Message::default();
    outbound.text(1, name);
    let sender = typed("app.proxyman.SenderConfig", &Message::default());
    outbound.message(2, &sender);
    outbound.message(3, &typed(kind, &settings));
    Some(outbound)
}

/// The settings of a kind of outbound.
fn client(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Direct => "proxy.freedom.Config",
        Kind::Reject | Kind::RejectDrop => "proxy.blackhole.Config",
        Kind::Http => "proxy.http.ClientConfig",
        Kind::Socks5 => "proxy.socks.ClientConfig",
        Kind::Shadowsocks => "proxy.shadowsocks.ClientConfig",
        Kind::Trojan => "proxy.trojan.ClientConfig",
        Kind::Vmess => "proxy.vmess.outbound.Config",
        Kind::Vless => "proxy.vless.outbound.Config",
        _ => return None,
    })
}

/// Field 1 of the settings of a proxy with a server.
fn endpoint(server: &ServerAddress) -> Message {
    let mut endpoint = Message::default();
    endpoint.message(1, &host_message(&server.host));
    endpoint.integer(2, server.port.into());
    let mut settings = Message::default();
    settings.message(1, &endpoint);
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_server(account: &Message, kind: &str, settings: &str, stream: &Message) -> Message {
        let (mut user, mut end) = (Message::default(), Message::default());
        user.message(3, &typed(kind, account));
        end.message(1, &host_message("node.example"))
            .integer(2, 443)
            .message(3, &user);
        let (mut sender, mut proxy) = (Message::default(), Message::default());
        sender.message(2, stream);
        proxy.message(1, &end);
        let mut outbound = Message::default();
        outbound.text(1, "t");
        outbound.message(2, &typed("app.proxyman.SenderConfig", &sender));
        outbound.message(3, &typed(settings, &proxy));
        outbound
    }

    #[track_caller]
    fn check(outbound: &Message, want: Result<Value, &str>) {
        let got = proxy(Fields::new(outbound.as_bytes()));
        let got = got.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(
            got.map_err(|status| status.message),
            want.map_err(str::to_owned)
        );
    }

    fn secured() -> Message {
        let (mut tls, mut stream) = (Message::default(), Message::default());
        tls.text(3, "front.example").text(4, "h2");
        let kind = "transport.internet.tls.Config";
        stream
            .text(3, &format!("xray.{kind}"))
            .message(4, &typed(kind, &tls));
        stream
    }

    #[test]
    fn vless_over_websocket_and_tls_is_the_proxy_that_mihomo_would_name_so() {
        let (mut account, mut settings, mut transport) =
            (Message::default(), Message::default(), Message::default());
        account
            .text(1, "66ad4540-b58c-4ad2-9926-ea63445a9b57")
            .text(3, "none");
        settings
            .text(1, "front.example")
            .text(2, "/chat")
            .integer(5, 2048);
        transport.message(2, &typed("transport.internet.websocket.Config", &settings));
        transport.text(3, "websocket");
        let mut stream = secured();
        stream.message(2, &transport).text(5, "websocket");
        let outbound = with_server(
            &account,
            "proxy.vless.Account",
            "proxy.vless.outbound.Config",
            &stream,
        );
        let want = json!({
            "name": "t", "type": "vless", "server": "node.example", "port": 443, "udp": true,
            "uuid": "66ad4540-b58c-4ad2-9926-ea63445a9b57", "encryption": "none",
            "tls": true, "servername": "front.example", "alpn": ["h2"],
            "network": "ws",
            "ws-opts": {"path": "/chat", "headers": {"Host": "front.example"},
                "max-early-data": 2048, "early-data-header-name": "Sec-WebSocket-Protocol"},
        });
        check(&outbound, Ok(want));
    }

    #[test]
    fn a_security_that_is_not_spoken_is_never_left_out() {
        let mut stream = Message::default();
        stream.text(3, "xray.transport.internet.reality.Config");
        let mut account = Message::default();
        account.text(1, "u").text(2, "p");
        let kinds = ("proxy.socks.Account", "proxy.socks.ClientConfig");
        let outbound = with_server(&account, kinds.0, kinds.1, &stream);
        let refused = "headgate does not support xray.transport.internet.reality.Config";
        check(&outbound, Err(refused));
        let plain = with_server(&account, kinds.0, kinds.1, &Message::default());
        let want = json!({"name": "t", "type": "socks5", "server": "node.example", "port": 443,
            "udp": true, "username": "u", "password": "p"});
        check(&plain, Ok(want));
    }

    #[test]
    fn shadowsocks_needs_a_cipher_that_is_known() {
        let mut account = Message::default();
        account.text(1, "p").integer(2, 5);
        let kinds = (
            "proxy.shadowsocks.Account",
            "proxy.shadowsocks.ClientConfig",
        );
        let outbound = with_server(&account, kinds.0, kinds.1, &Message::default());
        let want = json!({"name": "t", "type": "ss", "server": "node.example", "port": 443,
            "udp": true, "cipher": "aes-128-gcm", "password": "p"});
        check(&outbound, Ok(want));
        account.integer(2, 9);
        let outbound = with_server(&account, kinds.0, kinds.1, &Message::default());
        check(&outbound, Err("Unsupported cipher."));
    }
}
