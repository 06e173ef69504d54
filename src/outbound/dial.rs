//! How our own connections leave the router: names, families, marks, time-outs, `dialer-proxy`.
//!
//! Every socket of an outbound is opened here, so every one carries the daemon's mark and none
//! is captured by its own rules. Server names are resolved for [`Purpose::ProxyServer`], whose
//! upstreams never lead back through a proxy. Several addresses race as RFC 8305 says.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use super::carrier::{Carrier, PacketCarrier};
use super::options::{DialOptions, ServerAddress};
use super::reach::Reach;
use super::{IpVersion, Outbound, Purpose, Resolve, Traits};
use crate::metadata::{Endpoint, Host, InboundType, Metadata, Network};
use crate::platform::socket::{self, Egress};

/// A dial ends after this, names included (as mihomo's).
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The next address starts when the one before has not answered for so long (RFC 8305 section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// How many addresses of a name are tried at most; the rest are ignored.
const ADDRESSES_MAX: usize = 8;

/// How many proxies may stand one behind the other by `dialer-proxy`, and groups within groups.
pub const DEPTH_MAX: usize = 16;

/// Why a dial failed before the kernel had a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// No answer within [`DIAL_TIMEOUT`].
    TimedOut,
    /// The name has no address of the wanted family.
    NoAddress,
    /// The destination has neither name nor address.
    NoDestination,
    /// `dialer-proxy` leads to a REJECT.
    DialerRejects,
    /// `dialer-proxy` leads back to this proxy by the present choices.
    DialerLoop,
    /// `dialer-proxy` belongs to a configuration that was replaced.
    DialerGone,
    /// The router itself or a network behind it that this device may not reach ([`Reach`]).
    Unreachable,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "dial timed out",
            Self::NoAddress => "no address of the wanted family",
            Self::NoDestination => "no destination",
            Self::DialerRejects => "dialer-proxy rejects",
            Self::DialerLoop => "dialer-proxy loop",
            Self::DialerGone => "dialer-proxy is gone",
            Self::Unreachable => "this device may not reach that address of the router's networks",
        })
    }
}

impl std::error::Error for DialError {}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match error {
            DialError::TimedOut => io::ErrorKind::TimedOut,
            DialError::NoAddress => io::ErrorKind::NotFound,
            DialError::NoDestination => io::ErrorKind::InvalidInput,
            DialError::Unreachable => io::ErrorKind::PermissionDenied,
            DialError::DialerRejects => io::ErrorKind::ConnectionRefused,
            DialError::DialerLoop | DialError::DialerGone => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

/// What all outbounds share of the world.
#[derive(Clone)]
pub struct Environment {
    /// Names to addresses.
    pub resolver: Arc<dyn Resolve>,
    /// The daemon's own mark, on every socket; 0 where nothing captures.
    pub own_mark: u32,
    /// Global `routing-mark`; its bits are added to the daemon's own.
    pub routing_mark: u32,
    /// Global `interface-name`.
    pub interface: Option<Box<str>>,
    /// Global `ipv6`: off resolves no IPv6 addresses.
    pub ipv6: bool,
    /// Where devices may be taken directly.
    pub reach: Arc<Reach>,
}

/// An outbound known by name now and found when all are built. Weak: outbounds that know each
/// other must not keep a replaced configuration alive.
pub type LateOutbound = Arc<OnceLock<Weak<dyn Outbound>>>;

/// `dialer-proxy` of one proxy.
struct Via {
    owner: Arc<str>,
    target: LateOutbound,
}

/// What a node in a relay is dialled through; its own task's, for as long as it dials.
struct Row {
    before: Option<Arc<dyn Outbound>>,
    depth: usize,
}

tokio::task_local! {
    static ROW: Row;
}

/// Has what `dialling` connects to a server carried by `before`, whatever its `dialer-proxy` says; with `None`
/// by that or a socket. The node knows nothing of the row that it stands in, and may stand in several.
///
/// # Errors
/// [`DialError::DialerLoop`]: relays lead to each other by `dialer-proxy`.
pub fn carried<F: Future>(
    before: Option<Arc<dyn Outbound>>,
    dialling: F,
) -> io::Result<impl Future<Output = F::Output>> {
    let depth = ROW.try_with(|row| row.depth + 1).unwrap_or(0);
    if depth > 2 * DEPTH_MAX {
        return Err(DialError::DialerLoop.into());
    }
    Ok(ROW.scope(Row { before, depth }, dialling))
}

/// What the node that is being dialled is carried by, as a part of a relay.
#[must_use]
pub fn present_row() -> Option<Arc<dyn Outbound>> {
    ROW.try_with(|row| row.before.clone()).ok().flatten()
}

/// Opens connections for one outbound.
pub struct Dialer {
    egress: Egress,
    version: IpVersion,
    resolver: Arc<dyn Resolve>,
    reach: Arc<Reach>,
    via: Option<Via>,
}

impl Dialer {
    /// A dialer with `options`, which win over what `environment` says.
    #[must_use]
    pub fn new(options: &DialOptions, environment: &Environment) -> Self {
        let user_mark = match options.mark {
            0 => environment.routing_mark,
            mark => mark,
        };
        let version = match options.ip_version {
            IpVersion::V6Only => IpVersion::V6Only,
            _ if !environment.ipv6 => IpVersion::V4Only,
            version => version,
        };
        Self {
            egress: Egress {
                interface: options
                    .interface
                    .clone()
                    .or_else(|| environment.interface.clone()),
                mark: environment.own_mark | user_mark,
                fast_open: options.fast_open,
            },
            version,
            resolver: Arc::clone(&environment.resolver),
            reach: Arc::clone(&environment.reach),
            via: None,
        }
    }

