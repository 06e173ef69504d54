//! All outbounds by name, built from the configuration.

mod error;
mod groups;
mod node;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Notify;

pub use error::{ProtocolError, RegistryError};
use groups::GroupBuilder;
use node::{LateDialer, build_proxy};

use super::dial::{DEPTH_MAX, Dialer, Environment};
use super::direct::Direct;
use super::group::{Group, Member};
use super::health::Health;
use super::options::{GroupKind, GroupOptions, ProxyOptions};
use super::provided::ProviderNodes;
use super::reject::Reject;
use super::{Kind, Outbound, Traits};
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
