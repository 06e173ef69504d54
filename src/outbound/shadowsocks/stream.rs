//! The client's end of a Shadowsocks stream: the codec of `tcp` as [`Framed`] drives it.

use std::io;
use std::sync::Arc;

use super::method::Secret;
use super::tcp::{CHUNK_FRAME, Opener, PADDING_MAX, Request, Sealer, Step, StreamError};
use crate::outbound::carrier::Carrier;
use crate::outbound::crypto::{KEY_MAX, TAG};
use crate::outbound::framed::{self, Codec, Framed, Shape};
use crate::outbound::random;
use crate::outbound::scratch::Scratch;
use crate::platform::clock;

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Seals requests and chunks, opens answers.
struct Client {
    sending: Sending,
    opener: Opener,
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

/// A stream to `target` (in SOCKS5 form) by the server behind `carrier`.
///
/// # Errors
/// When the system has no randomness.
pub fn connect(carrier: Carrier, secret: &Arc<Secret>, target: Vec<u8>) -> io::Result<Framed> {
    let mut salt = [0; KEY_MAX];
    let used = salt.get_mut(..secret.salt_length());
    random::fill(used.unwrap_or_default())?;
    let client = Client {
        sending: Sending::Waiting(Box::new(Waiting {
            secret: Arc::clone(secret),
            salt,
            target,
        })),
        opener: Opener::new(Arc::clone(secret), salt),
    };
    Framed::new(carrier, Box::new(client), &[])
}

/// The buffer that `payload` bytes in chunks need, with a request before them.
#[must_use]
pub fn room(payload: usize) -> usize {
    let frames = payload / 0x3fff + 1;
    payload + frames * CHUNK_FRAME + 512
}

/// One step of `opener`, whose clock is only read when it matters.
///
/// # Errors
/// What the bytes are not.
pub fn decode(opener: &mut Opener, incoming: &mut Scratch) -> io::Result<framed::Step> {
    let now = if opener.needs_time() {
        clock::unix_time().as_secs()
    } else {
        0
    };
    Ok(match opener.step(incoming, now)? {
        Step::Opened(n) => framed::Step::Opened(n, TAG),
        Step::NeedMore(total) => framed::Step::NeedMore(total),
    })
}

impl Codec for Client {
    fn encode(&mut self, payload: &[u8], out: &mut Scratch) -> io::Result<usize> {
        let mut sealed = 0;
        if let Sending::Waiting(waiting) = &self.sending {
            let (sealer, first) = waiting.begin(payload, out)?;
            self.sending = Sending::Begun(sealer);
            sealed = first;
        }
        if let Sending::Begun(sealer) = &mut self.sending {
            let rest = payload.get(sealed..).unwrap_or_default();
            sealed += sealer.seal(rest, out)?;
        }
        Ok(sealed)
    }

    fn room(&self, payload: usize) -> usize {
        room(payload)
    }

    fn shape(&self) -> Option<Shape> {
        match &self.sending {
            Sending::Waiting(_) => None,
            Sending::Begun(sealer) => Some(sealer.shape()),
        }
    }

    fn enframe(&mut self, data: usize, out: &mut Scratch) -> io::Result<()> {
        match &mut self.sending {
            Sending::Waiting(_) => Err(io::ErrorKind::InvalidInput.into()),
            Sending::Begun(sealer) => Ok(sealer.enframe(data, out)?),
        }
    }

    fn owes_request(&self) -> bool {
        matches!(self.sending, Sending::Waiting(_))
    }

    fn decode(&mut self, incoming: &mut Scratch) -> io::Result<framed::Step> {
        decode(&mut self.opener, incoming)
    }

    fn may_end(&self) -> bool {
        self.opener.at_boundary()
    }

    fn rest_sending(&mut self) {
        if let Sending::Begun(sealer) = &mut self.sending {
            sealer.rest();
        }
    }

    fn rest_receiving(&mut self) {
        self.opener.rest();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

    use super::*;

    const SALT: [u8; 16] = [3; 16];

    fn pair(capacity: usize) -> (Framed, DuplexStream, Arc<Secret>) {
        let secret = Arc::new(Secret::new("aes-128-gcm", "test").unwrap());
        let (near, far) = duplex(capacity);
        let carrier = Carrier::Boxed(Box::new(near));
        let stream = connect(carrier, &secret, vec![1, 1, 2, 3, 4, 0, 80]);
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
    async fn a_silent_client_sends_its_request_whole() {
        let (mut stream, mut server, _secret) = pair(1);
        let reading = stream.read_u8();
        let serving = async {
            // Salt, length, address and its tag.
            let mut request = [0; 16 + 18 + 7 + 16];
            server.read_exact(&mut request).await.unwrap();
            drop(server);
        };
        let both = async { tokio::join!(reading, serving) };
        let minute = std::time::Duration::from_secs(60);
        let (read, ()) = tokio::time::timeout(minute, both).await.unwrap();
        assert!(read.is_err());
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
        assert!(stream.holds_nothing());
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
