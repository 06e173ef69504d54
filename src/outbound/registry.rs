//! All outbounds by name, built from the configuration.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use super::dial::{DEPTH_MAX, Dialer, Environment, LateOutbound, Node};
use super::direct::Direct;
use super::group::{Group, Member};
use super::health::Health;
use super::http::{Http, HttpError};
use super::mux::sing::Multiplexed;
use super::options::{GroupKind, GroupOptions, Protocol, ProxyOptions};
use super::provided::ProviderNodes;
use super::reject::Reject;
use super::shadowsocks::{Shadowsocks, ShadowsocksError};
use super::socks5::{Socks5, Socks5Error};
use super::transport::TransportError;
use super::vmess::VmessError;
use super::{Kind, Outbound, Traits, trojan, vless, vmess};
use crate::metadata::Metadata;

/// The outbounds that exist without being configured.
pub const BUILT_IN: &[(&str, Kind)] = &[
    ("DIRECT", Kind::Direct),
    ("REJECT", Kind::Reject),
    ("REJECT-DROP", Kind::RejectDrop),
    ("COMPATIBLE", Kind::Compatible),
    ("PASS", Kind::Pass),
];

/// The group of `mode: global`.
pub const GLOBAL: &str = "GLOBAL";

/// Why proxies and groups do not fit together. The name is the proxy's or group's at fault.
#[derive(Debug)]
pub enum RegistryError {
    /// The name is taken, by another or by a built-in.
    DuplicateName(Box<str>),
    /// The group `group` lists `member`, which is neither proxy nor group.
    UnknownMember {
        /// The group.
        group: Box<str>,
        /// What it lists.
        member: Box<str>,
    },
    /// The group is a member of itself, directly or through others.
    GroupLoop(Box<str>),
    /// The `dialer-proxy` of `proxy` is neither proxy nor group.
    UnknownDialer {
        /// The proxy.
        proxy: Box<str>,
        /// Its `dialer-proxy`.
        dialer: Box<str>,
    },
    /// The proxy's `dialer-proxy` leads back to it.
    DialerLoop(Box<str>),
    /// An option of the protocol is wrong.
    Protocol {
        /// The proxy.
        proxy: Box<str>,
        /// What is wrong.
        error: ProtocolError,
    },
}

/// What is wrong with a protocol's own options.
#[derive(Debug)]
pub enum ProtocolError {
    /// `type: http`.
    Http(HttpError),
    /// `type: socks5`.
    Socks5(Socks5Error),
    /// `type: ss`.
    Shadowsocks(ShadowsocksError),
    /// TLS or `network` of a protocol that has them.
    Transport(TransportError),
    /// `type: vmess` and `type: vless`.
    Vmess(VmessError),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Socks5(error) => error.fmt(f),
            Self::Shadowsocks(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Vmess(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateName(name) => write!(f, "the name {name} is taken"),
            Self::UnknownMember { group, member } => {
                write!(f, "group {group}: no proxy or group is named {member}")
            }
            Self::GroupLoop(name) => write!(f, "group {name} contains itself"),
            Self::UnknownDialer { proxy, dialer } => {
                write!(
                    f,
                    "proxy {proxy}: dialer-proxy {dialer} is no proxy or group"
                )
            }
            Self::DialerLoop(name) => write!(f, "proxy {name}: dialer-proxy leads back to it"),
            Self::Protocol { proxy, error } => write!(f, "proxy {proxy}: {error}"),
        }
    }
}

impl std::error::Error for RegistryError {}

/// The built-in, configured and grouped outbounds. Immutable; a reload makes a new one.
#[derive(Default)]
pub struct Registry {
    order: Vec<Arc<dyn Outbound>>,
    by_name: HashMap<Arc<str>, Member>,
    groups: Vec<Arc<Group>>,
    providers: Vec<Provider>,
    /// Names of outbounds that providers brought.
    provided: HashSet<Arc<str>>,
    servers: Vec<Box<str>>,
    wake: Arc<Notify>,
}

/// A provider's nodes as outbounds.
pub struct Provider {
    /// They as a group of their own, by which the provider tests them; nothing is dialled through it.
    pub group: Arc<Group>,
    /// They one by one.
    pub members: Vec<Member>,
}

