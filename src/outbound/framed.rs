//! A byte stream in frames: drives any protocol's codec over a carrier.
//!
//! One driver for all of them (Shadowsocks, VMess, WebSocket, in both directions), with the codec
//! behind one `dyn`: what differs is pure, what is the same exists once. While nothing flows no
//! buffer is held. Writers must flush: what the carrier did not take at once waits here.
//!
//! A client's request goes out with its first bytes, in one write, or alone when it has said
//! nothing for `FIRST_BYTES_WAIT` (then the server may be the one who speaks first).

use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::carrier::Carrier;
use super::layer::{Shedding, Source, put_first, take_early};
use super::scratch::{Full, Scratch};

/// How much at a time is much: the next buffer is a large one then, and less is not worth a frame of its
/// own behind others.
const MUCH: usize = 8 * 1024;

/// What is written at once: no more than the kernel sends as one packet (64 KiB with headers, in whole
/// segments, 44 of 1,452 bytes). What is over would go as a small one, which costs as much.
pub const BATCH_MAX: usize = 44 * 1452;

/// Frames whose data is read at once.
const FRAMES_MAX: usize = 4;

/// How long a request waits for the client's first bytes.
pub const FIRST_BYTES_WAIT: Duration = Duration::from_millis(100);

/// What [`Codec::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of data stand at the start of the buffer, and as many as the second number
    /// says are to be skipped after them.
    Opened(usize, usize),
    /// The buffer must hold so many bytes before there is more to say.
    NeedMore(usize),
    /// The peer has ended its direction.
    End,
}

/// What a frame is made of, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What stands before the data.
    pub head: usize,
    /// The data at most.
    pub data_max: usize,
    /// What stands behind the data at most.
    pub tail_max: usize,
}

impl Shape {
    /// Where the data of frames belongs that shall stand one behind the other in the first `bytes` of
    /// `room`.
    fn places<'a>(&self, room: &'a mut [u8], bytes: usize) -> [IoSliceMut<'a>; FRAMES_MAX] {
        let Self {
            head,
            data_max,
            tail_max,
        } = *self;
        let frame = data_max.saturating_add(head + tail_max);
        let bytes = bytes.min(room.len());
        let room = room.get_mut(..bytes).unwrap_or_default();
        let mut frames = room.chunks_mut(frame);
        std::array::from_fn(|_| {
            let frame = frames.next().unwrap_or_default();
            let end = frame.len().saturating_sub(tail_max);
            IoSliceMut::new(frame.get_mut(head..end).unwrap_or_default())
        })
    }
}

/// Frames of one protocol, both directions of one stream. Pure but for the clock and randomness
/// that a request needs.
pub trait Codec: Send {
    /// Appends to `out`, which is empty, what must be sent so that the start of `payload` arrives;
    /// how much of `payload` that is. Without payload: what must go first though there is nothing
    /// to say, such as a request.
    ///
    /// # Errors
    /// The stream cannot be begun.
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize>;

    /// How large a buffer `payload` bytes need; more are left for the next write.
    fn room(&self, payload: usize) -> usize;

    /// What the next frame looks like when its data is to be read to its place; `None`: it is none but
    /// data in a frame, or frames have to be encoded.
    fn shape(&self) -> Option<Shape> {
        None
    }

    /// Makes a frame of the first `data` bytes behind a head's room in the spare room of `out`.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    fn enframe(&mut self, _data: usize, _out: &mut Scratch) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a request is still to be sent.
    fn owes_request(&self) -> bool {
        false
    }

    /// Whether nothing may be sent before something has come from the peer.
    fn must_listen(&self) -> bool {
        false
    }

    /// Appends what ends our direction.
    ///
    /// # Errors
    /// It does not fit.
    fn finish(&mut self, _out: &mut Scratch) -> io::Result<()> {
        Ok(())
    }

    /// Goes on with what `incoming` holds; what is done with it consumes.
    ///
    /// # Errors
    /// The bytes are not the protocol; the stream is over.
    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<Step>;

    /// What the last steps have to answer to the peer (a pong).
    fn reply(&mut self) -> Option<Box<[u8]>> {
        None
    }

    /// Whether the carrier may be half-closed when we have finished; otherwise only dropping it says
    /// that we have.
    fn half_closes(&self) -> bool {
        true
    }

    /// Whether the peer's stream may end here, if no byte waits.
    fn may_end(&self) -> bool;

    /// Nothing is to be sent for now: give memory back.
    fn rest_sending(&mut self) {}

    /// Nothing comes for now: give memory back.
    fn rest_receiving(&mut self) {}
}

