//! The compiled list: tables that together answer what a walk of the list would.
//!
//! Each table gives the first line at or after a given one that matches the flow; the least of
//! these answers is the list's. A flow whose address is still to be resolved stops at the first
//! line that asks for it, if no line before matches. Nothing here changes after compiling, so
//! flows share it without a lock.
//!
//! What is to come fits in so: a rule set is a matcher (or one entry per table with the line of
//! its RULE-SET); hit counters are an array beside the list, by line; a line that was switched
//! off is passed over by asking again behind it, for which every table takes `from`.

mod builder;
mod keywords;
mod lines;
mod names;
mod numbers;
mod prefixes;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use builder::RulesBuilder;
use keywords::Keywords;
pub use lines::RuleView;
pub(super) use lines::{Class, Lines};
use names::{Names, Reach};
use numbers::Numbers;
use prefixes::Prefixes;

use super::RuleLine;
use super::matcher::{Destination, Known, Matcher, Needs, Truth};
use super::port::PortField;
use crate::metadata::{Mac, Metadata};
use crate::prefix::Prefix;

/// Lines in one list: their number takes 24 bits of an entry of the name table, so that at least
/// eight are left to tell names apart.
pub const LINES_MAX: usize = (1 << 24) - 1;

/// No line.
const NONE: u32 = u32::MAX;

/// What a search of the rules gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The first rule, at or after the asked index, that matches.
    Rule(usize),
    /// No rule before this one matches, and this one needs the destination's address: resolve the
    /// host, set [`Metadata::destination_ip`] (or give up), then ask again from here with
    /// `may_resolve` false. From here, since a `no-resolve` rule above has been passed for good.
    NeedIp(usize),
    /// No rule matches.
    Nothing,
}

/// The compiled list. Immutable; a reload makes a new one.
pub struct Rules {
    pub(super) lines: Lines,
    always: Box<[u32]>,
    names: Names,
    keywords: Keywords,
    destinations: Families,
    /// Runs of lines, first and last, that have an unknown destination resolved.
    resolving: Box<[(u32, u32)]>,
    sources: Families,
    /// In the order of [`PortField::ALL`].
    numbers: [Numbers; 4],
    macs: Box<[(Mac, u32)]>,
    /// The lines without a key, ascending.
    pub(super) asked: Box<[(u32, Arc<dyn Matcher>)]>,
    needs: Needs,
    needs_change: bool,
}

impl Rules {
    /// Compiles parsed lines, of which the first 16,777,215 count. A long list takes much less
    /// memory through a [`RulesBuilder`], which needs one parsed line at a time.
    #[must_use]
    pub fn compile(lines: impl IntoIterator<Item = RuleLine>) -> Self {
        let mut builder = RulesBuilder::default();
        for line in lines {
            if builder.push(&line).is_err() {
                break;
            }
        }
        builder.finish()
    }

    /// The first rule at or after `from` that matches, exactly as if the list were walked.
    /// `may_resolve`: the host has not been resolved in vain.
    #[must_use]
    pub fn find(&self, metadata: &Metadata, from: usize, may_resolve: bool) -> Found {
        let Ok(from) = u32::try_from(from) else {
            return Found::Nothing;
        };
        self.search(metadata, &Known::flow(metadata, may_resolve), from)
    }

    fn search(&self, metadata: &Metadata, known: &Known<'_>, from: u32) -> Found {
        let mut best = self.find_by_host(known.host().unwrap_or_default(), from);
        let mut need = NONE;
        match known.destination() {
            Some(Destination::Address(ip)) => lower(&mut best, self.destinations.find(ip, from)),
            Some(Destination::Pending) => lower(&mut need, self.next_resolving(from)),
            Some(Destination::Absent) | None => {}
        }
        let source = metadata.source.ip().to_canonical();
        lower(&mut best, self.sources.find(source, from));
        for (field, table) in PortField::ALL.into_iter().zip(&self.numbers) {
            lower(&mut best, table.find(field.of(metadata), from));
        }
        if let Some(mac) = metadata.source_mac {
            let at = self.macs.partition_point(|entry| *entry < (mac, from));
            let line = self.macs.get(at).filter(|(same, _)| *same == mac);
            lower(&mut best, line.map(|(_, line)| *line));
        }
        let skipped = self.asked.partition_point(|(line, _)| *line < from);
        for (line, matcher) in self.asked.iter().skip(skipped) {
            if *line > best.min(need) {
                break;
            }
            match matcher.truth(known) {
                Truth::Yes => best = *line,
                Truth::Unknown => need = *line,
                Truth::No => {}
            }
        }
        match (best, need) {
            (NONE, NONE) => Found::Nothing,
            (best, need) if need < best => Found::NeedIp(need as usize),
            (best, _) => Found::Rule(best as usize),
        }
    }

