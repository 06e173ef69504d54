//! RULE-SET: some entry of a provider's set matches.
//!
//! A set that is not loaded matches nothing and has no name resolved; what a flow would do once it
//! is loaded stays open, so nothing is called certain through it. What was called certain holds
//! until the set is swapped, which the daemon tells offload.

use std::sync::Arc;

use super::PayloadError;
use super::intervals::Intervals;
use super::ip::Side;
use super::matcher::{
    Bounds, Condition, Destination, Known, Matcher, Needs, Payload, Scope, Truth,
};
use super::set::{Behavior, Content, NamedSet, RuleSet};
use crate::metadata::Metadata;

/// `RULE-SET,name`, and categories of geodata.
#[derive(Debug)]
pub(super) struct InSet {
    set: Arc<NamedSet>,
    side: Side,
    /// Whether everything else is meant.
    negated: bool,
    /// Whether the APIs count its entries: those of geodata, not those of providers.
    counted: bool,
}

impl InSet {
    /// Some entry of a provider's set.
    fn of_provider(set: Arc<NamedSet>, side: Side) -> Self {
        Self {
            set,
            side,
            negated: false,
            counted: false,
        }
    }

    /// Some entry of a category, or none.
    pub fn of_category(set: Arc<NamedSet>, side: Side, negated: bool) -> Self {
        Self {
            set,
            side,
            negated,
            counted: true,
        }
    }

    fn ask(&self, set: &RuleSet, known: &Known<'_>) -> Truth {
        let negated = self.negated;
        match (&set.content, self.side) {
            (Content::Names(names), _) => known.ask_host(|host| names.contains(host) != negated),
            (Content::Site(site), _) => known.ask_host(|host| site.contains(host) != negated),
            (Content::Addresses(addresses), side) => {
                side.ask(known, |ip| addresses.contains(ip) != negated)
            }
            (Content::Classical(rules), Side::Destination { resolve: true }) => rules.truth(known),
            (Content::Classical(rules), Side::Destination { resolve: false }) => {
                rules.truth(&known.unresolved())
            }
            (Content::Classical(rules), Side::Source) => match known.metadata() {
                None => rules.truth(known),
                Some(metadata) => rules.truth(&Known::flow(&swapped(metadata), false)),
            },
        }
    }
}

/// As in mihomo, `src` asks a set of rules with source and destination in each other's place. A
/// destination without an address is the unspecified one.
fn swapped(metadata: &Metadata) -> Metadata {
    let mut other = metadata.clone();
    if let Some(ip) = metadata.destination_ip {
        other.source.set_ip(ip);
    } else {
        other.source.set_ip(std::net::Ipv4Addr::UNSPECIFIED.into());
    }
    other.source.set_port(metadata.destination_port);
    other.destination_ip = Some(metadata.source.ip().to_canonical());
    other.destination_port = metadata.source.port();
    other
}

impl Matcher for InSet {
    fn truth(&self, known: &Known<'_>) -> Truth {
        match self.set.loaded() {
            Some(set) => self.ask(&set, known),
            None if known.metadata().is_some() => Truth::No,
            None => Truth::Unknown,
        }
    }

    fn bounds(&self, scope: Scope) -> Bounds {
        let open = Bounds {
            always: Intervals::none(),
            possible: Intervals::all(scope.v4),
        };
        let Some(set) = self.set.loaded() else {
            return open;
        };
        match (&set.content, self.side) {
            (Content::Names(_) | Content::Site(_), _) => {
                Bounds::of(self.ask(&set, &scope.known()), scope)
            }
            (_, Side::Source) => open,
            (Content::Addresses(addresses), Side::Destination { .. }) => {
                let inside = addresses.intervals(scope.v4);
                let inside = match self.negated {
                    true => inside.complement(scope.v4),
                    false => inside,
                };
                Bounds {
                    always: inside.clone(),
                    possible: inside,
                }
            }
            (Content::Classical(rules), Side::Destination { .. }) => rules.bounds(scope),
        }
    }

    fn size(&self) -> Option<usize> {
        let counted = self.counted.then(|| self.set.loaded());
        counted.map(|set| set.map_or(0, |set| set.entries()))
    }

    fn needs(&self) -> Needs {
        match self.set.loaded() {
            Some(set) => match &set.content {
                Content::Classical(rules) => rules.needs(),
                _ => Needs::default(),
            },
            None => Needs::default(),
        }
    }

    fn needs_change(&self) -> bool {
        self.set.behavior() == Behavior::Classical
    }
}

/// Reads `RULE-SET`.
pub(super) fn rule_set(payload: &Payload<'_>) -> Result<Condition, PayloadError> {
    let set = payload.library.set(payload.text);
    let set = Arc::clone(set.ok_or(PayloadError::NoSet)?);
    let side = Side::of(payload);
    Ok(Condition::new(
        "RuleSet",
        payload.text,
        InSet::of_provider(set, side),
    ))
}