/// One end of a framed stream.
pub struct Framed {
    carrier: Carrier,
    codec: Box<dyn Codec>,
    /// Frames that the carrier has not taken yet.
    outgoing: Option<Scratch>,
    /// Bytes from the peer: data at the start, if any, then frames.
    incoming: Option<Scratch>,
    /// Data that comes first.
    first: Vec<u8>,
    /// Much was sent at once, or has come: the next buffer is a large one.
    much_goes: bool,
    much_comes: bool,
    /// What the incoming buffer must hold before there is more to say.
    need: usize,
    /// How much of `incoming` is data that nobody has read, and what to skip behind it.
    plain: usize,
    trailer: usize,
    ended: bool,
    finished: bool,
    /// Why there is no more to be sent, to be told once what came before is on its way.
    cut: Option<io::Error>,
    /// Why the peer's bytes are no stream, to be told once what came before has been read.
    failed: Option<io::Error>,
    /// Runs from the first read on while a request is owed.
    patience: Option<Pin<Box<Sleep>>>,
    /// A writer that waits for the peer's word.
    listener: Option<Waker>,
}

impl Framed {
    /// A stream over `carrier`, of which `early` was read already.
    ///
    /// # Errors
    /// More was read too far than a buffer holds.
    pub fn new(carrier: Carrier, codec: Box<dyn Codec>, early: &[u8]) -> io::Result<Self> {
        let mut framed = Self::bare(carrier, codec);
        if !early.is_empty() {
            let mut scratch = Scratch::take(early.len());
            scratch.push(early).map_err(too_long)?;
            framed.incoming = Some(scratch);
        }
        Ok(framed)
    }

    /// A stream over `carrier` from its first byte.
    #[must_use]
    pub fn bare(carrier: Carrier, codec: Box<dyn Codec>) -> Self {
        Self {
            carrier,
            codec,
            outgoing: None,
            incoming: None,
            first: Vec::new(),
            much_goes: false,
            much_comes: false,
            need: 0,
            plain: 0,
            trailer: 0,
            ended: false,
            finished: false,
            cut: None,
            failed: None,
            patience: None,
            listener: None,
        }
    }

    /// Whether no buffer is held.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.incoming.is_none() && self.outgoing.is_none()
    }

    /// Encodes the start of `payload` into `outgoing`, which must be empty; how much.
    fn encode(&mut self, payload: &[u8]) -> io::Result<usize> {
        let mut out = Scratch::take(self.codec.room(payload.len()));
        let encoded = self.codec.encode(payload, &mut out)?;
        if !out.is_empty() {
            self.outgoing = Some(out);
        }
        Ok(encoded)
    }

    /// Makes frames of the `data` bytes that were read to places of `lengths` bytes for frames of `shape`.
    fn enframe(
        &mut self,
        shape: Shape,
        data: usize,
        lengths: &[usize],
        out: &mut Scratch,
    ) -> io::Result<()> {
        let begin = out.len();
        let (mut left, mut place) = (data, 0);
        for length in lengths {
            let part = left.min(*length);
            if part == 0 {
                break;
            }
            // Frames that turned out shorter (padding) leave the next one's data too far behind.
            let away = (begin + place).saturating_sub(out.len());
            if away > 0 {
                let from = away + shape.head;
                out.spare().copy_within(from..from + part, shape.head);
            }
            self.codec.enframe(part, out)?;
            left -= part;
            place += shape.head + part + shape.tail_max;
        }
        Ok(())
    }

    /// Writes what waits; the buffer is given back when all is out.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(out) = &mut self.outgoing {
            ready!(out.poll_write_to(&mut self.carrier, cx))?;
            self.outgoing = None;
            self.codec.rest_sending();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the request alone when the client has been silent for long enough; until it is out, for
    /// whoever reads may be the only one that waits.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.codec.owes_request() {
            let patience = self
                .patience
                .get_or_insert_with(|| Box::pin(sleep(FIRST_BYTES_WAIT)));
            if patience.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.encode(&[])?;
        } else if self.patience.is_none() {
            return Ok(());
        }
        match Pin::new(&mut *self).poll_flush(cx) {
            Poll::Ready(result) => {
                self.patience = None;
                result
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Moves data into `buffer`.
    fn take_plain(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let n = self.plain.min(buffer.remaining());
        buffer.put_slice(incoming.data().get(..n).unwrap_or_default());
        incoming.consume(n);
        self.plain -= n;
        if self.plain == 0 {
            incoming.consume(self.trailer);
        }
    }

    /// Decodes what has come into `buffer` until that is full or more bytes are needed. An error
    /// means that nothing went into it (the contract of `poll_read`).
    fn open(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let before = buffer.filled().len();
        if self.plain > 0 {
            self.take_plain(buffer);
        }
        while self.plain == 0 && buffer.remaining() > 0 && !self.ended {
            let Some(incoming) = &mut self.incoming else {
                return Ok(());
            };
            let step = match self.failed.take() {
                Some(error) => Err(error),
                None => self.codec.decode(incoming),
            };
            match step {
                Ok(Step::Opened(plain, trailer)) => {
                    (self.plain, self.trailer) = (plain, trailer);
                    self.take_plain(buffer);
                }
                Ok(Step::NeedMore(total)) => {
                    self.need = total;
                    incoming.reserve(match self.much_comes {
                        true => total.max(BATCH_MAX),
                        false => total,
                    });
                    self.heard(cx);
                    return Ok(());
                }
                Ok(Step::End) => self.ended = true,
                Err(error) => {
                    if buffer.filled().len() > before {
                        self.failed = Some(error);
                        return Ok(());
                    }
                    return Err(error);
                }
            }
        }
        self.heard(cx);
        Ok(())
    }

    /// Lets a waiting writer go on, and sends what the codec has to answer. An answer to a peer that
    /// does not read is lost: nothing may grow by what it asks.
    fn heard(&mut self, cx: &mut Context<'_>) {
        if !self.codec.must_listen()
            && let Some(listener) = self.listener.take()
        {
            listener.wake();
        }
        if let Some(reply) = self.codec.reply()
            && self.outgoing.is_none()
            && !self.finished
        {
            let mut out = Scratch::take(reply.len());
            if out.push(&reply).is_ok() {
                self.outgoing = Some(out);
                let _later = self.poll_drain(cx);
            }
        }
    }

    /// Reads frames; `false` at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.incoming.is_none() {
            ready!(self.carrier.poll_readable(cx))?;
        }
        let size = if self.much_comes { BATCH_MAX } else { 0 };
        let incoming = self.incoming.get_or_insert_with(|| Scratch::take(size));
        // What is opened at once is written at once.
        let more = self.need.max(BATCH_MAX).saturating_sub(incoming.len());
        let spare = incoming.spare();
        let more = more.min(spare.len());
        let mut room = ReadBuf::new(spare.get_mut(..more).unwrap_or_default());
        let result = Pin::new(&mut self.carrier).poll_read(cx, &mut room);
        let n = room.filled().len();
        incoming.filled(n);
        self.much_comes = n >= 2 * MUCH;
        let empty = incoming.is_empty();
        if empty {
            self.incoming = None;
            self.codec.rest_receiving();
        }
        ready!(result)?;
        match (n, empty && self.codec.may_end()) {
            (0, true) => Poll::Ready(Ok(false)),
            (0, false) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(true)),
        }
    }
}

