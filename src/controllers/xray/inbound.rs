//! Xray's inbounds as listeners, and the other way round (xray-api.md 2.10).
//!
//! Pure. From Xray to an entry of `listeners:` in mihomo's words, which the daemon reads as it reads
//! the configuration; from a listener to what Xray would say of it, without anybody's password.

use std::net::Ipv6Addr;

use serde_json::{Value, json};

use super::encrypting;
use super::protobuf::{Fields, Message, Value as Raw};
use super::status::{Code, Status};
use super::stream::{Capture, Entry, Stream};
use super::typed::{Typed, entry, host, host_message, ports, typed};
use crate::inbound::Port;
use crate::inbound::options::ListenerKind;
use crate::outbound::options::Credentials;

/// `xray.app.proxyman.ReceiverConfig`.
#[derive(Default)]
struct Receiver<'a> {
    ports: Vec<(u32, u32)>,
    listen: String,
    stream: Stream<'a>,
}

impl<'a> Receiver<'a> {
    /// Numbers moved in 25.10.15: the stream settings were field 4, which is a boolean since; what was
    /// field 3 then says nothing that a stream's settings would.
    fn read(settings: &Typed<'a>) -> Result<Self, Status> {
        let mut receiver = Self::default();
        for field in settings.fields() {
            let field = field?;
            match (field.number, field.value) {
                (1, _) => receiver.ports = ports(&field)?,
                (2, _) => receiver.listen = host(&field)?,
                (3 | 4, Raw::Bytes(_)) => receiver.stream = Stream::read(&field)?,
                _ => {}
            }
        }
        Ok(receiver)
    }
}

/// `xray.core.InboundHandlerConfig` as an entry of `listeners:`, in JSON.
///
/// # Errors
/// What is missing, malformed, or not to be had here.
pub fn listener(config: Fields<'_>) -> Result<String, Status> {
    let (mut tag, mut receiver, mut proxy) = ("", Typed::default(), Typed::default());
    for field in config {
        let field = field?;
        match field.number {
            1 => tag = field.text()?,
            2 => receiver = Typed::read(&field)?,
            3 => proxy = Typed::read(&field)?,
            _ => {}
        }
    }
    if tag.is_empty() {
        return Err(Status::new(Code::InvalidArgument, "an inbound needs a tag"));
    }
    if receiver.kind() != "app.proxyman.ReceiverConfig" {
        return Err(Status::unknown(
            "app/proxyman/command: not a ReceiverConfig",
        ));
    }
    let receiver = Receiver::read(&receiver)?;
    let port = match receiver.ports.as_slice() {
        &[(from, to)] if from == to => from,
        _ => return Err(Status::unknown("an inbound listens on one port here")),
    };
    let mut listener = Entry::new();
    listener.insert("name".to_owned(), json!(tag));
    listener.insert("port".to_owned(), json!(port));
    if !receiver.listen.is_empty() {
        listener.insert("listen".to_owned(), json!(receiver.listen));
    }
    match proxy.kind() {
        "proxy.socks.ServerConfig" => socks(&proxy, &receiver, &mut listener)?,
        "proxy.http.ServerConfig" => http(&proxy, &receiver, &mut listener)?,
        "proxy.dokodemo.Config" => dokodemo(&proxy, &receiver, &mut listener)?,
        kind if encrypting::is_server(kind) => {
            receiver.stream.serve(&mut listener)?;
            encrypting::server(&proxy, &mut listener)?;
        }
        other => {
            let text = format!("headgate has no inbound of type {other:?}");
            return Err(Status::unknown(text));
        }
    }
    Ok(Value::Object(listener).to_string())
}

/// Who logs in by name; all of an inbound are of one level.
fn named_users(users: &[(&str, &str)], level: u32) -> Value {
    let user = |(name, password): &(&str, &str)| json!({"username": name, "password": password, "level": level});
    users.iter().map(user).collect()
}