    /// Sends everything of the proxy `owner` through `target`.
    #[must_use]
    pub fn through(mut self, owner: &Arc<str>, target: LateOutbound) -> Self {
        self.via = Some(Via {
            owner: Arc::clone(owner),
            target,
        });
        self
    }

    /// The outbound that carries the connections, if not a socket does.
    #[must_use]
    pub fn carrier(&self) -> Option<Arc<dyn Outbound>> {
        self.via.as_ref()?.target.get()?.upgrade()
    }

    /// What carries this dial: the relay that it is a part of, or `dialer-proxy`. None: a socket.
    fn present_carrier(&self) -> io::Result<Option<Arc<dyn Outbound>>> {
        match (present_row(), &self.via) {
            (Some(before), _) => Ok(Some(before)),
            (None, Some(via)) => via.outbound().map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Connects to a proxy's server.
    ///
    /// # Errors
    /// [`DialError`] or what the kernel or the resolver says.
    pub async fn connect(&self, server: &ServerAddress) -> io::Result<Carrier> {
        if let Some(carrier) = self.present_carrier()? {
            let metadata = inner_metadata(Network::Tcp, server)?;
            let stream = carrier.connect(&metadata).await?;
            return Carrier::of(stream).ok_or_else(|| DialError::DialerRejects.into());
        }
        let dialing = async {
            let addresses = self.addresses(&server.host, Purpose::ProxyServer).await?;
            self.race(addresses, server.port).await
        };
        within_deadline(dialing).await.map(Carrier::Tcp)
    }

    /// Opens a way for datagrams to a proxy's server.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn open_datagrams(&self, server: &ServerAddress) -> io::Result<PacketCarrier> {
        if let Some(carrier) = self.present_carrier()? {
            let metadata = inner_metadata(Network::Udp, server)?;
            let datagrams = carrier.associate(&metadata).await?;
            return Ok(PacketCarrier::Via(datagrams, metadata.destination()));
        }
        let resolving = self.addresses(&server.host, Purpose::ProxyServer);
        let addresses = within_deadline(resolving).await?;
        let first = *addresses.first().ok_or(DialError::NoAddress)?;
        let address = SocketAddr::new(first, server.port);
        socket::connect_udp(address, &self.egress).map(PacketCarrier::Socket)
    }

    /// Connects to the destination itself: by its name when one is known, else by its address.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn connect_destination(&self, metadata: &Metadata) -> io::Result<TcpStream> {
        let (source, port) = (metadata.source.ip(), metadata.destination_port);
        match (&metadata.host, metadata.destination_ip) {
            (Some(name), _) => {
                let dialing = async {
                    let mut addresses = self.addresses(name, Purpose::Direct).await?;
                    let any = !addresses.is_empty();
                    addresses.retain(|ip| self.reach.allows(source, *ip));
                    if any && addresses.is_empty() {
                        return Err(DialError::Unreachable.into());
                    }
                    self.race(addresses, port).await
                };
                within_deadline(dialing).await
            }
            (None, Some(ip)) if self.reach.allows(source, ip) => {
                let address = SocketAddr::new(ip, port);
                within_deadline(socket::connect_tcp(address, &self.egress)).await
            }
            (None, Some(_)) => Err(DialError::Unreachable.into()),
            (None, None) => Err(DialError::NoDestination.into()),
        }
    }

    /// A socket for datagrams to any destination of either family.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind_datagrams(&self) -> io::Result<UdpSocket> {
        socket::bind_udp_dual(&self.egress)
    }