impl Provider {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        let group: &dyn Outbound = &*self.group;
        group.name()
    }
}

impl Registry {
    /// Builds everything: built-ins, `proxies`, the nodes of `providers`, `groups`, and `GLOBAL` unless
    /// a group has that name. A provider's node that cannot be built is left out and logged; one whose
    /// name is taken is its provider's and its groups' alone. `selected` holds earlier choices, group to member; outbounds keep the health of those of
    /// the same name in `before`. Opens nothing.
    ///
    /// # Errors
    /// [`RegistryError`], the first that is found.
    pub fn build(
        proxies: &[ProxyOptions],
        providers: &[ProviderNodes],
        groups: &[GroupOptions],
        environment: &Environment,
        selected: &HashMap<Box<str>, Box<str>>,
        before: Option<&Self>,
    ) -> Result<Self, RegistryError> {
        let mut registry = Self::default();
        let earlier = |name: &str| Some(Arc::clone(before?.health(name)?));
        let plain = || Dialer::new(&super::options::DialOptions::default(), environment);
        for &(name, kind) in BUILT_IN {
            let outbound: Arc<dyn Outbound> = match kind {
                Kind::Direct | Kind::Compatible => {
                    Arc::new(Direct::new(name.into(), kind, Traits::default(), plain()))
                }
                _ => Arc::new(Reject::new(name.into(), kind)),
            };
            registry.insert_with(outbound, earlier(name));
        }
        let mut late = Vec::new();
        for proxy in proxies {
            let outbound = build_proxy(proxy, environment, &mut late)?;
            if !registry.insert_with(outbound, earlier(&proxy.name)) {
                return Err(RegistryError::DuplicateName(proxy.name.clone()));
            }
            registry
                .servers
                .extend(proxy.protocol.server().map(|server| server.host.clone()));
        }
        let of_file = late.len();
        for provider in providers {
            registry.insert_provider(provider, environment, &mut late, before);
        }
        registry.insert_groups(groups, selected, &earlier)?;
        registry.insert_global(proxies, groups, selected);
        for (index, (proxy, dialer, slot)) in late.into_iter().enumerate() {
            let Some(target) = registry.get(&dialer) else {
                if index >= of_file {
                    // It cannot be dialled then, and says so.
                    log::warn!("proxy {proxy} of a provider: no dialer-proxy is named {dialer}");
                    continue;
                }
                return Err(RegistryError::UnknownDialer { proxy, dialer });
            };
            let _first = slot.set(Arc::downgrade(target));
        }
        registry.refuse_dialer_loops(proxies)?;
        Ok(registry)
    }

