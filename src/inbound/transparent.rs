//! The transparent inbounds: what the kernel captured by tproxy (TCP, UDP) or redirect (TCP).
//!
//! They serve devices that know of no proxy, so they never speak to them: a stream is handed on as it
//! is, a datagram's answer leaves from the address that the device wrote to.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::dns::current::Current;
use crate::dns::listener;
use crate::dns::message::build::Transport;
use crate::dns::server::Now;
use crate::metadata::{Endpoint, InboundType, Metadata, Network};
use crate::outbound::Stream;
use crate::platform::raw_udp::RawUdp;
use crate::platform::{socket, transparent};
use crate::tunnel::Tunnel;
use crate::tunnel::flow::{Dispatch, ReplySink};

/// After a failing accept (no descriptors, no memory): long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The largest datagram that UDP carries over IPv4; IPv6 jumbograms do not reach a router.
const DATAGRAM_MAX: usize = 65_535;

/// How a captured stream tells where it was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// By its own address.
    TProxy,
    /// By `SO_ORIGINAL_DST`.
    Redirect,
}

/// A bound TCP listener for captured streams.
pub struct StreamListener {
    listener: TcpListener,
    capture: Capture,
    name: Arc<str>,
    hijack: Option<Arc<Current>>,
}

impl StreamListener {
    /// Binds `address`; several loops may bind the same one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(
        address: SocketAddr,
        capture: Capture,
        name: Arc<str>,
        hijack: Option<Arc<Current>>,
    ) -> io::Result<Self> {
        let listener = transparent::listen_tcp(address, capture == Capture::TProxy)?;
        Ok(Self {
            listener,
            capture,
            name,
            hijack,
        })
    }

    /// The bound address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts for ever; each stream is a task of the present runtime.
    pub async fn serve(self, tunnel: Arc<Tunnel>) {
        let own = self.listener.local_addr().ok();
        let mut failing = false;
        loop {
            match self.listener.accept().await {
                Ok((stream, source)) => {
                    failing = false;
                    tunnel.admission().room().await;
                    self.take(stream, source, own, &tunnel);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::warn!("{}: accept: {error}", self.name);
                    }
                    tunnel.admission().exhausted();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(
        &self,
        stream: TcpStream,
        source: SocketAddr,
        own: Option<SocketAddr>,
        tunnel: &Arc<Tunnel>,
    ) {
        let destination = match self.capture {
            Capture::TProxy => stream.local_addr(),
            Capture::Redirect => transparent::original_destination(&stream),
        };
        // Nobody may speak to the port itself: such a stream would lead back to us for ever.
        let destination = match destination {
            Ok(destination) if Some(destination) != own => destination,
            _ => {
                log::warn!(
                    "{}: {source} connected to the listener itself: refused",
                    self.name
                );
                socket::reset_on_close(&stream);
                return;
            }
        };
        let seat = tunnel.admission().seat();
        if let (53, Some(hijack)) = (destination.port(), &self.hijack) {
            let (hijack, tunnel) = (Arc::clone(hijack), Arc::clone(tunnel));
            tokio::spawn(async move {
                let (server, mut stream) = (hijack.server(), stream);
                let turn = tunnel.admission().prepare(source.ip());
                let serving = listener::serve_stream(&server, &mut stream, source);
                let _ended = turn.limit(serving).await;
                drop(seat);
            });
            return;
        }
        let kind = match self.capture {
            Capture::TProxy => InboundType::TProxy,
            Capture::Redirect => InboundType::Redir,
        };
        let mut metadata =
            Metadata::new(Network::Tcp, kind, &self.name, source, destination.into());
        if let Some(own) = own {
            metadata.inbound_address = own;
        }
        let tunnel = Arc::clone(tunnel);
        tokio::spawn(async move {
            tunnel.serve_stream(metadata, Stream::Tcp(stream)).await;
            drop(seat);
        });
    }
}

/// A bound UDP socket for captured datagrams.
pub struct DatagramListener {
    socket: UdpSocket,
    name: Arc<str>,
    hijack: Option<Arc<Current>>,
    replies: Arc<RawReplies>,
}

/// Sends replies as from the address that the client wrote to.
pub struct RawReplies(RawUdp);

impl RawReplies {
    /// Opens the sockets; they send with `mark`.
    ///
    /// # Errors
    /// What the kernel says; needs `CAP_NET_RAW`.
    pub fn open(mark: u32) -> io::Result<Self> {
        RawUdp::open(mark).map(Self)
    }

    fn send(&self, from: SocketAddr, client: SocketAddr, payload: &[u8]) {
        if let Err(error) = self.0.send(from, client, payload) {
            log::debug!("[UDP] reply {from} --> {client}: {error}");
        }
    }
}

impl ReplySink for RawReplies {
    fn reply(&self, client: SocketAddr, from: &Endpoint, payload: &[u8]) {
        if let crate::metadata::Host::Ip(address) = from.host {
            self.send(SocketAddr::new(address, from.port), client, payload);
        }
    }
}

impl DatagramListener {
    /// Binds `address`; several loops may bind the same one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(
        address: SocketAddr,
        name: Arc<str>,
        hijack: Option<Arc<Current>>,
        replies: Arc<RawReplies>,
    ) -> io::Result<Self> {
        Ok(Self {
            socket: transparent::bind_udp(address)?,
            name,
            hijack,
            replies,
        })
    }

    /// Receives for ever.
    pub async fn serve(self, tunnel: Arc<Tunnel>) {
        let own = self.socket.local_addr().ok();
        let mut buffer = vec![0; DATAGRAM_MAX];
        let replies: Arc<dyn ReplySink> = Arc::clone(&self.replies) as Arc<dyn ReplySink>;
        loop {
            let received = poll_fn(|cx| {
                loop {
                    ready!(self.socket.poll_recv_ready(cx))?;
                    match self.socket.try_io(Interest::READABLE, || {
                        transparent::receive(&self.socket, &mut buffer)
                    }) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        received => return std::task::Poll::Ready(received),
                    }
                }
            })
            .await;
            let captured = match received {
                Ok(captured) if Some(captured.destination) != own => captured,
                Ok(_) => continue,
                Err(error) => {
                    log::debug!("{}: receive: {error}", self.name);
                    continue;
                }
            };
            let payload = buffer.get(..captured.length).unwrap_or_default();
            if captured.destination.port() == 53 && self.hijack_datagram(&captured, payload) {
                continue;
            }
            tunnel.datagram(
                captured.source,
                captured.destination.into(),
                payload,
                &replies,
                &|| {
                    let mut metadata = Metadata::new(
                        Network::Udp,
                        InboundType::TProxy,
                        &self.name,
                        captured.source,
                        captured.destination.into(),
                    );
                    metadata.dscp = captured.dscp;
                    if let Some(own) = own {
                        metadata.inbound_address = own;
                    }
                    metadata
                },
            );
        }
    }

    /// Answers captured DNS. `false`: DNS is not captured here.
    fn hijack_datagram(&self, captured: &transparent::Captured, query: &[u8]) -> bool {
        let Some(hijack) = &self.hijack else {
            return false;
        };
        let (client, asked) = (captured.source, captured.destination);
        let server = hijack.server();
        let mut answer = Vec::new();
        match server.answer_now(query, client, Transport::Udp, &mut answer) {
            Now::Replied => self.replies.send(asked, client, &answer),
            Now::Ignored => {}
            Now::Later => {
                let (replies, query) = (Arc::clone(&self.replies), query.to_vec());
                tokio::spawn(async move {
                    let later = server.answer_later(&query, client, Transport::Udp).await;
                    if let Some(answer) = later {
                        replies.send(asked, client, &answer);
                    }
                });
            }
        }
        true
    }
}
