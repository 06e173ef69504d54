//! Routes, policy rules and addresses over rtnetlink, and word of every change to them.
//!
//! What is added here carries a routing protocol number of our own, so that it is known
//! again by a later instance whatever its configuration says.

pub(in crate::platform) mod connection;
mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;

use futures_util::{FutureExt, Stream, StreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use tokio::task::JoinHandle;

use self::connection::{Requests, Subject, Verb};
use self::message::{
    PROTOCOL, added, destination, family, interfaces, no_family, own_route, removed, route_message,
    rule_message, same_rule,
};
use crate::prefix::Prefix;

/// Why rtnetlink did not do what was asked.
#[derive(Debug)]
pub enum RouteError {
    /// The kernel refused.
    Refused(Errno),
    /// The socket or the library failed.
    Netlink(Box<str>),
}

impl std::fmt::Display for RouteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "rtnetlink: {}", errno.desc()),
            Self::Netlink(text) => write!(f, "rtnetlink: {text}"),
        }
    }
}

impl std::error::Error for RouteError {}

impl From<io::Error> for RouteError {
    fn from(error: io::Error) -> Self {
        Self::Netlink(error.to_string().into())
    }
}

/// A policy rule `fwmark MARK/MASK lookup TABLE priority PRIORITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// IPv4 or IPv6.
    pub v4: bool,
    /// The packet's mark.
    pub mark: u32,
    /// Under this mask.
    pub mask: u32,
    /// Where it is routed.
    pub table: u32,
    /// Smaller is earlier.
    pub priority: u32,
}

/// A route of ours, as [`Routes::ours`] finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnRoute {
    /// Its table.
    pub table: u32,
    /// What it says.
    pub kind: OwnKind,
}

/// The two kinds of route that we add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnKind {
    /// `local default dev lo`: what comes here is for the router itself.
    LocalDefault {
        /// IPv4 or IPv6.
        v4: bool,
    },
    /// `throw ADDRESS metric METRIC`: changes nothing, remembers two numbers.
    Note {
        /// The IPv4 host.
        address: Ipv4Addr,
        /// The metric.
        metric: u32,
    },
}

/// Addresses and default routes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Addresses of the router, loopback's and link-local ones excepted, sorted.
    pub addresses: Vec<IpAddr>,
    /// Networks of those addresses, where the interface is no uplink; sorted.
    pub connected: Vec<Prefix>,
    /// Index of each interface with a default route, sorted.
    pub uplinks: Vec<u32>,
}

/// The connection to rtnetlink.
#[derive(Debug)]
pub struct Routes {
    requests: Requests,
    task: JoinHandle<()>,
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Word of changes to links, addresses, routes and rules. Waits in memory until it is asked
/// for, so somebody must ask while this lives.
pub struct Changes(Pin<Box<dyn Stream<Item = Option<Subject>> + Send>>);

impl Changes {
    /// Waits for the next change. What it was is not told: messages get lost when many come
    /// at once (and this is told as a change too), so whoever listens looks for itself.
    /// False when the connection is gone.
    pub async fn changed(&mut self) -> bool {
        self.0.next().await.is_some()
    }

    /// Forgets the changes that wait.
    pub fn drain(&mut self) {
        while let Some(Some(_)) = self.0.next().now_or_never() {}
    }
}

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

impl Routes {
    /// Connects, and listens for changes from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says of the socket.
    pub fn open() -> Result<(Self, Changes), RouteError> {
        let (driver, requests, changes) = connection::open(&GROUPS)?;
        let task = tokio::spawn(driver.boxed());
        Ok((Self { requests, task }, Changes(Box::pin(changes))))
    }

    /// Adds a rule; false if it is there already.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_rule(&self, rule: MarkRule) -> Result<bool, RouteError> {
        let rule = Subject::Rule(rule_message(rule));
        added(self.requests.ask(Verb::Add, rule).await)
    }

