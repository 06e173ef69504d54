//! What clients send first to each server, on streams and as datagrams. Input: which server, whether to
//! begin as a user would, bytes. Nobody gets in twice by the same bytes where replays are refused.
#![no_main]

use std::path::Path;

use headgate::inbound::server::Shared;
use headgate::inbound::server::options::{ServerOptions, ServerProtocolOptions, ShadowsocksServer};
use headgate::outbound::options::Credentials;
use headgate::outbound::trojan::codec::UserKey;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_700_000_000;
const KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [which, flags] = input.array();
    let users = |secret: &str| {
        let user = |name: &str, secret: &str| Credentials {
            username: name.into(),
            password: secret.into(),
            ..Credentials::default()
        };
        vec![user("a", secret), user("b", secret)]
    };
    let shadowsocks = |cipher: &str, password: &str, users| {
        ServerProtocolOptions::Shadowsocks(ShadowsocksServer {
            cipher: cipher.into(),
            password: password.into(),
            users,
        })
    };
    let protocol = match which % 6 {
        0 => ServerProtocolOptions::Trojan(users("password")),
        1 => ServerProtocolOptions::Vless(users("id")),
        2 => ServerProtocolOptions::Vmess(users("id")),
        3 => shadowsocks("aes-128-gcm", "", Some(users("password"))),
        4 => shadowsocks("2022-blake3-aes-128-gcm", KEY, Some(users(KEY))),
        _ => shadowsocks("2022-blake3-aes-128-gcm", KEY, None),
    };
    let options = ServerOptions {
        reality: None,
        protocol,
        tls: None,
        ws_path: None,
        grpc_service: None,
        fallbacks: Vec::new(),
    };
    let shared = Shared::new(&options, Path::new("")).unwrap();
    let mut bytes = Vec::new();
    if flags & 1 != 0 {
        match which % 6 {
            0 => bytes.extend(UserKey::of("password").0),
            1 => {
                bytes.push(0);
                bytes.extend(headgate::outbound::vmess::keys::parse_id("id").unwrap());
            }
            _ => {}
        }
    }
    bytes.extend(input.rest());
    let _datagram = shared.judge_datagram(&mut bytes.clone(), NOW);
    let first = shared.judge(&bytes, NOW);
    if which % 6 >= 2 && matches!(first, Ok(true)) {
        assert!(shared.judge(&bytes, NOW).is_err());
    }
});