    /// Whether some line matches, as [`Matcher::truth`] says it: for a whole flow unknown where the
    /// walk would stop to resolve; with facts left out unknown where some line is open.
    #[must_use]
    pub fn truth(&self, known: &Known<'_>) -> Truth {
        if let Some(metadata) = known.metadata() {
            return match self.search(metadata, known, 0) {
                Found::Rule(_) => Truth::Yes,
                Found::NeedIp(_) => Truth::Unknown,
                Found::Nothing => Truth::No,
            };
        }
        if self.find_by_host(known.host().unwrap_or_default(), 0) != NONE {
            return Truth::Yes;
        }
        let open = |class| match class {
            Class::Destination | Class::Other => true,
            Class::Name => known.host().is_none(),
            Class::Always | Class::Ask => false,
        };
        let mut shapes = self.lines.shapes().iter();
        let mut truth = match shapes.any(|(shape, _)| open(shape.class)) {
            true => Truth::Unknown,
            false => Truth::No,
        };
        for (_, matcher) in &self.asked {
            match matcher.truth(known) {
                Truth::Yes => return Truth::Yes,
                Truth::Unknown => truth = Truth::Unknown,
                Truth::No => {}
            }
        }
        truth
    }

    /// Where line `index`, which matches this flow, sends it: through SUB-RULE to the target of
    /// the line that decides inside.
    #[must_use]
    pub fn target(
        &self,
        index: usize,
        metadata: &Metadata,
        may_resolve: bool,
    ) -> Option<&Arc<str>> {
        match self.list(index) {
            None => Some(self.line(index)?.target),
            Some(list) => match list.find(metadata, 0, may_resolve) {
                Found::Rule(inner) => list.target(inner, metadata, may_resolve),
                Found::NeedIp(_) | Found::Nothing => None,
            },
        }
    }

    /// Whether `test` holds for every target that line `index` may lead to.
    #[must_use]
    pub fn leads_only(&self, index: usize, test: &dyn Fn(&str) -> bool) -> bool {
        match self.list(index) {
            None => self.line(index).is_some_and(|line| test(line.target)),
            Some(list) => {
                let mut shapes = list.lines.shapes().iter();
                shapes.all(|(_, first)| list.leads_only(*first, test))
            }
        }
    }

    /// The first line that matches whatever comes.
    #[must_use]
    pub fn first_always(&self) -> Option<usize> {
        self.always.first().map(|&line| line as usize)
    }

    /// The list that line `index` leads to, if it is a SUB-RULE.
    fn list(&self, index: usize) -> Option<&Self> {
        self.asked_at(index)?.list()
    }

    /// The list that line `index` leads to, if it is a SUB-RULE.
    #[must_use]
    pub fn inner(&self, index: usize) -> Option<&Self> {
        self.list(index)
    }

    /// The matcher of a line without a key.
    fn asked_at(&self, index: usize) -> Option<&dyn Matcher> {
        let line = u32::try_from(index).ok()?;
        let at = self.asked.binary_search_by_key(&line, |(line, _)| *line);
        Some(&*self.asked.get(at.ok()?)?.1)
    }

    /// The first line at or after `from` that `host` alone makes match; [`Class::Ask`] apart.
    pub(super) fn find_by_host(&self, host: &str, from: u32) -> u32 {
        let at = self.always.partition_point(|line| *line < from);
        let mut best = self.always.get(at).copied().unwrap_or(NONE);
        let same = |line: u32, reach: Reach, name: &[u8]| {
            self.lines.get(line as usize).is_some_and(|record| {
                let shape = self.lines.shape(record);
                record.payload == name && shape.is_some_and(|s| s.kind == reach.kind())
            })
        };
        let named = self.names.find(host, from, best, same);
        lower(&mut best, named);
        lower(&mut best, self.keywords.find(host, from));
        best
    }

    fn next_resolving(&self, from: u32) -> Option<u32> {
        let at = self.resolving.partition_point(|(_, last)| *last < from);
        self.resolving.get(at).map(|(first, _)| (*first).max(from))
    }

    /// How many entries the category has that line `index` asks, for the APIs.
    #[must_use]
    pub fn size(&self, index: usize) -> Option<usize> {
        self.asked_at(index)?.size()
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One line, for the APIs.
    #[must_use]
    pub fn line(&self, index: usize) -> Option<RuleView<'_>> {
        self.lines.view(self.lines.get(index)?)
    }

