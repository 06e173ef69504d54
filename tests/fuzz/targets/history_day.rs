//! A day of the history as it lies on flash. What is read and written again reads the same, within the bytes
//! that it is allowed.
#![no_main]

use headgate::tunnel::history::day::{Day, Dimension, Moved, plus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut day = Day::new(1);
    let _what_was_whole = day.decode(data);
    let mut again = Day::new(1);
    again.decode(&day.encode()).unwrap();
    assert_eq!(again, day);
    let short = day.encode_within(512);
    // Four rows of everybody else are always kept.
    assert!(short.len() <= 2500);
    let mut back = Day::new(1);
    back.decode(&short).unwrap();
    for dimension in Dimension::ALL {
        assert_eq!(sum(&back, dimension), sum(&day, dimension));
    }
});

fn sum(day: &Day, dimension: Dimension) -> Moved {
    let rows = day.rows(dimension).map(|(_, row)| row.total());
    rows.fold([0; 2], plus)
}
