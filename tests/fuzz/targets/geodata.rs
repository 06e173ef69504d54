//! Databases of geodata: nothing that a file holds makes reading it panic or take long.
//! Input: a byte for the database, the file.
#![no_main]

use std::fs::File;

use headgate::provider::geo::{Database, read};
use headgate::rules::geo::Geodata;
use headgate_fuzz::{Input, scratch_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let database = Database::ALL[usize::from(input.byte()) % Database::ALL.len()];
    let geodata = Geodata::default();
    let sets = [
        geodata.site("cn"),
        geodata.site("cn@ads"),
        geodata.country("cn"),
    ];
    let _system = geodata.autonomous_system(1);
    let file = File::open(scratch_file(input.rest())).unwrap();
    if let Ok(read) = read(database, &file, &geodata.sets()) {
        assert_eq!(read.len(), sets.len() + 1);
        for set in read {
            // Every entry costs the file a few bytes.
            assert!(set.entries() <= input.rest().len());
            let _ = set.has_name("a.cn") || set.has_address([1, 2, 3, 4].into());
        }
    }
});
