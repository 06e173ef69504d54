//! Drives the flow `xtls-rprx-vision` over a layer that may be left; either end.
//!
//! A header goes before what we send, with the first bytes or, when nobody has any for a while, with an
//! empty block that hides its length; maybe one comes before what we receive. When a block says that a
//! direction goes on without the layer, that is left exactly behind it. Buffers are held while the
//! layer does not take what waits, and never when idle.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::vision::{CONTENT_BYTES_MAX, Inner, Padder, Unpadder, Way};
use crate::outbound::framed::{FIRST_BYTES_WAIT, too_long};
use crate::outbound::layer::{Layer, Shedding, put_first, take_early};
use crate::outbound::prelude::HeaderLength;
use crate::outbound::random;
use crate::outbound::scratch::Scratch;

/// Bytes of the peer's header asked for at a time.
const HEADER_READ: usize = 512;

/// One end of such a stream.
pub struct Vision {
    layer: Box<dyn Layer>,
    inner: Inner,
    padder: Padder,
    /// Ours, until it is on its way, and how long it still waits for company.
    header: Option<Box<[u8]>>,
    patience: Option<Pin<Box<Sleep>>>,
    /// What the layer has not taken yet.
    outgoing: Option<Scratch>,
    /// The layer has been left for writing.
    writes_bare: bool,
    unpadder: Unpadder,
    /// Tells where the peer's header ends, until it has come.
    answer: Option<HeaderLength>,
    /// Bytes of the layer that came with the peer's header, or of that.
    early: Vec<u8>,
    /// Content that was put back.
    returned: Vec<u8>,
}

impl Vision {
    /// `header` before what is sent, of a request with this `id`; `answer` tells the header of what is
    /// received, if there is one.
    #[must_use]
    pub fn new(
        layer: Box<dyn Layer>,
        id: [u8; 16],
        header: Vec<u8>,
        answer: Option<HeaderLength>,
    ) -> Self {
        Self {
            layer,
            inner: Inner::default(),
            padder: Padder::new(id),
            header: Some(header.into()),
            patience: None,
            outgoing: None,
            writes_bare: false,
            unpadder: Unpadder::new(id),
            answer,
            early: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// Puts a block with the start of `bytes` on its way, behind our header if that is due; how much.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..CONTENT_BYTES_MAX).unwrap_or(bytes);
        let mut out = Scratch::take(0);
        if let Some(header) = self.header.take() {
            out.push(&header).map_err(too_long)?;
        }
        self.inner.look(part);
        let chance = |limit| Ok(random::below(limit)? - 1);
        let taken = self.padder.pad(&self.inner, part, &chance, &mut out)?;
        self.outgoing = Some(out);
        Ok(taken)
    }

    /// Sends what waits, and leaves the layer when nothing does and the last block said so.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(out) = &mut self.outgoing {
            ready!(out.poll_write_to(&mut self.layer, cx))?;
            self.outgoing = None;
        }
        if self.padder.way() == Way::Direct && !self.writes_bare {
            ready!(Pin::new(&mut self.layer).poll_flush(cx))?;
            self.layer.leave_writing();
            self.writes_bare = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends our header without content when there has been none for long enough; until it is out, for
    /// whoever reads may be the only one that waits.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.header.is_some() {
            let patience = self
                .patience
                .get_or_insert_with(|| Box::pin(sleep(FIRST_BYTES_WAIT)));
            if patience.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.begin(&[])?;
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

    /// Reads the peer's header. Ready when bytes may pass; `false` at the end of the stream.
    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while let Some(length) = self.answer {
            let mut piece = [0; HEADER_READ];
            let mut room = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut self.layer).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                return Poll::Ready(match self.early.is_empty() {
                    true => Ok(false),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
            self.early.extend_from_slice(room.filled());
            if let Some(length) = length(&self.early)?
                && length <= self.early.len()
            {
                self.early.drain(..length);
                self.answer = None;
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Makes content of what was read into `buffer` behind `start`.
    fn unpad(&mut self, buffer: &mut ReadBuf<'_>, start: usize) -> io::Result<()> {
        if self.unpadder.way() == Way::Padded {
            let bytes = buffer.filled_mut().get_mut(start..).unwrap_or_default();
            let kept = self.unpadder.open(bytes)?;
            buffer.set_filled(start + kept);
            if self.unpadder.way() == Way::Direct {
                self.layer.leave_reading();
            }
        }
        let content = buffer.filled().get(start..).unwrap_or_default();
        if !content.is_empty() {
            self.inner.look(content);
        }
        Ok(())
    }
}

impl AsyncRead for Vision {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_patience(cx)?;
        if !this.returned.is_empty() {
            take_early(&mut this.returned, buffer);
            return Poll::Ready(Ok(()));
        }
        if !ready!(this.poll_header(cx))? {
            return Poll::Ready(Ok(()));
        }
        loop {
            let start = buffer.filled().len();
            if this.early.is_empty() {
                ready!(Pin::new(&mut this.layer).poll_read(cx, buffer))?;
            } else {
                take_early(&mut this.early, buffer);
            }
            if buffer.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            this.unpad(buffer, start)?;
            if buffer.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Vision {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.padder.way() != Way::Padded {
            return Pin::new(&mut this.layer).poll_write(cx, bytes);
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let taken = this.begin(bytes)?;
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.layer).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        // The server must learn of the destination to pass the end on.
        if this.header.is_some() {
            this.begin(&[])?;
            ready!(this.poll_drain(cx))?;
        }
        Pin::new(&mut this.layer).poll_shutdown(cx)
    }
}

impl Shedding for Vision {
    fn is_bare(&self) -> bool {
        let empty = self.early.is_empty() && self.returned.is_empty() && self.outgoing.is_none();
        let direct = self.unpadder.way() == Way::Direct && self.writes_bare;
        empty && direct && self.layer.is_bare()
    }

    fn take_socket(&mut self) -> Option<TcpStream> {
        self.layer.take_socket()
    }

    fn put_back(&mut self, bytes: Vec<u8>) {
        put_first(&mut self.returned, bytes);
    }
}
