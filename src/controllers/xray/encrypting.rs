//! Xray's servers of VMess, VLESS, Trojan and Shadowsocks as listeners, and the other way round
//! (xray-api.md 2.10).
//!
//! Pure. Secrets are checked where the configuration's are, by its own parser.

use serde_json::{Value, json};

use super::account::CIPHERS;
use super::protobuf::{Field, Message};
use super::status::Status;
use super::stream::Entry;
use super::typed::{Typed, User};
use crate::inbound::server::options::{Fallback, ServerOptions, ServerProtocolOptions};
use crate::outbound::vless::vision::FLOW;

/// How the messages of one type are laid out.
struct Layout {
    kind: &'static str,
    /// `type` of a listener.
    listener: &'static str,
    /// The field of its users, and what proves them in `users:`.
    users: (u32, &'static str),
    /// The fields that may hold fallbacks: one moved in 25.8.29.
    fallbacks: &'static [u32],
    /// The field of its networks.
    networks: u32,
}

const fn streams(
    kind: &'static str,
    listener: &'static str,
    secret: &'static str,
    fallbacks: &'static [u32],
) -> Layout {
    Layout {
        kind,
        listener,
        users: (1, secret),
        fallbacks,
        networks: 0,
    }
}

const fn shadowsocks(kind: &'static str, users: u32, networks: u32) -> Layout {
    Layout {
        kind,
        listener: "shadowsocks",
        users: (users, "password"),
        fallbacks: &[],
        networks,
    }
}

const LAYOUTS: &[Layout] = &[
    streams("proxy.vmess.inbound.Config", "vmess", "uuid", &[]),
    streams("proxy.vless.inbound.Config", "vless", "uuid", &[2, 3]),
    streams("proxy.trojan.ServerConfig", "trojan", "password", &[2]),
    shadowsocks("proxy.shadowsocks.ServerConfig", 1, 2),
    shadowsocks("proxy.shadowsocks_2022.ServerConfig", 0, 5),
    shadowsocks("proxy.shadowsocks_2022.MultiUserServerConfig", 3, 4),
];

/// `xray.common.net.Network`.
const NETWORK_TCP: u32 = 2;
const NETWORK_UDP: u32 = 3;

fn layout(kind: &str) -> Option<&'static Layout> {
    LAYOUTS.iter().find(|layout| layout.kind == kind)
}

/// Whether the settings are those of such a server.
pub(super) fn is_server(kind: &str) -> bool {
    layout(kind).is_some()
}

/// Puts a server's own keys into an entry of `listeners:`.
///
/// # Errors
/// What is malformed, or not to be had here.
pub(super) fn server(proxy: &Typed<'_>, listener: &mut Entry) -> Result<(), Status> {
    let layout = layout(proxy.kind()).ok_or_else(|| Status::unknown("no such server"))?;
    let of_2022 = layout.kind.starts_with("proxy.shadowsocks_2022");
    listener.insert("type".to_owned(), json!(layout.listener));
    let (mut users, mut networks, mut ciphers) = (Vec::new(), Vec::new(), Vec::new());
    let mut fallbacks = Vec::new();
    for field in proxy.fields() {
        let field = field?;
        match field.number {
            number if number == layout.users.0 => {
                let user = User::read(&field)?;
                ciphers.push(cipher(&user)?);
                users.push(entry(&user, layout.users.1)?);
            }
            number if number == layout.networks => field.push_shorts(&mut networks)?,
            1 | 2 if of_2022 => {
                let key = if field.number == 1 {
                    "cipher"
                } else {
                    "password"
                };
                listener.insert(key.to_owned(), json!(field.text()?));
            }
            number if layout.fallbacks.contains(&number) => fallback(&field, &mut fallbacks)?,
            _ => {}
        }
    }
    if layout.users.0 != 0 {
        listener.insert("users".to_owned(), Value::Array(users));
    }
    if !fallbacks.is_empty() {
        listener.insert("fallbacks".to_owned(), Value::Array(fallbacks));
    }
    if layout.listener != "shadowsocks" {
        return Ok(());
    }
    if !of_2022 {
        ciphers.dedup();
        match ciphers.as_slice() {
            [Some(cipher)] => listener.insert("cipher".to_owned(), json!(cipher)),
            // Who joins later brings it.
            _ => {
                let text = "a Shadowsocks inbound has one supported cipher for all users here";
                return Err(Status::unknown(text));
            }
        };
    }
    let udp = networks.contains(&NETWORK_UDP) || networks.is_empty() && of_2022;
    if !networks.is_empty() && !networks.contains(&NETWORK_TCP) {
        return Err(Status::unknown("a Shadowsocks inbound takes TCP here"));
    }
    listener.insert("udp".to_owned(), json!(udp));
    Ok(())
}

