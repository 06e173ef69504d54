//! Which servers are asked for a name (clash-api.md 4.4, "Order of decision").
//!
//! A name under the policy is asked of its entry's servers alone. Else names under
//! `fallback-filter.domain` are asked of the fallback alone, and addresses of both: the fallback's
//! answer counts when the main one failed, was empty, or holds an address that the filter refuses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{Either, select};

use super::domain_set::BadPattern;
use super::message::build::constant_answer;
use super::message::record::Answer;
use super::message::{NAME_BYTES_MAX, rcode};
use super::names::{Item, Names};
use super::options::{FallbackOptions, PolicyEntry, Upstream};
use super::upstream::{Asked, Failure, Remotes, Set};
use crate::metadata::{Endpoint, Host, InboundType, Metadata, Network};
use crate::prefix::{Prefix, is_local};
use crate::rules::matcher::Known;
use crate::rules::{Matcher, Truth};

/// The servers of one resolver.
pub(super) struct Plan {
    policy: Option<Policy>,
    main: Set,
    fallback: Option<Fallback>,
    /// Names that may have local addresses; `None`: all may.
    guard: Option<Names>,
}

/// `nameserver-policy` and its like.
struct Policy {
    names: Names,
    /// By entry.
    sets: Box<[Set]>,
}

struct Fallback {
    servers: Set,
    /// Names that only it is asked for.
    only: Names,
    filter: AddressFilter,
    lazy: bool,
}

/// Which addresses of the main servers are not believed.
struct AddressFilter {
    ranges: Box<[Prefix]>,
    /// Addresses abroad are not, and the country is asked by this.
    home: Option<Arc<dyn Matcher>>,
}

impl Plan {
    /// Servers without anything else.
    pub(super) fn plain(main: Set) -> Self {
        Self {
            policy: None,
            main,
            fallback: None,
            guard: None,
        }
    }

    /// Takes local addresses out of the Internet's answers (rebinding), but for names under `allowed`
    /// and under the policy, whose servers the owner has chosen.
    pub(super) fn guarded(mut self, allowed: Option<&[Item]>) -> Result<Self, BadPattern> {
        self.guard = allowed.map(Names::of).transpose()?;
        Ok(self)
    }

    /// Adds a policy, unless it is empty.
    pub(super) fn with_policy(
        mut self,
        entries: &[PolicyEntry],
        remotes: &mut Remotes,
    ) -> Result<Self, BadPattern> {
        if !entries.is_empty() {
            let items = entries.iter().enumerate();
            let items = items.flat_map(|(i, entry)| entry.names.iter().map(move |item| (i, item)));
            self.policy = Some(Policy {
                names: Names::new(items)?,
                sets: entries
                    .iter()
                    .map(|entry| remotes.set(&entry.servers))
                    .collect(),
            });
        }
        Ok(self)
    }

    /// Adds a fallback, unless it has no servers.
    pub(super) fn with_fallback(
        mut self,
        servers: &[Upstream],
        options: &FallbackOptions,
        remotes: &mut Remotes,
    ) -> Result<Self, BadPattern> {
        if !servers.is_empty() {
            self.fallback = Some(Fallback {
                servers: remotes.set(servers),
                only: Names::of(&options.names)?,
                filter: AddressFilter {
                    ranges: options.refused.as_slice().into(),
                    home: options.home.clone(),
                },
                lazy: options.lazy,
            });
        }
        Ok(self)
    }

    /// Asks the servers of this name; the answer is in normal form.
    pub(super) async fn ask(&self, asked: Asked<'_>) -> Result<Vec<u8>, Failure> {
        let mut buffer = [0; NAME_BYTES_MAX];
        let name = asked.question.name.text(&mut buffer).unwrap_or_default();
        if let Some(set) = self.policy.as_ref().and_then(|policy| policy.find(name)) {
            return set.ask(asked).await;
        }
        let answer = match &self.fallback {
            Some(fallback) if asked.question.is_address() => {
                if fallback.only.contains(name) {
                    fallback.servers.ask(asked).await
                } else {
                    Box::pin(fallback.ask(&self.main, asked)).await
                }
            }
            _ => self.main.ask(asked).await,
        }?;
        Ok(if self.is_rebound(name, &answer) {
            log::warn!("dns: {name} has a local address: withheld (rebind-protection)");
            constant_answer(asked.question, rcode::NOERROR)
        } else {
            answer
        })
    }

