//! The lease file of dnsmasq and the hosts file of odhcpd, in which devices write what they call themselves.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use headgate::metadata::Mac;
use headgate::platform::leases::Leases;
use headgate_fuzz::scratch_file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let leases = Leases::new(vec![scratch_file(data)]);
    let text = String::from_utf8_lossy(data);
    let now = Instant::now();
    for word in text.split_ascii_whitespace() {
        let asked = match (word.parse(), word.parse::<Mac>()) {
            (Ok(address), _) => (address, None),
            (_, Ok(mac)) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Some(mac)),
            _ => continue,
        };
        if let Some(name) = leases.name_of(asked.0, asked.1, now) {
            assert!(!name.is_empty() && name.len() <= data.len());
            assert!(!name.contains(|c: char| c.is_ascii_whitespace()));
        }
    }
});
