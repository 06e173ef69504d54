//! How a client's query is answered: hosts, then fake addresses, then the resolver.
//!
//! No sockets here: [`super::listener`] drives it for UDP and TCP, the tunnel for captured
//! packets. Most queries are answered at once ([`Server::answer_now`]); the others need somebody to
//! wait for them ([`Server::answer_later`]), at most [`WAITING_MAX`] at a time.
//!
//! A name gets a fake address unless the filter or the daemon's [`Policy`] says that it goes out
//! directly; then it gets its real ones, which are remembered for the way back ([`Server::map`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::platform::clock;

use super::domain_set::BadPattern;
use super::fake_ip::{FakeIp, Family};
use super::hosts::{self, Hosts};
use super::mapping::{Mapping, ReverseMapping};
use super::message::build::{self, Transport};
use super::message::record::Answer;
use super::message::{CLASS_IN, NAME_BYTES_MAX, Name, Query, Question, Rejected, rcode, types};
use super::names::{Names, matches};
use super::options::{EnhancedMode, FakeIpFilter, FilterRule, Options};
use super::resolver::{Manner, Resolver};

/// Queries that wait for an upstream at once, over all listeners; the newest beyond it gets
/// SERVFAIL. Some 3 KB each.
pub const WAITING_MAX: usize = 512;

/// What the daemon knows of names and wants to know of answers. Called on the path of every query:
/// must be quick and must not block.
pub trait Policy: Send + Sync {
    /// Whether every flow to `name` is certain to leave directly, so that its real address may be
    /// told in fake-ip mode.
    fn judge(&self, name: &str) -> Judgement;

    /// `client` is about to be told the real `addresses` of `name`, for `ttl` seconds. `judged`: what
    /// [`Policy::judge`] said.
    fn answered(
        &self,
        name: &str,
        client: IpAddr,
        addresses: &[IpAddr],
        ttl: u32,
        judged: Judgement,
    );
}

/// Who looks on while devices are answered. Called on the path of every answer: it must not wait.
pub trait Watch: Send + Sync {
    /// Whether it wants to know of answers at all just now.
    fn watches(&self) -> bool;

    /// `client` gets `answer`, a whole message.
    fn answered(&self, client: IpAddr, answer: &[u8]);
}

/// What the daemon says of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Every flow to it is certain to leave directly.
    pub direct: bool,
    /// Of the decisions that it was judged by: one of before is void.
    pub generation: u32,
}

/// What a server is built of besides its options; all of it may outlive the server.
pub struct Parts {
    /// Answers what is in no table.
    pub resolver: Arc<Resolver>,
    /// The tables that clients see, if `use-hosts`.
    pub hosts: Option<Arc<Hosts>>,
    /// The pool; used in mode `fake-ip` only.
    pub fake_ip: Option<Arc<FakeIp>>,
    /// Real addresses by name.
    pub mapping: Arc<ReverseMapping>,
    /// The daemon's say, if it offloads.
    pub policy: Option<Arc<dyn Policy>>,
    /// Who looks on.
    pub watch: Option<Arc<dyn Watch>>,
}

/// What became of a query at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// The answer is written.
    Replied,
    /// It deserves none.
    Ignored,
    /// It needs [`Server::answer_later`].
    Later,
}

/// Snapshot of the options over shared tables: a reload makes a new one of the same [`Parts`].
pub struct Server {
    enable: bool,
    mode: EnhancedMode,
    ipv6: bool,
    fake_ip_ttl: u32,
    filter: Filter,
    parts: Parts,
    waiting: Semaphore,
}

/// `fake-ip-filter`, compiled.
enum Filter {
    Names { listed: Names, whitelist: bool },
    Rules(Box<[FilterRule]>),
}

impl Filter {
    fn new(options: &FakeIpFilter) -> Result<Self, BadPattern> {
        Ok(match options {
            FakeIpFilter::Blacklist(items) => Self::Names {
                listed: Names::of(items)?,
                whitelist: false,
            },
            FakeIpFilter::Whitelist(items) => Self::Names {
                listed: Names::of(items)?,
                whitelist: true,
            },
            FakeIpFilter::Rules(rules) => Self::Rules(rules.as_slice().into()),
        })
    }

