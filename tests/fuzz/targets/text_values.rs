//! Addresses, prefixes, endpoints, host names and MAC addresses as people and clients write them:
//! what is read and written again reads the same.
#![no_main]

use headgate::metadata::{Endpoint, Host, Mac};
use headgate::outbound::socks_address;
use headgate::prefix::Prefix;
use headgate::wire::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(
            mac.to_string().replace(':', "-").to_lowercase(),
            text.replace(':', "-").to_lowercase()
        );
    }
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
        let (first, last) = prefix.range();
        assert!(
            first <= last && prefix.contains(prefix.network()) && prefix.contains(prefix.last())
        );
        assert!(prefix.contains(prefix.address()) && prefix.overlaps(&prefix));
    }
    if let Some(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()), Some(host));
    }
    if let Some(endpoint) = Endpoint::parse(text) {
        assert_eq!(
            Endpoint::parse(&endpoint.to_string()).as_ref(),
            Some(&endpoint)
        );
        let mut bytes = Vec::new();
        socks_address::encode(&endpoint, &mut bytes).unwrap();
        assert!(bytes.len() <= socks_address::ENCODED_MAX);
        assert_eq!(
            socks_address::decode(&mut Reader::new(&bytes)),
            Ok(endpoint)
        );
    }
});
