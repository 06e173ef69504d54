//! A Shadowsocks connection as a byte stream: drives the codec of `tcp` over a carrier.
//!
//! The request goes out with the client's first bytes, in one write, or alone when the client
//! has said nothing for `FIRST_BYTES_WAIT` (then the server may be the one who speaks first).
//! While nothing flows no buffer is held. Writers must flush: what the carrier did not take at
//! once waits here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::crypto::{KEY_MAX, TAG};
use super::method::Secret;
use super::random;
use super::tcp::{CHUNK_FRAME, Opener, PADDING_MAX, Request, Sealer, Step, StreamError};
use crate::outbound::carrier::Carrier;
use crate::outbound::scratch::Scratch;
use crate::platform::clock;

/// How long the request waits for the client's first bytes.
const FIRST_BYTES_WAIT: Duration = Duration::from_millis(100);

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The client's end of a Shadowsocks connection.
pub struct ShadowsocksStream {
    carrier: Carrier,
    sending: Sending,
    /// Ciphertext that the carrier has not taken yet.
    outgoing: Option<Scratch>,
    opener: Opener,
    /// Bytes from the server: plaintext at the start, if any, then ciphertext.
    incoming: Option<Scratch>,
    /// How much of `incoming` is plaintext that nobody has read, its tag behind it.
    plain: usize,
    /// Why the server's bytes are no stream, to be told once what came before has been read.
    failed: Option<StreamError>,
}

/// What was sent so far.
enum Sending {
    /// Nothing; the request waits for its first bytes.
    Waiting(Box<Waiting>),
    /// The request; chunks follow.
    Begun(Sealer),
}

struct Waiting {
    secret: Arc<Secret>,
    salt: [u8; KEY_MAX],
    target: Vec<u8>,
    /// Runs from the first read on.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Waiting {
    /// Writes the request with the start of `payload` to `out`; how much of that went along.
    fn begin(&self, payload: &[u8], out: &mut Scratch) -> io::Result<(Sealer, usize)> {
        let padding = if payload.is_empty() {
            random::below(PADDING_MAX)?
        } else {
            0
        };
        let salt = self.salt.get(..self.secret.salt_length());
        let request = Request {
            salt: salt.unwrap_or_default(),
            target: &self.target,
            unix_time: clock::unix_time().as_secs(),
            padding,
            payload,
        };
        Ok(Sealer::begin(&self.secret, &request, out)?)
    }
}

