//! Xray's accounts as users of a listener, and the other way round (xray-api.md 2.10 and 2.11).
//!
//! Pure. A user's email is the user name of `users:`; what proves it is an id, a password or a key, as the
//! listener's protocol has it. Nobody's secret is given out.

use super::protobuf::Message;
use super::status::Status;
use super::typed::{User, typed};
use crate::inbound::options::{ListenerKind, ListenerOptions};
use crate::inbound::server::options::{ServerProtocolOptions, ShadowsocksServer};
use crate::outbound::options::Credentials;
use crate::outbound::shadowsocks::method::{Edition, Method, Secret};
use crate::outbound::vless::vision::FLOW;
use crate::outbound::vmess::keys::parse_id;

/// `xray.proxy.shadowsocks.CipherType` as mihomo's `cipher`.
pub(super) const CIPHERS: &[(u64, &str)] = &[
    (5, "aes-128-gcm"),
    (6, "aes-256-gcm"),
    (7, "chacha20-ietf-poly1305"),
];

fn wrong(why: &str) -> Status {
    Status::unknown(format!(
        "app/proxyman/command: failed to parse user > {why}"
    ))
}

/// The type of the accounts of a listener.
fn kind_of(listener: &ListenerOptions) -> &'static str {
    match (listener.kind, is_2022(listener)) {
        (ListenerKind::Http, _) => "proxy.http.Account",
        (ListenerKind::Vmess, _) => "proxy.vmess.Account",
        (ListenerKind::Vless, _) => "proxy.vless.Account",
        (ListenerKind::Trojan, _) => "proxy.trojan.Account",
        (ListenerKind::Shadowsocks, false) => "proxy.shadowsocks.Account",
        (ListenerKind::Shadowsocks, true) => "proxy.shadowsocks_2022.Account",
        _ => "proxy.socks.Account",
    }
}

fn shadowsocks(listener: &ListenerOptions) -> Option<&ShadowsocksServer> {
    match &listener.server.as_deref()?.protocol {
        ServerProtocolOptions::Shadowsocks(options) => Some(options),
        _ => None,
    }
}

fn is_2022(listener: &ListenerOptions) -> bool {
    let cipher = shadowsocks(listener).map(|options| Method::parse(&options.cipher));
    matches!(cipher, Some(Ok(method)) if method.edition == Edition::Of2022)
}

/// A user of that listener.
///
/// # Errors
/// The account is missing, of another protocol, or proves nothing there.
pub(super) fn credentials(
    listener: &ListenerOptions,
    user: &User<'_>,
) -> Result<Credentials, Status> {
    if user.account.is_absent() {
        return Err(wrong("common/protocol: Account is missing"));
    }
    let kind = kind_of(listener);
    let by_name = ["proxy.socks.Account", "proxy.http.Account"];
    let given = user.account.kind();
    if given != kind && !(by_name.contains(&given) && by_name.contains(&kind)) {
        return Err(wrong(&format!("account {given:?} is of another proxy")));
    }
    let (first, second) = user.words()?;
    let named = |secret: &str| Credentials {
        username: user.email.into(),
        password: secret.into(),
        level: user.level,
        ..Credentials::default()
    };
    if by_name.contains(&kind) {
        if first.is_empty() || !(user.email.is_empty() || user.email == first) {
            return Err(wrong("the email must be the user name here"));
        }
        return Ok(Credentials {
            username: first.into(),
            password: second.into(),
            level: user.level,
            ..Credentials::default()
        });
    }
    if user.email.is_empty() {
        return Err(wrong("a user needs an email here"));
    }
    match kind {
        "proxy.vmess.Account" | "proxy.vless.Account" => {
            if parse_id(first).is_none() {
                return Err(wrong(&format!("common/uuid: invalid UUID: {first}")));
            }
            if kind == "proxy.vless.Account" && !second.is_empty() {
                if second != FLOW {
                    return Err(wrong(&format!("headgate does not speak the flow {second}")));
                }
                return Ok(Credentials {
                    vision: true,
                    ..named(first)
                });
            }
        }
        "proxy.trojan.Account" if first.is_empty() => return Err(wrong("a password is missing")),
        _ => {}
    }
    if let Some(options) = shadowsocks(listener) {
        if kind == "proxy.shadowsocks.Account" {
            fits_cipher(options, user)?;
        }
        Secret::new(&options.cipher, first).map_err(|error| wrong(&error.to_string()))?;
    }
    Ok(named(first))
}

