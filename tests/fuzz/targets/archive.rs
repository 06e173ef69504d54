//! Archives of dashboards: whatever they say, each name lies below where it is unpacked, and an entry is whole
//! or none. Input: the archive.
#![no_main]

use std::io::Cursor;
use std::path::{Component, Path};

use headgate::provider::zip;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut archive = Cursor::new(data);
    let Ok(entries) = zip::entries(&mut archive) else {
        return;
    };
    for entry in &entries {
        let mut parts = Path::new(&*entry.name).components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))));
        // One read at most is as large as an entry may be.
        if let Ok(content) = zip::content(&mut archive, entry) {
            assert!(content.len() <= 8 << 20);
        }
    }
});