/// Xray's SOCKS inbound answers HTTP on the same port; here that is a `mixed` listener.
fn socks(proxy: &Typed<'_>, receiver: &Receiver<'_>, listener: &mut Entry) -> Result<(), Status> {
    receiver.stream.require_plain()?;
    let (mut password, mut udp, mut users, mut level) = (false, false, Vec::new(), 0);
    for field in proxy.fields() {
        let field = field?;
        match field.number {
            1 => password = field.integer()? == 1,
            2 => users.push(entry(&field)?),
            4 => udp = field.boolean()?,
            6 => level = field.short()?,
            _ => {}
        }
    }
    if password && users.is_empty() {
        return Err(Status::unknown("password authentication needs an account"));
    }
    if !password {
        users.clear();
    }
    listener.insert("type".to_owned(), json!("mixed"));
    listener.insert("udp".to_owned(), json!(udp));
    listener.insert("users".to_owned(), named_users(&users, level));
    Ok(())
}

fn http(proxy: &Typed<'_>, receiver: &Receiver<'_>, listener: &mut Entry) -> Result<(), Status> {
    receiver.stream.require_plain()?;
    let (mut users, mut level) = (Vec::new(), 0);
    for field in proxy.fields() {
        let field = field?;
        match field.number {
            2 => users.push(entry(&field)?),
            4 => level = field.short()?,
            _ => {}
        }
    }
    listener.insert("type".to_owned(), json!("http"));
    listener.insert("users".to_owned(), named_users(&users, level));
    Ok(())
}

/// A door that leads to one address, or follows where captured traffic wanted to go.
fn dokodemo(
    proxy: &Typed<'_>,
    receiver: &Receiver<'_>,
    listener: &mut Entry,
) -> Result<(), Status> {
    receiver.stream.require_plain()?;
    let (mut follows, mut networks) = (false, Vec::new());
    let (mut address, mut port) = (String::new(), 0);
    for field in proxy.fields() {
        let field = field?;
        match field.number {
            1 => address = host(&field)?,
            2 => port = field.short()?,
            5 => follows = field.boolean()?,
            7 => field.push_shorts(&mut networks)?,
            _ => {}
        }
    }
    let udp = networks.contains(&NETWORK_UDP);
    if !follows {
        if udp && !networks.contains(&NETWORK_TCP) {
            return Err(Status::unknown("a dokodemo-door takes TCP here"));
        }
        let bare = address.parse::<Ipv6Addr>().is_ok();
        let target = if bare {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        };
        listener.insert("type".to_owned(), json!("tunnel"));
        listener.insert("target".to_owned(), json!(target));
        listener.insert("udp".to_owned(), json!(udp));
        return Ok(());
    }
    let kind = if receiver.stream.capture == Capture::TProxy {
        "tproxy"
    } else {
        "redir"
    };
    listener.insert("type".to_owned(), json!(kind));
    listener.insert("udp".to_owned(), json!(udp));
    Ok(())
}

/// `xray.common.net.Network`.
const NETWORK_TCP: u32 = 2;
const NETWORK_UDP: u32 = 3;