    /// The outbound of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Outbound>> {
        self.by_name.get(name).map(|member| &member.outbound)
    }

    /// What tests have found of the outbound of that name.
    #[must_use]
    pub fn health(&self, name: &str) -> Option<&Arc<Health>> {
        self.by_name.get(name).map(|member| &member.health)
    }

    /// The outbound of that name with its health.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.by_name.get(name)
    }

    /// As [`Registry::iter`], with what tests have found.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let order = self.order.iter();
        order.filter_map(|outbound| self.member(outbound.name()))
    }

    /// The groups, in file order.
    #[must_use]
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The providers, in file order.
    #[must_use]
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// The provider of that name.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|known| known.name() == name)
    }

    /// Whether what has that name was brought by a provider.
    #[must_use]
    pub fn is_provided(&self, name: &str) -> bool {
        self.provided.contains(name)
    }

    /// The configured group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.iter().find(|group| {
            let group: &dyn Outbound = &***group;
            **group.name() == *name
        })
    }

    /// What is tested by the clock: the groups, and the providers as groups.
    pub fn tested(&self) -> impl Iterator<Item = &Arc<Group>> {
        let providers = self.providers.iter().map(|provider| &provider.group);
        self.groups.iter().chain(providers)
    }

    /// Notified when a group's test comes nearer.
    #[must_use]
    pub fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    /// Every outbound: built-ins, proxies in file order, groups in file order, `GLOBAL` last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Outbound>> {
        self.order.iter()
    }

    /// The hosts of all proxies' servers, as written: names and address literals.
    pub fn proxy_servers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|host| &**host)
    }

    /// Adds one; a name that is taken keeps its first owner and answers `false`.
    pub fn insert(&mut self, outbound: Arc<dyn Outbound>) -> bool {
        self.insert_with(outbound, None)
    }

    fn insert_with(&mut self, outbound: Arc<dyn Outbound>, health: Option<Arc<Health>>) -> bool {
        let name = Arc::clone(outbound.name());
        if self.by_name.contains_key(&name) {
            return false;
        }
        self.order.push(Arc::clone(&outbound));
        let health = health.unwrap_or_default();
        self.by_name.insert(name, Member { outbound, health });
        true
    }

    /// The nodes of a provider, and the provider itself.
    fn insert_provider(
        &mut self,
        provider: &ProviderNodes,
        environment: &Environment,
        late: &mut Vec<LateDialer>,
        before: Option<&Self>,
    ) {
        let earlier = before.and_then(|before| before.provider(&provider.name));
        let earlier: HashMap<&str, &Arc<Health>> = earlier
            .iter()
            .flat_map(|earlier| &earlier.members)
            .map(|member| (&**member.outbound.name(), &member.health))
            .collect();
        let mut members = Vec::with_capacity(provider.nodes.len());
        for node in provider.nodes.iter() {
            let outbound = match build_proxy(node, environment, late) {
                Ok(outbound) => outbound,
                Err(error) => {
                    log::warn!("provider {}: {error}", provider.name);
                    continue;
                }
            };
            let health = earlier.get(&*node.name).copied().cloned();
            let health = health.unwrap_or_default();
            if self.insert_with(Arc::clone(&outbound), Some(Arc::clone(&health))) {
                self.provided.insert(Arc::clone(outbound.name()));
            }
            let server = node.protocol.server();
            self.servers
                .extend(server.map(|server| server.host.clone()));
            members.push(Member { outbound, health });
        }
        let options = GroupOptions {
            test: provider.test.clone(),
            ..GroupOptions::new(&provider.name, GroupKind::Select)
        };
        let wake = Arc::clone(&self.wake);
        let group = Arc::new(Group::new(&options, members.clone(), None, wake));
        self.providers.push(Provider { group, members });
    }

    /// Groups in file order, each after its members were made, wherever those stand.
    fn insert_groups(
        &mut self,
        groups: &[GroupOptions],
        selected: &HashMap<Box<str>, Box<str>>,
        earlier: &dyn Fn(&str) -> Option<Arc<Health>>,
    ) -> Result<(), RegistryError> {
        let mut builder = GroupBuilder {
            by_name: HashMap::new(),
            built: HashMap::new(),
            nodes: &self.by_name,
            providers: &self.providers,
            selected,
            earlier,
            wake: &self.wake,
        };
        for group in groups {
            let name = &*group.name;
            let taken = self.by_name.contains_key(name);
            if taken || builder.by_name.insert(name, group).is_some() {
                return Err(RegistryError::DuplicateName(name.into()));
            }
        }
        for group in groups {
            builder.build(group, 0)?;
        }
        let built = groups
            .iter()
            .filter_map(|group| builder.built.remove(&*group.name));
        for (group, health) in built.collect::<Vec<_>>() {
            self.insert_with(Arc::clone(&group) as Arc<dyn Outbound>, Some(health));
            self.groups.push(group);
        }
        Ok(())
    }

    /// `GLOBAL` over DIRECT, REJECT, all proxies and all groups, for configurations without one.
    fn insert_global(
        &mut self,
        proxies: &[ProxyOptions],
        groups: &[GroupOptions],
        selected: &HashMap<Box<str>, Box<str>>,
    ) {
        let configured = proxies.iter().map(|proxy| &*proxy.name);
        let grouped = groups.iter().map(|group| &*group.name);
        let names = ["DIRECT", "REJECT"]
            .into_iter()
            .chain(configured)
            .chain(grouped);
        let members = names
            .filter_map(|name| self.member(name).cloned())
            .collect();
        let options = GroupOptions::new(GLOBAL, GroupKind::Select);
        let choice = selected.get(GLOBAL).map(|choice| &**choice);
        let global = Group::new(&options, members, choice, Arc::clone(&self.wake));
        // Refused, as it should be, when the user's own stands there.
        self.insert(Arc::new(global));
    }

    /// Refuses proxies that reach their server through themselves whatever is chosen; loops
    /// that go through a group are refused when dialled, since the choice may avoid them.
    fn refuse_dialer_loops(&self, proxies: &[ProxyOptions]) -> Result<(), RegistryError> {
        for proxy in proxies {
            let mut hop = self.get(&proxy.name).and_then(|node| node.dialer());
            for _ in 0..proxies.len() {
                let Some(next) = hop else { break };
                if **next.name() == *proxy.name {
                    return Err(RegistryError::DialerLoop(proxy.name.clone()));
                }
                hop = next.dialer();
            }
        }
        Ok(())
    }
}