impl<'a> Known<'a> {
    /// The same, but nothing will be resolved.
    fn unresolved(&self) -> Self {
        match (self.metadata(), self.destination()) {
            (Some(metadata), Some(Destination::Pending)) => Self::flow(metadata, false),
            _ => *self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::rules::geo::Geodata;
    use crate::rules::set::RuleSetBuilder;
    use crate::rules::{Found, Library, RuleLine, Rules};

    fn library(sets: &[(&str, Behavior, &[&str])]) -> (Library, Vec<Arc<NamedSet>>) {
        let mut library = Library::default();
        let mut named = Vec::new();
        for (name, behavior, entries) in sets {
            let set = Arc::new(NamedSet::new(name, *behavior));
            let mut builder = RuleSetBuilder::new(*behavior, &Geodata::default());
            for entry in *entries {
                builder.push(entry).unwrap();
            }
            set.replace(Arc::new(builder.finish()));
            library.add_set(Arc::clone(&set));
            named.push(set);
        }
        (library, named)
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

    #[track_caller]
    fn check(rule: &str, destination: &str, want: Truth) {
        let (library, _) = library(&[
            ("names", Behavior::Domain, &["+.a.org", "b.org"]),
            ("nets", Behavior::IpCidr, &["10.0.0.0/8", "2001:db8::1"]),
            (
                "rules",
                Behavior::Classical,
                &["DOMAIN-SUFFIX,c.org", "IP-CIDR,10.0.0.0/8", "DST-PORT,22"],
            ),
        ]);
        let line = RuleLine::parse_in(&format!("RULE-SET,{rule}"), &library).unwrap();
        let flow = flow(destination);
        let truth = line.matcher().truth(&Known::flow(&flow, true));
        assert_eq!(truth, want, "{rule} {destination}");
    }

    #[test]
    fn each_behavior_asks_its_own_fact() {
        check("names,p", "x.a.org:1", Truth::Yes);
        check("names,p", "x.b.org:1", Truth::No);
        check("names,p", "10.0.0.1:1", Truth::No);
        check("nets,p", "10.0.0.1:1", Truth::Yes);
        check("nets,p", "[2001:db8::1]:1", Truth::Yes);
        check("nets,p", "11.0.0.1:1", Truth::No);
        check("nets,p", "a.org:1", Truth::Unknown);
        check("nets,p,no-resolve", "a.org:1", Truth::No);
        check("nets,p,src", "a.org:1", Truth::Yes);
        check("rules,p", "x.c.org:1", Truth::Yes);
        check("rules,p", "a.org:1", Truth::Unknown);
        check("rules,p,no-resolve", "a.org:1", Truth::No);
        check("rules,p,no-resolve", "a.org:22", Truth::Yes);
        // Swapped: the source 10.0.0.1 is the destination.
        check("rules,p,src", "a.org:1", Truth::Yes);
    }

    #[test]
    fn an_empty_place_matches_nothing_and_leaves_certainty_open() {
        let mut library = Library::default();
        let set = Arc::new(NamedSet::new("later", Behavior::IpCidr));
        library.add_set(Arc::clone(&set));
        let lines = ["RULE-SET,later,D", "MATCH,P"];
        let rules = Rules::compile(lines.map(|l| RuleLine::parse_in(l, &library).unwrap()));
        assert_eq!(rules.find(&flow("a.b:1"), 0, true), Found::Rule(1));
        assert!(!rules.certainly_direct("a.b", &|i| i == 1));
        assert!(
            rules
                .certainly_direct_ranges(true, false, &|i| i == 1)
                .is_empty()
        );
        let mut builder = RuleSetBuilder::new(Behavior::IpCidr, &Geodata::default());
        builder.push("1.0.0.0/8").unwrap();
        set.replace(Arc::new(builder.finish()));
        assert_eq!(rules.find(&flow("a.b:1"), 0, true), Found::NeedIp(0));
        assert_eq!(rules.find(&flow("1.2.3.4:1"), 0, true), Found::Rule(0));
        let direct = rules.certainly_direct_ranges(true, false, &|i| i == 0);
        assert_eq!(
            direct,
            [("1.0.0.0".parse().unwrap(), "1.255.255.255".parse().unwrap())]
        );
    }

    #[test]
    fn a_set_that_no_provider_has_is_refused() {
        let line = RuleLine::parse("RULE-SET,gone,p").unwrap_err();
        assert_eq!(
            line.to_string(),
            "RULE-SET \"gone\": no rule provider has this name"
        );
    }

    #[test]
    fn entries_that_are_no_conditions_are_refused() {
        for entry in [
            "MATCH",
            "RULE-SET,x",
            "SUB-RULE,(DST-PORT,1)",
            "AND,((RULE-SET,x))",
            "FOO,x",
            "",
        ] {
            assert!(
                RuleSetBuilder::new(Behavior::Classical, &Geodata::default())
                    .push(entry)
                    .is_err(),
                "{entry}"
            );
        }
    }
}
