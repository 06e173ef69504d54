//! Archives of dashboards: whatever they say, each name lies below where it is unpacked, also without its first
//! folder, and an entry is whole or none; a tar archive reads the same however it arrives. Input: the archive.
#![no_main]

use std::io::Cursor;
use std::path::{Component, Path};

use headgate::provider::archive::tar::Tar;
use headgate::provider::archive::{Event, zip};
use headgate_fuzz::cuts;
use libfuzzer_sys::fuzz_target;

fn is_below(name: &str) {
    let (_, rest) = name.split_once('/').unwrap_or(("", name));
    for name in [name, rest] {
        let mut parts = Path::new(name).components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))));
    }
}

type Files = Vec<(String, Vec<u8>)>;

fn untar<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<(Files, bool)> {
    let (mut tar, mut files) = (Tar::default(), Files::new());
    for piece in pieces {
        let mut found = |event: Event<'_>| {
            match event {
                Event::File(name) => files.push((name.to_owned(), Vec::new())),
                Event::Bytes(bytes) => files.last_mut().expect("a file").1.extend(bytes),
            }
            Ok(())
        };
        tar.feed(piece, &mut found).ok()?;
    }
    Some((files, tar.is_whole()))
}

fuzz_target!(|data: &[u8]| {
    let whole = untar(std::iter::once(data));
    for (name, _) in whole.iter().flat_map(|(files, _)| files) {
        is_below(name);
    }
    for cut in cuts(data.len(), 0) {
        assert_eq!(untar([&data[..cut], &data[cut..]].into_iter()), whole);
    }
    let mut archive = Cursor::new(data);
    let Ok(entries) = zip::entries(&mut archive) else {
        return;
    };
    for entry in &entries {
        is_below(&entry.name);
        // One read at most is as large as an entry may be.
        if let Ok(content) = zip::content(&mut archive, entry) {
            assert!(content.len() <= 8 << 20);
        }
    }
});
