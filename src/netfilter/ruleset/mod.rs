//! From options and facts to tables. Pure: the same input gives the same tables, in text
//! ([`super::text`]) and in the kernel ([`super::encode`]).
//!
//! Table `headgate`, in the order in which a packet from the LAN meets it:
//!
//! 1. `alive`: everything below hangs on a lookup of the packet's protocol in a set whose
//!    elements live three seconds. The daemon renews them; when it hangs, the kernel lets
//!    the LAN go on by itself, DNS too. (When it dies, the whole table goes with its socket.)
//!    Devices that are blocked end here, but for what they say to the router itself.
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

mod capture;
mod closed;
mod plan;

use self::plan::{Plan, by};
use super::marks::Marks;
use super::options::{Fail, Mode, Options};
use super::table::{Family, Table};
use crate::metadata::Mac;
use crate::prefix::Prefix;

/// Name of the table that captures.
pub const TABLE: &str = "headgate";
/// Name of the table that drops.
pub const CLOSED_TABLE: &str = "headgate_closed";
/// The set that keeps the rules in force.
pub const ALIVE: &str = "alive";
/// How long the daemon may be silent before the LAN goes on without it.
pub const ALIVE_MS: u64 = 3000;
/// Learned addresses kept per family, some 100 bytes of kernel memory each; when full, new
/// ones are dropped and their traffic takes the way through the daemon.
pub const LEARNED_MAX: u32 = 4096;

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
    /// Devices that reach nothing but the router itself.
    pub blocked: Vec<Mac>,
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

#[cfg(test)]
mod tests {
    use super::super::options::Mark;
    use super::*;

    fn chain_text(options: &Options, name: &str) -> Vec<String> {
        let ports = Ports {
            tproxy: 1,
            redirect: 2,
            dns: 3,
        };
        let ruleset = Ruleset::new(options, ports, &Facts::default(), true).unwrap();
        let text = ruleset.to_string();
        let chain = text.split(&format!("chain {name} {{")).nth(1).unwrap();
        let lines = chain.lines().skip(1).map(str::trim);
        lines
            .take_while(|line| *line != "}")
            .map(String::from)
            .collect()
    }

    #[test]
    fn a_packet_from_the_lan_meets_the_rules_in_the_order_of_the_module_head() {
        let options = Options {
            ipv6: false,
            bypass_source: vec!["192.168.1.7".parse().unwrap()],
            ..Options::default()
        };
        assert_eq!(
            chain_text(&options, "decide"),
            [
                "ct direction reply return",
                "th dport 53 goto dns",
                "ct mark & 0xff000000 == 0x48000000 goto take",
                "ct status confirmed return",
                "meta nfproto ipv6 return",
                "ip saddr @source4 return",
                "ip daddr @fake4 goto take",
                "fib daddr type @near return",
                "meta l4proto 17 th dport @near_ports return",
                "ip daddr @bypass4 return",
                "ip daddr @servers4 return",
                "ip daddr @direct4 return",
                "ip daddr @learned4 return",
                "goto take",
            ]
        );
    }

    #[test]
    fn everything_hangs_on_the_dead_mans_switch() {
        let options = Options {
            router_traffic: true,
            ..Options::default()
        };
        for chain in ["prerouting", "output"] {
            for rule in chain_text(&options, chain)
                .iter()
                .filter(|rule| rule.contains("goto"))
            {
                assert!(rule.contains("meta l4proto @alive goto"), "{rule}");
            }
        }
    }

    #[test]
    fn with_fail_closed_whatever_goes_on_directly_is_marked_so() {
        let options = Options {
            fail: Fail::Closed,
            ..Options::default()
        };
        let rules = chain_text(&options, "decide");
        let (own, others): (Vec<_>, Vec<_>) = rules.iter().partition(|r| r.starts_with("ct "));
        assert_eq!(
            own.iter().filter(|rule| rule.ends_with("return")).count(),
            2
        );
        assert!(
            !others.iter().any(|rule| rule.ends_with("return")),
            "{others:?}"
        );
        assert_eq!(
            chain_text(&options, "direct"),
            ["ct mark set ct mark & 0x00ffffff | 0x4a000000 accept"]
        );
    }

    #[test]
    fn a_mark_without_room_gives_no_rules() {
        let mark = Mark { value: 1, mask: 1 };
        let options = Options {
            mark,
            ..Options::default()
        };
        assert_eq!(
            Ruleset::new(&options, Ports::default(), &Facts::default(), true),
            None
        );
    }
}
