//! Rules about the source text that no compiler holds: who may import whom, which modules stay pure,
//! what every file begins with. The lists here are design decisions; see the README's architecture.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing check is a failing test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in the order in which they may import: each may use those before it.
const ORDER: &[&str] = &[
    "calendar",
    "encoding",
    "websocket",
    "wire",
    "inflate",
    "prefix",
    "metadata",
    "platform",
    "sniff",
    "rules",
    "outbound",
    "dns",
    "provider",
    "tunnel",
    "inbound",
    "netfilter",
    "mqtt",
    "sql",
    "rule_engine",
    "controllers",
    "config",
    "daemon",
];

/// Modules without tokio, platform, clock or log.
const PURE: &[&str] = &[
    "calendar",
    "encoding",
    "websocket",
    "wire",
    "inflate",
    "prefix",
    "metadata",
    "sniff",
    "rules",
    "sql",
    "dns/message",
    "dns/domain_set",
    "mqtt/codec",
    "mqtt/topic",
    "mqtt/session",
    "mqtt/broker",
    "mqtt/client/machine",
    "netfilter/ruleset",
    "netfilter/table",
    "netfilter/text",
    "config/yaml",
];

const FORBIDDEN_NAMES: &[&str] = &["utils", "util", "helpers", "common", "misc"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            (
                path.strip_prefix(&root).unwrap().to_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect()
}

/// The part of a file before its tests; nothing of a file that is one.
fn code(text: &str) -> &str {
    let marks = ["\n#[cfg(test)]", "\n#![cfg(test)]"];
    marks
        .iter()
        .fold(text, |rest, mark| rest.split(mark).next().unwrap())
}

fn module_of(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_file_says_what_it_is() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{} has no head comment",
            path.display()
        );
    }
}

#[test]
fn no_file_has_a_name_without_an_owner() {
    for (path, _) in sources() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(!FORBIDDEN_NAMES.contains(&stem), "{}", path.display());
    }
}

#[test]
fn imports_point_the_way_packets_climb() {
    for (path, text) in sources() {
        let own = module_of(&path);
        let Some(rank) = ORDER.iter().position(|m| *m == own) else {
            continue;
        };
        for (number, line) in code(&text).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for (later, module) in ORDER.iter().enumerate() {
                let used = line.contains(&format!("crate::{module}::"))
                    || line.contains(&format!("crate::{module};"));
                assert!(
                    !used || later <= rank,
                    "{}:{}: {own} may not use {module}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn pure_modules_have_no_tokio_no_platform_no_log() {
    for (path, text) in sources() {
        let name = path.to_str().unwrap();
        if !PURE.iter().any(|pure| {
            name.starts_with(&format!("{pure}.rs")) || name.starts_with(&format!("{pure}/"))
        }) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            for word in [
                "tokio::",
                "crate::platform",
                "log::",
                "Instant::now",
                "SystemTime::now",
            ] {
                assert!(
                    line.trim_start().starts_with("//") || !line.contains(word),
                    "{name}:{}: {word}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn secrets_are_compared_by_subtle_alone() {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let is_secret = |name: &str| ["secret", "password", "token"].contains(&name);
    for (path, text) in sources() {
        for line in code(&text).lines() {
            let sides = [" == ", " != "]
                .iter()
                .find_map(|sign| line.split_once(sign));
            let Some((left, right)) = sides.filter(|(_, right)| !right.starts_with('"')) else {
                continue;
            };
            let left = left.trim_end_matches(".as_bytes()").rsplit(|c| !word(c));
            let right = right.trim_start_matches(['&', '*']);
            let right = right.split(|c| !word(c) && c != '.').next().unwrap();
            let right = right.trim_end_matches(".as_bytes").rsplit('.');
            let named = left.take(1).chain(right.take(1)).any(is_secret);
            assert!(!named, "{}: {line}", path.display());
        }
    }
}

#[test]
fn unsafe_stays_in_the_platform() {
    for (path, text) in sources() {
        let inside = path.starts_with("platform");
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let used = code.contains("unsafe {")
                || code.contains("unsafe fn")
                || code.contains("unsafe impl");
            assert!(
                inside || !used || code.starts_with("//"),
                "{}:{}",
                path.display(),
                number + 1
            );
        }
    }
}

/// What `tests/mqtt/conformance.md` claims can be looked up: every test that it names is there.
#[test]
fn the_tests_that_the_conformance_table_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/mqtt/conformance.md")).unwrap();
    let mut tests: String = sources().into_iter().map(|(_, text)| text).collect();
    for file in ["test_mqtt.py", "test_mqtt_conformance.py"] {
        tests += &fs::read_to_string(root.join("tests/netns").join(file)).unwrap();
    }
    let rows: Vec<_> = table.lines().filter(|row| row.starts_with("| ")).collect();
    let statements = rows.iter().filter(|row| row.contains("-")).count();
    assert!(statements > 350, "{statements} statements");
    for row in rows {
        for name in row.split('`').skip(1).step_by(2) {
            let is_there = ["fn", "def"]
                .iter()
                .any(|word| tests.contains(&format!("{word} {name}(")));
            assert!(is_there, "{row}");
        }
    }
}
