//! Servers of the encrypting protocols: Shadowsocks, VMess, VLESS and Trojan as `listeners:`.
//!
//! A [`Server`] accepts, puts TLS and WebSocket on, and has a `ServerProtocol` tell who asks for what.
//! Whoever does not authenticate gets no answer: a fallback serves him, or what he sends is read
//! until the handshake's time is over, whatever was wrong with it. So neither bytes nor time tell how
//! far he came.

mod accept;
mod association;
mod fallback;
mod http2;
mod members;
mod mux;
pub mod options;
mod reality;
pub mod replay;
mod shadowsocks;
mod shadowsocks_packet;
mod trojan;
mod vless;
mod vmess;

use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use self::accept::{Accept, Accepted, Told};
use self::fallback::Seen;
use self::members::Member;
use self::options::{Fallback, ServerOptions, ServerProtocolOptions};
use self::reality::{Reality, Site, Visitor};
use super::Port;
use super::listen::{Handshake, Service};
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::carrier::Carrier;
use crate::outbound::certificate::CertificateError;
use crate::outbound::options::Credentials;
use crate::outbound::packets::PacketStream;
use crate::outbound::{BoxFuture, ByteStream, Stream};
use crate::platform::socket::{Egress, connect_tcp};
use crate::tunnel::flow::Dispatch;

/// How long a stranger may hold his connection when who answers him has said all.
const PARTING_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a server cannot be set up.
#[derive(Debug)]
pub enum ServerError {
    /// The certificate or its key.
    Certificate(CertificateError),
    /// A user's secret.
    Secret,
    /// The system has none.
    Randomness,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => error.fmt(f),
            Self::Secret => f.write_str("a user's secret is not usable"),
            Self::Randomness => f.write_str("no randomness"),
        }
    }
}

impl std::error::Error for ServerError {}

/// What a client that authenticated wants.
enum Asked {
    /// One stream.
    Stream(Endpoint, Stream),
    /// Datagrams; those that name no target go to this one.
    Packets(Endpoint, PacketStream),
    /// Streams and datagrams in frames.
    Mux(Box<dyn ByteStream>),
    /// What his carrier is not fit for.
    Nothing,
}

/// A request that authenticated.
struct Reading {
    member: Arc<Member>,
    /// Its bytes; what follows is the flow's.
    length: usize,
    /// Makes what was asked for of the carrier behind it.
    start: Box<dyn FnOnce(Carrier) -> Asked + Send>,
}

/// Who, and what.
struct Opened {
    member: Arc<Member>,
    asked: Asked,
}

/// Who has connected, and what TLS has come to with him.
struct Client {
    source: SocketAddr,
    local: SocketAddr,
    told: Told,
}

/// A client that did not authenticate, with what was read of it.
struct Refused {
    carrier: Carrier,
    /// To be passed on.
    read: Vec<u8>,
    why: io::Error,
}

/// Who has come.
enum Admitted {
    /// One that authenticated.
    Client(Opened),
    /// One that did not, and who answers him.
    Stranger(Box<Refused>, SocketAddr),
    /// One for the site that REALITY shows.
    Visitor(Box<Visitor>),
    /// Several, each in a call of his own.
    Calls(Box<http2::Calls>),
}

/// A protocol's side of a server. Shared by all loops: replay windows are in it.
trait ServerProtocol: Send + Sync {
    /// Who asks for what at `now` (seconds since 1970), by the first `bytes`; `None`: read more.
    ///
    /// # Errors
    /// A stranger, or a mistake.
    fn read(&self, bytes: &[u8], now: u64) -> io::Result<Option<Reading>>;

    /// Has these users in from now on, and nobody else.
    ///
    /// # Errors
    /// [`ServerError::Secret`]; nothing is changed then.
    fn admit(&self, users: &[Credentials]) -> Result<(), ServerError>;

    /// Whether it may leave TLS for a user.
    fn may_leave_tls(&self) -> bool {
        false
    }

    /// The datagrams of a protocol that has some of its own.
    fn datagrams(&self) -> Option<Arc<shadowsocks::Secrets>> {
        None
    }
}

