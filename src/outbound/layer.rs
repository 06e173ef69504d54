//! TLS that may be left: each direction by itself, exactly at the end of a record.
//!
//! A [`Gate`] below rustls never lets it read beyond the record at hand, so that nothing that follows is
//! in its hands when a direction leaves it. What the gate has read itself comes first then. A stream
//! both of whose directions have left is its socket again, and the relay takes that.

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::ByteStream;
use super::carrier::Carrier;
use super::framed::too_long;
use super::scratch::Scratch;
use crate::platform::socket;

/// Type, version and length of a record (RFC 8446 section 5.1).
const RECORD_HEAD: usize = 5;

/// A stream that may shed work which the relay would do: by coming to be nothing but its socket, or by
/// reading what it sends to its place in a frame itself.
pub trait Shedding: ByteStream {
    /// Whether it has come to be its socket: no byte is held, and both directions pass through untouched.
    fn is_bare(&self) -> bool {
        false
    }

    /// The socket of a stream that is bare; it is of no use afterwards.
    fn take_socket(&mut self) -> Option<TcpStream> {
        None
    }

    /// The socket whose bytes are read as they are from now on, if that is so already.
    fn reads_from(&self) -> Option<&TcpStream> {
        None
    }

    /// The socket that takes what is written as it is from now on, if that is so already.
    fn writes_to(&self) -> Option<&TcpStream> {
        None
    }

    /// Has `bytes`, which were read too early, come first.
    fn put_back(&mut self, bytes: Vec<u8>);

    /// Reads from `source` into what is sent, and sends it; how much, 0 at the end of `source`. `None`:
    /// write what you read.
    fn poll_pull(
        &mut self,
        _cx: &mut Context<'_>,
        _source: Source<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        Poll::Ready(Ok(None))
    }
}

/// Where a stream that sends in frames pulls their data from.
pub enum Source<'a> {
    /// A plain socket: several frames' data comes with one call.
    Socket(&'a TcpStream),
    /// Anything else.
    Stream(&'a mut dyn ByteStream),
}

impl Source<'_> {
    /// Reads into `places`, one after the other, or only into the first: how much, and whether there
    /// may be more at once. 0 at the end.
    ///
    /// # Errors
    /// What the source says.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        places: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<(usize, bool)>> {
        match self {
            Self::Socket(socket) => {
                let room = places.iter().map(|place| place.len()).sum::<usize>();
                let read = ready!(poll_parts(socket, cx, places, room))?;
                Poll::Ready(Ok((read, read == room)))
            }
            Self::Stream(stream) => {
                let place = places.first_mut();
                let mut buffer = ReadBuf::new(place.map_or(&mut [], |place| &mut **place));
                ready!(Pin::new(&mut **stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok((buffer.filled().len(), buffer.remaining() == 0)))
            }
        }
    }
}

