//! Rules, outbounds, sniffer and mode as one immutable snapshot, and the decision they make.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::added::Added;
use super::tally::Tally;
use crate::dns::domain_set::DomainSet;
use crate::metadata::{Metadata, Network};
use crate::outbound::registry::Registry;
use crate::outbound::{Kind, Outbound};
use crate::prefix::from_bits;
use crate::rules::{Found, Rules};
use crate::sniff;

/// Groups within groups; configuration refuses loops, so this only bounds the walk.
const DEPTH_MAX: usize = 32;

/// What decides: swapped whole when the configuration or the mode changes.
#[derive(Clone)]
pub struct Routing {
    /// The configuration's compiled rules.
    pub rules: Arc<Rules>,
    /// Rules that were added at run time.
    pub added: Option<Arc<Added>>,
    /// Every outbound by name; each rule's target is in it.
    pub outbounds: Arc<Registry>,
    /// `mode`.
    pub mode: Mode,
    /// `sniffer:`.
    pub sniffer: Arc<Sniffer>,
    /// Whether programs of this machine are looked up when a rule asks (`find-process-mode`).
    pub find_process: bool,
    /// What the rules have done, and which are switched off.
    pub tally: Arc<Tally>,
}

/// The sniffer's options with its name lists compiled.
#[derive(Default)]
pub struct Sniffer {
    /// The options as configured.
    pub options: sniff::Options,
    /// `force-domain`.
    pub force_domain: DomainSet,
    /// `skip-domain`.
    pub skip_domain: DomainSet,
}

/// Where a flow goes, and why.
pub struct Decision {
    /// The node that carries it.
    pub node: Arc<dyn Outbound>,
    /// Names from the node to the outbound that the rule named.
    pub chain: Vec<Arc<str>>,
    /// The deciding rule's index.
    pub rule: Option<usize>,
}

/// What a rule was, if it was more than a plain no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is switched off.
    Off,
    /// It needs the address of the destination.
    Resolves,
    /// It matches, but its target passes, is gone, or cannot carry the flow's network.
    PassedOver,
    /// It matches and decides.
    Decides,
}

/// What deciding needs next.
pub enum Step {
    /// Decided.
    Done(Decision),
    /// A rule needs the destination's address; go on with [`Routing::decide`] from this rule.
    Resolve(usize),
}

impl Routing {
    /// Decides a flow by the listener's proxy, the mode or the rules at or after `from`.
    /// `may_resolve`: its host may still be resolved. `None`: there is no way out at all.
    #[must_use]
    pub fn decide(&self, metadata: &Metadata, from: usize, may_resolve: bool) -> Option<Step> {
        self.decide_with(metadata, from, may_resolve, &mut |_, _| {})
    }

    /// As [`Routing::decide`]; tells `sink` of every rule that was more than a plain no.
    pub fn decide_with(
        &self,
        metadata: &Metadata,
        from: usize,
        may_resolve: bool,
        sink: &mut dyn FnMut(usize, Event),
    ) -> Option<Step> {
        let fixed = match (&metadata.special_proxy, self.mode) {
            (Some(proxy), _) => Some(&**proxy),
            (None, Mode::Global) => Some("GLOBAL"),
            (None, Mode::Direct) => Some("DIRECT"),
            (None, Mode::Rule) => None,
        };
        if let Some(name) = fixed {
            return self
                .follow(name, metadata, None)
                .map(|(decision, _)| Step::Done(decision));
        }
        let mut from = from;
        loop {
            match self.find(metadata, from, may_resolve) {
                Found::NeedIp(rule) | Found::Rule(rule) if self.tally.is_off(rule) => {
                    sink(rule, Event::Off);
                    from = rule + 1;
                }
                Found::NeedIp(rule) => {
                    sink(rule, Event::Resolves);
                    return Some(Step::Resolve(rule));
                }
                Found::Nothing => {
                    let direct = self.follow("DIRECT", metadata, None);
                    return direct.map(|(decision, _)| Step::Done(decision));
                }
                Found::Rule(index) => {
                    // A target that is gone, passes, or cannot carry UDP skips its rule.
                    let target = self.target(index, metadata, may_resolve);
                    let decision =
                        target.and_then(|target| self.follow(target, metadata, Some(index)));
                    match decision {
                        Some((decision, true)) => {
                            sink(index, Event::Decides);
                            return Some(Step::Done(decision));
                        }
                        _ => {
                            sink(index, Event::PassedOver);
                            from = index + 1;
                        }
                    }
                }
            }
        }
    }