/// What Xray would say of a listener: `xray.core.InboundHandlerConfig`. `users` are who may log in.
#[must_use]
pub fn described(port: &Port, users: &[Credentials]) -> Message {
    let (mut proxy, mut socket) = (Message::default(), Message::default());
    let kind = match port.kind {
        ListenerKind::Http => "proxy.http.ServerConfig",
        ListenerKind::Socks | ListenerKind::Mixed => "proxy.socks.ServerConfig",
        ListenerKind::TProxy | ListenerKind::Redirect => {
            let tproxy = port.kind == ListenerKind::TProxy;
            socket.integer(3, if tproxy { 1 } else { 2 });
            proxy.integer(5, 1).integer(7, NETWORK_TCP.into());
            if tproxy && port.udp {
                proxy.integer(7, NETWORK_UDP.into());
            }
            "proxy.dokodemo.Config"
        }
        ListenerKind::Tunnel => {
            if let Some(target) = &port.target {
                proxy.message(1, &host_message(&target.host.to_string()));
                proxy.integer(2, target.port.into());
            }
            proxy.integer(7, NETWORK_TCP.into());
            if port.udp {
                proxy.integer(7, NETWORK_UDP.into());
            }
            "proxy.dokodemo.Config"
        }
        ListenerKind::Shadowsocks
        | ListenerKind::Vmess
        | ListenerKind::Vless
        | ListenerKind::Trojan => {
            let server = port.server.as_deref();
            server.map_or("", |server| encrypting::described(server, &mut proxy))
        }
    };
    // Nobody logs in where captured traffic comes, or at a tunnel.
    if port.server.is_none() && kind != "proxy.dokodemo.Config" {
        let mut locked = false;
        for user in users {
            let mut account = Message::default();
            proxy.message(2, account.text(1, &user.username));
            locked = true;
        }
        if kind == "proxy.socks.ServerConfig" {
            proxy.integer(1, locked.into()).integer(4, port.udp.into());
        }
    }
    let mut range = Message::default();
    let number = u64::from(port.address.port());
    range.integer(1, number).integer(2, number);
    let (mut list, mut receiver) = (Message::default(), Message::default());
    list.message(1, &range);
    receiver.message(1, &list);
    receiver.message(2, &host_message(&port.address.ip().to_string()));
    if socket != Message::default() {
        let mut stream = Message::default();
        stream.message(6, &socket);
        receiver.message(3, &stream);
    }
    let mut inbound = Message::default();
    inbound.text(1, &port.name);
    inbound.message(2, &typed("app.proxyman.ReceiverConfig", &receiver));
    inbound.message(3, &typed(kind, &proxy));
    inbound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(tag: &str, port: u64, kind: &str, proxy: &Message) -> Message {
        let (mut range, mut list, mut receiver) =
            (Message::default(), Message::default(), Message::default());
        range.integer(1, port).integer(2, port);
        list.message(1, &range);
        receiver
            .message(1, &list)
            .message(2, &host_message("127.0.0.1"));
        let mut inbound = Message::default();
        inbound.text(1, tag);
        inbound.message(2, &typed("app.proxyman.ReceiverConfig", &receiver));
        inbound.message(3, &typed(kind, proxy));
        inbound
    }

    #[track_caller]
    fn check(inbound: &Message, want: Result<Value, &str>) {
        let got = listener(Fields::new(inbound.as_bytes()));
        let got = got.map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(
            got.map_err(|status| status.message),
            want.map_err(str::to_owned)
        );
    }

    #[test]
    fn socks_is_a_mixed_listener_with_its_accounts() {
        let mut account = Message::default();
        account.text(1, "ann").text(2, "a");
        let mut socks = Message::default();
        socks.integer(1, 1).message(2, &account).integer(4, 1);
        socks.integer(6, 2);
        let users = json!([{"username": "ann", "password": "a", "level": 2}]);
        let want = json!({"name": "t", "type": "mixed", "listen": "127.0.0.1", "port": 1080,
            "udp": true, "users": users});
        let kind = "proxy.socks.ServerConfig";
        check(&built("t", 1080, kind, &socks), Ok(want));
        // A password without anybody who has one would be a door that is open.
        let mut nobody = Message::default();
        nobody.integer(1, 1);
        let refused = Err("password authentication needs an account");
        check(&built("t", 1080, kind, &nobody), refused);
    }

    #[test]
    fn a_door_leads_to_its_address_and_is_shown_so() {
        for (host, target) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:53"),
        ] {
            let mut door = Message::default();
            door.message(1, &host_message(host)).integer(2, 53);
            door.integer(7, 2).integer(7, 3);
            let kind = "proxy.dokodemo.Config";
            let want = json!({"name": "t", "type": "tunnel", "listen": "127.0.0.1", "port": 99,
                "target": target, "udp": true});
            let inbound = built("t", 99, kind, &door);
            check(&inbound, Ok(want));
            let entry = listener(Fields::new(inbound.as_bytes())).unwrap();
            let options = crate::inbound::options::Options {
                listeners: vec![crate::config::Config::listener(&entry).unwrap()],
                ..Default::default()
            };
            assert_eq!(described(&options.ports()[0], &[]), inbound);
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let nothing = Message::default();
        let socks = "proxy.socks.ServerConfig";
        check(
            &built("", 1, socks, &nothing),
            Err("an inbound needs a tag"),
        );
        let unknown = Err("headgate has no inbound of type \"proxy.tun.Config\"");
        check(&built("t", 1, "proxy.tun.Config", &nothing), unknown);
        let mut datagrams = Message::default();
        datagrams.integer(7, 3);
        let streams = Err("a dokodemo-door takes TCP here");
        check(&built("t", 1, "proxy.dokodemo.Config", &datagrams), streams);
        let mut bare = Message::default();
        bare.text(1, "t");
        check(&bare, Err("app/proxyman/command: not a ReceiverConfig"));
    }
}
