//! Lines of `rules:`. What parses says so again, and its target is as written.
#![no_main]

use headgate::rules::{RuleLine, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match RuleLine::parse(text) {
        Ok(line) => {
            assert_eq!(RuleLine::parse(text), Ok(line.clone()));
            assert!(!line.target.is_empty() && text.contains(&*line.target));
            // The compiled list keeps what the APIs show.
            let rules = Rules::compile([line.clone()]);
            let view = rules.line(0).unwrap();
            assert_eq!((view.kind, view.payload), (line.kind, &*line.payload));
            assert_eq!(**view.target, *line.target);
        }
        // An escaped byte takes six, and each of 16 levels quotes its part; the log cuts what is long.
        Err(error) => assert!(error.to_string().len() <= 17 * (6 * text.len() + 50)),
    }
});
