//! From options and facts to tables. Pure: the same input gives the same tables, in text
//! ([`super::text`]) and in the kernel ([`super::encode`]).
//!
//! Table `headgate`, in the order in which a packet from the LAN meets it:
//!
//! 1. `alive`: everything below hangs on a lookup of the packet's protocol in a set whose
//!    elements live three seconds. The daemon renews them; when it hangs, the kernel lets
//!    the LAN go on by itself, DNS too. (When it dies, the whole table goes with its socket.)
//! 2. Replies go on: they belong to what somebody outside, or the router, began (port
//!    forwards, hairpin, services in the LAN).
//! 3. DNS: port 53 at any address, the router's own included.
//! 4. **The first packet of a connection decides for all of them.** Its decision stands in the
//!    tracked connection: our mark, captured; confirmed without it, direct. So a connection
//!    that began before headgate, or while a destination was offloaded, is never torn from
//!    its path, and neither is a captured one when a set changes beneath it. A SYN cookie's
//!    ACK has no request socket to be known by, but its connection has the mark.
//! 5. Sources that are never captured.
//! 6. Fake addresses are captured before anything can exempt them: they lead nowhere else.
//!    (The IPv6 range lies inside fc00::/7.)
//! 7. What is near: the router's own addresses as the kernel knows them at this moment (no
//!    list to go stale when the WAN address changes), broadcast, multicast; protocols that
//!    only work directly (DHCP, NTP, mDNS, SSDP); private ranges, the networks behind the
//!    router's other interfaces, `bypass`; proxy servers.
//! 8. Offload: destinations that every rule sends to DIRECT whatever the name. They go on in
//!    the kernel. Sound, because a lookup here sees addresses alone: `direct` may hold only
//!    ranges for which no rule that looks at anything else comes first, and `learned` only
//!    addresses that our DNS gave as real answers, whose names the rules send to DIRECT, for
//!    no longer than the answer lives. Whoever fills them answers for that; whatever is
//!    missing from them (dropped at the cap, lost when the table is made anew) merely goes
//!    through the daemon and is decided there.
//! 9. The rest is captured. Where no socket listens, `tproxy` does not match and the packet
//!    goes on directly, unmarked.
//!
//! Destination translation of others (fw4's "force DNS" redirect, docker) comes after us in
//! the same hook and would rewrite packets whose socket we chose already: a captured TCP
//! connection would then be looked up under an address that it does not have. Chain
//! `settle_in` makes the kernel's decision for those connections first: no translation.
//!
//! Table `headgate_closed` (`fail: closed`) has only drops, belongs to nobody and therefore
//! outlives the daemon: what a LAN device sends out, in a connection that was not decided
//! to be direct, stays inside.

use super::marks::Marks;
use super::options::{Fail, Mark, Mode, Options};
use super::table::{
    Chain, Elements, Expression as E, Family, Field, Hook, Place, Rule, Set, SetKind, Table,
    Transport, ranges,
};
use crate::prefix::Prefix;

/// Name of the table that captures.
pub const TABLE: &str = "headgate";
/// Name of the table that drops.
pub const CLOSED_TABLE: &str = "headgate_closed";
/// The set that keeps the rules in force.
pub const ALIVE: &str = "alive";
/// How long the daemon may be silent before the LAN goes on without it.
pub const ALIVE_MS: u64 = 3000;
/// The set of addresses that the DNS learned to be DIRECT, for a family.
#[must_use]
pub fn learned(family: Family) -> &'static str {
    by(family, "learned4", "learned6")
}
/// The set of proxy server addresses, for a family.
#[must_use]
pub fn servers(family: Family) -> &'static str {
    by(family, "servers4", "servers6")
}
/// Learned addresses kept per family, some 100 bytes of kernel memory each; when full, new
/// ones are dropped and their traffic takes the way through the daemon.
pub const LEARNED_MAX: u32 = 4096;

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
/// Priority "mangle": after connection tracking (-200), before NAT (-100).
const MANGLE: i32 = -150;
/// Before everybody else's destination NAT, which sits at -100.
const BEFORE_DSTNAT: i32 = -105;
const DNS_PORT: u16 = 53;

/// Where the daemon listens. Capture listeners are bound to loopback, so that nobody can
/// reach them but by capture; the redirect listener cannot be (NAT sends to the address of
/// the interface), and is guarded by a rule instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Transparent TCP and UDP, on 127.0.0.1 and `[::1]`.
    pub tproxy: u16,
    /// TCP that arrives by NAT redirect, on all addresses; `mode: redirect` only.
    pub redirect: u16,
    /// DNS, TCP and UDP, transparent on 127.0.0.1 and `[::1]`; on all addresses where the
    /// kernel has no tproxy.
    pub dns: u16,
}

/// What the rules depend on besides the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The fake-ip ranges.
    pub fake_ip: Vec<Prefix>,
    /// Networks behind the router's interfaces, those towards the Internet excepted.
    pub connected: Vec<Prefix>,
    /// Destinations that the rules send to DIRECT whatever else is known.
    pub direct: Vec<Prefix>,
}