    /// Follows groups from `name` down to a node, and says whether the way carries the flow's network.
    fn follow(
        &self,
        name: &str,
        metadata: &Metadata,
        rule: Option<usize>,
    ) -> Option<(Decision, bool)> {
        let mut node = Arc::clone(self.outbounds.get(name)?);
        let mut chain = vec![Arc::clone(node.name())];
        let mut open = metadata.network == Network::Tcp || !node.refuses_udp();
        while let Some(member) = node.selected(Some(metadata)) {
            if chain.len() >= DEPTH_MAX {
                return None;
            }
            node = member;
            open &= metadata.network == Network::Tcp || !node.refuses_udp();
            chain.push(Arc::clone(node.name()));
        }
        chain.extend(node.hops(metadata));
        chain.reverse();
        let carries = open && carries(&*node, metadata.network);
        Some((Decision { node, chain, rule }, carries))
    }

    /// Whether `name` is certain to lead to plain DIRECT until a person chooses otherwise or the
    /// configuration changes: a group that chooses itself does only when all its members do.
    #[must_use]
    pub fn leads_direct(&self, name: &str) -> bool {
        let Some(start) = self.outbounds.get(name) else {
            return false;
        };
        // A group may stand in many others: each is looked at once.
        let mut seen = HashSet::new();
        let mut waiting = vec![Arc::clone(start)];
        while let Some(node) = waiting.pop() {
            if node.kind().is_group() {
                // A UDP flow skips the rule then, and goes where the next one sends it.
                if node.refuses_udp() {
                    return false;
                }
                if seen.insert(Arc::clone(node.name())) {
                    waiting.extend(node.candidates());
                }
            } else if !node.kind().is_direct() || node.traits().leaves_apart() {
                return false;
            }
        }
        true
    }

    /// Tells the groups on the way of `decision` how dialling it went.
    pub(super) fn dialled(&self, decision: &Decision, failure: Option<&io::Error>) {
        let kind = decision.node.kind();
        for name in decision.chain.iter().skip(1) {
            if let Some(group) = self.outbounds.get(name) {
                group.dialled(kind, failure);
            }
        }
    }

    /// Whether every target of rule `index` now leads to plain DIRECT.
    #[must_use]
    pub fn rule_leads_direct(&self, index: usize) -> bool {
        self.rules
            .leads_only(index, &|target| self.leads_direct(target))
    }

    /// Whether every flow to `host` is certain to leave DIRECT, whatever else is known of it.
    #[must_use]
    pub fn certainly_direct(&self, host: &str) -> bool {
        match self.mode {
            Mode::Direct => self.leads_direct("DIRECT"),
            Mode::Global => self.leads_direct("GLOBAL"),
            // A rule that is off leaves its flows to those below it.
            Mode::Rule if self.tally.any_off() || !self.added_leads_direct() => false,
            Mode::Rule => self
                .rules
                .certainly_direct(host, &|index| self.rule_leads_direct(index)),
        }
    }
}

impl Routing {
    /// The address ranges of one family whose every flow is certain to leave DIRECT.
    #[must_use]
    pub fn certainly_direct_ranges(
        &self,
        v4: bool,
        names_may_appear: bool,
    ) -> Vec<(IpAddr, IpAddr)> {
        let everything = || {
            vec![(
                from_bits(0, v4),
                from_bits(if v4 { u128::from(u32::MAX) } else { u128::MAX }, v4),
            )]
        };
        match self.mode {
            Mode::Direct if self.leads_direct("DIRECT") => everything(),
            Mode::Global if self.leads_direct("GLOBAL") => everything(),
            Mode::Direct | Mode::Global => Vec::new(),
            Mode::Rule if self.tally.any_off() || !self.added_leads_direct() => Vec::new(),
            Mode::Rule => self
                .rules
                .certainly_direct_ranges(v4, names_may_appear, &|index| {
                    self.rule_leads_direct(index)
                }),
        }
    }
}

