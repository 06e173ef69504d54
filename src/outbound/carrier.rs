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
            Self::Gate(_) | Self::Layer(_) | Self::Boxed(_) => Poll::Ready(Ok(())),
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
            carrier => Self::Boxed(Box::new(Early {
                bytes: early,
                position: 0,
                carrier,
            })),
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

/// A carrier some of whose bytes were already read.
struct Early {
    bytes: Vec<u8>,
    position: usize,
    carrier: Carrier,
}

impl AsyncRead for Early {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let rest = this.bytes.get(this.position..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut this.carrier).poll_read(cx, buffer);
        }
        let taken = rest.get(..buffer.remaining()).unwrap_or(rest);
        buffer.put_slice(taken);
        this.position += taken.len();
        if this.position == this.bytes.len() {
            (this.bytes, this.position) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().carrier).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().carrier).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().carrier).poll_shutdown(cx)
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
