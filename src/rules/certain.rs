//! Which flows are DIRECT whatever is not known of them: the ground that kernel offload stands on.
//!
//! A flow that the kernel forwards by itself is never decided. So what goes into the kernel's sets
//! must be such that every decision that could have been made is DIRECT. The argument:
//!
//! 1. A matcher asked with part of the facts answers yes or no only if that is its answer for
//!    every completion of them ([`Matcher::truth`](super::Matcher::truth); [`Bounds`] says the
//!    same of many addresses at once). AND, OR and NOT keep this, being Kleene's.
//! 2. Call a line *passed* if its answer is no, *open* if it is unknown, *taken* if it is yes. For
//!    any completion the walk ends at an open line or at the first taken one, since it cannot
//!    stop at a passed line nor get by a taken one. Where no line is taken it may run off the
//!    end, and such a flow goes DIRECT.
//! 3. So the flow is DIRECT for every completion if all open lines before the first taken one are
//!    direct, and that one is too (or there is none). An open line that is direct changes
//!    nothing; an open line that is not ends the search with no.
//! 4. Resolving on the way changes only what is known of the address. With only the name known
//!    every rule on the destination address is open, `no-resolve` or not: whether an address is
//!    known when the walk comes to it depends on the client and on the lines above.
//!
//! Not covered here, and for the caller to see to: that a flow to an address has the name that the
//! address was noted for; that the caller's `is_direct` stays true while an answer is in use (a
//! select group may be switched); and whatever decides before the rules (mode, listeners bound
//! to an outbound).
//!
//! `is_direct` must depend on the target of the line alone: it is asked once for each type and
//! target, so that a name costs its look-up and not a walk.

use std::net::IpAddr;
use std::str::FromStr;

use super::Rules;
use super::index::Class;
use super::intervals::{Intervals, paint};
use super::matcher::{Bounds, Known, Scope, Truth};
use crate::metadata::Host;
use crate::prefix::{Prefix, from_bits};

impl Rules {
    /// Whether every flow to `host`, from any device, to any port, over TCP or UDP, ends at a
    /// rule for which `is_direct(index)` holds. When no rule matches at all the answer is yes:
    /// that flow goes DIRECT. Rules that might match, depending on what is not known yet, must all
    /// be direct. A flow "to `host`" is one whose rules see that name
    /// ([`Metadata::rule_host`](crate::metadata::Metadata::rule_host)). No for what is no name.
    #[must_use]
    pub fn certainly_direct(&self, host: &str, is_direct: &dyn Fn(usize) -> bool) -> bool {
        let Some(Host::Name(host)) = Host::parse(host) else {
            return false;
        };
        let known = Known::host_alone(Some(&host));
        let mut taken = self.find_by_host(&host, 0);
        for (line, matcher) in &self.asked {
            if *line > taken {
                break;
            }
            match matcher.truth(&known) {
                Truth::Yes => taken = *line,
                Truth::Unknown if !is_direct(*line as usize) => return false,
                Truth::Unknown | Truth::No => {}
            }
        }
        let mut open = self.lines.shapes().iter().filter(|(shape, first)| {
            matches!(shape.class, Class::Destination | Class::Other) && *first < taken as usize
        });
        open.all(|(_, first)| is_direct(*first))
            && (taken as usize >= self.len() || is_direct(taken as usize))
    }