    /// Whether it lets `name` have a fake address.
    fn fakes(&self, name: &str) -> bool {
        match self {
            Self::Names { listed, whitelist } => listed.contains(name) == *whitelist,
            Self::Rules(rules) => {
                let deciding = rules.iter().find(|rule| matches(&*rule.matcher, name));
                !deciding.is_some_and(|rule| rule.real)
            }
        }
    }
}

/// What is left to ask upstream.
struct Pending {
    question: Question,
    /// The question's name is an alias of the client's, by the hosts table.
    alias: bool,
}

impl Server {
    /// A server by these options.
    ///
    /// # Errors
    /// [`BadPattern`]: an entry of `fake-ip-filter`, by its index.
    pub fn new(options: &Options, parts: Parts) -> Result<Self, BadPattern> {
        Ok(Self {
            enable: options.enable,
            mode: options.mode,
            ipv6: options.ipv6,
            fake_ip_ttl: options.fake_ip_ttl,
            filter: Filter::new(&options.fake_ip_filter)?,
            parts,
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// Answers a message. `None`: it deserves no answer.
    pub async fn answer(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.answer_now(query, client, transport, &mut out) {
            Now::Replied => Some(out),
            Now::Ignored => None,
            Now::Later => self.answer_later(query, client, transport).await,
        }
    }

    /// Answers from the tables and the cache, without waiting, into `out`.
    pub fn answer_now(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Now {
        let parsed = match Query::parse(query) {
            Ok(parsed) => parsed,
            Err(rejected) => return reject(query, rejected, out),
        };
        if let Some(pending) = self.answer_locally(&parsed, out) {
            let (manner, now) = (manner(&parsed), clock::now());
            let mut kept = Vec::new();
            let place = if pending.alias { &mut kept } else { &mut *out };
            let resolver = &self.parts.resolver;
            if resolver.query_cache(&pending.question, manner, now, place) {
                self.take_over(&parsed, &pending, client.ip(), &kept, out);
            } else if let Some(code) = self.constant(&pending) {
                build::start(&parsed, code, out);
            } else {
                return Now::Later;
            }
        }
        build::finish(&parsed, transport, out);
        self.show(client, out);
        Now::Replied
    }

    fn show(&self, client: SocketAddr, answer: &[u8]) {
        let watch = self.parts.watch.as_ref();
        if let Some(watch) = watch.filter(|watch| watch.watches()) {
            watch.answered(client.ip(), answer);
        }
    }

    /// Block lists are policies of this kind: their names cost no task.
    fn constant(&self, pending: &Pending) -> Option<u8> {
        let mut buffer = [0; NAME_BYTES_MAX];
        let name = pending.question.name.text(&mut buffer)?;
        self.parts
            .resolver
            .constant(name)
            .filter(|_| !pending.alias)
    }

    /// Answers a message by waiting for the resolver.
    pub async fn answer_later(
        &self,
        query: &[u8],
        client: SocketAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let parsed = Query::parse(query).ok()?;
        let mut out = Vec::new();
        if let Some(pending) = self.answer_locally(&parsed, &mut out) {
            let answer = match self.waiting.try_acquire() {
                Ok(_permit) => {
                    let resolver = &self.parts.resolver;
                    resolver
                        .query(&pending.question, manner(&parsed))
                        .await
                        .ok()
                }
                Err(_) => None,
            };
            match answer {
                Some(answer) => {
                    if !pending.alias {
                        out.extend_from_slice(&answer);
                    }
                    self.take_over(&parsed, &pending, client.ip(), &answer, &mut out);
                }
                None => build::start(&parsed, rcode::SERVFAIL, &mut out),
            }
        }
        build::finish(&parsed, transport, &mut out);
        self.show(client, &out);
        Some(out)
    }

    /// Which name a destination address stands for.
    #[must_use]
    pub fn map(&self, address: IpAddr) -> Mapping {
        // In every mode: clients may still hold addresses from before a change of it.
        let fake_ip = self.parts.fake_ip.as_ref();
        if let Some(pool) = fake_ip.filter(|pool| pool.contains(address)) {
            return pool
                .name(address)
                .map_or(Mapping::FakeUnknown, Mapping::Fake);
        }
        if self.mode == EnhancedMode::Normal {
            return Mapping::Nothing;
        }
        let real = self.parts.mapping.name(address, clock::now());
        real.map_or(Mapping::Nothing, Mapping::Real)
    }

    /// Takes every fake address away.
    ///
    /// # Errors
    /// What the file system says of the file that remembers them; they are forgotten all the same.
    pub fn flush_fake_ip(&self) -> io::Result<()> {
        self.parts
            .fake_ip
            .as_ref()
            .map_or(Ok(()), |pool| pool.flush())
    }

    /// Forgets all answers and the addresses told.
    pub fn flush_cache(&self) {
        self.parts.resolver.flush();
        self.parts.mapping.flush();
    }

    /// The resolver behind it, for `/dns/query`.
    #[must_use]
    pub fn resolver(&self) -> &Arc<Resolver> {
        &self.parts.resolver
    }

    /// The tables that come before every answer, if `use-hosts`.
    #[must_use]
    pub fn hosts(&self) -> Option<&Hosts> {
        self.parts.hosts.as_deref()
    }

    /// Whether clients are to be answered at all (`enable`).
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enable
    }

    /// Whether fake addresses are given out.
    #[must_use]
    pub fn gives_fakes(&self) -> bool {
        self.mode == EnhancedMode::FakeIp
    }

    /// Answers from the tables into `out`, without the ending; or says what to ask upstream.
    fn answer_locally(&self, query: &Query<'_>, out: &mut Vec<u8>) -> Option<Pending> {
        let Question { qtype, qclass, .. } = query.question;
        // Not data, or (ANY, RFC 8482) a way around fake addresses.
        let refused = match qtype {
            types::OPT => Some(rcode::FORMERR),
            types::IXFR..=types::ANY => Some(rcode::NOTIMP),
            _ => (qclass != CLASS_IN).then_some(rcode::REFUSED),
        };
        if let Some(code) = refused {
            build::start(query, code, out);
            return None;
        }
        let mut buffer = [0; NAME_BYTES_MAX];
        let straight = || Pending {
            question: query.question.clone(),
            alias: false,
        };
        let Some(name) = query.question.name.text(&mut buffer) else {
            return Some(straight());
        };
        let hosts = self.parts.hosts.as_ref();
        let Some(found) = hosts.and_then(|hosts| hosts.find(name, clock::now())) else {
            if self.answer_unlisted(query, name, None, out) {
                return None;
            }
            return Some(straight());
        };
        let text = found.alias.as_deref();
        let alias = text.and_then(Name::from_text);
        match found.addresses {
            Some(addresses) if answers_without_upstream(qtype) => {
                begin(
                    query,
                    alias.as_ref(),
                    |owner, out| {
                        for address in addresses {
                            push_if_asked(out, owner, qtype, address, hosts::TTL);
                        }
                    },
                    out,
                );
                None
            }
            Some(_) => Some(straight()),
            None => match (alias, text) {
                (Some(alias), Some(text)) => self.answer_alias(query, alias, text, out),
                _ => Some(straight()),
            },
        }
    }

    /// Answers by the name that the hosts table gave instead.
    fn answer_alias(
        &self,
        query: &Query<'_>,
        alias: Name,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Option<Pending> {
        if self.answer_unlisted(query, text, Some(&alias), out) {
            return None;
        }
        if !query.question.is_address() {
            // The alias is all there is to say; whoever wants more asks for it.
            begin(query, Some(&alias), |_, _| {}, out);
            return None;
        }
        Some(Pending {
            question: Question {
                name: alias,
                ..query.question
            },
            alias: true,
        })
    }

    /// Answers a name that stands in no hosts table, unless its answer must come from upstream.
    fn answer_unlisted(
        &self,
        query: &Query<'_>,
        name: &str,
        alias: Option<&Name>,
        out: &mut Vec<u8>,
    ) -> bool {
        let qtype = query.question.qtype;
        let fake = answers_without_upstream(qtype) && self.is_faked(name);
        let hidden = qtype == types::AAAA && !self.ipv6;
        if !fake && !hidden {
            return false;
        }
        let family = match qtype {
            types::A => Some(Family::V4),
            types::AAAA if !hidden => Some(Family::V6),
            // Service bindings carry addresses too: a fake name has none.
            _ => None,
        };
        let pool = self.parts.fake_ip.as_ref().filter(|_| fake);
        let address = family.and_then(|family| pool?.address(name, family));
        begin(
            query,
            alias,
            |owner, out| {
                if let Some(address) = address {
                    build::push_address(out, owner, address, self.fake_ip_ttl);
                }
            },
            out,
        );
        true
    }

    fn is_faked(&self, name: &str) -> bool {
        self.mode == EnhancedMode::FakeIp
            && self.parts.fake_ip.is_some()
            && self.filter.fakes(name)
            && !self
                .parts
                .policy
                .as_ref()
                .is_some_and(|policy| policy.judge(name).direct)
    }

    /// Makes the resolver's answer the answer to `query` and remembers its addresses. For an alias
    /// the answer is `kept` and its addresses are put together anew; else it already stands in `out`.
    fn take_over(
        &self,
        query: &Query<'_>,
        pending: &Pending,
        client: IpAddr,
        kept: &[u8],
        out: &mut Vec<u8>,
    ) {
        let mut addresses = Vec::new();
        let mut code = rcode::SERVFAIL;
        let watched = self.mode != EnhancedMode::Normal || self.parts.policy.is_some();
        if pending.alias || watched && pending.question.is_address() {
            let stored = if pending.alias { kept } else { &**out };
            if let Ok(answer) = Answer::parse(stored) {
                addresses = answer.addresses();
                code = answer.rcode();
            }
            self.remember(&query.question, client, &addresses);
        }
        if pending.alias {
            begin(
                query,
                Some(&pending.question.name),
                |owner, out| {
                    for (address, ttl) in addresses {
                        build::push_address(out, owner, address, ttl.min(hosts::TTL));
                    }
                },
                out,
            );
            build::set_code(out, code);
        } else {
            build::adopt(query, out);
        }
    }

    fn remember(&self, question: &Question, client: IpAddr, found: &[(IpAddr, u32)]) {
        let mut buffer = [0; NAME_BYTES_MAX];
        let (Some(name), Some(ttl)) = (
            question.name.text(&mut buffer),
            found.iter().map(|(_, ttl)| *ttl).min(),
        ) else {
            return;
        };
        if self.mode != EnhancedMode::Normal {
            let now = clock::now();
            for (address, _) in found {
                self.parts.mapping.insert(*address, name, ttl, now);
            }
        }
        if let Some(policy) = &self.parts.policy {
            let addresses: Vec<IpAddr> = found.iter().map(|(address, _)| *address).collect();
            policy.answered(name, client, &addresses, ttl, policy.judge(name));
        }
    }
}

fn manner(query: &Query<'_>) -> Manner {
    Manner {
        dnssec_ok: query.dnssec_ok(),
        checking_disabled: query.checking_disabled(),
    }
}

/// Types that a table of addresses answers completely.
fn answers_without_upstream(qtype: u16) -> bool {
    matches!(qtype, types::A | types::AAAA | types::SVCB | types::HTTPS)
}

/// Writes an answer: the alias if there is one, then whatever `records` adds under its owner.
fn begin(
    query: &Query<'_>,
    alias: Option<&Name>,
    records: impl FnOnce(Option<u16>, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    build::start(query, rcode::NOERROR, out);
    let owner = alias.and_then(|alias| build::push_cname(out, alias, hosts::TTL));
    records(owner, out);
}

fn push_if_asked(out: &mut Vec<u8>, owner: Option<u16>, qtype: u16, address: IpAddr, ttl: u32) {
    let asked = if address.is_ipv4() {
        types::A
    } else {
        types::AAAA
    };
    if qtype == asked {
        build::push_address(out, owner, address, ttl);
    }
}

fn reject(query: &[u8], rejected: Rejected, out: &mut Vec<u8>) -> Now {
    match rejected {
        Rejected::Silently => return Now::Ignored,
        Rejected::With(code) => build::reject(query, code, out),
        Rejected::BadVersion => build::reject_version(query, out),
    }
    Now::Replied
}