impl ShadowsocksStream {
    /// A stream to `target` (in SOCKS5 form) by the server behind `carrier`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(carrier: Carrier, secret: &Arc<Secret>, target: Vec<u8>) -> io::Result<Self> {
        let mut salt = [0; KEY_MAX];
        let used = salt.get_mut(..secret.salt_length());
        random::fill(used.unwrap_or_default())?;
        Ok(Self {
            carrier,
            sending: Sending::Waiting(Box::new(Waiting {
                secret: Arc::clone(secret),
                salt,
                target,
                patience: None,
            })),
            outgoing: None,
            opener: Opener::new(Arc::clone(secret), salt),
            incoming: None,
            plain: 0,
            failed: None,
        })
    }

    /// Encrypts the start of `payload` into `outgoing`, which must be empty; how much.
    fn seal(&mut self, payload: &[u8]) -> io::Result<usize> {
        let frames = payload.len() / 0x3fff + 1;
        let mut out = Scratch::take(payload.len() + frames * CHUNK_FRAME + 512);
        let mut sealed = 0;
        if let Sending::Waiting(waiting) = &self.sending {
            let (sealer, first) = waiting.begin(payload, &mut out)?;
            self.sending = Sending::Begun(sealer);
            sealed = first;
        }
        if let Sending::Begun(sealer) = &mut self.sending {
            let rest = payload.get(sealed..).unwrap_or_default();
            sealed += sealer.seal(rest, &mut out)?;
        }
        self.outgoing = Some(out);
        Ok(sealed)
    }

    /// Writes what waits; the buffer is given back when all is out.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(out) = &mut self.outgoing {
            let n = ready!(Pin::new(&mut self.carrier).poll_write(cx, out.data()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.consume(n);
            if out.is_empty() {
                self.outgoing = None;
                if let Sending::Begun(sealer) = &mut self.sending {
                    sealer.rest();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the request alone when the client has been silent for long enough.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Sending::Waiting(waiting) = &mut self.sending else {
            return Ok(());
        };
        let patience = waiting
            .patience
            .get_or_insert_with(|| Box::pin(sleep(FIRST_BYTES_WAIT)));
        if patience.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.seal(&[])?;
        // A fresh connection takes these few bytes at once.
        match Pin::new(self).poll_flush(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Moves plaintext into `buffer`.
    fn take_plain(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some(incoming) = &mut self.incoming else {
            return;
        };
        let n = self.plain.min(buffer.remaining());
        buffer.put_slice(incoming.data().get(..n).unwrap_or_default());
        incoming.consume(n);
        self.plain -= n;
        if self.plain == 0 {
            incoming.consume(TAG);
        }
    }

    /// Decrypts what has come into `buffer` until that is full or more bytes are needed. An error
    /// means that nothing went into it (the contract of `poll_read`).
    fn open(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let before = buffer.filled().len();
        if self.plain > 0 {
            self.take_plain(buffer);
        }
        while self.plain == 0 && buffer.remaining() > 0 {
            let Some(incoming) = &mut self.incoming else {
                return Ok(());
            };
            let now = if self.opener.needs_time() {
                clock::unix_time().as_secs()
            } else {
                0
            };
            let step = match self.failed {
                Some(error) => Err(error),
                None => self.opener.step(incoming, now),
            };
            match step {
                Ok(Step::Opened(n)) => {
                    self.plain = n;
                    self.take_plain(buffer);
                }
                Ok(Step::NeedMore(total)) => {
                    incoming.reserve(total);
                    return Ok(());
                }
                Err(error) => {
                    self.failed = Some(error);
                    if buffer.filled().len() > before {
                        return Ok(());
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Reads ciphertext; `false` at the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.incoming.is_none() {
            ready!(self.carrier.poll_readable(cx))?;
        }
        let incoming = self.incoming.get_or_insert_with(|| Scratch::take(0));
        let mut room = ReadBuf::new(incoming.spare());
        let result = Pin::new(&mut self.carrier).poll_read(cx, &mut room);
        let n = room.filled().len();
        incoming.filled(n);
        let empty = incoming.is_empty();
        if empty {
            self.incoming = None;
            self.opener.rest();
        }
        ready!(result)?;
        match (n, empty && self.opener.at_boundary()) {
            (0, true) => Poll::Ready(Ok(false)),
            (0, false) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(true)),
        }
    }
}

impl AsyncRead for ShadowsocksStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_patience(cx)?;
        let before = buffer.filled().len();
        loop {
            this.open(buffer)?;
            if buffer.filled().len() > before || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !ready!(this.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for ShadowsocksStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let sealed = this.seal(bytes)?;
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(sealed)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.carrier).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Sending::Waiting(_) = this.sending {
            // The server must learn of the destination to pass the end on.
            this.seal(&[])?;
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.carrier).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SALT: [u8; 16] = [3; 16];

    fn pair(capacity: usize) -> (ShadowsocksStream, DuplexStream, Arc<Secret>) {
        let secret = Arc::new(Secret::new("aes-128-gcm", "test").unwrap());
        let (near, far) = duplex(capacity);
        let carrier = Carrier::Boxed(Box::new(near));
        let stream = ShadowsocksStream::new(carrier, &secret, vec![1, 1, 2, 3, 4, 0, 80]);
        (stream.unwrap(), far, secret)
    }

    /// What a server sends that answers `text`.
    fn answer(secret: &Secret, text: &[u8]) -> Scratch {
        let mut out = Scratch::large();
        let request = Request {
            salt: &SALT,
            target: b"",
            unix_time: 0,
            padding: 0,
            payload: text,
        };
        Sealer::begin(secret, &request, &mut out).unwrap();
        out
    }

    #[tokio::test]
    async fn an_idle_stream_holds_no_buffer() {
        let (mut stream, mut server, secret) = pair(4096);
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut request = [0; 16 + 18 + 7 + 5 + 16];
        server.read_exact(&mut request).await.unwrap();
        server
            .write_all(answer(&secret, b"world").data())
            .await
            .unwrap();
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"world");
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let idle = poll_fn(|cx| {
            let read = Pin::new(&mut stream).poll_read(cx, &mut buffer);
            Poll::Ready(read.is_pending())
        });
        assert!(idle.await);
        assert!(stream.incoming.is_none() && stream.outgoing.is_none());
    }

    #[tokio::test]
    async fn a_stream_cut_within_a_chunk_is_an_error_and_at_its_end_is_none() {
        for (cut, clean) in [(0, true), (1, false)] {
            let (mut stream, mut server, secret) = pair(4096);
            let bytes = answer(&secret, b"world");
            let sent = bytes.data().get(..bytes.len() - cut).unwrap();
            server.write_all(sent).await.unwrap();
            server.shutdown().await.unwrap();
            let mut text = Vec::new();
            let end = stream.read_to_end(&mut text).await;
            assert_eq!(end.is_ok(), clean);
            assert_eq!(text.is_empty(), !clean);
        }
    }

    /// Found by fuzzing: the error came with bytes in the buffer, which `read_to_end` of tokio
    /// answers with a panic and other readers by losing them.
    #[tokio::test]
    async fn what_came_before_a_forged_chunk_is_read_before_the_error() {
        let (mut stream, mut server, secret) = pair(4096);
        server
            .write_all(answer(&secret, b"world").data())
            .await
            .unwrap();
        server.write_all(&[0; CHUNK_FRAME]).await.unwrap();
        server.shutdown().await.unwrap();
        let mut text = Vec::new();
        let end = stream.read_to_end(&mut text).await.unwrap_err();
        assert_eq!(end.to_string(), StreamError::Forged.to_string());
        assert_eq!(text, b"world");
    }

    #[tokio::test]
    async fn what_the_carrier_does_not_take_is_flushed_later() {
        let (mut stream, mut server, _secret) = pair(64);
        let text = vec![7; 100_000];
        let writing = async {
            stream.write_all(&text).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let mut bytes = Vec::new();
        let reading = server.read_to_end(&mut bytes);
        let ((), read) = tokio::join!(writing, reading);
        read.unwrap();
        let chunks = bytes.len().div_ceil(0x3fff + CHUNK_FRAME);
        assert!(chunks >= 7 && bytes.len() > text.len() + 16 + 7 * CHUNK_FRAME);
    }
}
