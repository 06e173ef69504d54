//! Rules that were added at run time: a block before the configuration's final MATCH.
//!
//! Appended at the very end, as Xray appends, a rule behind a MATCH would never be asked. When the block
//! replaces the configuration's rules, that MATCH is all that is left of them. Places of the whole list
//! count through both: what stands before the block, the block, what stands behind it.

use std::sync::Arc;

use super::routing::Routing;
use crate::metadata::Metadata;
use crate::rules::matcher::Needs;
use crate::rules::{Found, RuleLine, RuleView, Rules};

/// One rule as it was added; several lines where one condition has several values.
#[derive(Clone)]
pub struct AddedRule {
    /// Its name, empty for none.
    pub tag: Box<str>,
    /// Its lines.
    pub lines: Vec<RuleLine>,
}

/// The block. Immutable; a change makes a new one.
pub struct Added {
    rules: Rules,
    /// Where it stands in the configuration's list: before the line that decides everything.
    start: usize,
    /// The tag of each line.
    tags: Box<[Arc<str>]>,
    /// Whether the configuration's rules are out of force.
    replaces: bool,
}

impl Added {
    /// A block of these rules in the `configured` list.
    #[must_use]
    pub fn new(configured: &Rules, rules: &[AddedRule], replaces: bool) -> Self {
        let always = configured.first_always();
        let tagged = rules.iter().map(|rule| (Arc::from(&*rule.tag), rule));
        let lines = rules.iter().flat_map(|rule| rule.lines.iter().cloned());
        Self {
            rules: Rules::compile(lines),
            start: always.unwrap_or_else(|| configured.len()),
            tags: tagged
                .flat_map(|(tag, rule): (Arc<str>, _)| {
                    rule.lines.iter().map(move |_| Arc::clone(&tag))
                })
                .collect(),
            replaces,
        }
    }

    fn len(&self) -> usize {
        self.tags.len()
    }

    /// Whether two lines of two blocks are alike, tag included.
    fn same_line(&self, index: usize, other: &Self, inner: usize) -> bool {
        let line = |of: &Self, index: usize| {
            let line = of.rules.line(index)?;
            let (payload, target) = (line.payload.to_string(), line.target.to_string());
            Some((of.tags.get(index)?.clone(), line.kind, payload, target))
        };
        line(self, index) == line(other, inner)
    }
}

/// A place of the whole list.
enum Place<'a> {
    /// A line of the configuration.
    Configured(usize),
    /// A line of the block.
    Added(&'a Added, usize),
}

