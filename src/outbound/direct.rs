//! DIRECT, COMPATIBLE and `type: direct`: the destination itself, by a socket of ours.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::dial::{DialError, Dialer};
use super::reach::Reach;
use super::{BoxFuture, Datagrams, IpVersion, Kind, Outbound, Purpose, Resolve, Stream, Traits};
use crate::metadata::{Endpoint, Host, Metadata};

/// How many names one association remembers; the oldest goes first. A client socket that talks
/// to more names at once (a resolver) has them resolved again, by a cache.
const NAMES_MAX: usize = 16;

/// Dials the destination.
pub struct Direct {
    name: Arc<str>,
    kind: Kind,
    traits: Traits,
    dialer: Dialer,
}

impl Direct {
    /// An outbound that shows itself as `kind`.
    #[must_use]
    pub fn new(name: Arc<str>, kind: Kind, traits: Traits, dialer: Dialer) -> Self {
        Self {
            name,
            kind,
            traits,
            dialer,
        }
    }
}

impl Outbound for Direct {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn udp(&self) -> bool {
        true
    }

    fn traits(&self) -> Traits {
        self.traits.clone()
    }

    fn connect<'a>(&'a self, metadata: &'a Metadata) -> BoxFuture<'a, io::Result<Stream>> {
        Box::pin(async {
            self.dialer
                .connect_destination(metadata)
                .await
                .map(Stream::Tcp)
        })
    }

    fn associate<'a>(
        &'a self,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, io::Result<Box<dyn Datagrams>>> {
        Box::pin(async {
            let socket = self.dialer.bind_datagrams()?;
            let (resolver, version) = self.dialer.resolver();
            let datagrams: Box<dyn Datagrams> = Box::new(DirectDatagrams {
                dual: socket.local_addr()?.is_ipv6(),
                socket,
                resolver,
                version,
                source: metadata.source.ip(),
                reach: self.dialer.reach(),
                names: Mutex::default(),
            });
            Ok(datagrams)
        })
    }
}

/// One socket for all destinations: the mapping does not depend on the endpoint (RFC 4787).
struct DirectDatagrams {
    socket: UdpSocket,
    /// Whether the socket speaks IPv6, with IPv4 addresses mapped.
    dual: bool,
    resolver: Arc<dyn Resolve>,
    version: IpVersion,
    /// The device, and where it may be taken.
    source: IpAddr,
    reach: Arc<Reach>,
    /// Names already resolved: a flow keeps its address while the association lives.
    names: Mutex<VecDeque<(Box<str>, IpAddr)>>,
}

impl DirectDatagrams {
    /// The address of `to` as this socket wants it; `None`: its name must be resolved first.
    fn address(&self, to: &Endpoint) -> Result<Option<SocketAddr>, DialError> {
        let ip = match &to.host {
            Host::Ip(ip) => *ip,
            Host::Name(name) => {
                let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                match names.iter().find(|(known, _)| known == name) {
                    Some((_, ip)) => *ip,
                    None => return Ok(None),
                }
            }
        };
        if !self.reach.allows(self.source, ip) {
            return Err(DialError::Unreachable);
        }
        let ip = match ip {
            IpAddr::V4(v4) if self.dual => IpAddr::V6(v4.to_ipv6_mapped()),
            ip => ip,
        };
        Ok(Some(SocketAddr::new(ip, to.port)))
    }

    async fn resolve(&self, name: &str) -> io::Result<()> {
        let found = self.resolver.resolve(name, self.version, Purpose::Direct);
        let ip = *found.await?.first().ok_or(DialError::NoAddress)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES_MAX {
            names.pop_front();
        }
        names.push_back((name.into(), ip));
        Ok(())
    }
}

impl Datagrams for DirectDatagrams {
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            if let (None, Host::Name(name)) = (self.address(to)?, &to.host) {
                self.resolve(name).await?;
            }
            let address = self.address(to)?.ok_or(DialError::NoAddress)?;
            self.socket.send_to(payload, address).await.map(drop)
        })
    }

    fn try_send_to(&self, payload: &[u8], to: &Endpoint) -> io::Result<()> {
        let address = self.address(to)?.ok_or(io::ErrorKind::WouldBlock)?;
        self.socket.try_send_to(payload, address).map(drop)
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let sender = ready!(self.socket.poll_recv_from(cx, buffer))?;
        Poll::Ready(Ok(SocketAddr::new(
            sender.ip().to_canonical(),
            sender.port(),
        )))
    }
}
