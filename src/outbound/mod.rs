//! Where connections go: each protocol is an [`Outbound`] in a file of its own, listed here.
//!
//! An outbound connects streams and associates datagrams; it knows nothing of rules. Groups
//! are outbounds that name another one ([`Outbound::selected`]); the tunnel follows them down to
//! the node and remembers the way as the chain that the APIs show.

pub mod carrier;
pub mod certificate;
pub mod crypto;
pub mod dial;
pub mod direct;
pub mod framed;
pub mod group;
pub mod health;
pub mod http;
pub mod http_url;
pub mod inward;
pub mod layer;
pub mod link;
pub mod mux;
pub mod name_filter;
pub mod options;
pub mod packets;
pub mod prelude;
pub mod probe;
pub mod provided;
pub mod random;
pub mod reach;
pub mod reality;
pub mod registry;
pub mod reject;
pub mod scratch;
pub mod sessions;
pub mod shadowsocks;
pub mod socks5;
pub mod socks_address;
pub mod status_ranges;
pub mod stream_proxy;
pub mod tls;
pub mod transport;
pub mod trojan;
pub mod v2ray_address;
pub mod vless;
pub mod vmess;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::layer::Shedding;
use crate::metadata::{Endpoint, Metadata};

/// A boxed future: one allocation a connection, none a packet.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream that is not a plain socket (TLS, an encrypting protocol, a pipe in memory).
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// One end of a relayed connection.
pub enum Stream {
    /// A plain socket: the relay may splice it.
    Tcp(TcpStream),
    /// Anything else.
    Boxed(Box<dyn ByteStream>),
    /// May come to be a plain socket.
    Shedding(Box<dyn Shedding>),
    /// Answers end of file to reads and swallows writes (REJECT).
    Closed,
    /// Never answers (REJECT-DROP); the relay holds it for its time and ends it.
    Silent,
}

/// Sends and receives datagrams for one client socket: one mapping, many destinations.
pub trait Datagrams: Send + Sync {
    /// Sends `payload` to `to`, without waiting for an answer.
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>>;

    /// Tries to send at once; `WouldBlock` when [`Datagrams::send_to`] must be awaited instead.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket says.
    fn try_send_to(&self, payload: &[u8], to: &Endpoint) -> io::Result<()>;

    /// Receives one datagram into `buffer`: its length and its sender.
    ///
    /// # Errors
    /// What the socket or the protocol says; malformed datagrams are skipped, not errors.
    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>>;
}

/// The kinds of outbound, with the names that the Clash API gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `DIRECT`.
    Direct,
    /// `REJECT`.
    Reject,
    /// `REJECT-DROP`.
    RejectDrop,
    /// `PASS`.
    Pass,
    /// `COMPATIBLE`.
    Compatible,
    /// Into the program itself, to the Xray API.
    Inward,
    /// An HTTP CONNECT proxy.
    Http,
    /// A SOCKS5 proxy.
    Socks5,
    /// A Shadowsocks server.
    Shadowsocks,
    /// A Trojan server.
    Trojan,
    /// A VMess server.
    Vmess,
    /// A VLESS server.
    Vless,
    /// A group that a person chooses in.
    Selector,
    /// A group that takes the fastest member.
    UrlTest,
    /// A group that takes the first member that is alive.
    Fallback,
    /// A group that spreads flows over its members.
    LoadBalance,
    /// A group whose members stand one behind the other.
    Relay,
}

impl Kind {
    /// The `type` of the Clash API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "Direct",
            Self::Reject => "Reject",
            Self::RejectDrop => "RejectDrop",
            Self::Pass => "Pass",
            Self::Compatible => "Compatible",
            Self::Inward => "Inward",
            Self::Http => "Http",
            Self::Socks5 => "Socks5",
            Self::Shadowsocks => "Shadowsocks",
            Self::Trojan => "Trojan",
            Self::Vmess => "Vmess",
            Self::Vless => "Vless",
            Self::Selector => "Selector",
            Self::UrlTest => "URLTest",
            Self::Fallback => "Fallback",
            Self::LoadBalance => "LoadBalance",
            Self::Relay => "Relay",
        }
    }

    /// Whether it has members.
    #[must_use]
    pub fn is_group(self) -> bool {
        matches!(
            self,
            Self::Selector | Self::UrlTest | Self::Fallback | Self::LoadBalance | Self::Relay
        )
    }

    /// Whether it needs a server of its own, whose failures say something of the outbound.
    #[must_use]
    pub fn has_server(self) -> bool {
        let built_in = matches!(
            self,
            Self::Direct
                | Self::Reject
                | Self::RejectDrop
                | Self::Pass
                | Self::Compatible
                | Self::Inward
        );
        !built_in && !self.is_group()
    }

    /// Whether nothing leaves through it.
    #[must_use]
    pub fn blocks(self) -> bool {
        matches!(self, Self::Reject | Self::RejectDrop)
    }

    /// Whether its traffic leaves the router as any other: the kernel may carry it instead.
    #[must_use]
    pub fn is_direct(self) -> bool {
        matches!(self, Self::Direct | Self::Compatible)
    }
}

