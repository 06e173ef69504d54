//! What the tables have in common: options and facts at hand, the sets, and the rules by which
//! both of them know what is never captured.

use super::{Facts, Ports};
use crate::netfilter::marks::Marks;
use crate::netfilter::options::{Fail, Mark, Options};
use crate::netfilter::table::{
    Chain, Elements, Expression as E, Family, Field, Hook, Place, Rule, Set, SetKind, Transport,
    ranges,
};
use crate::prefix::Prefix;

/// Destinations that never leave home, RFC 6890 and its kin. 198.18.0.0/15 is not among them
/// (fake addresses), nor are the documentation ranges, which lead nowhere either way.
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/127",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];
/// UDP that only works directly: DHCP, NTP, DHCPv6, SSDP, mDNS.
const NEAR_PORTS: &[u16] = &[67, 68, 123, 546, 547, 1900, 5353];
pub(super) const DNS_PORT: u16 = 53;

/// All that the tables are made from.
pub(super) struct Plan<'a> {
    pub(super) options: &'a Options,
    pub(super) ports: Ports,
    pub(super) facts: &'a Facts,
    pub(super) marks: Marks,
    pub(super) tproxy: bool,
    pub(super) redirect: bool,
}

impl Plan<'_> {
    pub(super) fn mark(&self, value: u32) -> Mark {
        Mark {
            value,
            mask: self.marks.mask,
        }
    }

    /// What both tables need; sets live inside their table.
    pub(super) fn common_sets(&self) -> Vec<Set> {
        let private = PRIVATE.iter().filter_map(|text| text.parse().ok());
        let near: Vec<Prefix> = private
            .chain(self.options.bypass.iter().copied())
            .chain(self.facts.connected.iter().copied())
            .collect();
        let names = Elements::Names(self.options.interfaces.clone());
        let macs = Elements::Ethers(self.options.bypass_source_mac.clone());
        let mut sets = vec![
            set("lan", SetKind::Interfaces, names),
            set("near_ports", SetKind::Ports, Elements::Ports(NEAR_PORTS)),
            set("source_mac", SetKind::Ethers, macs),
        ];
        for family in Family::BOTH {
            for (name, prefixes) in [
                (by(family, "bypass4", "bypass6"), &near),
                (
                    by(family, "source4", "source6"),
                    &self.options.bypass_source,
                ),
            ] {
                let elements = Elements::Ranges {
                    family,
                    ranges: ranges(prefixes, family),
                };
                sets.push(set(name, SetKind::Ranges(family), elements));
            }
        }
        sets
    }

    /// How a packet that is not captured ends: with `fail: closed` its connection is marked,
    /// so that the other table lets it pass.
    pub(super) fn leave(&self) -> E {
        match self.options.fail {
            Fail::Open => E::Return,
            Fail::Closed => E::Goto("direct"),
        }
    }

    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let on = [
            (Family::V4, self.options.ipv4),
            (Family::V6, self.options.ipv6),
        ];
        on.into_iter()
            .filter_map(|(family, on)| on.then_some(family))
    }

    pub(super) fn other_families(&self, leave: E) -> Vec<Rule> {
        let on: Vec<_> = self.families().collect();
        let off = Family::BOTH
            .into_iter()
            .filter(|family| !on.contains(family));
        off.map(|family| vec![E::Is(family), leave]).collect()
    }

    /// Sources that are never captured.
    pub(super) fn sources(&self, leave: E) -> Vec<Rule> {
        let prefixes = &self.options.bypass_source;
        let mut rules: Vec<Rule> = Family::BOTH
            .into_iter()
            .filter(|family| prefixes.iter().any(|p| family.holds(p.address())))
            .map(|f| vec![E::In(Field::Source(f), by(f, "source4", "source6")), leave])
            .collect();
        if !self.options.bypass_source_mac.is_empty() {
            rules.push(vec![E::In(Field::EtherSource, "source_mac"), leave]);
        }
        rules
    }

    /// Destinations that are always, and those that are never captured.
    pub(super) fn destinations(&self, leave: E, take: E) -> Vec<Rule> {
        let rule = |v4: &'static str, v6: &'static str, verdict: E| {
            self.families()
                .map(move |f| vec![E::In(Field::Destination(f), by(f, v4, v6)), verdict])
        };
        let mut rules: Vec<Rule> = rule("fake4", "fake6", take).collect();
        rules.push(vec![E::In(Field::DestinationType, "near"), leave]);
        rules.push(near_ports(leave));
        rules.extend(rule("bypass4", "bypass6", leave));
        rules.extend(rule("servers4", "servers6", leave));
        if self.options.offload {
            rules.extend(rule("direct4", "direct6", leave));
            rules.extend(rule("learned4", "learned6", leave));
        }
        rules
    }
}

pub(super) fn near_ports(verdict: E) -> Rule {
    vec![
        E::Over(Transport::Udp),
        E::In(Field::DestinationPort, "near_ports"),
        verdict,
    ]
}

pub(super) fn by(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

pub(super) fn set(name: &'static str, kind: SetKind, elements: Elements) -> Set {
    Set {
        name,
        kind,
        elements,
    }
}

pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

pub(super) fn base(
    name: &'static str,
    kind: &'static str,
    place: Place,
    priority: i32,
    rules: Vec<Rule>,
) -> Chain {
    let hook = Some(Hook {
        kind,
        place,
        priority,
    });
    Chain { name, hook, rules }
}
