//! Why a flow goes where it goes: the decision itself, with a sink for what it meets on its way.
//!
//! Nothing is dialled, resolved, counted or changed. Where a rule would have the name resolved, the
//! explanation takes the address that it was given, or goes on as if there were none.

use std::net::IpAddr;
use std::sync::Arc;

use super::Tunnel;
use super::dispatch::{Refusal, name_destination};
use super::routing::{Decision, Event, Routing, Step};
use crate::metadata::{Metadata, Network};

/// What became of the flow.
pub struct Explanation {
    /// The flow as the rules saw it last.
    pub metadata: Metadata,
    /// What decided it.
    pub routing: Arc<Routing>,
    /// Rules that were more than a plain no, in the order in which they were met.
    pub met: Vec<Met>,
    /// The way out; none when the flow is refused.
    pub decision: Result<Decision, Refusal>,
}

/// What one rule was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its index.
    pub rule: usize,
    /// What happened there.
    pub what: Event,
}

impl Tunnel {
    /// Explains where a flow with this metadata would go. `address`: what its name resolves to.
    #[must_use]
    pub fn explain(&self, mut metadata: Metadata, address: Option<IpAddr>) -> Explanation {
        let routing = self.routing();
        let mut met = Vec::new();
        let named = name_destination(&*self.names, &mut metadata);
        self.look_up_device(&routing, &mut metadata);
        // Datagrams are sent to an address, which is there before the rules are asked.
        if metadata.network == Network::Udp && metadata.destination_ip.is_none() {
            metadata.destination_ip = address;
        }
        let decision = named.and_then(|()| decide(&routing, &mut metadata, address, &mut met));
        Explanation {
            metadata,
            routing,
            met,
            decision,
        }
    }
}