/// Follows the present choices from `start` to the outbound that carries the flow, with the chain
/// that the APIs show: from that node back to `start`.
#[must_use]
pub fn resolve_leaf(
    start: &Arc<dyn Outbound>,
    metadata: &Metadata,
) -> (Arc<dyn Outbound>, Vec<Arc<str>>) {
    let mut leaf = Arc::clone(start);
    let mut chain = vec![Arc::clone(leaf.name())];
    // Groups hold no loops and are not deeper than half of this.
    while let Some(next) = leaf.selected(Some(metadata)) {
        chain.push(Arc::clone(next.name()));
        leaf = next;
        if chain.len() > 2 * DEPTH_MAX {
            break;
        }
    }
    chain.extend(leaf.hops(metadata));
    chain.reverse();
    (leaf, chain)
}

/// Makes groups depth first.
struct GroupBuilder<'a> {
    by_name: HashMap<&'a str, &'a GroupOptions>,
    built: HashMap<&'a str, (Arc<Group>, Arc<Health>)>,
    nodes: &'a HashMap<Arc<str>, Member>,
    providers: &'a [Provider],
    selected: &'a HashMap<Box<str>, Box<str>>,
    earlier: &'a dyn Fn(&str) -> Option<Arc<Health>>,
    wake: &'a Arc<Notify>,
}

impl<'a> GroupBuilder<'a> {
    fn build(&mut self, group: &'a GroupOptions, depth: usize) -> Result<Member, RegistryError> {
        if let Some((built, health)) = self.built.get(&*group.name) {
            return Ok(Member {
                outbound: Arc::clone(built) as Arc<dyn Outbound>,
                health: Arc::clone(health),
            });
        }
        // Deeper than this is a loop, or nothing that a person meant.
        if depth >= DEPTH_MAX {
            return Err(RegistryError::GroupLoop(group.name.clone()));
        }
        let mut members = Vec::with_capacity(group.proxies.len());
        for member in &group.proxies {
            if let Some(node) = self.nodes.get(&**member) {
                members.push(node.clone());
            } else if let Some(&inner) = self.by_name.get(&**member) {
                members.push(self.build(inner, depth + 1)?);
            } else {
                return Err(RegistryError::UnknownMember {
                    group: group.name.clone(),
                    member: member.clone(),
                });
            }
        }
        let mut sources = Vec::new();
        if let Some(wanted) = &group.wanted {
            let used: Vec<&Provider> = wanted
                .providers
                .iter()
                .filter_map(|name| self.providers.iter().find(|p| *p.name() == **name))
                .collect();
            let all: Vec<&Member> = used.iter().flat_map(|used| &used.members).collect();
            let shown: Vec<(&str, &str)> = all
                .iter()
                .map(|member| (&**member.outbound.name(), member.outbound.kind().as_str()))
                .collect();
            let chosen = wanted.choose(&shown);
            members.extend(
                chosen
                    .iter()
                    .filter_map(|&index| all.get(index).copied().cloned()),
            );
            sources.extend(used.iter().map(|used| Arc::clone(&used.group)));
        }
        if members.is_empty() {
            members.extend(self.nodes.get("COMPATIBLE").cloned());
        }
        let choice = self.selected.get(&group.name).map(|choice| &**choice);
        let built = Group::new(group, members, choice, Arc::clone(self.wake)).fed_by(sources);
        let built = Arc::new(built);
        let health = (self.earlier)(&group.name).unwrap_or_default();
        let entry = (Arc::clone(&built), Arc::clone(&health));
        self.built.insert(&group.name, entry);
        Ok(Member {
            outbound: built,
            health,
        })
    }
}