/// What one loop's listeners share with those of the others.
#[derive(Clone)]
pub struct Shared {
    protocol: Arc<dyn ServerProtocol>,
    accept: Arc<Accept>,
    reality: Option<Arc<Reality>>,
    fallbacks: Arc<[Fallback]>,
}

impl Shared {
    /// The server that `options` describe; files lie relative to `directory`.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn new(options: &ServerOptions, directory: &Path) -> Result<Self, ServerError> {
        let protocol: Arc<dyn ServerProtocol> = match &options.protocol {
            ServerProtocolOptions::Shadowsocks(options) => {
                Arc::new(shadowsocks::Server::new(options)?)
            }
            ServerProtocolOptions::Vmess(users) => Arc::new(vmess::Server::new(users)?),
            ServerProtocolOptions::Vless(users) => Arc::new(vless::Server::new(users)?),
            ServerProtocolOptions::Trojan(users) => Arc::new(trojan::Server::new(users)?),
        };
        Ok(Self {
            protocol,
            accept: Arc::new(Accept::new(options, directory).map_err(ServerError::Certificate)?),
            reality: match &options.reality {
                Some(options) => Some(Arc::new(
                    Reality::new(options).ok_or(ServerError::Randomness)?,
                )),
                None => None,
            },
            fallbacks: options.fallbacks.as_slice().into(),
        })
    }
}

impl Shared {
    /// Has these users in from now on, and cuts everybody else off.
    ///
    /// # Errors
    /// [`ServerError::Secret`]; nothing is changed then.
    pub fn admit(&self, users: &[Credentials]) -> Result<(), ServerError> {
        self.protocol.admit(users)
    }

    /// Whether a client that has sent `bytes` by `now` (seconds since 1970) has a flow; `false`: more
    /// are needed to tell.
    ///
    /// # Errors
    /// He is refused.
    pub fn judge(&self, bytes: &[u8], now: u64) -> io::Result<bool> {
        Ok(self.protocol.read(bytes, now)?.is_some())
    }

    /// Whether a datagram is one of a user's. It is decrypted in place.
    pub fn judge_datagram(&self, datagram: &mut [u8], now: u64) -> bool {
        let secrets = self.protocol.datagrams();
        secrets.is_some_and(|secrets| shadowsocks_packet::judge(&secrets, datagram, now))
    }
}

/// A server on one port.
pub struct Server {
    shared: Shared,
    name: Arc<str>,
    kind: InboundType,
    address: SocketAddr,
    proxy: Option<Arc<str>>,
    dispatch: Arc<dyn Dispatch>,
}

