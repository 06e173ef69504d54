//! Names to answers: which set of servers is asked, what is kept, what is asked only once.
//!
//! The resolver knows nothing of fake addresses: rules, dials and `/dns/query` always get real
//! ones. Identical questions in flight are one question. It needs no network to begin with and holds
//! nothing about servers or failures, so it works as soon as there is a way to a server.
//!
//! Tasks: only refreshes of stale answers, at most [`REFRESHES_MAX`], held by the resolver and gone
//! with it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::outbound::{BoxFuture, IpVersion, Purpose, Resolve};
use crate::platform::clock;

use super::cache::{Cache, Freshness, Key};
use super::domain_set::BadPattern;
use super::hosts::{Found, Hosts};
use super::message::record::Answer;
use super::message::{NAME_BYTES_MAX, Question, svcb, types};
use super::options::{EnhancedMode, Options, PolicyEntry, Upstream, Via};
use super::plan::Plan;
use super::upstream::egress::Egress;
use super::upstream::{Asked, Bootstrap, EXCHANGE_TIME, Failure, Reach, Remotes};

/// Different questions at upstreams at once; each takes a socket for every server of its set, and
/// a process on OpenWrt has 1024 descriptors. Further ones wait their turn, for as long as an
/// exchange may take.
pub const EXCHANGES_MAX: usize = 128;
/// Stale answers being asked for anew at once; further ones are refreshed when next used.
pub const REFRESHES_MAX: usize = 32;

/// The sets of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// `nameserver`.
    Main,
    /// `default-nameserver`.
    Default,
    /// `direct-nameserver`.
    Direct,
    /// `proxy-server-nameserver`.
    ProxyServer,
}

/// How a question is asked besides what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// DO: DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// CD: the client checks signatures itself.
    pub checking_disabled: bool,
}

/// An answer in normal form (no id, no OPT), or why there is none.
pub type Outcome = Result<Arc<[u8]>, Failure>;

/// Table: answers kept and questions in flight; the sets of servers are fixed.
pub struct Resolver {
    me: Weak<Self>,
    main: Plan,
    default: Plan,
    direct: Option<Plan>,
    proxy_server: Plan,
    ipv6: bool,
    ipv6_timeout: Duration,
    /// Addresses in service bindings would lead past what is remembered, or are not wanted.
    hides_hints: bool,
    hosts: Option<Arc<Hosts>>,
    cache: Cache,
    in_flight: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
    permits: Semaphore,
    refreshes: Mutex<JoinSet<()>>,
}

