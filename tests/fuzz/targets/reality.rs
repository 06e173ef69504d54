//! A stranger's ClientHello at a server of REALITY, and a stranger's certificate at a client.
//! Without the key nothing is let in.
#![no_main]

use headgate::outbound::reality::{AuthKey, Hello, certificate, parse_short_id};
use libfuzzer_sys::fuzz_target;
use x25519_dalek::StaticSecret;

fuzz_target!(|data: &[u8]| {
    let secret = StaticSecret::from([7; 32]);
    let own = AuthKey::agree(&secret, &[9; 32], &[1; 32]).unwrap();
    assert_eq!(own.open(data), None);
    assert_eq!(own.certified(data), None);
    if let Some(hello) = Hello::read(data)
        && let Some(key) = AuthKey::agree(&secret, &hello.share, hello.random)
    {
        assert!(hello.server_name.len() < data.len());
        assert_eq!(key.open(data), None);
    }
    if let Some(public) = data.first_chunk() {
        let der = certificate(public, &own.signature(public));
        assert_eq!(own.certified(&der), Some(*public));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _id = parse_short_id(text);
    }
});