/// An entry of `users:`; who has no email is named by his place.
fn entry(user: &User<'_>, secret: &str) -> Result<Value, Status> {
    let (first, second) = user.words()?;
    let mut entry = Entry::new();
    if !second.is_empty() && user.account.kind() == "proxy.vless.Account" {
        if second != FLOW {
            let text = format!("headgate does not speak the flow {second}");
            return Err(Status::unknown(text));
        }
        entry.insert("flow".to_owned(), json!(second));
    }
    if user.level > 0 {
        entry.insert("level".to_owned(), json!(user.level));
    }
    if !user.email.is_empty() {
        entry.insert("username".to_owned(), json!(user.email));
    }
    entry.insert(secret.to_owned(), json!(first));
    Ok(Value::Object(entry))
}

/// The cipher of a Shadowsocks account.
fn cipher(user: &User<'_>) -> Result<Option<&'static str>, Status> {
    if user.account.kind() != "proxy.shadowsocks.Account" {
        return Ok(None);
    }
    for field in user.account.fields() {
        let field = field?;
        if field.number == 2 {
            let number = field.integer()?;
            let known = CIPHERS.iter().find(|(known, _)| *known == number);
            return Ok(known.map(|(_, name)| *name));
        }
    }
    Ok(None)
}

/// One that answers strangers; VLESS's `decryption` stands in the same place.
fn fallback(field: &Field<'_>, fallbacks: &mut Vec<Value>) -> Result<(), Status> {
    if field.bytes()? == b"none" {
        return Ok(());
    }
    let mut entry = Entry::new();
    for field in field.message()? {
        let field = field?;
        let key = match field.number {
            1 => "name",
            2 => "alpn",
            3 => "path",
            5 => "dest",
            6 => {
                entry.insert("xver".to_owned(), json!(field.integer()?));
                continue;
            }
            _ => continue,
        };
        let text = field.text()?;
        let text = match key {
            "dest" if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("127.0.0.1:{text}"),
            _ => text.to_owned(),
        };
        entry.insert(key.to_owned(), json!(text));
    }
    fallbacks.push(Value::Object(entry));
    Ok(())
}

/// What Xray would say of a server, and the type of it. Nobody's secret is in it.
pub(super) fn described(server: &ServerOptions, proxy: &mut Message) -> &'static str {
    let users = server.protocol.users();
    let kind = match &server.protocol {
        ServerProtocolOptions::Vmess(_) => "proxy.vmess.inbound.Config",
        ServerProtocolOptions::Vless(_) => "proxy.vless.inbound.Config",
        ServerProtocolOptions::Trojan(_) => "proxy.trojan.ServerConfig",
        ServerProtocolOptions::Shadowsocks(options) if options.cipher.starts_with("2022") => {
            proxy.text(1, &options.cipher);
            match users {
                Some(_) => "proxy.shadowsocks_2022.MultiUserServerConfig",
                None => "proxy.shadowsocks_2022.ServerConfig",
            }
        }
        ServerProtocolOptions::Shadowsocks(_) => "proxy.shadowsocks.ServerConfig",
    };
    let layout = layout(kind);
    let number = layout.map_or(1, |layout| layout.users.0);
    for user in users.unwrap_or_default() {
        let mut entry = Message::default();
        entry.integer(1, user.level.into());
        proxy.message(number, entry.text(2, &user.username));
    }
    if let Some(&number) = layout.and_then(|layout| layout.fallbacks.first()) {
        for fallback in &server.fallbacks {
            proxy.message(number, &answering(fallback));
        }
    }
    kind
}

/// `Fallback` of either protocol.
fn answering(fallback: &Fallback) -> Message {
    let mut message = Message::default();
    let conditions = [&fallback.name, &fallback.alpn, &fallback.path];
    for (number, condition) in (1..).zip(conditions) {
        message.text(number, condition.as_deref().unwrap_or_default());
    }
    message.text(4, "tcp").text(5, &fallback.to.to_string());
    message.integer(6, fallback.proxy_version.into());
    message
}

#[cfg(test)]
mod tests {
    use super::super::typed::typed;
    use super::*;

    const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