/// Reads what `socket` has. A short read says that it is empty, which spares the call that would only
/// say so again.
fn poll_parts(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    places: &mut [IoSliceMut<'_>],
    room: usize,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_read_ready(cx))?;
        let mut short = None;
        let read = socket.try_io(Interest::READABLE, || {
            let n = socket::receive_parts_now(socket, places)?;
            if n > 0 && n < room {
                short = Some(n);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(n)
        });
        match short.map_or(read, Ok) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

/// A layer of encryption that may be left.
pub trait Layer: Shedding {
    /// Whether it is TLS 1.3, whose records look the same from the handshake on.
    fn is_tls13(&self) -> bool;

    /// What is read from now on is what the layer has opened already, and then the carrier's own bytes.
    fn leave_reading(&mut self);

    /// What is written from now on goes to the carrier as it is. Flush before.
    fn leave_writing(&mut self);
}

/// TLS by rustls over a [`Gate`].
pub struct TlsLayer {
    tls: TlsStream<Carrier>,
    /// Bytes that come first.
    early: Vec<u8>,
    reading: Reading,
    writes_raw: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Opened,
    /// What rustls has opened is left to be read.
    Leaving,
    Raw,
}

impl TlsLayer {
    /// The layer that `tls` is; its carrier is one of [`Carrier::gated`].
    #[must_use]
    pub fn new(tls: TlsStream<Carrier>) -> Self {
        Self {
            tls,
            early: Vec::new(),
            reading: Reading::Opened,
            writes_raw: false,
        }
    }

    fn carrier(&mut self) -> Pin<&mut Carrier> {
        Pin::new(self.tls.get_mut().0)
    }

    /// What rustls has opened and nobody has read.
    fn read_opened(&mut self, buffer: &mut ReadBuf<'_>) {
        let unfilled = buffer.initialize_unfilled();
        let read = match &mut self.tls {
            TlsStream::Client(tls) => io::Read::read(&mut tls.get_mut().1.reader(), unfilled),
            TlsStream::Server(tls) => io::Read::read(&mut tls.get_mut().1.reader(), unfilled),
        };
        // An error is that there is nothing.
        buffer.advance(read.unwrap_or(0));
    }
}

impl AsyncRead for TlsLayer {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            take_early(&mut this.early, buffer);
            return Poll::Ready(Ok(()));
        }
        if this.reading == Reading::Leaving {
            let before = buffer.filled().len();
            this.read_opened(buffer);
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.reading = Reading::Raw;
            if let Carrier::Gate(gate) = this.tls.get_mut().0 {
                gate.open = true;
            }
        }
        if this.reading == Reading::Raw {
            return this.carrier().poll_read(cx, buffer);
        }
        // One record: `poll_read` would go on to the next for as long as there is room.
        let opened = ready!(Pin::new(&mut this.tls).poll_fill_buf(cx))?;
        let n = opened.len().min(buffer.remaining());
        buffer.put_slice(opened.get(..n).unwrap_or_default());
        Pin::new(&mut this.tls).consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsLayer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.writes_raw {
            true => this.carrier().poll_write(cx, bytes),
            false => Pin::new(&mut this.tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.writes_raw {
            true => this.carrier().poll_flush(cx),
            false => Pin::new(&mut this.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.writes_raw {
            true => this.carrier().poll_shutdown(cx),
            false => Pin::new(&mut this.tls).poll_shutdown(cx),
        }
    }
}

impl Shedding for TlsLayer {
    fn is_bare(&self) -> bool {
        let read = self.reading == Reading::Raw && self.early.is_empty();
        read && self.writes_raw && self.tls.get_ref().0.bare().is_some()
    }

    fn take_socket(&mut self) -> Option<TcpStream> {
        self.tls.get_mut().0.take_socket()
    }

    fn put_back(&mut self, bytes: Vec<u8>) {
        put_first(&mut self.early, bytes);
    }
}

impl Layer for TlsLayer {
    fn is_tls13(&self) -> bool {
        self.tls.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3)
    }

    fn leave_reading(&mut self) {
        if self.reading == Reading::Opened {
            self.reading = Reading::Leaving;
        }
    }

    fn leave_writing(&mut self) {
        self.writes_raw = true;
    }
}

/// Moves the start of `early` into `buffer`.
pub fn take_early(early: &mut Vec<u8>, buffer: &mut ReadBuf<'_>) {
    let n = early.len().min(buffer.remaining());
    buffer.put_slice(early.get(..n).unwrap_or_default());
    early.drain(..n);
    if early.is_empty() {
        *early = Vec::new();
    }
}

/// Has `bytes` stand before what `early` holds.
pub fn put_first(early: &mut Vec<u8>, mut bytes: Vec<u8>) {
    bytes.append(early);
    *early = bytes;
}

/// A carrier that gives one record a read at most. Between records it holds no buffer while nothing
/// comes.
pub struct Gate {
    carrier: Carrier,
    /// Bytes that come first, whatever they are.
    early: Vec<u8>,
    held: Option<Scratch>,
    /// Bytes of the present record that have not been given out.
    left: usize,
    /// Records are of no interest any more.
    open: bool,
}

impl Gate {
    /// A gate above `carrier`.
    #[must_use]
    pub fn new(carrier: Carrier) -> Self {
        Self {
            carrier,
            early: Vec::new(),
            held: None,
            left: 0,
            open: false,
        }
    }

    /// A gate above `carrier`, of which `read` was read already.
    ///
    /// # Errors
    /// That is more than a buffer holds.
    pub fn behind(carrier: Carrier, read: &[u8]) -> io::Result<Self> {
        let mut held = Scratch::take(read.len());
        held.push(read).map_err(too_long)?;
        Ok(Self {
            held: Some(held),
            ..Self::new(carrier)
        })
    }

    /// One that lets everything pass, `early` first.
    #[must_use]
    pub fn passing(carrier: Carrier, early: Vec<u8>) -> Self {
        Self {
            early,
            open: true,
            ..Self::new(carrier)
        }
    }

    /// The socket that it is nothing but by now.
    #[must_use]
    pub fn bare(&self) -> Option<&TcpStream> {
        match &self.carrier {
            Carrier::Tcp(socket) if self.open && self.is_empty() => Some(socket),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        self.held.is_none() && self.early.is_empty()
    }

    /// Whether a read may find something; `Ready` also when that is not known.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.is_empty() {
            true => self.carrier.poll_readable(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// How many of the held bytes may go out.
    fn may_go(&mut self) -> usize {
        let Some(held) = &self.held else {
            return 0;
        };
        if self.open {
            return held.len();
        }
        if self.left == 0
            && let Some(&[_, _, _, a, b]) = held.data().first_chunk::<RECORD_HEAD>()
        {
            self.left = RECORD_HEAD + usize::from(u16::from_be_bytes([a, b]));
        }
        self.left.min(held.len())
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            take_early(&mut this.early, buffer);
            return Poll::Ready(Ok(()));
        }
        loop {
            let n = this.may_go().min(buffer.remaining());
            if let (Some(held), true) = (&mut this.held, n > 0) {
                buffer.put_slice(held.data().get(..n).unwrap_or_default());
                held.consume(n);
                this.left = this.left.saturating_sub(n);
                if held.is_empty() {
                    this.held = None;
                }
                return Poll::Ready(Ok(()));
            }
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.held.is_none() {
                if this.open {
                    return Pin::new(&mut this.carrier).poll_read(cx, buffer);
                }
                ready!(this.carrier.poll_readable(cx))?;
            }
            let held = this.held.get_or_insert_with(|| Scratch::take(0));
            held.reserve(held.len() + RECORD_HEAD);
            let mut room = ReadBuf::new(held.spare());
            let polled = Pin::new(&mut this.carrier).poll_read(cx, &mut room);
            let read = room.filled().len();
            held.filled(read);
            if held.is_empty() {
                this.held = None;
            }
            ready!(polled)?;
            if read == 0 {
                // The end, maybe within a head: that is for rustls to judge.
                this.open = true;
                if this.held.is_none() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Gate {
    /// What writes go to.
    pub fn below(&mut self) -> Pin<&mut Carrier> {
        Pin::new(&mut self.carrier)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_gate_never_gives_more_than_one_record() {
        let first = [&[0x17, 3, 3, 0, 3][..], b"one"].concat();
        let second = [&[0x17, 3, 3, 0, 2][..], b"ab"].concat();
        let (near, mut far) = duplex(4096);
        let all = [&first[..], &second, b"rest"].concat();
        far.write_all(&all).await.unwrap();
        far.shutdown().await.unwrap();
        let mut gate = Gate::new(Carrier::Boxed(Box::new(near)));
        let mut room = [0; 64];
        assert_eq!(gate.read(&mut room[..2]).await.unwrap(), 2);
        assert_eq!(gate.read(&mut room).await.unwrap(), first.len() - 2);
        let n = gate.read(&mut room).await.unwrap();
        assert_eq!(room[..n], second);
        gate.open = true;
        let n = gate.read(&mut room).await.unwrap();
        assert_eq!(&room[..n], b"rest");
        assert_eq!(gate.read(&mut room).await.unwrap(), 0);
        assert!(gate.held.is_none());
    }

    #[tokio::test]
    async fn an_end_within_a_head_is_told() {
        let (near, mut far) = duplex(64);
        far.write_all(&[0x17, 3]).await.unwrap();
        far.shutdown().await.unwrap();
        let mut all = Vec::new();
        let mut gate = Gate::new(Carrier::Boxed(Box::new(near)));
        gate.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x17, 3]);
    }
}