    /// The address ranges (first, last; one family) whose every flow without a known host name ends
    /// DIRECT, whatever its source, ports and protocol. `names_may_appear`: the sniffer or a DNS
    /// mapping could still give such a flow a name, so domain rules count as "might match".
    ///
    /// In order, disjoint, never touching. IPv4-mapped IPv6 addresses are in none: such a flow is
    /// an IPv4 flow to the rules.
    #[must_use]
    pub fn certainly_direct_ranges(
        &self,
        v4: bool,
        names_may_appear: bool,
        is_direct: &dyn Fn(usize) -> bool,
    ) -> Vec<(IpAddr, IpAddr)> {
        let scope = Scope {
            v4,
            names_may_appear,
        };
        let (claims, rest) = self.claims(scope, is_direct);
        let stretches = paint(&claims);
        let ends = stretches.iter().skip(1).map(|(start, _)| start - 1);
        let mut direct = Intervals::none();
        for ((first, painted), last) in stretches.iter().zip(ends.chain([u128::MAX])) {
            if painted.unwrap_or(rest) {
                direct.push(*first, last);
            }
        }
        direct
            .intersection(&Intervals::all(v4))
            .iter()
            .map(|(first, last)| (from_bits(first, v4), from_bits(last, v4)))
            .collect()
    }

    /// For which addresses some line matches when only the address is known (a set of rules).
    pub(super) fn bounds(&self, scope: Scope) -> Bounds {
        let (mut always, mut possible) = (Vec::new(), Vec::new());
        let mut asked = self.asked.iter();
        for record in self.lines.iter() {
            let class = self.lines.shape(record).map(|shape| shape.class);
            match class.unwrap_or(Class::Other) {
                Class::Always => return Bounds::of(Truth::Yes, scope),
                Class::Name if !scope.names_may_appear => {}
                Class::Name | Class::Other => possible.extend(Intervals::all(scope.v4).iter()),
                Class::Destination => {
                    let text = str::from_utf8(record.payload).unwrap_or_default();
                    let Ok(prefix) = Prefix::from_str(text) else {
                        continue;
                    };
                    if prefix.address().is_ipv4() == scope.v4 {
                        always.push(prefix.range());
                        possible.push(prefix.range());
                    }
                }
                Class::Ask => {
                    if let Some((_, matcher)) = asked.next() {
                        let part = matcher.bounds(scope);
                        always.extend(part.always.iter());
                        possible.extend(part.possible.iter());
                    }
                }
            }
        }
        Bounds {
            always: Intervals::of(always),
            possible: Intervals::of(possible),
        }
    }