impl Server {
    /// The server of `port`, which listens at `address`.
    #[must_use]
    pub fn new(
        shared: &Shared,
        port: &Port,
        kind: InboundType,
        address: SocketAddr,
        dispatch: Arc<dyn Dispatch>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            name: Arc::clone(&port.name),
            kind,
            address,
            proxy: port.proxy.clone(),
            dispatch,
        }
    }

    /// Serves the datagrams that come to `socket`, for a protocol that has its own; at once at an end
    /// for others.
    pub async fn serve_datagrams(self, socket: UdpSocket) {
        if let Some(secrets) = self.shared.protocol.datagrams() {
            shadowsocks_packet::serve(Arc::new(self), secrets, Arc::new(socket)).await;
        }
    }

    async fn run(self: Arc<Self>, socket: TcpStream, source: SocketAddr, handshake: Handshake) {
        let time = handshake.time();
        let opening = Box::pin(self.open(socket, source));
        let Some(Some(admitted)) = handshake.limit(opening).await else {
            return;
        };
        self.proceed(admitted, source, time).await;
    }

    /// What becomes of a client that is let in, or not. Each call of his has `time` to say what it is.
    async fn proceed(self: Arc<Self>, admitted: Admitted, source: SocketAddr, time: Duration) {
        let opened = match admitted {
            Admitted::Client(opened) => opened,
            Admitted::Stranger(refused, fallback) => return fall_back(*refused, fallback).await,
            Admitted::Visitor(visitor) => return visitor.stay().await,
            Admitted::Calls(calls) => {
                let shared = self.shared.clone();
                let path = shared.accept.gun_path();
                return http2::serve(self, *calls, path, source, time).await;
            }
        };
        let member = Arc::clone(&opened.member);
        let origin = Arc::new(Origin {
            server: self,
            source,
            member: opened.member,
        });
        tokio::select! {
            () = origin.carry(opened.asked) => {}
            () = member.gone() => {}
        }
    }

    /// Lets a client in, or hands him to the fallback; without one he is never done.
    async fn open(&self, socket: TcpStream, source: SocketAddr) -> Option<Admitted> {
        let accept = &self.shared.accept;
        let mut told = Told::default();
        let local = socket.local_addr().unwrap_or(self.address);
        let accepted = match &self.shared.reality {
            None => {
                let leaves = self.leaves_tls();
                accept.accept(socket, leaves, &mut told).await
            }
            Some(reality) => match self.meet(reality, socket, source).await {
                Ok(Ok(carrier)) => accept.above(carrier).await,
                Ok(Err(visitor)) => return Some(Admitted::Visitor(visitor)),
                Err(error) => Err(error),
            },
        };
        match accepted {
            Ok(Accepted::Carrier(carrier)) => {
                let client = Client {
                    source,
                    local,
                    told,
                };
                self.admit(carrier, &client).await
            }
            Ok(Accepted::Calls(calls)) => Some(Admitted::Calls(calls)),
            Err(error) => {
                log::debug!("{}: {source} refused: {error}", self.name);
                None
            }
        }
    }

    /// Whether the protocol stands on TLS itself and may leave it.
    fn leaves_tls(&self) -> bool {
        !self.shared.accept.has_transport() && self.shared.protocol.may_leave_tls()
    }

    /// Lets in whoever REALITY knows; everybody else is the site's.
    async fn meet(
        &self,
        reality: &Reality,
        socket: TcpStream,
        source: SocketAddr,
    ) -> io::Result<Result<Carrier, Box<Visitor>>> {
        let site = reality.options().site.clone();
        let mut metadata =
            Metadata::new(Network::Tcp, InboundType::Inner, &self.name, source, site);
        metadata.inbound_address = self.address;
        let site = Site::reach(&self.dispatch, metadata);
        reality.accept(socket, site, self.leaves_tls()).await
    }

    /// Reads who asks for what over `carrier`.
    async fn admit(&self, carrier: Carrier, client: &Client) -> Option<Admitted> {
        let mut refused = match accept::open(&*self.shared.protocol, carrier).await {
            Ok(opened) => return Some(Admitted::Client(opened)),
            Err(refused) => refused,
        };
        let Client {
            source,
            local,
            told,
        } = client;
        log::debug!("{}: {source} refused: {}", self.name, refused.why);
        let seen = Seen {
            name: &told.name,
            alpn: &told.alpn,
            read: &refused.read,
        };
        let Some(chosen) = fallback::choose(&self.shared.fallbacks, &seen) else {
            drain(refused.carrier).await;
            return None;
        };
        let header = fallback::proxy_header(chosen.proxy_version, *source, *local);
        refused.read.splice(..0, header);
        Some(Admitted::Stranger(refused, chosen.to))
    }
}

impl Service for Server {
    fn serve(
        self: Arc<Self>,
        client: TcpStream,
        source: SocketAddr,
        handshake: Handshake,
    ) -> BoxFuture<'static, ()> {
        Box::pin(self.run(client, source, handshake))
    }
}

/// Where flows of one client come from.
struct Origin {
    server: Arc<Server>,
    source: SocketAddr,
    member: Arc<Member>,
}

