//! Table `headgate`, chain by chain; the order of the rules is argued in the parent's head.

use super::plan::{DNS_PORT, Plan, base, by, chain, set};
use super::{ALIVE, ALIVE_MS, LEARNED_MAX, TABLE, learned, servers};
use crate::netfilter::options::Fail;
use crate::netfilter::table::{
    Chain, Elements, Expression as E, Family, Field, Place, Rule, SetKind, Table, Transport, ranges,
};
use crate::prefix::Prefix;

/// Priority "mangle": after connection tracking (-200), before NAT (-100).
const MANGLE: i32 = -150;
/// Before everybody else's destination NAT, which sits at -100.
const BEFORE_DSTNAT: i32 = -105;

impl Plan<'_> {
    pub(super) fn capture(&self) -> Table {
        let mut sets = self.common_sets();
        sets.push(set(ALIVE, SetKind::Protocols, Elements::Alive(ALIVE_MS)));
        if !self.facts.blocked.is_empty() {
            let macs = Elements::Ethers(self.facts.blocked.clone());
            sets.push(set("blocked", SetKind::Ethers, macs));
        }
        sets.push(set("near", SetKind::AddressTypes, Elements::NearTypes));
        for family in Family::BOTH {
            let of = |name, prefixes: &[Prefix]| {
                let ranges = ranges(prefixes, family);
                set(
                    name,
                    SetKind::Ranges(family),
                    Elements::Ranges { family, ranges },
                )
            };
            sets.push(of(by(family, "fake4", "fake6"), &self.facts.fake_ip));
            sets.push(set(servers(family), SetKind::Hosts(family), Elements::None));
            if self.options.offload {
                sets.push(of(by(family, "direct4", "direct6"), &self.facts.direct));
                let kind = SetKind::TimedHosts(family, LEARNED_MAX);
                sets.push(set(learned(family), kind, Elements::None));
            }
        }
        let mut chains = vec![self.prerouting(), self.decide(), self.dns(), self.take()];
        if !self.facts.blocked.is_empty() {
            let near = E::In(Field::DestinationType, "near");
            chains.push(chain("block", vec![vec![near, E::Return], vec![E::Drop]]));
        }
        if self.options.fail == Fail::Closed {
            let direct = self.mark(self.marks.direct);
            chains.push(chain(
                "direct",
                vec![vec![E::SetConnectionMark(direct), E::Accept]],
            ));
        }
        chains.push(self.settle("settle_in", Place::Prerouting));
        if self.redirect {
            chains.push(self.guard());
        }
        if self.options.router_traffic {
            chains.extend([self.output(), self.router()]);
            chains.push(chain("turn", vec![self.marked(Vec::new())]));
            chains.push(self.settle("settle_out", Place::Output));
        }
        Table {
            name: TABLE,
            owned: true,
            sets,
            chains,
        }
    }

    fn prerouting(&self) -> Chain {
        let alive = E::In(Field::Protocol, ALIVE);
        let captured = self.mark(self.marks.captured);
        let lan = E::In(Field::InputInterface, "lan");
        let mut rules = vec![vec![lan, alive, E::Goto("decide")]];
        if self.options.router_traffic {
            rules.push(vec![
                E::FromLoopback,
                E::Marked(captured),
                alive,
                E::Goto("take"),
            ]);
        }
        base("prerouting", "filter", Place::Prerouting, MANGLE, rules)
    }

    fn decide(&self) -> Chain {
        let leave = self.leave();
        let mut rules = Vec::new();
        if !self.facts.blocked.is_empty() {
            let blocked = E::In(Field::EtherSource, "blocked");
            rules.push(vec![blocked, E::Goto("block")]);
        }
        rules.push(vec![E::Reply, E::Return]);
        if self.options.dns_hijack {
            rules.push(vec![E::Port(DNS_PORT), E::Goto("dns")]);
        }
        let captured = self.mark(self.marks.captured);
        rules.push(vec![E::ConnectionMarked(captured), E::Goto("take")]);
        rules.push(vec![E::Confirmed, E::Return]);
        rules.extend(self.other_families(leave));
        rules.extend(self.sources(leave));
        rules.extend(self.destinations(leave, E::Goto("take")));
        rules.push(vec![E::Goto("take")]);
        chain("decide", rules)
    }

    fn dns(&self) -> Chain {
        let mut rules = self.sources(self.leave());
        // A connection from before our time that is translated: its packets would reach us
        // under the router's own source address.
        rules.push(vec![E::Translated, E::Return]);
        if self.tproxy {
            for family in Family::BOTH {
                rules.extend(self.by_tproxy(family, self.ports.dns));
            }
        } else {
            rules.push(self.marked(Vec::new()));
        }
        chain("dns", rules)
    }

    fn take(&self) -> Chain {
        let mut rules = Vec::new();
        if self.redirect {
            rules.push(self.marked(vec![E::Over(Transport::Tcp)]));
        }
        if self.tproxy {
            for family in self.families() {
                rules.extend(self.by_tproxy(family, self.ports.tproxy));
            }
        }
        chain("take", rules)
    }

    fn by_tproxy(&self, family: Family, port: u16) -> [Rule; 2] {
        // nft wants the protocol named in the rule itself.
        [Transport::Tcp, Transport::Udp].map(|transport| {
            self.marked(vec![
                E::Is(family),
                E::Over(transport),
                E::TProxy(family, port),
            ])
        })
    }

    /// Ends a rule with both marks and accept.
    fn marked(&self, mut rule: Rule) -> Rule {
        let captured = self.mark(self.marks.captured);
        rule.extend([
            E::SetMark(captured),
            E::SetConnectionMark(captured),
            E::Accept,
        ]);
        rule
    }

    /// The NAT decision for captured connections.
    fn settle(&self, name: &'static str, place: Place) -> Chain {
        let mut rules = vec![vec![
            E::NotMarked(self.mark(self.marks.captured)),
            E::Return,
        ]];
        let keep = [
            E::KeepDestination(Family::V4),
            E::KeepDestination(Family::V6),
        ];
        if self.options.dns_hijack && self.redirect {
            if self.tproxy {
                rules.extend(keep.map(|keep| vec![E::Port(DNS_PORT), keep]));
            } else {
                rules.extend([Transport::Tcp, Transport::Udp].map(|transport| {
                    vec![
                        E::Over(transport),
                        E::Port(DNS_PORT),
                        E::Redirect(self.ports.dns),
                    ]
                }));
            }
        }
        if self.redirect {
            rules.push(vec![
                E::Over(Transport::Tcp),
                E::Redirect(self.ports.redirect),
            ]);
        }
        rules.extend(keep.map(|keep| vec![keep]));
        base(name, "nat", place, BEFORE_DSTNAT, rules)
    }

    /// Refuses connections to the redirect listener that were not redirected.
    fn guard(&self) -> Chain {
        let rule = vec![
            E::NotFromLoopback,
            E::Over(Transport::Tcp),
            E::Port(self.ports.redirect),
            E::DestinationUntranslated,
            E::Reset,
        ];
        base("guard", "filter", Place::Input, 0, vec![rule])
    }

    fn output(&self) -> Chain {
        let rules = vec![
            vec![E::ToLoopback, E::Return],
            vec![E::Marked(self.mark(self.marks.own)), E::Return],
            vec![E::Reply, E::Return],
            vec![E::In(Field::Protocol, ALIVE), E::Goto("router")],
        ];
        base("output", "route", Place::Output, MANGLE, rules)
    }

    /// The router's own connections: marked here, they turn round and come in by loopback.
    fn router(&self) -> Chain {
        let captured = self.mark(self.marks.captured);
        let mut rules = vec![
            vec![
                E::ConnectionMarked(captured),
                E::SetMark(captured),
                E::Accept,
            ],
            vec![E::Confirmed, E::Return],
            // dnsmasq asks its upstreams, and headgate asks dnsmasq: not in a circle.
            vec![E::Port(DNS_PORT), E::Return],
        ];
        rules.extend(self.other_families(E::Return));
        rules.extend(self.destinations(E::Return, E::Goto("turn")));
        rules.push(vec![E::Goto("turn")]);
        chain("router", rules)
    }
}