    /// What each line settles, in order: first, last, direct. An address belongs to the first
    /// claim that holds it; the flag tells of those in none.
    fn claims(
        &self,
        scope: Scope,
        is_direct: &dyn Fn(usize) -> bool,
    ) -> (Vec<(u128, u128, bool)>, bool) {
        let directs: Vec<bool> = self
            .lines
            .shapes()
            .iter()
            .map(|(_, first)| is_direct(*first))
            .collect();
        let mut claims = Vec::new();
        if !scope.v4 {
            claims.push((0xffff_0000_0000, 0xffff_ffff_ffff, false));
        }
        let mut asked = self.asked.iter();
        for record in self.lines.iter() {
            let direct = directs.get(record.shape).copied().unwrap_or_default();
            let class = self.lines.shape(record).map(|shape| shape.class);
            match class.unwrap_or(Class::Other) {
                Class::Always => return (claims, direct),
                Class::Name if !scope.names_may_appear => {}
                Class::Name | Class::Other if direct => {}
                Class::Name | Class::Other => return (claims, false),
                Class::Destination => {
                    let text = str::from_utf8(record.payload).unwrap_or_default();
                    let Ok(prefix) = Prefix::from_str(text) else {
                        return (claims, false);
                    };
                    if prefix.address().is_ipv4() == scope.v4 {
                        let (first, last) = prefix.range();
                        claims.push((first, last, direct));
                    }
                }
                Class::Ask => {
                    let Some((_, matcher)) = asked.next() else {
                        return (claims, false);
                    };
                    let Bounds { always, possible } = matcher.bounds(scope);
                    claims.extend(always.iter().map(|(a, b)| (a, b, direct)));
                    if !direct {
                        claims.extend(possible.iter().map(|(a, b)| (a, b, false)));
                    }
                    if possible == Intervals::all(scope.v4) && !direct {
                        return (claims, false);
                    }
                }
            }
        }
        (claims, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleLine;

    fn rules(text: &str) -> Rules {
        Rules::compile(
            text.split_whitespace()
                .map(|line| RuleLine::parse(line).unwrap()),
        )
    }

    #[track_caller]
    fn host_is(text: &str, host: &str, want: bool) {
        let rules = rules(text);
        let is_direct = |i| &**rules.line(i).unwrap().target == "D";
        assert_eq!(rules.certainly_direct(host, &is_direct), want, "{text}");
    }

    #[test]
    fn a_name_is_direct_if_nothing_open_before_its_rule_is_not() {
        host_is("", "a.org", true);
        host_is("MATCH,P", "a.org", false);
        host_is("DOMAIN-SUFFIX,org,D MATCH,P", "A.org.", true);
        host_is("DOMAIN-SUFFIX,com,D MATCH,P", "a.org", false);
        host_is("DST-PORT,22,P DOMAIN-SUFFIX,org,D", "a.org", false);
        host_is("DST-PORT,22,D DOMAIN-SUFFIX,org,D", "a.org", true);
        host_is("DOMAIN-SUFFIX,org,D DST-PORT,22,P", "a.org", true);
        host_is(
            "IP-CIDR,10.0.0.0/8,P,no-resolve DOMAIN,a.org,D",
            "a.org",
            false,
        );
        host_is(
            "AND,((DOMAIN,b.org),(NETWORK,udp)),P MATCH,D",
            "a.org",
            true,
        );
        host_is(
            "AND,((DOMAIN,a.org),(NETWORK,udp)),P MATCH,D",
            "a.org",
            false,
        );
        host_is("OR,((DOMAIN,a.org),(NETWORK,udp)),D MATCH,P", "a.org", true);
        host_is("MATCH,D", "1.2.3.4", false);
        host_is("MATCH,D", "", false);
    }

    #[track_caller]
    fn ranges_are(text: &str, v4: bool, names: bool, want: &[&str]) {
        let rules = rules(text);
        let is_direct = |i| &**rules.line(i).unwrap().target == "D";
        let ranges = rules.certainly_direct_ranges(v4, names, &is_direct);
        let got: Vec<_> = ranges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn ranges_are_what_direct_prefixes_leave_to_no_other_rule() {
        let all = "0.0.0.0-255.255.255.255";
        ranges_are("", true, true, &[all]);
        ranges_are("MATCH,D", true, true, &[all]);
        ranges_are("MATCH,P", true, true, &[]);
        ranges_are("DOMAIN,a,P MATCH,D", true, true, &[]);
        ranges_are("DOMAIN,a,P MATCH,D", true, false, &[all]);
        ranges_are("DST-PORT,22,D MATCH,D", true, true, &[all]);
        ranges_are(
            "IP-CIDR,10.1.0.0/16,P IP-CIDR,10.0.0.0/8,D IP-CIDR,::/0,D DST-PORT,22,P MATCH,D",
            true,
            true,
            &["10.0.0.0-10.0.255.255", "10.2.0.0-10.255.255.255"],
        );
        ranges_are(
            "IP-CIDR,10.0.0.0/8,D NOT,((IP-CIDR,12.0.0.0/8)),P",
            true,
            true,
            &["10.0.0.0-10.255.255.255", "12.0.0.0-12.255.255.255"],
        );
        ranges_are(
            "AND,((IP-CIDR,10.0.0.0/8),(DST-PORT,22)),P MATCH,D",
            true,
            true,
            &["0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255"],
        );
        ranges_are("IP-SUFFIX,0.0.0.1/8,P MATCH,D", true, true, &[]);
    }

    #[test]
    fn mapped_addresses_are_never_direct() {
        let want = [
            "::-::fffe:ffff:ffff",
            "::1:0:0:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ];
        ranges_are("MATCH,D", false, true, &want);
    }
}
