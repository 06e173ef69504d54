//! Topic names and filters, matched by the tree and one by one. Input: lines; the first is the topic.
#![no_main]

use headgate::mqtt::topic::tree::{Match, Subscriber, Tree};
use headgate::mqtt::topic::{Wanted, is_filter, is_name, matches};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let topic = lines.next().unwrap_or_default();
    let mut tree = Tree::default();
    let mut kept = Vec::new();
    for (number, line) in (0..40).zip(lines) {
        if let Some(wanted) = Wanted::parse(line) {
            assert!(is_filter(wanted.filter));
            assert_eq!(
                Wanted::parse(&wanted.to_text()).map(Wanted::to_text),
                Some(wanted.to_text())
            );
            let subscriber = Subscriber {
                session: number,
                ..Subscriber::default()
            };
            let (node, new) = tree.insert(wanted.filter, wanted.group, subscriber);
            assert!(new);
            assert_eq!(tree.filter(node), wanted.filter);
            kept.push((node, wanted, number));
        }
    }
    if is_name(topic) {
        let mut found = Vec::new();
        tree.matching(topic, &mut |one| match one {
            Match::Each(list) => found.extend(list.iter().map(|one| one.session)),
            Match::OneOf(group) => found.extend(group.members.iter().map(|one| one.session)),
        });
        found.sort_unstable();
        let fits = kept
            .iter()
            .filter(|(_, wanted, _)| matches(wanted.filter, topic));
        let wanted: Vec<_> = fits.map(|(.., number)| *number).collect();
        assert_eq!(found, wanted);
    }
    for (node, wanted, number) in kept {
        assert!(tree.remove(node, wanted.group, number));
    }
    assert_eq!(tree.routes(), 0);
});