impl Resolver {
    /// A resolver by these options; `hosts`: the tables that its users see, if `use-hosts`.
    ///
    /// # Errors
    /// [`BadPattern`]: a policy or filter, by the index of its entry.
    pub fn new(
        options: &Options,
        hosts: Option<Arc<Hosts>>,
        egress: Arc<dyn Egress>,
    ) -> Result<Arc<Self>, BadPattern> {
        let bootstrap = Arc::<OnceLock<_>>::default();
        let reach = Reach {
            egress,
            bootstrap: None,
            own: options.listen.into_iter().collect(),
            respelling: Arc::default(),
        };
        // Whoever resolves the others' names cannot have one.
        let mut literals = Remotes::new(reach.clone());
        let default = Plan::plain(literals.set(&options.default_nameserver));
        let mut remotes = Remotes::new(Reach {
            bootstrap: Some(Arc::clone(&bootstrap)),
            ..reach
        });
        let plans = plans(options, &mut remotes)?;
        let resolver = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: Weak::clone(me),
            main: plans.main,
            direct: plans.direct,
            proxy_server: plans.proxy_server,
            default,
            ipv6: options.ipv6,
            ipv6_timeout: options.ipv6_timeout,
            hides_hints: options.enable && (options.mode != EnhancedMode::Normal || !options.ipv6),
            hosts,
            cache: Cache::new(options.cache_algorithm, options.cache_size, clock::now()),
            in_flight: Mutex::default(),
            permits: Semaphore::new(EXCHANGES_MAX),
            refreshes: Mutex::default(),
        });
        // Set here alone.
        let _ = bootstrap.set(Arc::downgrade(&resolver) as Weak<dyn Bootstrap>);
        Ok(resolver)
    }

    /// The answer of the main set, from the cache or from upstream; no hosts, no fake addresses.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn query(&self, question: &Question, manner: Manner) -> Outcome {
        self.look_up(Set::Main, question, manner).await
    }

    /// Puts the main set's answer into `out` if the cache has one; one that is stale is asked for
    /// anew in the background.
    pub fn query_cache(
        &self,
        question: &Question,
        manner: Manner,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        self.look_up_cache(Set::Main, question, manner, now, out)
    }

    /// The code that the main set answers everything about this name with, without asking anybody.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<u8> {
        self.main.constant(name)
    }

    /// Forgets all answers.
    pub fn flush(&self) {
        self.cache.flush();
    }

    async fn look_up(&self, set: Set, question: &Question, manner: Manner) -> Outcome {
        let mut kept = Vec::new();
        if self.look_up_cache(set, question, manner, clock::now(), &mut kept) {
            return Ok(kept.into());
        }
        self.ask(set, question, manner).await
    }

    fn look_up_cache(
        &self,
        set: Set,
        question: &Question,
        manner: Manner,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> bool {
        let key = Key::new(tag(set, manner), question);
        let found = self.cache.get(&key, now, out);
        if found == Some(Freshness::Stale) {
            self.refresh(&key, set, question, manner);
        }
        found.is_some()
    }

    /// Asks upstream, or joins whoever asks the same already.
    async fn ask(&self, set: Set, question: &Question, manner: Manner) -> Outcome {
        let key = Key::new(tag(set, manner), question);
        loop {
            let turn = self.take_turn(&key);
            match turn {
                Turn::Follow(mut leader) => {
                    if let Ok(outcome) = leader.wait_for(Option::is_some).await {
                        return outcome.clone().unwrap_or(Err(Failure::Timeout));
                    }
                    // The one who asked went away before the answer came: the next one asks.
                }
                Turn::Lead(lead) => {
                    let outcome = self.exchange(set, question, manner).await.map(Arc::from);
                    if let Ok(bytes) = &outcome {
                        self.keep(&key, bytes);
                    }
                    lead.followers.send_replace(Some(Outcome::clone(&outcome)));
                    return outcome;
                }
            }
        }
    }

    fn take_turn<'r>(&'r self, key: &Key) -> Turn<'r> {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = in_flight.get(key) {
            return Turn::Follow(leader.clone());
        }
        let (followers, leader) = watch::channel(None);
        in_flight.insert(key.clone(), leader);
        Turn::Lead(Lead {
            resolver: self,
            key: key.clone(),
            followers,
        })
    }

    async fn exchange(
        &self,
        set: Set,
        question: &Question,
        manner: Manner,
    ) -> Result<Vec<u8>, Failure> {
        let permit = timeout(EXCHANGE_TIME, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(Failure::Timeout);
        };
        let asked = Asked {
            question,
            checking_disabled: manner.checking_disabled,
            dnssec_ok: manner.dnssec_ok,
        };
        let answer = match self.plan(set).ask(asked).await {
            // A router without a clock refuses every certificate, and cannot find the time because of it.
            // Nothing is trusted for that: time itself comes over the network as plainly as these answers.
            Err(Failure::Certificate) if set != Set::Default && is_of_time(question) => {
                self.default.ask(asked).await?
            }
            answer => answer?,
        };
        if self.hides_hints && matches!(question.qtype, types::SVCB | types::HTTPS) {
            let parsed = Answer::parse(&answer).map_err(|_| Failure::Malformed)?;
            return svcb::without_hints(&parsed).map_err(|_| Failure::Malformed);
        }
        Ok(answer)
    }

    fn keep(&self, key: &Key, bytes: &[u8]) {
        let Ok(answer) = Answer::parse(bytes) else {
            return;
        };
        // Certificate authorities' challenges change while somebody waits for them.
        let challenge = b"\x0f_acme-challenge";
        if answer.question.qtype == types::TXT && answer.question.name.wire().starts_with(challenge)
        {
            return;
        }
        self.cache.insert(key, &answer, clock::now());
    }

    fn refresh(&self, key: &Key, set: Set, question: &Question, manner: Manner) {
        let in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if in_flight.contains_key(key) {
            return;
        }
        drop(in_flight);
        let (Some(me), Ok(runtime)) = (self.me.upgrade(), Handle::try_current()) else {
            return;
        };
        let mut refreshes = self
            .refreshes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while refreshes.try_join_next().is_some() {}
        if refreshes.len() < REFRESHES_MAX {
            let question = question.clone();
            refreshes.spawn_on(
                async move {
                    // A failure leaves the stale answer in force; its next use tries again.
                    let _ = me.ask(set, &question, manner).await;
                },
                &runtime,
            );
        }
    }

    fn plan(&self, set: Set) -> &Plan {
        match set {
            Set::Main => &self.main,
            Set::Default => &self.default,
            Set::Direct => self.direct.as_ref().unwrap_or(&self.main),
            Set::ProxyServer => &self.proxy_server,
        }
    }

    fn set_for(&self, purpose: Purpose) -> Set {
        match purpose {
            Purpose::Rule => Set::Main,
            // Without servers of its own it shares the main set's answers, too.
            Purpose::Direct if self.direct.is_none() => Set::Main,
            Purpose::Direct => Set::Direct,
            Purpose::ProxyServer => Set::ProxyServer,
        }
    }

    /// The addresses of one family.
    async fn addresses_of(&self, set: Set, name: &str, qtype: u16) -> Result<Vec<IpAddr>, Failure> {
        let question = Question::new(name, qtype).ok_or(Failure::Malformed)?;
        let bytes = self.look_up(set, &question, Manner::default()).await?;
        let answer = Answer::parse(&bytes).map_err(|_| Failure::Malformed)?;
        Ok(answer
            .addresses()
            .into_iter()
            .map(|(address, _)| address)
            .collect())
    }

    /// IPv4 and then IPv6 addresses, asked for at once.
    async fn addresses_of_both(&self, set: Set, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let v4 = Box::pin(self.addresses_of(set, name, types::A));
        let v6 = Box::pin(self.addresses_of(set, name, types::AAAA));
        let (v4, v6) = match select(v4, v6).await {
            Either::Left((v4, v6)) if v4.as_ref().is_ok_and(|found| !found.is_empty()) => (
                v4,
                timeout(self.ipv6_timeout, v6)
                    .await
                    .unwrap_or(Ok(Vec::new())),
            ),
            Either::Left((v4, v6)) => (v4, v6.await),
            Either::Right((v6, v4)) => (v4.await, v6),
        };
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.extend(v6);
                Ok(v4)
            }
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.is_empty() => Ok(found),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    }

    fn look_at_hosts(&self, name: &str) -> Option<Found> {
        self.hosts.as_ref()?.find(name, clock::now())
    }

    async fn resolve_name(
        &self,
        name: &str,
        version: IpVersion,
        purpose: Purpose,
    ) -> io::Result<Vec<IpAddr>> {
        if let Ok(literal) = name.parse() {
            return Ok(vec![literal]);
        }
        let found = self.look_at_hosts(name);
        let (alias, known) = found.map_or((None, None), |found| (found.alias, found.addresses));
        let name = alias.as_deref().unwrap_or(name);
        let set = self.set_for(purpose);
        let mut addresses = match (known, version) {
            (Some(known), _) => known,
            (None, IpVersion::V4Only) => self.addresses_of(set, name, types::A).await?,
            (None, IpVersion::V6Only) if self.ipv6 => {
                self.addresses_of(set, name, types::AAAA).await?
            }
            (None, IpVersion::V6Only) => Vec::new(),
            (None, _) if self.ipv6 => self.addresses_of_both(set, name).await?,
            (None, _) => self.addresses_of(set, name, types::A).await?,
        };
        match version {
            IpVersion::V4Only => addresses.retain(IpAddr::is_ipv4),
            IpVersion::V6Only => addresses.retain(IpAddr::is_ipv6),
            IpVersion::PreferV6 => addresses.sort_by_key(IpAddr::is_ipv4),
            IpVersion::Dual | IpVersion::PreferV4 => addresses.sort_by_key(IpAddr::is_ipv6),
        }
        if addresses.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(addresses)
    }
}