/// One way out.
pub trait Outbound: Send + Sync {
    /// Its unique name.
    fn name(&self) -> &Arc<str>;

    /// What it is.
    fn kind(&self) -> Kind;

    /// Whether it carries UDP (a group: whether its choice does).
    fn udp(&self) -> bool;

    /// What the APIs may show of its options; all unset by default.
    fn traits(&self) -> Traits {
        Traits::default()
    }

    /// Opens a stream to `metadata`'s destination.
    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>>;

    /// Opens a datagram association.
    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>>;

    /// For a node with `dialer-proxy`: the outbound that carries its own connections.
    fn dialer(&self) -> Option<Arc<dyn Outbound>> {
        None
    }

    /// For a group: the member that would carry this connection. `None` for a node.
    fn selected(&self, _metadata: Option<&Metadata>) -> Option<Arc<dyn Outbound>> {
        None
    }

    /// For a group: every member that it may lead to as long as nobody chooses or reloads; the
    /// choice alone where a person chooses. Empty for a node.
    fn candidates(&self) -> Vec<Arc<dyn Outbound>> {
        self.selected(None).into_iter().collect()
    }

    /// For a relay: the names of what a flow goes through, from here to the far end.
    fn hops(&self, _metadata: &Metadata) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// For a group: whether no datagram may go through it (`disable-udp`).
    fn refuses_udp(&self) -> bool {
        false
    }

    /// For a group: its members' names in order, empty for a node.
    fn members(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    /// For a group in which a person may choose: takes `member` as the choice; `false` when it is not
    /// a member, or nobody may.
    fn select(&self, _member: &str) -> bool {
        false
    }

    /// For a group that chooses itself: ends a person's choice; `false` where there can be none.
    fn unpin(&self) -> bool {
        false
    }

    /// For a group: a flow was dialled by it over a node of that kind, with success or not.
    fn dialled(&self, _node: Kind, _failure: Option<&io::Error>) {}

    /// For a group: how it tests its members.
    fn testing(&self) -> Option<group::Testing> {
        None
    }

    /// Whether the dashboards should hide it, and its icon's address.
    fn appearance(&self) -> (bool, &str) {
        (false, "")
    }
}

/// Options of a node that the APIs show.
#[derive(Clone, Debug, Default)]
pub struct Traits {
    /// `tfo`.
    pub fast_open: bool,
    /// `interface-name`.
    pub interface: Option<Box<str>>,
    /// `routing-mark`.
    pub mark: u32,
    /// `dialer-proxy`.
    pub dialer: Option<Box<str>>,
}

impl Traits {
    /// Whether its sockets leave otherwise than the kernel would forward a packet.
    #[must_use]
    pub fn leaves_apart(&self) -> bool {
        self.interface.is_some() || self.mark != 0 || self.dialer.is_some()
    }
}

/// Which family of addresses is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpVersion {
    /// Both, in the order that arrives (happy eyeballs).
    #[default]
    Dual,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both, IPv4 first.
    PreferV4,
    /// Both, IPv6 first.
    PreferV6,
}

/// Who asks for a name: each purpose has its own upstreams, so that nothing loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A rule needs the destination's address.
    Rule,
    /// DIRECT dials it.
    Direct,
    /// It is the server of a proxy.
    ProxyServer,
}

/// Names to addresses, never to fake ones. Declared here by its consumer; `dns` implements it.
pub trait Resolve: Send + Sync {
    /// The addresses of `name` (lower case), at least one, IPv4 before IPv6 unless asked otherwise.
    /// Address literals answer themselves.
    ///
    /// # Errors
    /// `NotFound` when the name has none, `TimedOut`, or what the upstream says.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        version: IpVersion,
        purpose: Purpose,
    ) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}
