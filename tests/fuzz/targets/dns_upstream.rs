//! What name servers and DHCP servers send besides DNS messages.
#![no_main]

use headgate::dns::upstream::{dhcp, http1};
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let [kind] = input.array();
    let bytes = input.rest();
    if kind & 1 == 0 {
        let id = bytes
            .get(4..8)
            .and_then(|id| id.try_into().ok())
            .unwrap_or_default();
        if let Some(servers) = dhcp::servers(bytes, id) {
            assert!(!servers.is_empty() && servers.len() <= 4);
        }
    } else if let Ok(Some(head)) = http1::read_head(bytes) {
        assert!(head.bytes <= bytes.len() && head.length <= 65535);
    }
});
