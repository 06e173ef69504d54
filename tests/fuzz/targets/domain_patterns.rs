//! Domain wildcards: the compiled set answers as comparing every pattern with the name does.
//! Input: the name, then the patterns, a line each.
#![no_main]

use headgate::dns::domain_set::DomainSet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let name = lines.next().unwrap_or_default();
    let patterns: Vec<&str> = lines.collect();
    let good: Vec<&str> = patterns
        .iter()
        .copied()
        .filter(|p| DomainSet::accepts(p))
        .collect();
    match DomainSet::new(patterns.iter().copied()) {
        Ok(_) => assert_eq!(good.len(), patterns.len()),
        Err(bad) => assert!(!DomainSet::accepts(patterns[bad.index])),
    }
    let set = DomainSet::new(good.iter().copied()).unwrap();
    let found = set.find(name);
    if name.len() > 253 || name.split('.').any(str::is_empty) {
        return; // no name
    }
    let ranks = good.iter().map(|pattern| rank(pattern, name));
    let best = ranks
        .enumerate()
        .filter_map(|(i, rank)| Some((rank?, i)))
        .max();
    assert_eq!(found, best.map(|(_, i)| i));
});

/// How exactly the pattern matches, label by label from the right; `None`: not at all.
fn rank(pattern: &str, name: &str) -> Option<Vec<u8>> {
    let (labels, itself, below) = match (pattern.strip_prefix("+."), pattern.strip_prefix('.')) {
        (Some(labels), _) => (labels, true, true),
        (None, Some(labels)) => (labels, false, true),
        (None, None) => (pattern, true, false),
    };
    let mut rank = Vec::new();
    let mut rest = name.rsplit('.');
    for label in labels.rsplit('.') {
        let given = rest.next()?;
        match label {
            _ if label.to_lowercase() == given => rank.push(2),
            "*" => rank.push(1),
            _ => return None,
        }
    }
    match rest.next() {
        None => itself.then_some(rank),
        Some(_) => below.then(|| {
            rank.push(0);
            rank
        }),
    }
}