    /// The lines in order, for the APIs.
    pub fn lines(&self) -> impl Iterator<Item = RuleView<'_>> {
        self.lines
            .iter()
            .filter_map(|record| self.lines.view(record))
    }

    /// Every target of this list itself, those of SUB-RULE lines left out, with a line that sends to
    /// it: the first, or the first of another type. A target may come several times. For checking
    /// that all of them exist.
    pub fn own_targets(&self) -> impl Iterator<Item = (&str, usize)> {
        let shapes = self.lines.shapes().iter();
        let own = shapes.filter(|(_, first)| self.list(*first).is_none());
        own.map(|(shape, first)| (&*shape.target, *first))
    }

    /// Which facts some rule asks for that are looked up only then.
    #[must_use]
    pub fn needs(&self) -> Needs {
        if !self.needs_change {
            return self.needs;
        }
        let asked = self.asked.iter().map(|(_, matcher)| matcher.needs());
        asked.fold(self.needs, |all, needs| all | needs)
    }

    /// Whether that may change with a rule set.
    pub(super) fn needs_change(&self) -> bool {
        self.needs_change
    }
}

/// The lines as the APIs show them.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lines()).finish()
    }
}

fn lower(best: &mut u32, line: Option<u32>) {
    *best = line.unwrap_or(NONE).min(*best);
}

impl Reach {
    /// The type whose lines reach so far.
    fn kind(self) -> &'static str {
        match self {
            Self::Exact => "Domain",
            Self::Suffix => "DomainSuffix",
        }
    }
}

/// Prefix lines of both families.
struct Families {
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
}

impl Families {
    fn build(prefixes: Vec<(Prefix, u32)>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) = prefixes
            .into_iter()
            .partition(|(prefix, _)| prefix.address().is_ipv4());
        Self {
            v4: Prefixes::build(&v4),
            v6: Prefixes::build(&v6),
        }
    }

    fn find(&self, ip: IpAddr, from: u32) -> Option<u32> {
        match ip {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits(), from),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits(), from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};

    fn rules(text: &str) -> Rules {
        Rules::compile(
            text.split_whitespace()
                .map(|line| RuleLine::parse(line).unwrap()),
        )
    }

    fn flow(destination: &str) -> Metadata {
        Metadata::new(
            Network::Tcp,
            InboundType::TProxy,
            &Arc::from("in"),
            "10.0.0.1:1000".parse().unwrap(),
            Endpoint::parse(destination).unwrap(),
        )
    }

    #[test]
    fn a_name_is_resolved_at_the_first_rule_that_needs_it_and_no_earlier_one_decides() {
        let rules = rules(
            "DOMAIN,a.b,p IP-CIDR,10.0.0.0/8,q,no-resolve IP-CIDR,12.0.0.0/8,q \
             IP-CIDR,10.1.0.0/16,q,no-resolve DOMAIN,c.d,p MATCH,r",
        );
        assert_eq!(rules.find(&flow("a.b:1"), 0, true), Found::Rule(0));
        assert_eq!(rules.find(&flow("a.b:1"), 1, true), Found::NeedIp(2));
        let mut named = flow("c.d:1");
        assert_eq!(rules.find(&named, 0, true), Found::NeedIp(2));
        assert_eq!(rules.find(&named, 4, true), Found::Rule(4));
        // It has no address: rules that need one are passed.
        assert_eq!(rules.find(&named, 2, false), Found::Rule(4));
        // Resolved for one rule, the address meets the `no-resolve` rules below, not those above.
        named.destination_ip = Some([10, 1, 1, 1].into());
        assert_eq!(rules.find(&named, 2, false), Found::Rule(3));
        assert_eq!(rules.find(&flow("11.1.1.1:1"), 0, true), Found::Rule(5));
    }

    #[test]
    fn an_empty_list_and_a_search_behind_the_end_find_nothing() {
        let none = Rules::compile([]);
        assert!(none.is_empty());
        assert_eq!(none.find(&flow("a.b:1"), 0, true), Found::Nothing);
        let one = rules("MATCH,p");
        assert_eq!(one.find(&flow("a.b:1"), 1, true), Found::Nothing);
        assert_eq!(one.find(&flow("a.b:1"), usize::MAX, true), Found::Nothing);
        assert_eq!(one.line(1), None);
    }

    #[test]
    fn every_target_is_told_with_a_line_of_it() {
        let rules = rules("DOMAIN,a,p DOMAIN,b,p DOMAIN,c,q DST-PORT,1,p");
        let targets: Vec<_> = rules.own_targets().collect();
        assert_eq!(targets, [("p", 0), ("q", 2), ("p", 3)]);
    }
}