impl Resolve for Resolver {
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        version: IpVersion,
        purpose: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(self.resolve_name(name, version, purpose))
    }
}

impl Bootstrap for Resolver {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, Failure>> {
        Box::pin(async move {
            let found = self.look_at_hosts(name);
            let known = found.and_then(|found| found.addresses);
            if let Some(known) = known.filter(|known| !known.is_empty()) {
                return Ok(known);
            }
            let v4 = self.addresses_of(Set::Default, name, types::A).await;
            match v4 {
                Ok(found) if !found.is_empty() => Ok(found),
                // A network of IPv6 alone.
                _ => self.addresses_of(Set::Default, name, types::AAAA).await,
            }
        })
    }
}

/// Who asks.
enum Turn<'r> {
    Lead(Lead<'r>),
    Follow(watch::Receiver<Option<Outcome>>),
}

/// The right to ask a question; given up on drop, whatever ends the asking.
struct Lead<'r> {
    resolver: &'r Resolver,
    key: Key,
    followers: watch::Sender<Option<Outcome>>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let in_flight = self.resolver.in_flight.lock();
        in_flight
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

/// The plans of a configuration.
struct Plans {
    main: Plan,
    direct: Option<Plan>,
    proxy_server: Plan,
}

fn plans(options: &Options, remotes: &mut Remotes) -> Result<Plans, BadPattern> {
    if !options.enable || options.nameserver.is_empty() {
        // DNS that is not configured: the system's servers for everything.
        return Ok(Plans {
            main: Plan::plain(remotes.set(&[Upstream::System])),
            direct: None,
            proxy_server: Plan::plain(remotes.set(&[Upstream::System])),
        });
    }
    let main = Plan::plain(remotes.set(&options.nameserver))
        .with_policy(&options.policy, remotes)?
        .with_fallback(&options.fallback, &options.fallback_filter, remotes)?
        .guarded(options.rebind.as_deref())?;
    let direct = if options.direct_nameserver.is_empty() {
        None
    } else {
        let plan = Plan::plain(remotes.set(&options.direct_nameserver));
        let policy: &[_] = if options.direct_follows_policy {
            &options.policy
        } else {
            &[]
        };
        let plan = plan.with_policy(policy, remotes)?;
        Some(plan.guarded(options.rebind.as_deref())?)
    };
    let proxy_server = if options.proxy_server_nameserver.is_empty() {
        let entry = |entry: &PolicyEntry| PolicyEntry {
            names: entry.names.clone(),
            servers: without_detours(&entry.servers),
        };
        let policy: Vec<_> = options.policy.iter().map(entry).collect();
        let main = without_detours(&options.nameserver);
        Plan::plain(remotes.set(&main)).with_policy(&policy, remotes)?
    } else {
        Plan::plain(remotes.set(&options.proxy_server_nameserver))
            .with_policy(&options.proxy_server_policy, remotes)?
    };
    Ok(Plans {
        main,
        direct,
        proxy_server,
    })
}