    /// The code that everything about this name is answered with, if its policy says no more.
    pub(super) fn constant(&self, name: &str) -> Option<u8> {
        self.policy.as_ref()?.find(name)?.constant()
    }

    fn is_rebound(&self, name: &str, answer: &[u8]) -> bool {
        let Some(allowed) = &self.guard else {
            return false;
        };
        let local = |answer: Answer<'_>| {
            let mut records = answer
                .records()
                .flatten()
                .filter_map(|record| record.address());
            records.any(is_local)
        };
        Answer::parse(answer).is_ok_and(local) && !is_local_name(name) && !allowed.contains(name)
    }
}

impl Policy {
    fn find(&self, name: &str) -> Option<&Set> {
        self.sets.get(self.names.find(name)?)
    }
}

impl Fallback {
    async fn ask(&self, main: &Set, asked: Asked<'_>) -> Result<Vec<u8>, Failure> {
        let good = |answer: &Result<Vec<u8>, Failure>| {
            answer
                .as_ref()
                .is_ok_and(|bytes| self.filter.believes(bytes))
        };
        if self.lazy {
            let answer = main.ask(asked).await;
            return if good(&answer) {
                answer
            } else {
                self.servers.ask(asked).await
            };
        }
        match select(pin!(main.ask(asked)), pin!(self.servers.ask(asked))).await {
            Either::Left((answer, _)) if good(&answer) => answer,
            Either::Left((_, other)) => other.await,
            Either::Right((other, answer)) => {
                let answer = answer.await;
                if good(&answer) { answer } else { other }
            }
        }
    }
}

impl AddressFilter {
    /// Whether the answer holds addresses, and none that is refused.
    fn believes(&self, bytes: &[u8]) -> bool {
        let addresses = Answer::parse(bytes).map(|answer| answer.addresses());
        addresses.is_ok_and(|found| {
            !found.is_empty() && found.iter().all(|(address, _)| !self.refuses(*address))
        })
    }

    fn refuses(&self, address: IpAddr) -> bool {
        if self.ranges.iter().any(|range| range.contains(address)) {
            return true;
        }
        let abroad = |home: &Arc<dyn Matcher>| {
            let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let to = Endpoint {
                host: Host::Ip(address),
                port: 0,
            };
            let flow = Metadata::new(Network::Tcp, InboundType::Inner, &"DNS".into(), nobody, to);
            home.truth(&Known::flow(&flow, false)) != Truth::Yes
        };
        !is_local(address) && self.home.as_ref().is_some_and(abroad)
    }
}

/// Whether a name is of one's own network by its form (RFC 6762, RFC 8375, `.internal` of ICANN).
fn is_local_name(name: &str) -> bool {
    const SUFFIXES: &[&str] = &["lan", "local", "internal", "localhost", "home.arpa"];
    let below = |suffix: &&str| {
        name.strip_suffix(*suffix)
            .is_some_and(|rest| rest.ends_with('.'))
    };
    !name.contains('.') || SUFFIXES.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::RuleLine;

    #[test]
    fn local_names_are_told_by_their_form() {
        assert!(is_local_name("nas") && is_local_name("nas.lan") && is_local_name("a.home.arpa"));
        assert!(!is_local_name("xlan.org") && !is_local_name("a.xlan"));
    }

    #[test]
    fn addresses_abroad_and_in_refused_ranges_are_not_believed() {
        // Any condition on the address may stand for the country.
        let home = RuleLine::parse("IP-CIDR,203.0.113.0/24,x").unwrap();
        let filter = AddressFilter {
            ranges: ["240.0.0.0/4".parse().unwrap()].into(),
            home: Some(Arc::clone(home.matcher())),
        };
        for (address, refused) in [
            ("203.0.113.1", false),
            ("198.51.100.1", true),
            ("192.168.1.1", false),
            ("fd00::1", false),
            ("2001:db8::1", true),
            ("240.0.0.1", true),
        ] {
            assert_eq!(
                filter.refuses(address.parse().unwrap()),
                refused,
                "{address}"
            );
        }
    }
}
