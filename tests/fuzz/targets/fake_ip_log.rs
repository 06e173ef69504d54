//! The file that keeps fake addresses. Half of the inputs are the file itself, half become records
//! with a right checksum. Whatever it held, addresses stay unambiguous and survive a restart.
#![no_main]

use std::sync::OnceLock;

use headgate::dns::fake_ip::{FakeIp, Family};
use headgate_fuzz::{Input, scratch_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let raw = input.byte() & 1 == 0;
    let mut file = if raw { input.rest().to_vec() } else { header() };
    let mut names = vec!["new.example".to_owned()];
    while !raw && !input.is_empty() {
        let slot = u32::from_be_bytes([0, 0, 0, input.byte()]);
        let name = input.chunk();
        let start = file.len();
        file.push(name.len() as u8);
        file.extend(slot.to_be_bytes());
        file.extend(name);
        let checksum = crc32(&file[start..]);
        file.extend(checksum.to_be_bytes());
        names.extend(str::from_utf8(name).map(String::from));
    }
    let path = scratch_file(&file);
    let pool = FakeIp::new(v4(), v6()).unwrap();
    pool.remember_in(&path).unwrap();
    for (slot, v4) in (4..20u8).map(|last| (last, [198, 18, 0, last].into())) {
        if let Some(name) = pool.name(v4) {
            assert_eq!(pool.address(&name, Family::V4), Some(v4), "slot {slot}");
        }
    }
    names.truncate(100);
    for name in &names {
        let address = pool.address(name, Family::V6).unwrap();
        assert_eq!(pool.name(address).as_deref(), Some(name.as_str()));
    }
    pool.persist().unwrap();
    let again = FakeIp::new(v4(), v6()).unwrap();
    again.remember_in(&path).unwrap();
    assert_eq!(again.len(), pool.len());
    for last in 0..=255 {
        let address = [198, 18, 0, last].into();
        assert_eq!(again.name(address), pool.name(address));
    }
});

fn v4() -> headgate::prefix::Prefix {
    "198.18.0.0/28".parse().unwrap()
}

fn v6() -> Option<headgate::prefix::Prefix> {
    Some("fdfe:dcba:9876::/64".parse().unwrap())
}

/// What the pool itself writes into an empty file.
fn header() -> Vec<u8> {
    static HEADER: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let path = scratch_file(b"");
        let pool = FakeIp::new(v4(), v6()).unwrap();
        pool.remember_in(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    HEADER.get_or_init(make).clone()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}
