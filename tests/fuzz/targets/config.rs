//! Configuration text: a mistake is told in one short line with its place, and what is accepted
//! is accepted again.
#![no_main]

use headgate::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                let line = warning.to_string();
                assert!(
                    !line.chars().any(char::is_control) && line.len() < 2000,
                    "{line:?}"
                );
            }
            let (again, _) = Config::parse(text).unwrap();
            assert_eq!(again.rules, config.rules);
        }
        Err(error) => {
            assert!(error.line >= 1 && error.column >= 1);
            let line = error.to_string();
            assert!(!line.chars().any(char::is_control), "{line:?}");
            assert!(line.len() < 2000, "{} bytes", line.len());
        }
    }
});
