//! The system's hosts file, and aliases of the configuration that lead into it.
//! Input: a name, an alias of it, the file.
#![no_main]

use std::time::Instant;

use headgate::dns::hosts::Hosts;
use headgate::dns::options::HostsValue;
use headgate_fuzz::{Input, scratch_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let (name, alias) = (input.chunk(), input.chunk());
    let (Ok(name), Ok(alias)) = (str::from_utf8(name), str::from_utf8(alias)) else {
        return;
    };
    let path = scratch_file(input.rest());
    let table = [(Box::from(name), HostsValue::Alias(alias.into()))];
    let Ok(hosts) = Hosts::new(&table, Some(path)) else {
        return;
    };
    for asked in [name, alias, "localhost", ""] {
        if let Some(found) = hosts.find(asked, Instant::now()) {
            assert!(found.alias.is_some() || found.addresses.is_some());
            assert_ne!(found.addresses, Some(Vec::new()));
        }
    }
});
