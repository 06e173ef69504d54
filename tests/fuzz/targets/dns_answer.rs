//! Answers as servers send them: records, addresses, text, lifetimes, what the cache gives back.
#![no_main]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use headgate::dns::cache::{Cache, Key};
use headgate::dns::message::record::{Answer, Records, patch_ttls};
use headgate::dns::message::{build, text};
use headgate::dns::replacement::Algorithm;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let age = u32::from_be_bytes(input.array());
    let bytes = input.rest();
    let Ok(answer) = Answer::parse(bytes) else {
        return;
    };
    if let Ok(records) = text::records(&answer) {
        // Escaped bytes take four characters, hexadecimal ones two, names are compressed.
        let written: usize = records.iter().map(|record| record.data.len()).sum();
        assert!(written <= 16 * bytes.len() + 1100 * 2 * records.len());
    }
    let addresses = answer.addresses();
    assert!(addresses.len() <= bytes.len() / 14);
    let kept = build::normalize(&answer);
    let normal = Answer::parse(&kept).expect("a normal answer is an answer");
    assert_eq!(normal.question, answer.question);
    assert_eq!(normal.opt_at(), None);
    assert_eq!(shape(normal.records()), {
        let mut shape = shape(answer.records());
        let opt = shape.iter().position(|record| record.1 == 41);
        shape.truncate(opt.unwrap_or(shape.len()));
        shape
    });

    let mut patched = kept.clone();
    patch_ttls(&mut patched, normal.question_end(), |ttl| {
        ttl.saturating_sub(age)
    });
    let patched = Answer::parse(&patched).expect("TTLs are no structure");
    for (new, old) in patched.records().flatten().zip(normal.records().flatten()) {
        assert_eq!(new.ttl, old.ttl.saturating_sub(age));
    }

    static START: OnceLock<Instant> = OnceLock::new();
    let now = *START.get_or_init(Instant::now);
    let algorithm = [Algorithm::Lru, Algorithm::Arc][data.len() % 2];
    let cache = Cache::new(algorithm, 4, now);
    let key = Key::new(0, &answer.question);
    cache.insert(&key, &normal, now);
    let mut out = Vec::new();
    let later = now + Duration::from_secs(u64::from(age % 100_000));
    if cache.get(&key, later, &mut out).is_some() {
        let stored = Answer::parse(&out).expect("what was kept is an answer");
        assert_eq!(shape(stored.records()), shape(normal.records()));
        assert_eq!(stored.question, normal.question);
    }
});

/// What of the records no store may change.
fn shape(records: Records<'_>) -> Vec<(usize, u16, u16, usize)> {
    let records = records.flatten();
    records
        .map(|r| (r.at, r.rtype, r.class, r.data.len()))
        .collect()
}
