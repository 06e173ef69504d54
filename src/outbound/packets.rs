//! Datagrams inside a byte stream, for protocols that carry UDP so: one stream an association.
//!
//! The codec is pure and behind one `dyn`. The task that receives also moves what could not be
//! sent at once; a sender never waits. When [`QUEUE_BYTES_MAX`] wait, new datagrams are dropped,
//! as a full queue on the way would drop them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::scratch::{Full, Scratch};
use super::socks_address::AddressError;
use super::{BoxFuture, ByteStream, Datagrams};
use crate::metadata::{Endpoint, Host};

/// Bytes that may wait for the stream to take them.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// What a protocol adds to a datagram at most, the first one's request included.
const FRAME_MAX: usize = 1024;

/// A datagram that [`PacketCodec::decode`] found at the start of the bytes.
pub struct Packet {
    /// Its sender or target; `None`: the association's only one.
    pub address: Option<Endpoint>,
    /// Where its payload stands.
    pub payload: std::ops::Range<usize>,
    /// How many bytes it takes altogether.
    pub length: usize,
}

/// How datagrams stand in a stream. Pure.
pub trait PacketCodec: Send {
    /// Appends one datagram to or from `address` to `out`, which is empty.
    ///
    /// # Errors
    /// It has no encoding; it is dropped.
    fn encode(
        &mut self,
        payload: &[u8],
        address: &Endpoint,
        out: &mut Scratch,
    ) -> Result<(), NoEncoding>;

    /// The datagram at the start of `incoming`, decoded in place; `None`: more bytes are needed.
    /// What stands before it and is none is consumed.
    ///
    /// # Errors
    /// The bytes are none; the stream is over.
    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Option<Packet>>;
}

/// A datagram's address, unless it is the association's only one, and its payload; `None` at the
/// stream's end.
pub type Received<'a> = Option<(Option<Endpoint>, &'a [u8])>;

/// The datagram is too long for the protocol, or its address has no form there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEncoding;

impl From<Full> for NoEncoding {
    fn from(_: Full) -> Self {
        Self
    }
}

impl From<AddressError> for NoEncoding {
    fn from(_: AddressError) -> Self {
        Self
    }
}

/// A stream with datagrams in it. Machine: its driver polls.
pub struct PacketStream {
    stream: Box<dyn ByteStream>,
    codec: Box<dyn PacketCodec>,
    outgoing: Vec<u8>,
    sent: usize,
    incoming: Option<Scratch>,
    /// What the last datagram took, to be dropped from `incoming`.
    taken: usize,
    /// Whoever receives: it also sends what waits.
    receiver: Option<Waker>,
    failed: bool,
}

impl PacketStream {
    /// Datagrams on `stream`.
    #[must_use]
    pub fn new(stream: Box<dyn ByteStream>, codec: Box<dyn PacketCodec>) -> Self {
        Self {
            stream,
            codec,
            outgoing: Vec::new(),
            sent: 0,
            incoming: None,
            taken: 0,
            receiver: None,
            failed: false,
        }
    }

    /// Sends a datagram, or as much of it as goes now, and the rest as soon as it goes.
    ///
    /// # Errors
    /// `WouldBlock` when the queue is full, `InvalidInput` without encoding, or what the stream says.
    pub fn send(&mut self, payload: &[u8], address: &Endpoint) -> io::Result<()> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.outgoing.len() - self.sent + payload.len() > QUEUE_BYTES_MAX {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut out = Scratch::take(payload.len() + FRAME_MAX);
        let encoded = self.codec.encode(payload, address, &mut out);
        encoded.map_err(|NoEncoding| io::ErrorKind::InvalidInput)?;
        self.outgoing.extend_from_slice(out.data());
        let waker = self.receiver.clone();
        let waker = waker.as_ref().unwrap_or(Waker::noop());
        self.flush(&mut Context::from_waker(waker))
    }

    /// Moves what waits towards the stream.
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(rest) = self.outgoing.get(self.sent..)
            && !rest.is_empty()
        {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => return self.fail(error),
                Poll::Pending => {
                    if self.sent > QUEUE_BYTES_MAX / 2 {
                        self.outgoing.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
            }
        }
        (self.outgoing, self.sent) = (Vec::new(), 0);
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => self.fail(error),
            _ => Ok(()),
        }
    }

    fn fail<T>(&mut self, error: io::Error) -> io::Result<T> {
        self.failed = true;
        Err(error)
    }

    /// The next datagram, until the next call.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Received<'_>>> {
        if !self
            .receiver
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.receiver = Some(cx.waker().clone());
        }
        self.flush(cx)?;
        let packet = loop {
            if let Some(incoming) = &mut self.incoming {
                incoming.consume(std::mem::take(&mut self.taken));
                match self.codec.decode(incoming) {
                    Ok(Some(packet)) => break packet,
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(self.fail(error)),
                }
                if incoming.is_empty() {
                    self.incoming = None;
                } else {
                    incoming.reserve(Scratch::LARGEST);
                }
            }
            let mut first = Scratch::take(0);
            let incoming = self.incoming.as_mut().unwrap_or(&mut first);
            let mut room = ReadBuf::new(incoming.spare());
            if room.remaining() == 0 {
                // A whole buffer without one datagram in it: no datagram is that long.
                return Poll::Ready(self.fail(io::ErrorKind::InvalidData.into()));
            }
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
            let n = room.filled().len();
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(self.fail(error)),
                Poll::Ready(Ok(())) if n == 0 => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(())) => incoming.filled(n),
            }
            if self.incoming.is_none() {
                self.incoming = Some(first);
            }
        };
        self.taken = packet.length;
        let data = self.incoming.as_ref().map_or(&[][..], Scratch::data);
        let payload = data.get(packet.payload).unwrap_or_default();
        Poll::Ready(Ok(Some((packet.address, payload))))
    }
}

/// A client's association over one stream.
pub struct StreamDatagrams {
    /// Table: shared by the task that sends and the one that receives, for a moment each.
    stream: Mutex<PacketStream>,
    /// The sender of datagrams that name none.
    default: Option<SocketAddr>,
}

impl StreamDatagrams {
    /// An association; datagrams without a sender come from `default`.
    #[must_use]
    pub fn new(
        stream: Box<dyn ByteStream>,
        codec: Box<dyn PacketCodec>,
        default: Option<SocketAddr>,
    ) -> Self {
        Self {
            stream: Mutex::new(PacketStream::new(stream, codec)),
            default,
        }
    }

    fn stream(&self) -> MutexGuard<'_, PacketStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Datagrams for StreamDatagrams {
    fn send_to<'a>(&'a self, payload: &'a [u8], to: &'a Endpoint) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(std::future::ready(self.try_send_to(payload, to)))
    }

    fn try_send_to(&self, payload: &[u8], to: &Endpoint) -> io::Result<()> {
        self.stream().send(payload, to)
    }

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let mut stream = self.stream();
        loop {
            let Some((address, payload)) = std::task::ready!(stream.poll_receive(cx))? else {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            };
            let sender = match address {
                Some(Endpoint {
                    host: Host::Ip(ip),
                    port,
                }) => Some(SocketAddr::new(ip, port)),
                // A client's socket cannot be told of a name; the one that was asked has answered.
                _ => self.default,
            };
            if let Some(sender) = sender
                && payload.len() <= buffer.remaining()
            {
                buffer.put_slice(payload);
                return Poll::Ready(Ok(sender));
            }
        }
    }
}
