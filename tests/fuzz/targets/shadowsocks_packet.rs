//! Datagrams of a Shadowsocks server in every cipher: bytes as they come, or bodies sealed with
//! the right key. What is accepted lies inside the datagram and is accepted once only.
#![no_main]

use headgate::outbound::crypto::{NONCE, seal_x};
use headgate::outbound::scratch::Scratch;
use headgate::outbound::shadowsocks::method::{Edition, METHODS, Secret};
use headgate::outbound::shadowsocks::packet::{self, Numbers, PacketError, Session};
use headgate::outbound::socks_address;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const TIME: u64 = 1_700_000_000;
const OWN_ID: [u8; 8] = [0; 8];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [method, raw] = input.array();
    let (cipher, method) = METHODS[usize::from(method) % METHODS.len()];
    let password = match (method.edition, method.cipher.key_length()) {
        (Edition::Aead, _) => "password",
        (Edition::Of2022, 16) => "AAECAwQFBgcICQoLDA0ODw==",
        (Edition::Of2022, _) => "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    };
    let secret = Secret::new(cipher, password).unwrap();
    if method.edition == Edition::Aead {
        while !input.is_empty() {
            let body = input.long_chunk();
            let mut packet = if raw & 1 == 0 {
                body.to_vec()
            } else {
                sealed_aead(&secret, body)
            };
            if let Ok((sender, range)) = packet::open(&secret, &mut packet) {
                round_trip(&secret, &sender, &packet[range]);
            }
        }
        return;
    }
    let mut session = Session::new(&secret, OWN_ID).unwrap();
    while !input.is_empty() {
        let header: [u8; 16] = input.array();
        let body = input.long_chunk();
        let packet = if raw & 1 == 0 {
            body.to_vec()
        } else {
            sealed_2022(&secret, header, body)
        };
        let mut first = packet.clone();
        if let Ok((_, range)) = session.open(&secret, TIME, &mut first) {
            assert!(first.get(range).is_some());
            let mut again = packet.clone();
            let replayed = session.open(&secret, TIME, &mut again).map(drop);
            assert_eq!(replayed, Err(PacketError::Replayed));
        }
        let mut out = Scratch::large();
        let numbers = Numbers {
            packet_id: 1,
            unix_time: TIME,
            nonce: [3; 24],
        };
        let target = [1, 192, 0, 2, 3, 0, 53];
        session
            .seal(&secret, &numbers, &target, body, &mut out)
            .unwrap();
    }
});

/// Seals what was opened, and opens it again.
fn round_trip(secret: &Secret, sender: &headgate::metadata::Endpoint, payload: &[u8]) {
    let mut target = Vec::new();
    socks_address::encode(sender, &mut target).unwrap();
    let mut out = Scratch::large();
    let salt = vec![5; secret.salt_length()];
    packet::seal(secret, &salt, &target, payload, &mut out).unwrap();
    let mut sealed = out.data().to_vec();
    let (again, range) = packet::open(secret, &mut sealed).unwrap();
    assert_eq!((&again, &sealed[range]), (sender, payload));
}

fn sealed_aead(secret: &Secret, body: &[u8]) -> Vec<u8> {
    let salt = vec![7; secret.salt_length()];
    let mut body = body.to_vec();
    let tag = secret
        .subkey(&salt)
        .unwrap()
        .seal(&[0; NONCE], &mut body)
        .unwrap();
    [&salt[..], &body, &tag].concat()
}

/// `body` behind a type and a time that are right, unless its first byte spoils them.
fn sealed_2022(secret: &Secret, mut header: [u8; 16], body: &[u8]) -> Vec<u8> {
    let (spoil, body) = body.split_first().unwrap_or((&0, &[]));
    let kind = [1 ^ (spoil & 1)];
    let time = (TIME + u64::from(spoil >> 1 & 0x3f)).to_be_bytes();
    let mut body = [&kind[..], &time, &OWN_ID, body].concat();
    let Some((_, receive)) = secret.header_keys() else {
        let nonce = [4; 24];
        let mut text = [&header[..], &body].concat();
        let tag = seal_x(secret.psk(), &nonce, &mut text).unwrap();
        return [&nonce[..], &text, &tag].concat();
    };
    let nonce: [u8; NONCE] = header[4..].try_into().unwrap();
    let tag = secret
        .subkey(&header[..8])
        .unwrap()
        .seal(&nonce, &mut body)
        .unwrap();
    receive.encrypt(&mut header);
    [&header[..], &body, &tag].concat()
}