    fn user(email: &str, kind: &str, secret: &str, cipher: u64) -> Message {
        let (mut user, mut account) = (Message::default(), Message::default());
        account.text(1, secret).integer(2, cipher);
        user.text(2, email).message(3, &typed(kind, &account));
        user
    }

    #[track_caller]
    fn check(kind: &str, settings: &Message, want: Result<Value, &str>) {
        let kind = format!("xray.{kind}");
        let mut typed = Message::default();
        typed.text(1, &kind).bytes(2, settings.as_bytes());
        let mut outer = Message::default();
        outer.message(1, &typed);
        let field = super::super::protobuf::Fields::new(outer.as_bytes()).next();
        let typed = Typed::read(&field.unwrap().unwrap()).unwrap();
        let mut listener = Entry::new();
        let done = server(&typed, &mut listener).map(|()| Value::Object(listener));
        assert_eq!(
            done.map_err(|status| status.message),
            want.map_err(str::to_owned)
        );
    }

    #[test]
    fn users_come_with_their_ids_and_names() {
        let mut vless = Message::default();
        let mut first = user("a@b", "proxy.vless.Account", ID, 0);
        vless.message(1, first.integer(1, 3));
        vless.message(1, &user("", "proxy.vless.Account", ID, 0));
        vless.text(2, "none");
        let users = json!([{"username": "a@b", "uuid": ID, "level": 3}, {"uuid": ID}]);
        let want = json!({"type": "vless", "users": users});
        check("proxy.vless.inbound.Config", &vless, Ok(want));
        let nobody = json!({"type": "vmess", "users": []});
        check(
            "proxy.vmess.inbound.Config",
            &Message::default(),
            Ok(nobody),
        );
    }

    #[test]
    fn fallbacks_keep_their_conditions() {
        let (mut trojan, mut any) = (Message::default(), Message::default());
        any.text(5, "80");
        let mut some = Message::default();
        some.text(1, "a.test").text(2, "h2").text(3, "/a");
        some.text(5, "192.0.2.1:81").integer(6, 2);
        trojan.message(2, &any).message(2, &some);
        let want = json!({"type": "trojan", "users": [], "fallbacks": [
            {"dest": "127.0.0.1:80"},
            {"name": "a.test", "alpn": "h2", "path": "/a", "dest": "192.0.2.1:81", "xver": 2},
        ]});
        check("proxy.trojan.ServerConfig", &trojan, Ok(want));
    }

    #[test]
    fn fallbacks_are_shown_as_they_were_given() {
        let fallbacks = json!([
            {"name": "a.test", "alpn": "h2", "dest": "192.0.2.1:81", "xver": 2},
            {"path": "/a", "dest": "[2001:db8::1]:82"},
            {"dest": "127.0.0.1:80"},
        ]);
        for (listener, keys) in [("vless", ""), ("trojan", "\"ws-path\": \"/\",")] {
            let entry = format!(
                "{{\"name\": \"a\", \"type\": \"{listener}\", \"port\": 1, {keys} \"users\": [], \"fallbacks\": {fallbacks}}}"
            );
            let options = crate::config::Config::listener(&entry).unwrap();
            let mut settings = Message::default();
            let kind = described(options.server.as_deref().unwrap(), &mut settings);
            let want = json!({"type": listener, "users": [], "fallbacks": fallbacks});
            check(kind, &settings, Ok(want));
        }
    }

    #[test]
    fn all_users_of_shadowsocks_have_one_cipher() {
        let account = "proxy.shadowsocks.Account";
        let mut one = Message::default();
        one.message(1, &user("a", account, "p", 5));
        one.message(1, &user("b", account, "q", 5));
        one.integer(2, 2).integer(2, 3);
        let users = json!([{"username": "a", "password": "p"}, {"username": "b", "password": "q"}]);
        let want =
            json!({"type": "shadowsocks", "cipher": "aes-128-gcm", "users": users, "udp": true});
        check("proxy.shadowsocks.ServerConfig", &one, Ok(want));
        one.message(1, &user("c", account, "r", 7));
        let refused = Err("a Shadowsocks inbound has one supported cipher for all users here");
        check("proxy.shadowsocks.ServerConfig", &one, refused);
        let mut of_2022 = Message::default();
        of_2022.text(1, "2022-blake3-aes-128-gcm").text(2, "AAEC");
        let want = json!({"type": "shadowsocks", "cipher": "2022-blake3-aes-128-gcm",
            "password": "AAEC", "udp": true});
        check("proxy.shadowsocks_2022.ServerConfig", &of_2022, Ok(want));
    }
}
