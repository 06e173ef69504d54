//! Sniffing of HTTP requests: more bytes never change an answer.
#![no_main]

use headgate::sniff::http::{HEAD_BYTES_MAX, host};
use headgate::sniff::{Options, ProtocolOptions, Reading, Sniffed, tcp};
use headgate_fuzz::cuts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = host(data);
    for cut in cuts(data.len(), data.first().copied().unwrap_or_default()) {
        let early = host(&data[..cut]);
        assert!(
            early == Sniffed::NeedMore || early == whole,
            "after {cut}: {early:?}, {whole:?}"
        );
    }
    if data.len() >= HEAD_BYTES_MAX {
        assert_ne!(whole, Sniffed::NeedMore);
    }
    if let Sniffed::Host(name) = &whole {
        assert!(!name.is_empty() && name.len() <= 253);
        assert_eq!(**name, name.to_ascii_lowercase());
        assert_eq!(name.parse::<std::net::IpAddr>().ok(), None);
    }
    let on = ProtocolOptions {
        ports: Vec::new(),
        override_destination: true,
    };
    let options = Options {
        enable: true,
        tls: Some(on.clone()),
        http: Some(on),
        ..Options::default()
    };
    if let Sniffed::Host(name) = whole {
        let override_destination = true;
        let host = Reading::Host {
            name,
            override_destination,
        };
        assert_eq!(tcp(data, 80, &options), host);
    }
});