impl Origin {
    /// Carries what was asked for to its end.
    fn carry(self: Arc<Self>, asked: Asked) -> BoxFuture<'static, ()> {
        match asked {
            Asked::Stream(to, stream) => Box::pin(async move {
                let metadata = self.metadata(Network::Tcp, to);
                let dispatch = &self.server.dispatch;
                dispatch.stream(metadata, stream).await;
            }),
            Asked::Packets(to, stream) => Box::pin(association::run(self, to, stream)),
            Asked::Mux(stream) => Box::pin(mux::run(self, stream)),
            Asked::Nothing => Box::pin(std::future::ready(())),
        }
    }

    fn metadata(&self, network: Network, to: Endpoint) -> Metadata {
        let Server { kind, name, .. } = &*self.server;
        let mut metadata = Metadata::new(network, *kind, name, self.source, to);
        metadata.inbound_address = self.server.address;
        metadata.inbound_user = self.member.name().cloned();
        metadata.user_level = self.member.level();
        metadata.special_proxy.clone_from(&self.server.proxy);
        metadata
    }

    /// A key for an association within a stream: the client's address, made unlike that of any
    /// socket by a flow label, so that it shares no session with one.
    fn session_key(&self) -> SocketAddr {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let ip = match self.source.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        let label = NEXT.fetch_add(1, Ordering::Relaxed).max(1);
        SocketAddrV6::new(ip, self.source.port(), label, 0).into()
    }
}

/// Carries bytes between a stranger and who answers him, to their ends. One who has been told that it is
/// over is not waited for longer than `patience`: he might never go.
async fn join(
    stranger: &mut dyn ByteStream,
    server: &mut dyn ByteStream,
    patience: Duration,
) -> io::Result<()> {
    let (mut asked, mut told) = tokio::io::split(stranger);
    let (mut answers, mut questions) = tokio::io::split(server);
    let mut up = pin!(async {
        tokio::io::copy(&mut asked, &mut questions).await?;
        questions.shutdown().await
    });
    let mut down = pin!(async {
        tokio::io::copy(&mut answers, &mut told).await?;
        told.shutdown().await
    });
    tokio::select! {
        ended = &mut up => {
            ended?;
            down.await
        }
        ended = &mut down => {
            ended?;
            timeout(patience, up).await.unwrap_or(Ok(()))
        }
    }
}

/// Reads and forgets until the client closes. The handshake's time ends it otherwise.
async fn drain(mut carrier: Carrier) {
    let mut sink = [0; 512];
    while let Ok(1..) = carrier.read(&mut sink).await {}
}

/// Joins a stranger to the server that shall answer him, from his first byte on.
async fn fall_back(refused: Refused, to: SocketAddr) {
    let Refused {
        mut carrier, read, ..
    } = refused;
    let joined = async {
        let mut server = connect_tcp(to, &Egress::default()).await?;
        server.write_all(&read).await?;
        join(&mut carrier, &mut server, PARTING_TIME_MAX).await
    };
    if let Err(error) = Box::pin(joined).await {
        log::debug!("fallback {to}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_stranger_who_stays_after_the_end_is_not_kept() {
        let ((mut near, mut stranger), (mut server, mut site)) = (duplex(64), duplex(64));
        let joined = tokio::spawn(async move { join(&mut near, &mut server, PATIENCE).await });
        stranger.write_all(b"hello").await.unwrap();
        let mut asked = [0; 5];
        site.read_exact(&mut asked).await.unwrap();
        site.write_all(b"bye").await.unwrap();
        drop(site);
        let mut told = Vec::new();
        stranger.read_to_end(&mut told).await.unwrap();
        assert_eq!((&asked, &told[..]), (b"hello", &b"bye"[..]));
        timeout(100 * PATIENCE, joined)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(stranger.write_all(b"still here").await.is_err());
    }

    #[tokio::test]
    async fn a_site_may_go_on_after_a_strangers_end() {
        let ((mut near, mut stranger), (mut server, mut site)) = (duplex(64), duplex(64));
        let joined = tokio::spawn(async move { join(&mut near, &mut server, PATIENCE).await });
        stranger.shutdown().await.unwrap();
        site.read_to_end(&mut Vec::new()).await.unwrap();
        tokio::time::sleep(4 * PATIENCE).await;
        site.write_all(b"late").await.unwrap();
        drop(site);
        let mut told = Vec::new();
        stranger.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, b"late");
        joined.await.unwrap().unwrap();
    }
}