/// All users of a listener have its cipher here.
fn fits_cipher(options: &ShadowsocksServer, user: &User<'_>) -> Result<(), Status> {
    let mut cipher = 0;
    for field in user.account.fields() {
        let field = field?;
        if field.number == 2 {
            cipher = field.integer()?;
        }
    }
    let known = CIPHERS.iter().find(|(number, _)| *number == cipher);
    let asked = known.and_then(|(_, name)| Method::parse(name).ok());
    if asked.is_none() || asked != Method::parse(&options.cipher).ok() {
        return Err(wrong("proxy/shadowsocks: Unsupported cipher."));
    }
    Ok(())
}

/// `xray.common.protocol.User` of a listener's user, without his secret.
pub(super) fn described(listener: &ListenerOptions, of: &Credentials) -> Message {
    let (mut user, mut account) = (Message::default(), Message::default());
    if listener.server.is_none() {
        account.text(1, &of.username);
    }
    user.integer(1, of.level.into()).text(2, &of.username);
    user.message(3, &typed(kind_of(listener), &account));
    user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::controllers::xray::protobuf::Fields;

    const ID: &str = "66ad4540-b58c-4ad2-9926-ea63445a9b57";

    #[track_caller]
    fn check(listener: &str, email: &str, account: (&str, &Message), want: Result<&str, &str>) {
        let listener = Config::listener(listener).unwrap();
        let (mut user, mut outer) = (Message::default(), Message::default());
        user.integer(1, 7).text(2, email);
        user.message(3, &typed(account.0, account.1));
        outer.message(1, &user);
        let field = Fields::new(outer.as_bytes()).next().unwrap().unwrap();
        let got = credentials(&listener, &User::read(&field).unwrap());
        if let Ok(user) = &got {
            assert_eq!(user.level, 7);
        }
        let got = got.map(|user| user.password.to_string());
        let got = got.map_err(|status| status.message.rsplit(" > ").next().unwrap().to_owned());
        assert_eq!(got, want.map(str::to_owned).map_err(str::to_owned));
    }

    fn words(first: &str, cipher: u64) -> Message {
        let mut account = Message::default();
        account.text(1, first).integer(2, cipher);
        account
    }

    #[test]
    fn an_account_must_be_of_the_listeners_protocol_and_prove_something() {
        let vmess = r#"{"name": "v", "type": "vmess", "port": 1, "users": []}"#;
        let of = "proxy.vmess.Account";
        check(vmess, "a@b", (of, &words(ID, 0)), Ok(ID));
        let dashless = ID.replace('-', "");
        check(vmess, "a@b", (of, &words(&dashless, 0)), Ok(&dashless));
        let long = "x".repeat(31);
        let invalid = format!("common/uuid: invalid UUID: {long}");
        check(vmess, "a@b", (of, &words(&long, 0)), Err(&invalid));
        check(
            vmess,
            "",
            (of, &words(ID, 0)),
            Err("a user needs an email here"),
        );
        let other = Err("account \"proxy.trojan.Account\" is of another proxy");
        check(vmess, "a", ("proxy.trojan.Account", &words("x", 0)), other);
    }

    #[test]
    fn a_shadowsocks_account_has_the_listeners_cipher() {
        let ss = r#"{"name": "s", "type": "shadowsocks", "port": 1, "cipher": "aes-128-gcm", "users": []}"#;
        let of = "proxy.shadowsocks.Account";
        check(ss, "a", (of, &words("pw", 5)), Ok("pw"));
        for cipher in [0, 6, 9] {
            let want = Err("proxy/shadowsocks: Unsupported cipher.");
            check(ss, "a", (of, &words("pw", cipher)), want);
        }
        let of_2022 = r#"{"name": "s", "type": "shadowsocks", "port": 1, "cipher": "2022-blake3-aes-128-gcm", "password": "AAECAwQFBgcICQoLDA0ODw==", "users": []}"#;
        let of = "proxy.shadowsocks_2022.Account";
        let key = "AQECAwQFBgcICQoLDA0ODw==";
        check(of_2022, "a", (of, &words(key, 0)), Ok(key));
        let short = Err("password is not a base64 key of 16 bytes");
        check(of_2022, "a", (of, &words("AAEC", 0)), short);
    }
}