    /// Who says where devices may be taken.
    #[must_use]
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }

    /// What resolves a destination's name, and which family it prefers.
    #[must_use]
    pub fn resolver(&self) -> (Arc<dyn Resolve>, IpVersion) {
        (Arc::clone(&self.resolver), self.version)
    }

    /// The addresses of `name` in the order in which they should be tried.
    async fn addresses(&self, name: &str, purpose: Purpose) -> io::Result<Vec<IpAddr>> {
        let name = match Host::parse(name).ok_or(DialError::NoAddress)? {
            Host::Ip(literal) => return Ok(vec![literal]),
            Host::Name(name) => name,
        };
        let found = self.resolver.resolve(&name, self.version, purpose).await?;
        Ok(order(&found, self.version))
    }

    /// Connects to the first of `addresses` that answers (RFC 8305).
    async fn race(&self, addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
        let mut waiting = addresses.into_iter().map(|ip| SocketAddr::new(ip, port));
        let mut attempts = FuturesUnordered::new();
        let mut failure = io::Error::from(DialError::NoAddress);
        loop {
            match waiting.next() {
                Some(address) if waiting.len() == 0 && attempts.is_empty() => {
                    return socket::connect_tcp(address, &self.egress).await;
                }
                Some(address) => attempts.push(socket::connect_tcp(address, &self.egress)),
                None if attempts.is_empty() => return Err(failure),
                None => {}
            }
            let more = waiting.len() > 0;
            tokio::select! {
                Some(result) = attempts.next() => match result {
                    Ok(stream) => return Ok(stream),
                    Err(error) => failure = error,
                },
                () = sleep(STAGGER), if more => {}
            }
        }
    }
}

/// What every proxy with a server has besides its protocol.
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// `udp`.
    pub udp: bool,
    /// What the APIs show.
    pub traits: Traits,
    /// How its connections leave.
    pub dialer: Dialer,
}

impl Via {
    /// The outbound to go through, after a look whether the way comes back here.
    fn outbound(&self) -> io::Result<Arc<dyn Outbound>> {
        let target = self.target.get().and_then(Weak::upgrade);
        let target = target.ok_or(DialError::DialerGone)?;
        let mut hop = Arc::clone(&target);
        for _ in 0..2 * DEPTH_MAX {
            let next = hop.selected(None).or_else(|| {
                // A node: it must not be the one that asks, and may itself go through another.
                (*hop.name() != self.owner).then(|| hop.dialer()).flatten()
            });
            match next {
                Some(next) => hop = next,
                None if *hop.name() == self.owner => break,
                None => return Ok(target),
            }
        }
        Err(DialError::DialerLoop.into())
    }
}

/// What another outbound is told of a connection to a proxy's server.
fn inner_metadata(network: Network, server: &ServerAddress) -> io::Result<Metadata> {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    let destination = Endpoint {
        host: Host::parse(&server.host).ok_or(DialError::NoAddress)?,
        port: server.port,
    };
    Ok(Metadata::new(
        network,
        InboundType::Inner,
        &Arc::from("INNER"),
        unspecified,
        destination,
    ))
}

async fn within_deadline<T>(dialing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(DIAL_TIMEOUT, dialing).await {
        Ok(result) => result,
        Err(_elapsed) => Err(DialError::TimedOut.into()),
    }
}

/// Families in turn, the wanted one first (RFC 8305 section 4); otherwise as they came.
fn order(addresses: &[IpAddr], version: IpVersion) -> Vec<IpAddr> {
    let v4_first = match version {
        IpVersion::Dual => addresses.first().is_some_and(IpAddr::is_ipv4),
        IpVersion::V4Only | IpVersion::PreferV4 => true,
        IpVersion::V6Only | IpVersion::PreferV6 => false,
    };
    let only_first = matches!(version, IpVersion::V4Only | IpVersion::V6Only);
    let mut preferred = addresses.iter().filter(|ip| ip.is_ipv4() == v4_first);
    let mut other = addresses
        .iter()
        .filter(|ip| ip.is_ipv4() != v4_first && !only_first);
    let mut ordered = Vec::with_capacity(addresses.len().min(ADDRESSES_MAX));
    loop {
        let pair = [preferred.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        ordered.extend(pair.into_iter().flatten());
    }
    ordered.truncate(ADDRESSES_MAX);
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(version: IpVersion, given: &[&str], want: &[&str]) {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(order(&parse(given), version), parse(want));
    }

    #[test]
    fn families_take_turns_the_wanted_one_first() {
        let given = ["1.1.1.1", "1.1.1.2", "1.1.1.3", "::1", "::2"];
        let v4_first = ["1.1.1.1", "::1", "1.1.1.2", "::2", "1.1.1.3"];
        check(IpVersion::Dual, &given, &v4_first);
        check(IpVersion::PreferV4, &given, &v4_first);
        let v6_first = ["::1", "1.1.1.1", "::2", "1.1.1.2", "1.1.1.3"];
        check(IpVersion::PreferV6, &given, &v6_first);
        check(IpVersion::Dual, &["::1", "1.1.1.1"], &["::1", "1.1.1.1"]);
        check(IpVersion::PreferV6, &["1.1.1.1"], &["1.1.1.1"]);
    }

    #[test]
    fn the_unwanted_family_is_left_out() {
        check(IpVersion::V4Only, &["::1", "1.1.1.1"], &["1.1.1.1"]);
        check(IpVersion::V6Only, &["1.1.1.1"], &[]);
    }

    #[test]
    fn a_name_with_a_hundred_addresses_is_tried_a_few_times() {
        let many: Vec<IpAddr> = (0..100).map(|i| IpAddr::from([10, 0, 0, i])).collect();
        assert_eq!(order(&many, IpVersion::Dual).len(), ADDRESSES_MAX);
    }
}
