//! A share link. Input: the line; or, with a first byte of one, the JSON of a VMess link.
#![no_main]

use headgate::encoding::BASE64;
use headgate::outbound::link;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let text = String::from_utf8_lossy(input.rest());
    let line = match flags & 1 {
        0 => text.into_owned(),
        _ => format!("vmess://{}", BASE64.encode(text.as_bytes())),
    };
    if let Ok(proxy) = link::parse(&line) {
        assert!(!proxy.name.is_empty() && proxy.protocol.kind().has_server());
    }
});