fn decide(
    routing: &Routing,
    metadata: &mut Metadata,
    address: Option<IpAddr>,
    met: &mut Vec<Met>,
) -> Result<Decision, Refusal> {
    let mut from = 0;
    let mut may_resolve = metadata.host.is_some() && metadata.destination_ip.is_none();
    loop {
        let mut sink = |rule, what| met.push(Met { rule, what });
        match routing.decide_with(metadata, from, may_resolve, &mut sink) {
            None => return Err(Refusal::NoWay),
            Some(Step::Done(decision)) => return Ok(decision),
            Some(Step::Resolve(index)) => {
                (from, may_resolve) = (index, false);
                metadata.destination_ip = address;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::metadata::{Endpoint, InboundType};
    use crate::outbound::dial::Environment;
    use crate::outbound::options::{GroupKind, GroupOptions};
    use crate::outbound::registry::Registry;
    use crate::outbound::{BoxFuture, IpVersion, Purpose, Resolve};
    use crate::rules::{RuleLine, Rules};
    use crate::tunnel::names::{Hosts, Mapping, Names, NoDevices};
    use crate::tunnel::routing::Mode;

    /// Every name has the same address, or none has.
    struct OneAddress(Option<IpAddr>);

    impl Resolve for OneAddress {
        fn resolve<'a>(
            &'a self,
            _: &'a str,
            _: IpVersion,
            _: Purpose,
        ) -> BoxFuture<'a, std::io::Result<Vec<IpAddr>>> {
            let found = self.0.map(|ip| vec![ip]);
            Box::pin(async move { found.ok_or_else(|| std::io::ErrorKind::NotFound.into()) })
        }
    }

    impl Names for OneAddress {
        fn map(&self, _: IpAddr) -> Mapping {
            Mapping::Unknown
        }

        fn hosts(&self, name: &str) -> Hosts {
            match name {
                "alias.org" => Hosts::Alias("b.org".into()),
                "pinned.org" => Hosts::Address([10, 0, 0, 9].into()),
                _ => Hosts::Unlisted,
            }
        }

        fn fake_mode(&self) -> bool {
            false
        }
    }

    fn tunnel(lines: &[String], mode: Mode, address: Option<IpAddr>) -> Arc<Tunnel> {
        let names = Arc::new(OneAddress(address));
        let environment = Environment {
            resolver: Arc::clone(&names) as Arc<dyn Resolve>,
            own_mark: 0,
            routing_mark: 0,
            interface: None,
            ipv6: true,
            reach: Arc::default(),
        };
        let group = |name: &str, member: &str, disable_udp| GroupOptions {
            proxies: vec![member.into()],
            disable_udp,
            ..GroupOptions::new(name, GroupKind::Select)
        };
        let groups = [
            group("tcp", "DIRECT", true),
            group("pass", "PASS", false),
            group("pick", "REJECT", false),
        ];
        let nobody = HashMap::new();
        let outbounds = Registry::build(&[], &[], &groups, &environment, &nobody, None).unwrap();
        let rules = lines.iter().map(|line| RuleLine::parse(line).unwrap());
        let routing = Routing {
            rules: Arc::new(Rules::compile(rules)),
            outbounds: Arc::new(outbounds),
            added: None,
            mode,
            sniffer: Arc::default(),
            find_process: false,
            tally: Arc::default(),
        };
        Tunnel::new(routing, names, Arc::new(NoDevices))
    }

    fn line() -> impl Strategy<Value = String> {
        let condition = select(&[
            "DOMAIN,a.org",
            "DOMAIN-SUFFIX,org",
            "DOMAIN-KEYWORD,b",
            "IP-CIDR,10.0.0.0/8",
            "IP-CIDR,12.0.0.0/8",
            "GEOIP,lan",
            "NETWORK,udp",
            "DST-PORT,443",
            "SRC-IP-CIDR,192.168.0.0/16",
            "AND,((NETWORK,tcp),(IP-CIDR,10.0.0.0/8))",
            "OR,((DOMAIN,x.net),(DST-PORT,80))",
            "NOT,((IP-CIDR,10.0.0.0/8))",
            "MATCH",
        ]);
        let target = select(&["DIRECT", "REJECT", "tcp", "pass", "pick", "PASS"]);
        (condition, target).prop_map(|(condition, target)| format!("{condition},{target}"))
    }

    fn flow() -> impl Strategy<Value = Metadata> {
        const HOSTS: &[&str] = &[
            "a.org",
            "b.org",
            "x.net",
            "alias.org",
            "pinned.org",
            "10.1.2.3",
            "9.9.9.9",
        ];
        let source = select(&["192.168.1.2:1000", "172.16.0.1:2000"]);
        let network = select(&[Network::Tcp, Network::Udp]);
        let parts = (select(HOSTS), select(&[80u16, 443, 22]), source, network);
        parts.prop_map(|(host, port, source, network)| {
            Metadata::new(
                network,
                InboundType::TProxy,
                &Arc::from("in"),
                source.parse().unwrap(),
                Endpoint::parse(&format!("{host}:{port}")).unwrap(),
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        /// 500 lists with 20 flows each.
        #[test]
        fn the_explanation_is_the_decision(
            lines in vec(line(), 0..12),
            flows in vec(flow(), 20),
            mode in select(&[Mode::Rule, Mode::Rule, Mode::Rule, Mode::Global, Mode::Direct]),
            address in select(&[None, Some([10, 1, 1, 1]), Some([12, 1, 1, 1]), Some([8, 8, 8, 8])]),
            off in vec(0usize..12, 0..3),
        ) {
            let address = address.map(IpAddr::from);
            let tunnel = tunnel(&lines, mode, address);
            for rule in off.iter().filter(|rule| **rule < lines.len()) {
                tunnel.routing().tally.switch(*rule, true);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for flow in flows {
                let told = tunnel.explain(flow.clone(), address);
                let mut real = flow;
                name_destination(&*tunnel.names, &mut real).unwrap();
                if real.network == Network::Udp && real.destination_ip.is_none() {
                    real.destination_ip = address;
                }
                let routing = tunnel.routing();
                let decided = runtime
                    .block_on(tunnel.decide(&routing, &*tunnel.names, &mut real))
                    .unwrap();
                let told_decision = told.decision.unwrap();
                prop_assert_eq!(told_decision.rule, decided.rule);
                prop_assert_eq!(told_decision.chain, decided.chain);
                prop_assert_eq!(told.metadata.destination_ip, real.destination_ip);
                // What it was led by ends at what decided.
                if let Some(rule) = decided.rule {
                    prop_assert_eq!(told.met.last(), Some(&Met { rule, what: Event::Decides }));
                }
            }
        }
    }
}