    /// Removes every rule that we or an earlier instance added, except those in `keep`, and
    /// every rule in `also` whoever added it.
    ///
    /// # Errors
    /// What the kernel says; rules removed by somebody else meanwhile are none.
    pub async fn remove_rules(
        &self,
        keep: &[MarkRule],
        also: &[MarkRule],
    ) -> Result<(), RouteError> {
        for v4 in [true, false] {
            let mut filter = RuleMessage::default();
            filter.header.family = family(v4);
            for found in self.dump(Subject::Rule(filter)).await? {
                let Subject::Rule(message) = found else {
                    continue;
                };
                let is = |rule: &MarkRule| same_rule(&message, *rule);
                let protocol = RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL));
                let ours = message.attributes.contains(&protocol) && !keep.iter().any(is);
                if ours || also.iter().any(is) {
                    removed(
                        self.requests
                            .ask(Verb::Delete, Subject::Rule(message))
                            .await,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Adds a route of ours; false if it is there already.
    ///
    /// # Errors
    /// What the kernel says: `ENETDOWN` while the loopback device is down.
    pub async fn add(&self, route: OwnRoute) -> Result<bool, RouteError> {
        let route = Subject::Route(route_message(route));
        added(self.requests.ask(Verb::Add, route).await)
    }

    /// Removes a route of ours, if it is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove(&self, route: OwnRoute) -> Result<(), RouteError> {
        let route = Subject::Route(route_message(route));
        removed(self.requests.ask(Verb::Delete, route).await)
    }

    /// Every route that we or an earlier instance added, in whatever table.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn ours(&self) -> Result<Vec<OwnRoute>, RouteError> {
        let mut ours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.protocol = RouteProtocol::Other(PROTOCOL);
            ours.extend(self.routes(filter).await?.iter().filter_map(own_route));
        }
        Ok(ours)
    }

    async fn routes(&self, filter: RouteMessage) -> Result<Vec<RouteMessage>, RouteError> {
        let found = self.dump(Subject::Route(filter)).await?;
        let routes = found.into_iter().filter_map(|found| match found {
            Subject::Route(route) => Some(route),
            _ => None,
        });
        Ok(routes.collect())
    }

    /// What the kernel lists; nothing of a family that it does not have.
    async fn dump(&self, filter: Subject) -> Result<Vec<Subject>, RouteError> {
        match self.requests.ask(Verb::Dump, filter).await {
            Err(error) if no_family(&error) => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// A route that shares addresses with `prefix`, ours and very wide ones excepted: a
    /// default route, or the halves that a VPN splits it into, hold every address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn overlapping(&self, prefix: Prefix) -> Result<Option<Prefix>, RouteError> {
        let v4 = prefix.address().is_ipv4();
        let widest = if v4 { 8 } else { 16 };
        let mut filter = RouteMessage::default();
        filter.header.address_family = family(v4);
        let routes = self.routes(filter).await?;
        let others = routes
            .iter()
            .filter(|r| r.header.protocol != RouteProtocol::Other(PROTOCOL));
        Ok(others
            .filter_map(destination)
            .find(|route| route.length() >= widest && route.overlaps(&prefix)))
    }

    /// Addresses and default routes as they are now; `uplinks` are interfaces that count as
    /// uplinks even while they have no default route.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn network(&self, uplinks: &[u32]) -> Result<Network, RouteError> {
        let mut network = Network::default();
        for v4 in [true, false] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family(v4);
            filter.header.kind = RouteType::Unicast;
            for route in self.routes(filter).await? {
                let ours = route.header.protocol == RouteProtocol::Other(PROTOCOL);
                if !ours && route.header.destination_prefix_length == 0 {
                    network.uplinks.extend(interfaces(&route));
                }
            }
        }
        let every = Subject::Address(AddressMessage::default());
        for found in self.requests.ask(Verb::Dump, every).await? {
            let Subject::Address(message) = found else {
                continue;
            };
            let near = matches!(
                message.header.scope,
                AddressScope::Link | AddressScope::Host
            );
            let address = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Local(address) => Some(*address),
                    _ => None,
                });
            let other = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                });
            let Some(address) = address.or(other).filter(|_| !near) else {
                continue;
            };
            network.addresses.push(address);
            let index = &message.header.index;
            if !network.uplinks.contains(index) && !uplinks.contains(index) {
                let prefix = Prefix::new(other.unwrap_or(address), message.header.prefix_len);
                network
                    .connected
                    .push(Prefix::new(prefix.network(), prefix.length()));
            }
        }
        network.addresses.sort_unstable();
        network.addresses.dedup();
        network.connected.sort_unstable();
        network.connected.dedup();
        network.uplinks.sort_unstable();
        network.uplinks.dedup();
        Ok(network)
    }
}
