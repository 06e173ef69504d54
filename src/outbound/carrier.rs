//! What carries a proxy protocol to its server: a socket, or another outbound (`dialer-proxy`).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};

use super::layer::{Gate, Layer};
use super::{ByteStream, Datagrams, Stream};
use crate::metadata::Endpoint;

/// A byte stream to a server.
pub enum Carrier {
    /// A plain socket.
    Tcp(TcpStream),
    /// A stream that gives one record a read: beneath a layer that may be left.
    Gate(Box<Gate>),
    /// A layer that may be left.
    Layer(Box<dyn Layer>),
    /// Anything else.
    Boxed(Box<dyn ByteStream>),
}

impl Carrier {
    /// What `stream` is; nothing for one that a REJECT has made.
    #[must_use]
    pub fn of(stream: Stream) -> Option<Self> {
        match stream {
            Stream::Tcp(stream) => Some(Self::Tcp(stream)),
            Stream::Boxed(stream) => Some(Self::Boxed(stream)),
            Stream::Shedding(stream) => Some(Self::Boxed(stream)),
            Stream::Closed | Stream::Silent => None,
        }
    }

    /// The same for a layer that may be left.
    #[must_use]
    pub fn gated(self) -> Self {
        Self::Gate(Box::new(Gate::new(self)))
    }

    /// The same for one of which `read` was read already.
    ///
    /// # Errors
    /// That is more than a buffer holds.
    pub fn gated_behind(self, read: &[u8]) -> io::Result<Self> {
        Gate::behind(self, read).map(|gate| Self::Gate(Box::new(gate)))
    }

    /// Whether a read may find something; `Ready` also when that is not known.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Gate(gate) => gate.poll_readable(cx),
            Self::Layer(_) | Self::Boxed(_) => Poll::Ready(Ok(())),
        }
    }

    /// The socket that it is nothing but: bytes pass untouched, and none is held.
    #[must_use]
    pub fn bare(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Gate(gate) => gate.bare(),
            Self::Layer(_) | Self::Boxed(_) => None,
        }
    }

    /// The socket of one that is nothing else; it is of no use afterwards.
    pub fn take_socket(&mut self) -> Option<TcpStream> {
        let nothing = || Self::Boxed(Box::new(tokio::io::empty()));
        match self {
            Self::Tcp(_) => match std::mem::replace(self, nothing()) {
                Self::Tcp(socket) => Some(socket),
                _ => None,
            },
            Self::Gate(gate) => gate.below().take_socket(),
            Self::Layer(_) | Self::Boxed(_) => None,
        }
    }

    /// The server's address, where it is known.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Gate(_) | Self::Layer(_) | Self::Boxed(_) => None,
        }
    }

    /// The same with `early` before what it gives.
    #[must_use]
    pub fn preceded(self, early: Vec<u8>) -> Self {
        match self {
            same if early.is_empty() => same,
            Self::Layer(mut layer) => {
                layer.put_back(early);
                Self::Layer(layer)
            }
            // May be a socket again, once these bytes are read.
            carrier => Self::Gate(Box::new(Gate::passing(carrier, early))),
        }
    }

    /// The stream without its kind.
    #[must_use]
    pub fn boxed(self) -> Box<dyn ByteStream> {
        match self {
            Self::Boxed(stream) => stream,
            Self::Layer(layer) => layer,
            other => Box::new(other),
        }
    }

    /// Hands it to the relay, with `early` bytes that were read too far and must come first.
    #[must_use]
    pub fn into_stream(self, early: Vec<u8>) -> Stream {
        match self.preceded(early) {
            Self::Tcp(stream) => Stream::Tcp(stream),
            other => Stream::Boxed(other.boxed()),
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Gate(gate) => Pin::new(gate).poll_read(cx, buffer),
            Self::Layer(layer) => Pin::new(layer).poll_read(cx, buffer),
            Self::Boxed(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Gate(gate) => gate.below().poll_write(cx, bytes),
            Self::Layer(layer) => Pin::new(layer).poll_write(cx, bytes),
            Self::Boxed(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Gate(gate) => gate.below().poll_flush(cx),
            Self::Layer(layer) => Pin::new(layer).poll_flush(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Gate(gate) => gate.below().poll_shutdown(cx),
            Self::Layer(layer) => Pin::new(layer).poll_shutdown(cx),
            Self::Boxed(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A way for datagrams to one server and back.
pub enum PacketCarrier {
    /// A socket connected to the server: the kernel drops what others send.
    Socket(UdpSocket),
    /// Another outbound's association, and the server's endpoint in it.
    Via(Box<dyn Datagrams>, Endpoint),
}

impl PacketCarrier {
    /// Sends one datagram.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.send(bytes).await.map(drop),
            Self::Via(datagrams, server) => datagrams.send_to(bytes, server).await,
        }
    }

    /// Sends one datagram if that needs no waiting.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket says.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.try_send(bytes).map(drop),
            Self::Via(datagrams, server) => datagrams.try_send_to(bytes, server),
        }
    }

    /// Receives one datagram into `buffer`.
    ///
    /// # Errors
    /// What the socket says. A refusal (ICMP port unreachable) is no error: the server may
    /// come back, and what was lost is a datagram like any other.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => loop {
                match ready!(socket.poll_recv(cx, buffer)) {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    result => return Poll::Ready(result),
                }
            },
            Self::Via(datagrams, _) => {
                ready!(datagrams.poll_recv_from(cx, buffer))?;
                Poll::Ready(Ok(()))
            }
        }
    }
}
