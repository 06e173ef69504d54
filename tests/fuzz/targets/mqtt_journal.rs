//! The broker's log. Input: whether it is taken as it is or as the contents of frames that are whole;
//! bytes. What a broker makes of it, it can write down and take up again.
#![no_main]

use headgate::mqtt::broker::Broker;
use headgate::mqtt::options::Options;
use headgate::mqtt::store::frame;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1 << 40;

fn restored(log: &[u8]) -> (Broker, usize) {
    let mut broker = Broker::new(&Options::default());
    broker.keep_journal(0);
    let valid = broker.restore(NOW, log);
    (broker, valid)
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let raw = input.byte() == 0;
    let bytes = input.rest();
    let mut log = Vec::new();
    if raw {
        log.extend_from_slice(bytes);
    } else {
        // A byte for a record's length, then the record; one in a frame.
        let mut input = Input::new(bytes);
        while !input.is_empty() {
            let record = input.chunk();
            let mut contents = u32::try_from(record.len()).unwrap().to_be_bytes().to_vec();
            contents.extend_from_slice(record);
            frame::append(&mut log, &contents);
        }
    }
    let (mut broker, valid) = restored(&log);
    assert!(valid <= log.len());
    assert!(raw || valid == log.len());
    let mut written = Vec::new();
    broker.rewrite_journal(NOW, &mut written);
    let (again, valid) = restored(&written);
    assert_eq!(valid, written.len());
    assert_eq!(again.stats().sessions.count, broker.stats().sessions.count);
    assert_eq!(again.stats().retained.count, broker.stats().retained.count);
    assert_eq!(again.bans().len(), broker.bans().len());
});