impl Routing {
    fn place(&self, index: usize) -> Place<'_> {
        let Some(added) = self.added.as_deref() else {
            return Place::Configured(index);
        };
        let start = added.start;
        match index.checked_sub(start) {
            None => Place::Configured(index),
            Some(inner) if inner < added.len() => Place::Added(added, inner),
            Some(inner) => Place::Configured(start + inner - added.len()),
        }
    }

    /// The first rule of the whole list at or after `from`, as [`Rules::find`].
    pub(super) fn find(&self, metadata: &Metadata, from: usize, may_resolve: bool) -> Found {
        let Some(added) = self.added.as_deref() else {
            return self.rules.find(metadata, from, may_resolve);
        };
        let (start, length) = (added.start, added.len());
        let moved = |found, by: usize| match found {
            Found::Rule(index) => Found::Rule(index + by),
            Found::NeedIp(index) => Found::NeedIp(index + by),
            Found::Nothing => Found::Nothing,
        };
        if from < start && !added.replaces {
            match self.rules.find(metadata, from, may_resolve) {
                Found::Rule(index) if index < start => return Found::Rule(index),
                Found::NeedIp(index) if index < start => return Found::NeedIp(index),
                _ => {}
            }
        }
        let from = from.max(start);
        if let Some(inner) = (from - start).checked_sub(length) {
            let rest = self.rules.find(metadata, start + inner, may_resolve);
            return moved(rest, length);
        }
        match added.rules.find(metadata, from - start, may_resolve) {
            Found::Nothing => moved(self.rules.find(metadata, start, may_resolve), length),
            found => moved(found, start),
        }
    }

    /// Where the rule at that place sends a flow, as [`Rules::target`].
    pub(super) fn target(
        &self,
        index: usize,
        metadata: &Metadata,
        may_resolve: bool,
    ) -> Option<&Arc<str>> {
        match self.place(index) {
            Place::Configured(index) => self.rules.target(index, metadata, may_resolve),
            Place::Added(added, index) => added.rules.target(index, metadata, may_resolve),
        }
    }

    /// The rule at that place of the whole list.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<RuleView<'_>> {
        match self.place(index) {
            Place::Configured(index) => self.rules.line(index),
            Place::Added(added, index) => added.rules.line(index),
        }
    }

    /// Entries of the geodata category at that place, where it is one.
    #[must_use]
    pub fn rule_size(&self, index: usize) -> Option<usize> {
        match self.place(index) {
            Place::Configured(index) => self.rules.size(index),
            Place::Added(..) => None,
        }
    }

    /// The rules of the whole list, with the tags of those that were added; those out of force left
    /// out.
    pub fn rules_in_force(&self) -> impl Iterator<Item = (usize, Option<&str>, RuleView<'_>)> {
        let added = self.added.as_deref();
        let replaced = added.filter(|added| added.replaces);
        let first = replaced.map_or(0, |added| added.start);
        (first..).map_while(|index| {
            let tag = match self.place(index) {
                Place::Configured(_) => None,
                Place::Added(added, inner) => added.tags.get(inner).map(|tag| &**tag),
            };
            Some((index, tag, self.rule(index)?))
        })
    }

    /// How many rules the whole list has, those out of force among them.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len() + self.added.as_deref().map_or(0, Added::len)
    }

    /// The configuration's own number of the rule at that place of the whole list; none of an added
    /// one.
    #[must_use]
    pub fn configured(&self, index: usize) -> Option<usize> {
        match self.place(index) {
            Place::Configured(index) => Some(index),
            Place::Added(..) => None,
        }
    }

    /// Puts another block in force. What the rules have done, and which are off, moves along.
    pub fn replace_added(&mut self, block: Option<Arc<Added>>) {
        let before = self.clone();
        self.added = block;
        let mut places = Vec::with_capacity(before.rule_count());
        let (mut next, grown) = (0, self.rule_count() - self.rules.len());
        for index in 0..before.rule_count() {
            places.push(match before.place(index) {
                Place::Configured(index) => match self.added.as_deref() {
                    Some(added) if index >= added.start => Some(index + grown),
                    _ => Some(index),
                },
                // A change takes lines out or puts lines behind them: the order stays.
                Place::Added(old, inner) => self
                    .added
                    .as_deref()
                    .filter(|new| next < grown && new.same_line(next, old, inner))
                    .map(|new| {
                        next += 1;
                        new.start + next - 1
                    }),
            });
        }
        let place = |index: usize| places.get(index).copied().flatten();
        self.tally = Arc::new(before.tally.moved(&place));
    }

    /// What some rule asks to know of the client.
    pub(super) fn needs(&self) -> Needs {
        let added = self.added.as_deref();
        self.rules.needs() | added.map_or_else(Needs::default, |added| added.rules.needs())
    }

    /// Whether the block can only send DIRECT and hides nothing, so that it changes nothing for flows
    /// that are certain to be DIRECT without it.
    pub(super) fn added_leads_direct(&self) -> bool {
        self.added.as_deref().is_none_or(|added| {
            let mut lines = added.rules.lines();
            !added.replaces && lines.all(|line| self.leads_direct(line.target))
        })
    }

    /// Whether an added rule is the first to match, and what it leads to blocks.
    #[must_use]
    pub fn added_rule_blocks(&self, metadata: &Metadata) -> bool {
        let Found::Rule(index) = self.find(metadata, 0, false) else {
            return false;
        };
        let Place::Added(added, inner) = self.place(index) else {
            return false;
        };
        let target = added.rules.line(inner).map(|line| line.target);
        let outbound = target.and_then(|target| self.outbounds.get(target));
        outbound.is_some_and(|outbound| outbound.kind().blocks())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::outbound::registry::Registry;
    use crate::tunnel::routing::Mode;

    fn rule(tag: &str, lines: &[&str]) -> AddedRule {
        AddedRule {
            tag: tag.into(),
            lines: lines
                .iter()
                .map(|line| RuleLine::parse(line).unwrap())
                .collect(),
        }
    }

    fn routing(configured: &[&str], added: &[AddedRule], replaces: bool) -> Routing {
        let lines = configured.iter().map(|line| RuleLine::parse(line).unwrap());
        let rules = Arc::new(Rules::compile(lines));
        Routing {
            added: Some(Arc::new(Added::new(&rules, added, replaces))),
            rules,
            outbounds: Arc::new(Registry::default()),
            mode: Mode::Rule,
            sniffer: Arc::default(),
            find_process: true,
            tally: Arc::default(),
        }
    }

    /// The targets of the rules that match, in the order in which they are asked.
    fn walk(routing: &Routing, host: &str) -> Vec<String> {
        let metadata = Metadata::new(
            Network::Tcp,
            InboundType::Socks5,
            &Arc::from("in"),
            "10.0.0.1:1".parse().unwrap(),
            Endpoint::parse(host).unwrap(),
        );
        let (mut from, mut targets) = (0, Vec::new());
        loop {
            match routing.find(&metadata, from, true) {
                Found::Rule(index) => {
                    targets.push(routing.rule(index).unwrap().target.to_string());
                    assert!(routing.target(index, &metadata, true).is_some());
                    from = index + 1;
                }
                Found::NeedIp(index) => {
                    targets.push(format!("ip? {}", routing.rule(index).unwrap().target));
                    from = index + 1;
                }
                Found::Nothing => return targets,
            }
        }
    }

    const CONFIGURED: [&str; 4] = [
        "DOMAIN,a.b,first",
        "IP-CIDR,10.0.0.0/8,second",
        "MATCH,third",
        "DOMAIN,a.b,never",
    ];

    #[test]
    fn added_rules_are_asked_before_the_match_and_after_all_others() {
        let added = [
            rule("x", &["DOMAIN,a.b,one", "DOMAIN,c.d,one"]),
            rule("", &["DST-PORT,1,two"]),
        ];
        let routing = routing(&CONFIGURED, &added, false);
        let all = ["first", "ip? second", "one", "two", "third", "never"];
        assert_eq!(walk(&routing, "a.b:1"), all);
        assert_eq!(walk(&routing, "c.d:2"), ["ip? second", "one", "third"]);
        let listed: Vec<_> = routing.rules_in_force().collect();
        let tags: Vec<_> = listed.iter().map(|(_, tag, _)| *tag).collect();
        let want = [None, None, Some("x"), Some("x"), Some(""), None, None];
        assert_eq!(tags, want);
        assert!(
            listed
                .iter()
                .enumerate()
                .all(|(at, (index, ..))| at == *index)
        );
    }

    #[test]
    fn a_block_that_replaces_leaves_the_match_alone() {
        let routing = routing(&CONFIGURED, &[rule("x", &["IP-CIDR,1.0.0.0/8,one"])], true);
        assert_eq!(walk(&routing, "a.b:1"), ["ip? one", "third", "never"]);
        let targets = routing
            .rules_in_force()
            .map(|(.., line)| line.target.to_string());
        assert_eq!(targets.collect::<Vec<_>>(), ["one", "third", "never"]);
    }

    #[test]
    fn what_rules_have_done_follows_them_when_the_block_changes() {
        let one = rule("x", &["DOMAIN,a.b,one", "DOMAIN,c.d,one"]);
        let two = rule("y", &["DST-PORT,1,two"]);
        let three = rule("z", &["DST-PORT,2,three"]);
        let hits = |routing: &Routing| {
            let records = routing.tally.records(routing.rule_count());
            let lines = routing.rules_in_force();
            let shown = lines.map(|(index, _, line)| {
                let record = records[index];
                let off = if record.off { " off" } else { "" };
                format!("{} {}{off}", line.target, record.hits.times)
            });
            shown.collect::<Vec<_>>()
        };
        let mut routing = routing(&CONFIGURED, &[one.clone(), two.clone()], false);
        for (index, times) in [(0, 1), (3, 2), (4, 3), (5, 4)] {
            for _ in 0..times {
                routing.tally.count(Some(index), Duration::ZERO);
            }
        }
        routing.tally.switch(4, true);
        let block = |rules: &Rules, added: &[AddedRule]| Added::new(rules, added, false);
        let rules = Arc::clone(&routing.rules);
        routing.replace_added(Some(Arc::new(block(
            &rules,
            &[one, two.clone(), three.clone()],
        ))));
        let want = [
            "first 1",
            "second 0",
            "one 0",
            "one 2",
            "two 3 off",
            "three 0",
        ];
        assert_eq!(hits(&routing)[..6], want);
        assert_eq!(hits(&routing)[6..], ["third 4", "never 0"]);
        routing.replace_added(Some(Arc::new(block(&rules, &[two, three]))));
        let want = [
            "first 1",
            "second 0",
            "two 3 off",
            "three 0",
            "third 4",
            "never 0",
        ];
        assert_eq!(hits(&routing), want);
        // What the rule that is gone decided, those before it still missed.
        assert_eq!(routing.tally.records(6)[0].misses.times, 9);
        routing.replace_added(None);
        assert_eq!(
            hits(&routing),
            ["first 1", "second 0", "third 4", "never 0"]
        );
        assert!(!routing.tally.any_off());
    }

    #[test]
    fn without_a_match_the_block_is_the_end() {
        let routing = routing(&CONFIGURED[..1], &[rule("x", &["DST-PORT,1,one"])], false);
        assert_eq!(walk(&routing, "a.b:1"), ["first", "one"]);
    }
}