/// Both tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// `headgate`.
    pub capture: Table,
    /// `headgate_closed`, with `fail: closed`.
    pub closed: Option<Table>,
}

impl Ruleset {
    /// The tables for a configuration; `tproxy` says whether the kernel has that expression,
    /// without it TCP and DNS are redirected and other UDP is left alone. `None` when the
    /// mark has no room ([`Marks::new`]).
    #[must_use]
    pub fn new(options: &Options, ports: Ports, facts: &Facts, tproxy: bool) -> Option<Self> {
        let plan = Plan {
            options,
            ports,
            facts,
            marks: Marks::new(options.mark)?,
            tproxy,
            redirect: options.mode == Mode::Redirect || !tproxy,
        };
        Some(Self {
            capture: plan.capture(),
            closed: (options.fail == Fail::Closed).then(|| plan.closed()),
        })
    }
}

impl std::fmt::Display for Ruleset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.capture)?;
        self.closed
            .as_ref()
            .map_or(Ok(()), |table| write!(f, "{table}"))
    }
}

struct Plan<'a> {
    options: &'a Options,
    ports: Ports,
    facts: &'a Facts,
    marks: Marks,
    tproxy: bool,
    redirect: bool,
}

impl Plan<'_> {
    fn capture(&self) -> Table {
        let mut sets = self.common_sets();
        sets.push(set(ALIVE, SetKind::Protocols, Elements::Alive(ALIVE_MS)));
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

    fn mark(&self, value: u32) -> Mark {
        Mark {
            value,
            mask: self.marks.mask,
        }
    }

    /// What both tables need; sets live inside their table.
    fn common_sets(&self) -> Vec<Set> {
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
        let mut rules = vec![vec![E::Reply, E::Return]];
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

    /// How a packet that is not captured ends: with `fail: closed` its connection is marked,
    /// so that the other table lets it pass.
    fn leave(&self) -> E {
        match self.options.fail {
            Fail::Open => E::Return,
            Fail::Closed => E::Goto("direct"),
        }
    }

    fn families(&self) -> impl Iterator<Item = Family> {
        let on = [
            (Family::V4, self.options.ipv4),
            (Family::V6, self.options.ipv6),
        ];
        on.into_iter()
            .filter_map(|(family, on)| on.then_some(family))
    }

    fn other_families(&self, leave: E) -> Vec<Rule> {
        let on: Vec<_> = self.families().collect();
        let off = Family::BOTH
            .into_iter()
            .filter(|family| !on.contains(family));
        off.map(|family| vec![E::Is(family), leave]).collect()
    }

    /// Sources that are never captured.
    fn sources(&self, leave: E) -> Vec<Rule> {
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
    fn destinations(&self, leave: E, take: E) -> Vec<Rule> {
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

    fn closed(&self) -> Table {
        let direct = E::ConnectionMarked(self.mark(self.marks.direct));
        let lan = E::In(Field::InputInterface, "lan");
        let mut out = vec![vec![E::Reply, E::Return], vec![direct, E::Return]];
        out.extend(self.sources(E::Return));
        if self.options.dns_hijack {
            out.extend(drop_dns());
        }
        out.extend(self.other_families(E::Return));
        out.push(near_ports(E::Return));
        for family in self.families() {
            let field = Field::Destination(family);
            out.push(vec![
                E::In(field, by(family, "bypass4", "bypass6")),
                E::Return,
            ]);
        }
        out.extend([Transport::Tcp, Transport::Udp].map(|t| vec![E::Over(t), E::Drop]));
        let mut chains = vec![
            chain("out", out),
            base(
                "forward",
                "filter",
                Place::Forward,
                0,
                vec![vec![lan, E::Goto("out")]],
            ),
        ];
        if self.options.dns_hijack {
            let mut here = vec![vec![E::Marked(self.mark(self.marks.captured)), E::Return]];
            here.extend(self.sources(E::Return));
            here.extend(drop_dns());
            chains.push(chain("here", here));
            let rules = vec![vec![lan, E::Goto("here")]];
            chains.push(base("input", "filter", Place::Input, 0, rules));
        }
        Table {
            name: CLOSED_TABLE,
            owned: false,
            sets: self.common_sets(),
            chains,
        }
    }
}

fn near_ports(verdict: E) -> Rule {
    vec![
        E::Over(Transport::Udp),
        E::In(Field::DestinationPort, "near_ports"),
        verdict,
    ]
}

fn drop_dns() -> [Rule; 2] {
    [Transport::Tcp, Transport::Udp].map(|t| vec![E::Over(t), E::Port(DNS_PORT), E::Drop])
}

fn by(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn set(name: &'static str, kind: SetKind, elements: Elements) -> Set {
    Set {
        name,
        kind,
        elements,
    }
}

fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain {
        name,
        hook: None,
        rules,
    }
}

fn base(
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