/// The error of a message that no buffer holds.
#[must_use]
pub fn too_long(_: Full) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Full)
}

impl AsyncRead for Framed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_patience(cx)?;
        if !this.first.is_empty() {
            take_early(&mut this.first, buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        loop {
            this.open(cx, buffer)?;
            let done = buffer.filled().len() > before || buffer.remaining() == 0;
            if done || this.ended {
                return Poll::Ready(Ok(()));
            }
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Shedding for Framed {
    fn put_back(&mut self, bytes: Vec<u8>) {
        put_first(&mut self.first, bytes);
    }

    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        mut source: Source<'_>,
    ) -> Poll<io::Result<Option<usize>>> {
        ready!(self.poll_drain(cx))?;
        if let Some(error) = self.cut.take() {
            return Poll::Ready(Err(error));
        }
        if self.codec.must_listen() || self.codec.owes_request() {
            return Poll::Ready(Ok(None));
        }
        let size = if self.much_goes { Scratch::LARGEST } else { 0 };
        let mut out = Scratch::take(size);
        let mut pulled = 0;
        while let Some(shape) = self.codec.shape() {
            let left = BATCH_MAX.saturating_sub(out.len());
            let mut places = shape.places(out.spare(), left);
            if pulled > 0 && places.first().is_none_or(|first| first.len() < MUCH) {
                break;
            }
            let (n, more) = match source.poll_read(cx, &mut places) {
                Poll::Pending if pulled == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Err(error)) if pulled > 0 => {
                    self.cut = Some(error);
                    break;
                }
                Poll::Ready(result) => result?,
            };
            let lengths = places.map(|place| place.len());
            self.enframe(shape, n, &lengths, &mut out)?;
            pulled += n;
            if n == 0 || !more {
                break;
            }
        }
        self.much_goes = pulled >= 2 * MUCH;
        if pulled == 0 {
            let ended = self.codec.shape().is_some();
            return Poll::Ready(Ok(ended.then_some(0)));
        }
        self.outgoing = Some(out);
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(Some(pulled))),
        }
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.codec.must_listen() {
            this.listener = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let encoded = this.encode(bytes)?;
        let drained = this.poll_drain(cx);
        match drained {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // A request went that carried nothing: the bytes follow once the peer has answered.
            _ if encoded == 0 => {
                this.listener = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(Ok(encoded)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.carrier).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if !this.finished {
            // The server must learn of the destination to pass the end on.
            if this.codec.owes_request() {
                this.encode(&[])?;
                ready!(this.poll_drain(cx))?;
            }
            this.finished = true;
            let mut out = Scratch::take(this.codec.room(0));
            this.codec.finish(&mut out)?;
            if !out.is_empty() {
                this.outgoing = Some(out);
            }
        }
        ready!(this.poll_drain(cx))?;
        if this.codec.half_closes() {
            Pin::new(&mut this.carrier).poll_shutdown(cx)
        } else {
            Pin::new(&mut this.carrier).poll_flush(cx)
        }
    }
}