/// The servers that are reached without a proxy: the name of a proxy's own server must not be asked
/// for through that proxy. None left: the system's.
fn without_detours(servers: &[Upstream]) -> Vec<Upstream> {
    let straight = |upstream: &&Upstream| match upstream {
        Upstream::Server(server) => server.via == Via::Direct,
        Upstream::System | Upstream::Dhcp(_) | Upstream::Rcode(_) => true,
    };
    let left: Vec<Upstream> = servers.iter().filter(straight).cloned().collect();
    if left.is_empty() {
        vec![Upstream::System]
    } else {
        left
    }
}

/// Whether a name is, by its look, of a server that tells the time (`0.pool.ntp.org`, `time.example`).
fn is_of_time(question: &Question) -> bool {
    let mut buffer = [0; NAME_BYTES_MAX];
    let name = question.name.text(&mut buffer).unwrap_or_default();
    name.split('.').any(|label| {
        let plain = label.trim_end_matches(|last: char| last.is_ascii_digit());
        matches!(plain, "ntp" | "sntp" | "time")
    })
}

/// Answers of different sets, or asked for in different manners, are different answers.
fn tag(set: Set, manner: Manner) -> u8 {
    set as u8 | u8::from(manner.dnssec_ok) << 4 | u8::from(manner.checking_disabled) << 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_servers_are_known_by_their_labels() {
        for (name, of_time) in [
            ("0.openwrt.pool.ntp.org", true),
            ("time1.example.com", true),
            ("ntp7.aliyun.example", true),
            ("times.example.com", false),
            ("www.example.com", false),
        ] {
            let question = Question::new(name, types::A).unwrap();
            assert_eq!(is_of_time(&question), of_time, "{name}");
        }
    }
}