/// Whether a rule that leads to `node` holds for this network.
fn carries(node: &dyn Outbound, network: Network) -> bool {
    node.kind() != Kind::Pass && (network == Network::Tcp || node.udp())
}

/// `mode` of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By the rules.
    #[default]
    Rule,
    /// Everything to the group GLOBAL.
    Global,
    /// Everything DIRECT.
    Direct,
}

impl Mode {
    /// As the configuration and the API write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Global => "global",
            Self::Direct => "direct",
        }
    }
}

/// The text names no mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownMode;

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown mode: expected rule, global or direct")
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    /// In any case, as mihomo takes it.
    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        [Self::Rule, Self::Global, Self::Direct]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(text))
            .ok_or(UnknownMode)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::metadata::{Endpoint, InboundType};
    use crate::outbound::dial::Environment;
    use crate::outbound::options::{GroupKind, GroupOptions, Strategy};
    use crate::rules::RuleLine;
    use crate::tunnel::names::NoNames;

    fn routing(groups: &[GroupOptions], rules: &[&str]) -> Routing {
        let environment = Environment {
            resolver: Arc::new(NoNames),
            own_mark: 0,
            routing_mark: 0,
            interface: None,
            ipv6: true,
            reach: Arc::default(),
        };
        let outbounds =
            Registry::build(&[], &[], groups, &environment, &HashMap::new(), None).unwrap();
        let rules = rules.iter().map(|rule| RuleLine::parse(rule).unwrap());
        Routing {
            rules: Arc::new(Rules::compile(rules)),
            outbounds: Arc::new(outbounds),
            mode: Mode::Rule,
            added: None,
            sniffer: Arc::default(),
            find_process: true,
            tally: Arc::default(),
        }
    }

    fn group(name: &str, kind: GroupKind, members: &[&str]) -> GroupOptions {
        GroupOptions {
            proxies: members.iter().map(|&member| member.into()).collect(),
            ..GroupOptions::new(name, kind)
        }
    }

    #[test]
    fn a_group_that_chooses_itself_is_direct_only_when_all_its_members_are() {
        let fast = GroupKind::UrlTest { tolerance: 0 };
        let turns = GroupKind::LoadBalance(Strategy::RoundRobin);
        let groups = [
            group("pick", GroupKind::Select, &["DIRECT", "REJECT"]),
            group("fast", fast, &["DIRECT", "REJECT"]),
            group("first", GroupKind::Fallback, &["DIRECT", "pick"]),
            group("turns", turns, &["DIRECT", "COMPATIBLE", "first"]),
            group("over", GroupKind::Select, &["fast"]),
            group("row", GroupKind::Relay, &["DIRECT", "fast"]),
            group("plain", GroupKind::Relay, &["DIRECT", "COMPATIBLE"]),
        ];
        let routing = routing(&groups, &[]);
        let direct = |name| routing.leads_direct(name);
        assert!(direct("pick") && direct("first") && direct("turns"));
        assert!(!direct("fast") && !direct("over") && !direct("nobody"));
        assert!(!direct("row") && direct("plain"));
        assert!(routing.outbounds.get("pick").unwrap().select("REJECT"));
        assert!(!direct("pick") && !direct("first") && !direct("turns"));
    }

    #[test]
    fn datagrams_skip_the_rule_of_a_group_that_refuses_them() {
        let mut tcp_only = group("tcp", GroupKind::Select, &["DIRECT"]);
        tcp_only.disable_udp = true;
        let over = group("over", GroupKind::Select, &["tcp"]);
        let routing = routing(&[tcp_only, over], &["MATCH,over"]);
        let rule = |network| {
            let client = "127.0.0.1:1".parse().unwrap();
            let to = Endpoint::parse("192.0.2.1:80").unwrap();
            let metadata = Metadata::new(network, InboundType::Socks5, &Arc::from("x"), client, to);
            match routing.decide(&metadata, 0, false) {
                Some(Step::Done(decision)) => decision.rule,
                _ => panic!("decided"),
            }
        };
        assert_eq!((rule(Network::Tcp), rule(Network::Udp)), (Some(0), None));
        assert!(!routing.leads_direct("over"));
    }
}
