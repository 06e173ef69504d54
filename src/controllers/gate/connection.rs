//! The bytes of one client connection: heads and bodies in, answers out, each within its time.
//!
//! Knows HTTP's framing and nothing of what is asked. Holds no buffer while nothing arrives.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use crate::controllers::http::chunked::Chunked;
use crate::controllers::http::head::{self, BadHead, Framing, HEAD_BYTES_MAX, Head};
use crate::outbound::ByteStream;

/// From the first byte of a head, and from the connection itself, to the head's end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Between requests of one connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// For a whole request body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// For a whole answer: 700 KB over a line of 128 kbit/s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// A client that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refused client's bytes are read and thrown away, so that it sees the answer before the
/// reset that unread bytes would cause.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why no head came.
pub(super) enum HeadError {
    /// It was begun and not finished in time.
    Late,
    /// It is too large.
    Bad(BadHead),
    /// The connection broke.
    Lost,
}

/// Why a body could not be read.
pub(super) enum BodyError {
    /// Longer than the route takes.
    TooLarge,
    /// Not what its framing promises.
    Malformed,
    /// Not there in time.
    Late,
    /// The connection broke.
    Lost(io::Error),
}

impl From<io::Error> for BodyError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A client's stream, and what has arrived on it ahead of its turn.
pub(super) struct Connection {
    stream: Box<dyn ByteStream>,
    received: Vec<u8>,
    /// How long the next head may let wait for itself.
    patience: Duration,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self {
            stream,
            received: Vec::new(),
            patience: HEAD_TIMEOUT,
        }
    }

    /// What has arrived and was not taken yet.
    pub(super) fn received(&mut self) -> &mut Vec<u8> {
        &mut self.received
    }

    /// The bytes of the next head. `None`: no request came.
    pub(super) async fn read_head(&mut self) -> Result<Option<Vec<u8>>, HeadError> {
        let patience = std::mem::replace(&mut self.patience, IDLE_TIMEOUT);
        let begun = !self.received.is_empty();
        let mut deadline = Instant::now() + if begun { HEAD_TIMEOUT } else { patience };
        let mut searched = 0;
        loop {
            let end = head::end(&self.received, searched);
            if end.unwrap_or(self.received.len()) > HEAD_BYTES_MAX {
                return Err(HeadError::Bad(BadHead::TooLarge));
            }
            if let Some(end) = end {
                let behind = self.received.split_off(end);
                return Ok(Some(std::mem::replace(&mut self.received, behind)));
            }
            searched = self.received.len();
            match timeout_at(deadline, self.fill()).await {
                Ok(Ok(0)) | Err(_) if searched == 0 => return Ok(None),
                Ok(Ok(0) | Err(_)) => return Err(HeadError::Lost),
                Err(_) => return Err(HeadError::Late),
                Ok(Ok(_)) if searched == 0 => {
                    deadline = deadline.min(Instant::now() + HEAD_TIMEOUT)
                }
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The whole body behind `head`, decoded; larger ones than `bytes_max` are an error, not memory.
    pub(super) async fn read_body(
        &mut self,
        head: &Head<'_>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, BodyError> {
        let read = async {
            if head.expects_continue && self.received.is_empty() && head.has_body() {
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            match head.framing {
                Framing::Length(length) if length > bytes_max => Err(BodyError::TooLarge),
                Framing::Length(length) => self.read_length(length).await,
                Framing::Chunked => self.read_chunks(bytes_max).await,
            }
        };
        timeout(BODY_TIMEOUT, read)
            .await
            .unwrap_or(Err(BodyError::Late))
    }

    async fn read_length(&mut self, length: usize) -> Result<Vec<u8>, BodyError> {
        let behind = self.received.split_off(length.min(self.received.len()));
        let mut body = std::mem::replace(&mut self.received, behind);
        let missing = length - body.len();
        body.reserve_exact(missing);
        let mut rest = (&mut self.stream).take(u64::try_from(missing).unwrap_or(u64::MAX));
        if rest.read_to_end(&mut body).await? < missing {
            return Err(BodyError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(body)
    }

    async fn read_chunks(&mut self, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
        let (mut decoder, mut body) = (Chunked::default(), Vec::new());
        loop {
            let taken = decoder.decode(&self.received, &mut body);
            let taken = taken.map_err(|_| BodyError::Malformed)?;
            self.received.drain(..taken);
            if body.len() > bytes_max {
                return Err(BodyError::TooLarge);
            }
            if decoder.is_done() {
                return Ok(body);
            }
            if self.fill().await? == 0 {
                return Err(BodyError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Appends what has arrived to [`Connection::received`], waiting without a buffer; 0 at the end of the
    /// stream. Nothing is lost when it is dropped.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let mut chunk = [MaybeUninit::uninit(); 2048];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut chunk))?;
            self.received.extend_from_slice(chunk.filled());
            Poll::Ready(Ok(chunk.filled().len()))
        })
        .await
    }

    /// Sends a head and, behind it, a body; small ones in one write.
    pub(super) async fn send(&mut self, head: Vec<u8>, body: &[u8]) -> io::Result<()> {
        self.send_between(head, body, &[]).await
    }

    /// The same with something `behind` it.
    pub(super) async fn send_between(
        &mut self,
        mut before: Vec<u8>,
        body: &[u8],
        behind: &[u8],
    ) -> io::Result<()> {
        let sent = async {
            if body.len() <= super::SMALL_BODY_BYTES {
                before.extend_from_slice(body);
                before.extend_from_slice(behind);
                self.write(&before).await
            } else {
                self.write(&before).await?;
                self.write(body).await?;
                self.write(behind).await
            }
        };
        timeout(ANSWER_TIMEOUT, sent).await?
    }

    /// Sends bytes of an answer that has begun; a client that takes none for a while is given up.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(WRITE_TIMEOUT, self.stream.write(bytes)).await??;
            bytes = bytes.get(written..).unwrap_or_default();
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await
    }

    /// Ends a connection whose client may still be sending.
    pub(super) async fn linger(mut self) {
        let discard = async {
            self.stream.shutdown().await?;
            let mut unread = [0; 256];
            while self.stream.read(&mut unread).await? != 0 {}
            io::Result::Ok(())
        };
        // It is over either way.
        let _ = timeout(LINGER_TIMEOUT, discard).await;
    }
}