/// Proxy, its `dialer-proxy`, and the place for what has that name.
type LateDialer = (Box<str>, Box<str>, LateOutbound);

fn build_proxy(
    options: &ProxyOptions,
    environment: &Environment,
    late: &mut Vec<LateDialer>,
) -> Result<Arc<dyn Outbound>, RegistryError> {
    let name: Arc<str> = Arc::from(&*options.name);
    let mut dialer = Dialer::new(&options.dial, environment);
    if let Some(target) = &options.dial.dialer_proxy {
        let slot = LateOutbound::new(OnceLock::new());
        late.push((options.name.clone(), target.clone(), Arc::clone(&slot)));
        dialer = dialer.through(&name, slot);
    }
    let node = Node {
        name,
        udp: options.udp,
        traits: Traits {
            fast_open: options.dial.fast_open,
            interface: options.dial.interface.clone(),
            mark: options.dial.mark,
            dialer: options.dial.dialer_proxy.clone(),
        },
        dialer,
    };
    let wrong = |error| RegistryError::Protocol {
        proxy: options.name.clone(),
        error,
    };
    let outbound: Arc<dyn Outbound> = match &options.protocol {
        Protocol::Direct => Arc::new(Direct::new(
            node.name,
            Kind::Direct,
            node.traits,
            node.dialer,
        )),
        Protocol::Reject => Arc::new(Reject::new(node.name, Kind::Reject)),
        Protocol::Http(options) => {
            Arc::new(Http::new(node, options).map_err(|e| wrong(ProtocolError::Http(e)))?)
        }
        Protocol::Socks5(options) => {
            Arc::new(Socks5::new(node, options).map_err(|e| wrong(ProtocolError::Socks5(e)))?)
        }
        Protocol::Shadowsocks(options) => Arc::new(
            Shadowsocks::new(node, options).map_err(|e| wrong(ProtocolError::Shadowsocks(e)))?,
        ),
        Protocol::Trojan(options) => Arc::new(
            trojan::outbound(node, options).map_err(|e| wrong(ProtocolError::Transport(e)))?,
        ),
        Protocol::Vmess(options) => {
            Arc::new(vmess::outbound(node, options).map_err(|e| wrong(ProtocolError::Vmess(e)))?)
        }
        Protocol::Vless(options) => {
            Arc::new(vless::outbound(node, options).map_err(|e| wrong(ProtocolError::Vmess(e)))?)
        }
    };
    Ok(match options.mux {
        Some(mux) => Arc::new(Multiplexed::new(outbound, mux)),
        None => outbound,
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::metadata::{Endpoint, InboundType, Network};
    use crate::outbound::options::{DialOptions, ServerAddress, Socks5Options};
    use crate::outbound::{BoxFuture, IpVersion, Purpose, Resolve};

    struct NoNames;

    impl Resolve for NoNames {
        fn resolve<'a>(
            &'a self,
            _name: &'a str,
            _version: IpVersion,
            _purpose: Purpose,
        ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(std::future::ready(Err(io::ErrorKind::NotFound.into())))
        }
    }

    fn proxy(name: &str, dialer: Option<&str>) -> ProxyOptions {
        ProxyOptions {
            mux: None,
            name: name.into(),
            protocol: Protocol::Socks5(Socks5Options {
                server: ServerAddress {
                    host: format!("{name}.example").into(),
                    port: 1080,
                },
                credentials: None,
                tls: None,
            }),
            udp: false,
            dial: DialOptions {
                dialer_proxy: dialer.map(Into::into),
                ..DialOptions::default()
            },
        }
    }

    fn group(name: &str, members: &[&str]) -> GroupOptions {
        GroupOptions {
            proxies: members.iter().map(|&member| member.into()).collect(),
            ..GroupOptions::new(name, GroupKind::Select)
        }
    }

    fn build(
        proxies: &[ProxyOptions],
        groups: &[GroupOptions],
        selected: &[(&str, &str)],
    ) -> Result<Registry, RegistryError> {
        let environment = Environment {
            resolver: Arc::new(NoNames),
            own_mark: 1,
            routing_mark: 0,
            interface: None,
            ipv6: true,
            reach: Arc::default(),
        };
        let selected = selected
            .iter()
            .map(|&(g, m)| (g.into(), m.into()))
            .collect();
        Registry::build(proxies, &[], groups, &environment, &selected, None)
    }

    #[track_caller]
    fn refused(proxies: &[ProxyOptions], groups: &[GroupOptions], want: &str) {
        let error = build(proxies, groups, &[]).err().unwrap();
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn the_order_is_built_ins_proxies_groups_and_global() {
        let registry = build(
            &[proxy("p", None)],
            &[group("g", &["h", "p"]), group("h", &["DIRECT"])],
            &[],
        );
        let registry = registry.unwrap();
        let names: Vec<_> = registry.iter().map(|o| &**o.name()).collect();
        let built_in = BUILT_IN.iter().map(|(name, _)| *name);
        let want: Vec<_> = built_in.chain(["p", "g", "h", "GLOBAL"]).collect();
        assert_eq!(names, want);
        let global = registry.get(GLOBAL).unwrap().members();
        let global: Vec<_> = global.iter().map(|name| &**name).collect();
        assert_eq!(global, ["DIRECT", "REJECT", "p", "g", "h"]);
        assert_eq!(registry.proxy_servers().collect::<Vec<_>>(), ["p.example"]);
    }

    #[test]
    fn a_global_of_the_user_is_kept() {
        let registry = build(&[], &[group("GLOBAL", &["REJECT"])], &[]).unwrap();
        let members = registry.get(GLOBAL).unwrap().members();
        assert_eq!(members, [Arc::from("REJECT")]);
    }

    #[test]
    fn the_chain_goes_from_the_node_to_the_group() {
        let groups = [group("g", &["p", "h"]), group("h", &[])];
        let registry = build(&[proxy("p", None)], &groups, &[("g", "h")]).unwrap();
        let client = SocketAddr::from(([127, 0, 0, 1], 1));
        let to = Endpoint::parse("1.2.3.4:80").unwrap();
        let metadata = Metadata::new(
            Network::Tcp,
            InboundType::Inner,
            &Arc::from("x"),
            client,
            to,
        );
        let (leaf, chain) = resolve_leaf(registry.get("g").unwrap(), &metadata);
        assert_eq!(leaf.kind(), Kind::Compatible);
        let chain: Vec<_> = chain.iter().map(|name| &**name).collect();
        assert_eq!(chain, ["COMPATIBLE", "h", "g"]);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let p = || proxy("p", None);
        refused(&[p(), p()], &[], "the name p is taken");
        refused(&[proxy("DIRECT", None)], &[], "the name DIRECT is taken");
        refused(&[p()], &[group("p", &[])], "the name p is taken");
        refused(
            &[],
            &[group("g", &[]), group("g", &[])],
            "the name g is taken",
        );
        refused(
            &[],
            &[group("g", &["x"])],
            "group g: no proxy or group is named x",
        );
        let around = [group("g", &["h"]), group("h", &["DIRECT", "g"])];
        refused(&[], &around, "group g contains itself");
        refused(
            &[proxy("p", Some("x"))],
            &[],
            "proxy p: dialer-proxy x is no proxy or group",
        );
        refused(
            &[proxy("p", Some("q")), proxy("q", Some("p"))],
            &[],
            "proxy p: dialer-proxy leads back to it",
        );
    }

    #[test]
    fn a_replaced_configuration_is_freed_though_outbounds_know_each_other() {
        let groups = [group("g", &["p", "q"])];
        let proxies = [proxy("p", Some("g")), proxy("q", None)];
        let registry = build(&proxies, &groups, &[("g", "q")]).unwrap();
        let p = Arc::clone(registry.get("p").unwrap());
        assert_eq!(&**p.dialer().unwrap().name(), "g");
        let weak = Arc::downgrade(&p);
        drop((registry, p));
        assert!(weak.upgrade().is_none());
    }
}
