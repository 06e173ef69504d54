//! TLS hellos: however a stream or its records are cut, the answer is the same. The first byte
//! chooses: the stream itself, or a handshake that is put into records of that size.
#![no_main]

use headgate::sniff::Sniffed;
use headgate::sniff::tls::{HELLO_BYTES_MAX, client_hello, server_name};
use headgate_fuzz::{Input, cuts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let size = input.byte();
    let bytes = input.rest();
    let mut stream = Vec::new();
    if size == 0 {
        stream.extend_from_slice(bytes);
    }
    for part in bytes.chunks(usize::from(size).max(1)).filter(|_| size > 0) {
        stream.extend([22, 3, 1, 0, part.len() as u8]);
        stream.extend_from_slice(part);
    }
    let whole = server_name(&stream);
    for cut in cuts(stream.len(), size) {
        let early = server_name(&stream[..cut]);
        assert!(
            early == Sniffed::NeedMore || early == whole,
            "after {cut}: {early:?}, {whole:?}"
        );
    }
    if size > 0 && stream.len() < HELLO_BYTES_MAX {
        assert_eq!(whole, client_hello(bytes));
    }
    if stream.len() >= HELLO_BYTES_MAX {
        assert_ne!(whole, Sniffed::NeedMore);
    }
    if let Sniffed::Host(name) = whole {
        assert!(!name.is_empty() && name.len() <= 253 && !name.ends_with('.'));
        assert_eq!(name.parse::<std::net::IpAddr>().ok(), None);
    }
});
